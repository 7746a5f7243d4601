"""Graphs that differ in sizes alone: what fuses is found out once, sizes are filled in.

Passes run on a graph whose sizes are ``Size``s: numbers that remember how they came about and what was asked of them.
What was asked are the conditions under which another graph of the same structure fuses alike; kernels whose configs
hold ``Size``s say how its configs follow from its sizes. No pass knows of it.
"""

from __future__ import annotations

import marshal
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from hashlib import blake2b
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from nn_meter.ir import Attr, Graph
from nn_meter.kernels.partition import KernelConfig

Charged = Sequence[tuple[str, KernelConfig]]
"""Kind and config of each kernel that costs something, in the order of execution."""

Number = int | float

FILLED: Mapping[str, int] = MappingProxyType({"group": 2, "kernel_shape": 2, "pads": 1})
"""Attributes whose numbers are sizes, from which number on; others belong to the structure. What passes look for by
itself (one group, a dimension of 1) does too."""

_LEAST = 2  # of a dimension that is a size
_SMALL = {size: size for size in range(_LEAST)}
_FILLED = tuple(FILLED.items())
_NODE = attrgetter("name", "op_type", "inputs", "outputs", "domain")
_TENSOR = attrgetter("name", "dtype", "const", "value")


class Structures:
    """Remembers what fuses in the graphs that it is given.

    Args:
        charged: what answers without: runs the passes.
    """

    _KNOWN = 256
    _WAYS = 8
    """Of one structure so many sets of conditions are remembered: whether channels come in whole blocks decides."""

    _NODES = 5_000
    """Larger graphs come one at a time: their structure is not looked at."""

    def __init__(self, charged: Callable[[Graph], Charged]) -> None:
        self._charged = charged
        self._known: dict[bytes, list[_Way] | None] = {}

    def charged(self, graph: Graph) -> Charged:
        """What ``charged`` answers; a structure that comes again is not fused again."""
        if len(graph.nodes) > self._NODES:
            return self._charged(graph)
        found = _structure(graph)
        if found is None:
            return self._charged(graph)
        key, sizes = found
        if key not in self._known:
            if len(self._known) >= self._KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = []
            return self._charged(graph)
        ways = self._known[key] = self._known.pop(key)  # the last that was asked for goes last
        if ways is None:
            return self._charged(graph)
        for way in ways:
            kernels = way.kernels(sizes)
            if kernels is not None:
                return kernels
        if len(ways) >= self._WAYS:
            return self._charged(graph)
        try:
            way = _Way(graph, self._charged)
        except (TypeError, AttributeError):  # a pass does with sizes what only numbers can
            self._known[key] = None
            return self._charged(graph)
        ways.append(way)
        kernels = way.kernels(sizes)
        return self._charged(graph) if kernels is None else kernels


def _structure(graph: Graph) -> tuple[bytes, list[int]] | None:
    """A hash of all but the sizes, and the sizes; nothing for attributes that are not plain values."""
    tensors = graph.tensors.values()
    shapes = [tensor.shape for tensor in tensors if tensor.value is None]
    known = [tensor.shape for tensor in tensors if tensor.value is not None]
    sizes = [*chain.from_iterable(shapes)]
    if min(sizes, default=0) < 0:
        return None
    ranks, small = [*map(len, shapes)], [*map(_SMALL.get, sizes)]
    nodes, attrs = [*map(_NODE, graph.nodes)], [dict(node.attrs) for node in graph.nodes]
    try:
        for own in attrs:
            for name, least in _FILLED:
                if name in own:
                    given: Any = own[name]
                    several = given if type(given) is tuple else (given,)
                    sizes += several
                    own[name] = type(given) is tuple, *[each if each < least else least for each in several]
        ends = graph.inputs, graph.outputs
        held = marshal.dumps((ends, nodes, attrs, [*map(_TENSOR, tensors)], known, ranks, small), 2)
    except (TypeError, ValueError):
        return None
    return blake2b(held, digest_size=16).digest(), sizes


class _Way:
    """One way in which graphs of a structure fuse.

    Raises:
        TypeError, AttributeError: a pass, or the config of a kernel, asks of a size what it does not answer.
    """

    _REMEMBERED = 100_000

    def __init__(self, graph: Graph, charged: Callable[[Graph], Charged]) -> None:
        trace = _Trace()
        self._kernels = charged(_traced(graph, trace))
        found = [[*_sizes(config)] for _, config in self._kernels]
        self._values = trace.function(found)
        self._configs: list[dict[tuple[Number, ...], tuple[str, KernelConfig]]] = [{} for _ in self._kernels]

    def kernels(self, sizes: Sequence[int]) -> Charged | None:
        """The kernels of a graph of these sizes; nothing where another way is taken."""
        try:
            values = self._values(sizes)
        except ArithmeticError:
            return None
        if values is None:
            return None
        return [
            known.get(own) or self._made(place, own)
            for place, (known, own) in enumerate(zip(self._configs, values, strict=True))
        ]

    def _made(self, place: int, values: tuple[Number, ...]) -> tuple[str, KernelConfig]:
        known = self._configs[place]
        if len(known) >= self._REMEMBERED // len(self._configs):
            known.clear()
        kind, config = self._kernels[place]
        known[values] = kind, _filled(config, iter(values))
        return known[values]


def _traced(graph: Graph, trace: _Trace) -> Graph:
    """``graph`` with sizes in the order in which ``_structure`` names them."""

    def of(value: Any, least: int) -> Any:
        if isinstance(value, tuple):
            return tuple([of(each, least) for each in value])
        return trace.given(value, least)

    tensors = {
        name: replace(t, shape=of(t.shape, _LEAST)) if t.value is None else t for name, t in graph.tensors.items()
    }
    nodes = []
    for node in graph.nodes:
        attrs: dict[str, Attr] = dict(node.attrs)
        for name, least in FILLED.items():
            if name in attrs:
                attrs[name] = of(attrs[name], least)
        nodes.append(replace(node, attrs=MappingProxyType(attrs)))
    return replace(graph, tensors=MappingProxyType(tensors), nodes=tuple(nodes))


class _Trace:
    """How numbers came about and what was asked of them, as lines of a function of the sizes ``d``."""

    def __init__(self) -> None:
        self._count = 0
        self._lines: list[str] = []
        self._made: dict[str, Size] = {}
        self._asked: dict[str, bool] = {}

    def given(self, value: int, least: int) -> Size | int:
        """The next size of a graph; a number below ``least`` stays one."""
        self._count += 1
        return Size(self, f"d[{self._count - 1}]", value, least) if value >= least else value

    def computed(self, sign: str, a: Size | Number, b: Size | Number) -> Any:
        """``a sign b``."""
        text = f"{_text(a)} {sign} {_text(b)}"
        if text not in self._made:
            name = f"v{len(self._made)}"
            least = _least(a) * _least(b) if sign == "*" else 0
            self._made[text] = Size(self, name, _SIGNS[sign](_value(a), _value(b)), least)
            self._lines.append(f"{name} = {text}")
        return self._made[text]

    def asked(self, sign: str, a: Size, b: Size | Number) -> bool:
        """Whether ``a sign b``, which becomes a condition where the structure does not say so already."""
        answer = _SIGNS[sign](a.value, _value(b))
        if not isinstance(b, Size) and a.least > b:
            return bool(answer)
        text = f"{a.text} {sign} {_text(b)}"
        if text not in self._asked:
            self._asked[text] = answer
            self._lines.append(f"if {'not ' if answer else ''}{text}: return None")
        return bool(answer)

    def function(self, kernels: Sequence[Sequence[Size]]) -> Callable[[Sequence[int]], Any]:
        """What gives the numbers of each kernel, or nothing where a condition does not hold."""
        results = "".join(f"({''.join(f'{size.text}, ' for size in own)}), " for own in kernels)
        text = "\n    ".join(["def values(d):", *self._lines, f"return ({results})"])
        space: dict[str, Any] = {}
        exec(compile(text, "<structure>", "exec"), {"__builtins__": {}}, space)  # of numbers and signs alone
        made: Callable[[Sequence[int]], Any] = space["values"]
        return made


_SIGNS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
        "/": operator.truediv, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
        ">": operator.gt, ">=": operator.ge,
    }
)  # fmt: skip


class Size:
    """A number that a trace knows of. Whoever wants it as a plain number makes its value a condition."""

    __slots__ = ("least", "text", "trace", "value")

    def __init__(self, trace: _Trace, text: str, value: Number, least: Number) -> None:
        self.trace, self.text, self.value, self.least = trace, text, value, least

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for those who ask whether it is a number
        return type(self.value)

    def _plain(self) -> Any:
        self.trace.asked("==", self, self.value)
        return self.value

    def __int__(self) -> int:
        return int(self._plain())

    def __index__(self) -> int:
        return operator.index(self._plain())

    def __float__(self) -> float:
        return float(self._plain())

    def __hash__(self) -> int:
        return hash(self._plain())

    def __repr__(self) -> str:
        return repr(self._plain())

    def __format__(self, form: str) -> str:
        return format(self._plain(), form)

    def __bool__(self) -> bool:
        return self.trace.asked("!=", self, 0)

    def __neg__(self) -> Any:
        return self.trace.computed("-", 0, self)


def _operation(sign: str, turned: bool) -> Callable[[Size, Any], Any]:
    def operation(self: Size, other: Any) -> Any:
        if type(other) not in (int, float, bool, Size):
            return NotImplemented
        return self.trace.computed(sign, other, self) if turned else self.trace.computed(sign, self, other)

    return operation


def _question(sign: str) -> Callable[[Size, Any], Any]:
    def question(self: Size, other: Any) -> Any:
        if type(other) not in (int, float, bool, Size):
            return NotImplemented
        return self.trace.asked(sign, self, other)

    return question


for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("floordiv", "//"), ("mod", "%"), ("truediv", "/")):
    setattr(Size, f"__{_name}__", _operation(_sign, turned=False))
    setattr(Size, f"__r{_name}__", _operation(_sign, turned=True))
for _name, _sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    setattr(Size, f"__{_name}__", _question(_sign))


def _value(number: Size | Number) -> Number:
    return number.value if isinstance(number, Size) else number


def _least(number: Size | Number) -> Number:
    return number.least if isinstance(number, Size) else number


def _text(number: Size | Number) -> str:
    return number.text if isinstance(number, Size) else f"({number!r})"


def _parts(given: Any) -> list[Any] | None:
    """What a config, or a tuple in one, is made of; nothing for a plain value."""
    if type(given) is tuple:
        return [*given]
    if is_dataclass(given) and not isinstance(given, type):
        return [getattr(given, each.name) for each in fields(given)]
    if type(given) in (str, int, float, bool, type(None)):
        return None
    raise TypeError(f"a config holds {type(given).__name__}")


def _sizes(given: Any) -> Iterator[Size]:
    if type(given) is Size:
        yield given
    else:
        for part in _parts(given) or ():
            yield from _sizes(part)


def _filled(given: Any, values: Iterator[Number]) -> Any:
    """``given`` with numbers in the place of its sizes."""
    if type(given) is Size:
        return next(values)
    parts = _parts(given)
    if parts is None:
        return given
    made = [_filled(part, values) for part in parts]
    return tuple(made) if type(given) is tuple else type(given)(*made)
