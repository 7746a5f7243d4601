"""Shapes of a model's inputs: what the file states, what the caller gives, and what follows from both."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from nn_meter.errors import GraphError, InputError
from nn_meter.frontends._source import DEFAULT_SEQ_LEN, Shapes, by_name, shapes_wanted
from nn_meter.frontends.onnx import wire
from nn_meter.ir import Tensor
from nn_meter.limits import DIMENSION, RANK

_TWO = (2, 3)
"""Sizes that advice shows for an input whose shape the file does not state."""

Values = Mapping[str, float | Sequence[float]]
"""Values of tensors by name, one number or all elements in order."""

_NO_BATCH = frozenset(("seq_len", "sequence_length", "num_nodes", "num_edges"))
"""Names of a first dimension that is no batch."""

_TOKENS = ("ids", "embeds", "tokens")
"""How the names of inputs end whose second dimension counts tokens."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller states about a model.

    ``shapes`` of inputs; ``seq_len`` tokens in one inference behind ``past`` that are in the cache; ``values`` of
    tensors; ``counts``, by the name of a node: how often a loop runs, how many elements an operator finds.
    """

    shapes: Shapes | None = None
    seq_len: int | None = None
    past: int | None = None
    values: Values = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> bool:
        """Whether it says how many tokens there are."""
        return self.seq_len is not None or self.past is not None

    def __post_init__(self) -> None:
        for name, value, least in (("seq_len", self.seq_len, 1), ("past", self.past, 0)):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; give {least} or more")
        for name, count in self.counts.items():
            if not isinstance(count, Integral) or count < 0:
                raise InputError(f"the count of {name!r} is {count}; give a whole number, 0 or more")


class Inputs:
    """The inputs of one model on their way to shapes."""

    def __init__(self, where: str, values: Sequence[wire.RawValue], asked: Asked) -> None:
        self.notes: list[str] = []
        self._where = where
        self._values = values
        self._asked = asked
        self._symbols: dict[str, int] = {}
        self._tokens: dict[tuple[str, int], int] = {}
        self._batch = 1
        # a first dimension of 0 is an unset batch, but not beside others of 0: those say that tensors are empty
        self._none_empty = not any(0 in (value.dims or ())[1:] for value in values)

    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs with their shapes.

        Raises:
            GraphError: a dimension that nothing settles, a shape that does not fit; says which.
            InputError: a length of text or of its past that the model does not take.
        """
        stated = {value.name: value.dims or _TWO for value in self._values}
        given = by_name(stated, self._asked.shapes, self._where)
        for value in self._values:
            self._learn(value, given.get(value.name))
        if self._asked.text:
            self._count_tokens(given)
        found = []
        for value in self._values:
            shape = given[value.name] if value.name in given else self._settled(value)
            for size in shape:
                DIMENSION.check(size, f"{self._where}: the input {value.name!r}", GraphError)
            found.append(Tensor(value.name, shape, value.dtype or "float32"))
        return tuple(found)

    @property
    def free(self) -> bool:
        """Whether the file leaves a dimension free."""
        return any(isinstance(dim, str) for value in self._values for dim in value.dims or ())

    def filled(self, dims: Sequence[int | str]) -> tuple[int, ...] | None:
        """``dims`` with what the inputs say of symbols and of an unnamed batch."""
        shape = []
        for index, dim in enumerate(dims):
            size = self.size(dim)
            if size < 0 or (dim == 0 and not index and self._none_empty):
                if index or (isinstance(dim, str) and dim):
                    return None
                size = self._batch
            shape.append(size)
        return tuple(shape)

    def _learn(self, value: wire.RawValue, shape: tuple[int, ...] | None) -> None:
        """What a given shape says of the symbols and of the batch."""
        if shape is None:
            return
        RANK.check(len(shape), f"{self._where}: the input {value.name!r}", GraphError)
        if value.dims is not None and len(shape) != len(value.dims):
            raise GraphError(
                f"{self._where}: the input {value.name!r} has {len(value.dims)} dimensions, the given shape {shape}"
            )
        for dim, size in zip(value.dims or (), shape, strict=False):
            if isinstance(dim, str) and dim:
                self._symbols[dim] = size
        if value.dims and shape and not isinstance(value.dims[0], int):
            self._batch = shape[0]

    # Texts

    def _count_tokens(self, given: Mapping[str, tuple[int, ...]]) -> None:
        """What follows from the tokens asked for: those of this inference, those of the past, and both together."""
        past = self._asked.past or 0
        texts = [value for value in self._values if value.name.endswith(_TOKENS) and len(value.dims or ()) > 1]
        caches = [(value, axis) for value in self._values if (axis := _past_axis(value)) is not None]
        names = ", ".join(value.name for value in self._values)
        if not texts:
            raise InputError(
                f"{self._where}: takes no {'seq_len' if self._asked.past is None else 'past'}, since none of its "
                f"inputs ({names}) is a text; state the shapes of the inputs instead"
            )
        if past and not caches:
            raise InputError(
                f"{self._where}: takes no past, since none of its inputs ({names}) holds the keys and values of "
                "earlier tokens; export the model with its cache (text-generation-with-past), or leave past out"
            )
        length = self._asked.seq_len
        if length is None:
            stated = (given[v.name][1] if v.name in given else (v.dims or ())[1] for v in texts)
            length = next((size for size in stated if isinstance(size, int)), 1 if past else DEFAULT_SEQ_LEN)
        for value, axis in caches:
            self._set_tokens(value, axis, past, given)
        for value in texts:
            self._set_tokens(value, 1, length, given)
        for value in self._values:
            rank = len(value.dims or ())
            if _masks(value):
                self._set_tokens(value, rank - 1, past + length, given)
                if rank > 2:
                    self._set_tokens(value, rank - 2, length, given)

    def _set_tokens(self, value: wire.RawValue, axis: int, size: int, given: Mapping[str, tuple[int, ...]]) -> None:
        dim = (value.dims or ())[axis]
        stated = given[value.name][axis] if value.name in given else dim
        if isinstance(stated, int):
            if stated != size:
                raise InputError(
                    f"{self._where}: dimension {axis} of the input {value.name!r} is {stated}, the tokens asked for "
                    f"make it {size}; ask for as many tokens as it holds, or export the model with free dimensions"
                )
            return
        self._tokens[value.name, axis] = size
        if stated:
            self._symbols.setdefault(stated, size)

    # Dimensions

    def size(self, dim: int | str) -> int:
        """The size of a dimension, -1 where nothing says it."""
        if isinstance(dim, int):
            return dim
        return self._symbols[dim] if dim in self._symbols else _computed(dim, self._symbols)

    def _settled(self, value: wire.RawValue) -> tuple[int, ...]:
        """The input's shape; symbols that another input settles are known, an unset batch is 1."""
        name = value.name
        if value.is_sequence:
            raise GraphError(
                f"{self._where}: the input {name!r} is a sequence, whose length no shape says; export the model with "
                "tensors as inputs"
            )
        if value.dims is None:
            raise GraphError(
                f"{self._where}: the input {name!r} has no shape; give one, a size for each dimension: "
                f"{shapes_wanted({name: _TWO})} where it has two"
            )
        RANK.check(len(value.dims), f"{self._where}: the input {name!r}", GraphError)
        shape = []
        for index, dim in enumerate(value.dims):
            size = self._tokens.get((name, index), self.size(dim))
            if size < 0 or (dim == 0 and not index and self._none_empty):
                if index or dim in _NO_BATCH:
                    raise GraphError(
                        f"{self._where}: dimension {index} ({dim or 'unnamed'}) of the input {name!r} is unset; give "
                        f"{_tokens_too(value, index)}its shape: {shapes_wanted({name: value.dims})}"
                    )
                size = 1
                self.notes.append(f"the unset batch ({dim or 'unnamed'}) of the input {name!r} became 1")
                if isinstance(dim, str) and dim:
                    self._symbols[dim] = 1
            shape.append(size)
        return tuple(shape)


def _past_axis(value: wire.RawValue) -> int | None:
    """The dimension of a cache of keys or values that counts tokens; ``None`` where the input is none."""
    dims = value.dims or ()
    if not re.search("past|cache", value.name) or "encoder" in value.name or len(dims) < 3:
        return None
    free = [axis for axis, dim in enumerate(dims) if isinstance(dim, str) and axis]
    named = [axis for axis in free if "past" in str(dims[axis])]
    if named or not free:
        return named[0] if named else len(dims) - 2
    return free[0] if len(free) == 1 else len(dims) - 2


def _masks(value: wire.RawValue) -> bool:
    """Whether the input says which tokens, those of the past included, may be looked at: along its last dimension."""
    return "mask" in value.name and "encoder" not in value.name and len(value.dims or ()) > 1


def _tokens_too(value: wire.RawValue, index: int) -> str:
    """The option that says how many tokens there are, where the dimension counts them."""
    if _past_axis(value) == index:
        return "the tokens of the past (--past 128), or "
    if _masks(value) and index == len(value.dims or ()) - 1:
        return "the tokens (--seq-len 128) and those of the past, if there is one (--past 128), or "
    return "the tokens (--seq-len 128), or " if value.name.endswith(_TOKENS) and index == 1 else ""


def _computed(text: str, symbols: Mapping[str, int]) -> int:
    """``past_sequence_length + 1`` of what is known; -1 where that is not enough."""
    if not re.fullmatch(r"[\w\s+*/()-]+", text):
        return -1
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, symbols)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return -1


_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _value(part: ast.expr, symbols: Mapping[str, int]) -> int:
    if isinstance(part, ast.Name):
        return symbols[part.id]
    if isinstance(part, ast.Constant) and isinstance(part.value, int):
        return part.value
    if isinstance(part, ast.BinOp) and type(part.op) in _OPERATIONS:
        return _OPERATIONS[type(part.op)](_value(part.left, symbols), _value(part.right, symbols))
    raise ValueError(f"no sum or product: {ast.dump(part)}")
