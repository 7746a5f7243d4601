"""What was learned of one kernel kind: the regressor, its columns, and what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BundleError
from nn_meter.kernels.schema import ROOFLINE, together
from nn_meter.predictors.trees import TreeEnsemble

Target = Literal["latency_ms", "log_roofline_ratio"]

_MOST_MS = 1e300
"""Of one kernel: the sum of as many as a model may have is finite then."""


_NEVER_DRAWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dtype": ("int32", "uint32", "int64", "uint64", "float64", "int8"),
        "way": (
            *("backwards", "dilated", "antialias", "RK", "RKR", "whole", "heap", "select", "masked", "pieces", "wrap"),
            "kept",
            *("4 bits at 0, one row", "4 bits at 4, one row", "8 bits at 0", "8 bits at 0, one row"),
            *("8 bits at 4, one row", "bnb4", "bnb4, one row"),
        ),
    }
)
"""Of category columns that kinds got since 2026-11-29 what no network held before, or few, or beside others that take
some other time: a bundle without the column was not trained on it. Products of int32 take ten times what those of
floats do, means over the first axes a seventh of what those over middle ones do, convolutions of int8 by int8 fourteen
times what those of uint8 do (onnxruntime 1.32)."""

_ALONE_DRAWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("mask", "activations", "ways"), ("",)),
        "vector": ("", "row by a constant"),
        "unit": ("1", "4"),
        "shape": (
            *("batch rows summed columns", "rows summed columns", "rows columns", "rows summed", "summed columns"),
            *("batch summed", "rows", "summed"),
        ),
    }
)
"""The same of columns of which those networks held nothing else."""


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """A column outside of the range that was seen in training, of one name where it says ``of`` which."""

    column: str
    value: float
    low: float
    high: float
    of: str = ""

    @property
    def doublings(self) -> float:
        """How often the nearer end of the range has to be doubled, or halved, to get there; one is added to both, so
        that 0 has a place."""
        end = self.low if self.value < self.low else self.high
        return abs(math.log2((max(self.value, 0.0) + 1) / (max(end, 0.0) + 1)))

    def at(self, value: float) -> OutOfRange:
        """The same range, and another value."""
        return replace(self, value=value)

    def __str__(self) -> str:
        of = f" of {self.of!r}" if self.of else ""
        return f"{self.column} {self.value:g} is outside the trained range {self.low:g}..{self.high:g}{of}"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A name of a category column that was not among those in training."""

    column: str
    name: str
    doublings = 0.0

    def __str__(self) -> str:
        return f"{self.column} {self.name!r} was not seen in training"


@dataclass(frozen=True, slots=True)
class Few:
    """A name, or two that come together, that was learned from fewer ``rows`` than the ``least`` that tell it from
    others, and large ones of it from small ones."""

    column: str
    name: str
    rows: int
    least: int
    doublings = 0.0

    def __str__(self) -> str:
        often = f"was measured {self.rows} times, {self.least} are needed to tell it from others"
        return f"{self.column} {self.name!r} {often}"


@dataclass(frozen=True, slots=True)
class ByData:
    """An operator whose time its values decide as much as its sizes, and how."""

    name: str
    why: str
    doublings = 0.0

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


_LEAVES = 2
"""Fewer of one name are one answer whatever their sizes."""


def leaf_rows(rows: int) -> int:
    """Of so many rows the least that a leaf of a regressor is made of: some hundredth, 3 to 12."""
    return min(max(rows // 100, 3), 12)


@dataclass(frozen=True)
class KindPredictor:
    """The regressor of one kernel kind.

    ``columns`` name the regressor's inputs in order, as ``schema`` defines them. Where a column is a category,
    ``categories`` gives the code of each name that the regressor knows, and ``seen`` how often each was learned from,
    where that is known, and how often two columns' names came together. ``trained_range`` gives the lowest and highest
    value seen in training where known, ``range_of`` the same by category column and name, where it is narrower for what
    has that name: an operator that was measured small is not known large. ``rows`` is the number of measurements,
    ``errors`` are the metrics on data held out.
    With the target ``log_roofline_ratio`` one column is ``roofline_ms`` and the regressor gives
    log(latency_ms / roofline_ms).
    """

    kind: str
    schema: str
    columns: tuple[str, ...]
    regressor: TreeEnsemble
    target: Target = "latency_ms"
    trained_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rows: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seen: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    range_of: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"predictor of {self.kind!r}"
        if len(set(self.columns)) != len(self.columns):
            raise BundleError(f"{where}: a column is named twice: {', '.join(self.columns)}")
        if len(self.columns) != self.regressor.n_columns:
            raise BundleError(
                f"{where}: its regressor takes {self.regressor.n_columns} columns, "
                f"but {len(self.columns)} are named: {', '.join(self.columns)}"
            )
        for what, given in (
            ("trained range", self.trained_range),
            ("codes", self.categories),
            ("names seen", self.seen.keys() - {together(*pair) for pair in permutations(self.categories, 2)}),
        ):
            for column in given:
                if column not in self.columns:
                    verb = "is" if what == "trained range" else "are"
                    raise BundleError(f"{where}: the {what} of {column!r} {verb} given, but it has no such column")
        for column, (low, high) in self.trained_range.items():
            if not low <= high:
                raise BundleError(f"{where}: the trained range of {column!r} runs from {low} to {high}")
        narrow = {column for of in self.range_of.values() for ranges in of.values() for column in ranges}
        if lost := sorted((self.range_of.keys() - self.categories.keys()) | (narrow - self.trained_range.keys())):
            raise BundleError(f"{where}: a name's range is given for {lost[0]!r}, which has no names or no range")
        for column, code in self.categories.items():
            if len(set(code.values())) != len(code):
                raise BundleError(f"{where}: two names of {column!r} have one code")
        for column in self.columns:
            if lost := sorted(self.seen.get(column, {}).keys() - self.categories.get(column, {}).keys()):
                raise BundleError(f"{where}: {column} {lost[0]!r} was seen in training but has no code")
        if self.target == "log_roofline_ratio" and ROOFLINE not in self.columns:
            raise BundleError(f"{where}: the target {self.target!r} needs a column {ROOFLINE!r}")

    def outside(
        self,
        row: Sequence[float],
        names: Mapping[str, str] = MappingProxyType({}),
        by_data: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[OutOfRange | Unseen | Few | ByData, ...]:
        """What of a kernel lies outside of what was learned from.

        Args:
            row: values in the order of ``columns``.
            names: category column to the kernel's name. Where the names seen are not known, one is taken for seen whose
                code lies in the trained range.
            by_data: names of what its values decide, by themselves or behind their column's, and how.
        """
        found: list[OutOfRange | Unseen | Few | ByData] = [
            (low if row[place] < low.low else high).at(row[place])
            for place, low, high in self._bounds_of(names)
            if low.column not in names and not low.low <= row[place] <= high.high
        ]
        for column, name in names.items():
            if column not in self._places:
                if name in _NEVER_DRAWN.get(column, ()) or name not in _ALONE_DRAWN.get(column, (name,)):
                    found.append(Unseen(column, name))
                continue
            code = row[self._places[column]]
            low, high = self.trained_range.get(column, (code, code))
            if name not in self.seen.get(column, self.categories.get(column, {})) or not low <= code <= high:
                found.append(Unseen(column, name))
        told = [key for column, name in names.items() for key in (name, f"{column} {name}") if key in by_data]
        found += [ByData(key, by_data[key]) for key in told]
        least = _LEAVES * leaf_rows(self.rows)
        counts = [(column, name, self.seen[column].get(name)) for column, name in names.items() if column in self.seen]
        found += [Few(column, name, count, least) for column, name, count in counts if count and count < least]
        if not found:
            found += [each for pair in self._pairs for each in self._rare(names, *pair)]
        return tuple(found)

    def _rare(self, names: Mapping[str, str], pair: str, a: str, b: str) -> Iterator[Unseen | Few]:
        """Two names that are known apart, and were never seen together or in fewer rows than a leaf has."""
        if a in names and b in names:
            both, least = together(names[a], names[b]), leaf_rows(self.rows)
            count = self.seen[pair].get(both, 0)
            if count < least:
                yield Few(pair, both, count, least) if count else Unseen(pair, both)

    @cached_property
    def _pairs(self) -> tuple[tuple[str, str, str], ...]:
        """Two category columns whose names were counted together: as one, and each."""
        pairs = [(together(a, b), a, b) for a, b in permutations(self.categories, 2)]
        return tuple(pair for pair in pairs if pair[0] in self.seen)

    def _bounds_of(self, names: Mapping[str, str]) -> Sequence[tuple[int, OutOfRange, OutOfRange]]:
        """Of each column that has a trained range its place, and what a number below and one above it is: of several
        names the narrowest counts, at each end."""
        named = tuple((c, n) for c, n in names.items() if n in self.range_of.get(c, ()))
        known = self._bounds.get(named)
        if known is None:
            lows = {c: OutOfRange(c, low, low, high) for c, (low, high) in self.trained_range.items()}
            highs = dict(lows)
            for column, name in named:
                for each, (low, high) in self.range_of[column][name].items():
                    own = OutOfRange(each, low, low, high, name)
                    lows[each] = max(lows[each], own, key=lambda bound: bound.low)
                    highs[each] = min(highs[each], own, key=lambda bound: bound.high)
            known = tuple((place, lows[c], highs[c]) for c, place in self._places.items() if c in lows)
            self._bounds[named] = known
        return known

    @cached_property
    def _bounds(self) -> dict[tuple[tuple[str, str], ...], Sequence[tuple[int, OutOfRange, OutOfRange]]]:
        """What ``_bounds_of`` found before, by the names that narrow it."""
        return {}

    @cached_property
    def _places(self) -> dict[str, int]:
        """Column to its place in a row."""
        return {column: place for place, column in enumerate(self.columns)}

    def predict(self, rows: NDArray[Any], alike: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Latencies in ms, float64 of shape (n,), for ``rows`` of shape (n, len(columns)), of which ``alike`` says what
        it says of trees.

        Raises:
            BundleError: rows of another width, or an answer that no latency can be.
        """
        given = np.asarray(rows, np.float64)
        answer = self.regressor.predict(given, alike)
        if self.target == "log_roofline_ratio":
            with np.errstate(over="ignore"):  # infinite then, which is refused below
                answer = np.exp(answer) * given[:, self.columns.index(ROOFLINE)]
        # one comparison each, which NaN fails
        if len(answer) and not (answer.min() >= 0 and answer.max() <= _MOST_MS):
            wrong = answer[~((answer >= 0) & (answer <= _MOST_MS))][0]
            raise BundleError(
                f"predictor of {self.kind!r}: it answers {wrong} ms, which no latency can be; the bundle is damaged or "
                "was altered, fetch or build it again"
            )
        return answer
