"""Ensembles of regression trees as flat arrays, evaluated exactly and fast.

Two evaluations give the same bits. *Masks* (after QuickScorer, Lucchese et al., SIGIR 2015) hold, per column
and rank among the column's thresholds, which leaves of every tree a row can still reach; a row costs one
table row per column, whatever the depth. Where such tables would grow too large, *steps* walk all rows
through all trees level by level.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BundleError

Aggregate = Literal["mean", "sum"]
Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

_ARRAYS = {
    "feature": np.int32,
    "threshold": np.float64,
    "left": np.int32,
    "right": np.int32,
    "value": np.float64,
    "roots": np.int32,
}
_UNREADABLE = (
    ArithmeticError, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError,
    NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class _Word(NamedTuple):
    """What holds a mask of leaves: ``bits`` of an integer that convert to a float of its size without rounding, whose
    exponent, behind ``mantissa`` bits and above ``bias``, is then the place of the highest."""

    bits: int
    integer: type[np.int32 | np.int64]
    real: type[np.float32 | np.float64]
    mantissa: int
    bias: int


_WORDS = _Word(24, np.int32, np.float32, 23, 127), _Word(52, np.int64, np.float64, 52, 1023)
"""The first that holds a tree's leaves is taken, else several of the last."""
_MASK_BYTES_MAX = 16 << 20
_BATCH_BYTES = 1 << 18  # rows are taken in batches whose masks stay in the processor's cache


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """Regression trees that share flat node arrays.

    Node ``i`` is a leaf worth ``value[i]`` where ``left[i]`` is -1; else a row goes to ``left[i]`` if its
    column ``feature[i]`` is at most ``threshold[i]``, and to ``right[i]`` if it is greater. A child's index
    is larger than its parent's. ``roots`` names each tree's first node, in the order of adding up.

    ``aggregate`` is ``"mean"`` for forests: columns are cast to float32 and the trees averaged, as
    scikit-learn's forests do; or ``"sum"`` for boosted trees: columns stay float64, the trees are added to
    ``init``.

    Raises:
        BundleError: on construction, where the arrays are no such ensemble.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    roots: Ints
    n_columns: int
    aggregate: Aggregate = "mean"
    init: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.roots)

    def predict(self, rows: NDArray[Any], alike: Sequence[int] | None = None) -> Floats:
        """Predict ``rows`` of shape (n, n_columns); float64 of shape (n,), in the unit of the target.

        Args:
            rows: numbers.
            alike: the group of each row, from 0 on; without it all are one. What is equal throughout each group is
                looked up once for it; the answers do not depend on it.

        Raises:
            BundleError: rows of another number of columns.
        """
        given = np.asarray(rows, np.float64)
        if given.ndim != 2 or given.shape[1] != self.n_columns:
            raise BundleError(
                f"the trees take rows of {self.n_columns} columns, not an array of {given.shape}"
            )
        if self.aggregate == "mean":
            given = given.astype(np.float32).astype(np.float64)
        out = np.empty(len(given))
        done = 0
        groups = np.zeros(len(given), np.intp) if alike is None else np.array(alike, np.intp)
        for terms in self._evaluator.values(given, groups):
            terms[0] += self.init
            out[done : done + terms.shape[1]] = _sums(terms)
            done += terms.shape[1]
        return out / len(self) if self.aggregate == "mean" else out

    @cached_property
    def _evaluator(self) -> _Masks | _Steps:
        shape = _Shape(self)
        return _Masks(self, shape) if shape.mask_bytes <= _MASK_BYTES_MAX else _Steps(self, shape.depth)

    def save(self, file: Path | IO[bytes]) -> None:
        """Write the ensemble as an ``.npz`` archive of plain arrays."""
        names = (*_ARRAYS, "n_columns", "aggregate", "init")
        stored: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in names}
        np.savez_compressed(file, **stored)

    @classmethod
    def load(cls, file: Path | IO[bytes], where: str = "") -> TreeEnsemble:
        """Read what :meth:`save` wrote; ``where`` names the file in errors.

        Raises:
            BundleError: no such archive, or no valid ensemble.
        """
        where = where or str(file)
        try:
            stored = np.load(file, allow_pickle=False)
            arrays = {name: np.asarray(stored[name]) for name in _ARRAYS}
            n_columns, aggregate = int(stored["n_columns"]), str(stored["aggregate"])
            init = float(stored["init"])
        except _UNREADABLE as e:
            raise BundleError(f"{where}: no tree ensemble ({e}); fetch or build the bundle again") from e
        for name, dtype in _ARRAYS.items():
            if arrays[name].dtype != dtype:
                raise BundleError(f"{where}: {name} holds {arrays[name].dtype}, not {np.dtype(dtype)}")
        if aggregate not in ("mean", "sum"):
            raise BundleError(f"{where}: aggregate is {aggregate!r}; known are 'mean' and 'sum'")
        try:
            return cls(**arrays, n_columns=n_columns, aggregate=aggregate, init=init)  # type: ignore[arg-type]
        except BundleError as e:
            raise BundleError(f"{where}: {e}") from None

    def to_bytes(self) -> bytes:
        """The archive of :meth:`save` as bytes."""
        buffer = io.BytesIO()
        self.save(buffer)
        return buffer.getvalue()


def _sums(terms: Floats) -> Floats:
    """The sum of each column, strictly in order, as the libraries add; ``sum`` would add a single column pairwise."""
    few = terms.shape[1] < _MANY_COLUMNS
    # reduce takes one line after the other, as they lie in memory
    sums: Floats = np.add.accumulate(terms, axis=0)[-1] if few else np.add.reduce(terms, axis=0)
    return sums


_MANY_COLUMNS = 8
"""From so many on a row at a time is faster than a column at a time."""


def _check(trees: TreeEnsemble) -> None:
    """Raise BundleError unless the arrays are trees: evaluation then ends, inside the arrays."""
    count = len(trees.feature)
    for name in _ARRAYS:
        array = getattr(trees, name)
        if array.ndim != 1 or (name != "roots" and len(array) != count):
            raise BundleError(f"trees: {name} has the shape {array.shape}; {count} nodes need ({count},)")
    if not len(trees.roots):
        raise BundleError("trees: there is no tree")
    inner = trees.left >= 0
    parents = np.flatnonzero(inner)
    children = np.concatenate([trees.left[inner], trees.right[inner]])
    starts = np.concatenate([children, trees.roots])
    if starts.min() < 0 or starts.max() >= count:
        raise BundleError(f"trees: a child or root lies outside the {count} nodes")
    if np.any(children <= np.concatenate([parents, parents])):
        raise BundleError("trees: a child comes before its parent, so evaluation would not end")
    if np.bincount(starts, minlength=count).max() > 1:
        raise BundleError("trees: a node belongs to two parents or trees")
    feature = trees.feature[inner]
    if len(feature) and (feature.min() < 0 or feature.max() >= trees.n_columns):
        raise BundleError(f"trees: a node asks for column {feature.max()}; there are {trees.n_columns}")
    if not (np.isfinite(trees.threshold[inner]).all() and np.isfinite(trees.value[~inner]).all()):
        raise BundleError("trees: a threshold or value is not finite")
    if not np.isfinite(trees.init):
        raise BundleError("trees: the initial value is not finite")


class _Shape:
    """Where each node lies: its tree, its level, its place among its tree's leaves from left to right."""

    def __init__(self, trees: TreeEnsemble) -> None:
        count = len(trees.feature)
        levels = [trees.roots]
        self.tree = np.zeros(count, np.int32)
        self.tree[trees.roots] = np.arange(len(trees.roots))
        while len(inner := levels[-1][trees.left[levels[-1]] >= 0]):
            for side in (trees.left, trees.right):
                self.tree[side[inner]] = self.tree[inner]
            levels.append(np.concatenate([trees.left[inner], trees.right[inner]]))
        self.depth = len(levels) - 1
        self.leaves = np.ones(count, np.int32)  # under each node
        self.first = np.zeros(count, np.int32)  # place of the leftmost leaf under each node
        inner_levels = [level[trees.left[level] >= 0] for level in levels]
        for inner in reversed(inner_levels):
            self.leaves[inner] = self.leaves[trees.left[inner]] + self.leaves[trees.right[inner]]
        for inner in inner_levels:
            self.first[trees.left[inner]] = self.first[inner]
            self.first[trees.right[inner]] = self.first[inner] + self.leaves[trees.left[inner]]
        self.reached = np.concatenate(levels)
        inner = np.concatenate(inner_levels)
        self.leaves_max = int(self.leaves[trees.roots].max())
        self.word = next((word for word in _WORDS if word.bits >= self.leaves_max), _WORDS[-1])
        self.words = -(-self.leaves_max // self.word.bits)
        by_column = inner[np.argsort(trees.feature[inner], kind="stable")]
        columns, starts = _distinct(trees.feature[by_column])
        ends = *starts[1:], len(by_column)
        # of each column, those that ask for it
        self.nodes = {c: by_column[start:end] for c, start, end in zip(columns.tolist(), starts, ends, strict=False)}
        self.thresholds = {c: _distinct(np.sort(trees.threshold[nodes]))[0] for c, nodes in self.nodes.items()}
        ranks = sum(len(known) + 1 for known in self.thresholds.values())
        self.mask_bytes = np.dtype(self.word.integer).itemsize * ranks * len(trees.roots) * self.words


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Each of sorted values once, and where it begins; ``np.unique`` would import numpy's masked arrays first."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    return values[starts], starts


class _Masks:
    """Per column and rank, the leaves still in reach; the leftmost one left over is the row's leaf.

    A row whose column exceeds a node's threshold cannot reach the leaves to that node's left, so the tables
    of a column are running conjunctions over its sorted thresholds.
    """

    def __init__(self, trees: TreeEnsemble, shape: _Shape) -> None:
        count, words, word = len(trees.roots), shape.words, shape.word
        bits, integer = word.bits, word.integer
        self._count, self._words, self._word = count, words, word
        self._batch = max(1, _BATCH_BYTES // (np.dtype(integer).itemsize * count * words))
        self._tables: list[tuple[int, Floats, NDArray[Any]]] = []
        for column, known in shape.thresholds.items():
            nodes = shape.nodes[column]
            ranks = np.searchsorted(known, trees.threshold[nodes]) + 1
            table = np.full((len(known) + 1, count, words), (1 << bits) - 1, integer)
            first = shape.first[nodes]
            cut = _span(first, first + shape.leaves[trees.left[nodes]], words, bits)
            np.bitwise_and.at(table, (ranks, shape.tree[nodes]), np.bitwise_not(cut.astype(integer)))
            np.bitwise_and.accumulate(table, axis=0, out=table)
            self._tables.append((column, known, table.reshape(len(known) + 1, -1)))
        leaves = shape.reached[trees.left[shape.reached] < 0]
        self._value = np.zeros(count * words * bits)  # of the leaf at each place, tree after tree
        self._value[shape.tree[leaves] * (words * bits) + shape.first[leaves]] = trees.value[leaves]
        self._last = (np.arange(count) * (words * bits) + bits - 1 + word.bias).astype(integer)[:, None]

    def values(self, rows: Floats, groups: NDArray[np.intp]) -> Iterator[Floats]:
        """See :class:`_Steps`; columns that are equal throughout each group are looked up once for it."""
        word, wide = self._word, self._count * self._words
        columns = np.ascontiguousarray(rows.T)
        one = np.zeros(groups.max(initial=-1) + 1, np.intp)  # row of each group
        one[groups] = np.arange(len(rows))
        of_one = columns[:, one]
        equal = (columns == of_one[:, groups]).all(axis=1).tolist()
        shared = [(known.searchsorted(of_one[c]), table) for c, known, table in self._tables if equal[c]]
        own = [(known.searchsorted(columns[c]), table) for c, known, table in self._tables if not equal[c]]
        # made once: what is so large comes from the system each time, and goes back
        most = min(self._batch, len(rows))
        all_masks, scratch = np.empty((2, most, wide), word.integer)
        all_places, all_terms = np.empty(most * self._count, word.integer), np.empty(most * self._count)
        reached = np.full((len(one), wide), (1 << word.bits) - 1, word.integer)
        for some in self._batches(len(one)):
            _conjoin(reached[some], shared, some, scratch)
        for some in self._batches(len(rows)):
            size = some.stop - some.start
            masks = all_masks[:size]
            reached.take(groups[some], axis=0, out=masks, mode="clip")
            _conjoin(masks, own, some, scratch)
            # from here on a line is a tree: trees are added one after the other, for all rows at once
            places = all_places[: self._count * size].reshape(-1, size)
            terms = all_terms[: self._count * size].reshape(-1, size)
            if self._words > 1:
                by_word = masks.reshape(size, self._count, self._words)
                first = (by_word != 0).argmax(axis=2)
                masks = np.take_along_axis(by_word, first[:, :, None], axis=2)[:, :, 0]
            places.view(word.real)[:] = masks.T
            places >>= word.mantissa
            np.subtract(self._last, places, out=places)
            if self._words > 1:
                places += first.T * word.bits
            self._value.take(places, out=terms, mode="clip")
            yield terms

    def _batches(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self._batch):
            yield slice(start, min(start + self._batch, count))


def _conjoin(
    masks: NDArray[Any], looked_up: Sequence[tuple[NDArray[np.intp], NDArray[Any]]], some: slice, scratch: NDArray[Any]
) -> None:
    """Conjoin each of ``masks`` with what it finds in each table, given by its ranks and the table."""
    own = scratch[: len(masks)]
    for ranks, table in looked_up:
        # to clip what is never out of range writes without a copy
        table.take(ranks[some], axis=0, out=own, mode="clip")
        masks &= own


def _span(start: Ints, stop: Ints, words: int, bits: int) -> NDArray[np.int64]:
    """Masks of shape (n, words) with the bits of leaves ``start`` .. ``stop`` - 1 set, leftmost highest."""
    base = np.arange(words) * bits
    low = np.clip(start[:, None] - base, 0, bits).astype(np.int64)
    high = np.clip(stop[:, None] - base, 0, bits).astype(np.int64)
    one = np.int64(1)
    masks: NDArray[np.int64] = (one << (bits - low)) - (one << (bits - high))
    return masks


class _Steps:
    """Walks rows through trees, one level of all trees at a time; a leaf leads to itself."""

    def __init__(self, trees: TreeEnsemble, depth: int) -> None:
        self._depth = depth
        self._roots = trees.roots.astype(np.int64)
        self._batch = max(1, _BATCH_BYTES // (8 * len(trees.roots)))
        self._value = trees.value
        leaf = trees.left < 0
        self._feature = np.where(leaf, 0, trees.feature).astype(np.int64)
        self._threshold = np.where(leaf, np.inf, trees.threshold)
        itself = np.arange(len(leaf))
        children = [np.where(leaf, itself, side) for side in (trees.left, trees.right)]
        self._child = np.stack(children, axis=1).astype(np.int64).ravel()

    def values(self, rows: Floats, groups: NDArray[np.intp]) -> Iterator[Floats]:
        """The value of the leaf of each row in each tree, shape (trees, rows), of some rows at a time; the array is the
        caller's until the next."""
        for start in range(0, len(rows), self._batch):
            batch = rows[start : start + self._batch]
            cells = np.ascontiguousarray(batch).ravel()
            origin = np.arange(len(batch))[:, None] * batch.shape[1]
            node = np.broadcast_to(self._roots, (len(batch), len(self._roots)))
            for _ in range(self._depth):
                right = cells.take(self._feature.take(node) + origin) > self._threshold.take(node)
                node = self._child.take(2 * node + right)
            yield self._value.take(node.T)
