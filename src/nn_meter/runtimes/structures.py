"""Graphs that differ in sizes alone: what fuses is found out once, sizes are filled in.

Passes run on a graph whose sizes are ``Size``s: numbers that remember how they came about and what was asked of them.
What was asked are the conditions under which another graph of the same structure fuses alike; kernels whose configs
hold ``Size``s say how its configs follow from its sizes. No pass knows of it.
"""

from __future__ import annotations

import marshal
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from nn_meter.ir import Attr, Graph
from nn_meter.kernels.partition import KernelConfig

Charged = Iterable[tuple[str, KernelConfig]]
"""Kind and config of each kernel that costs something, in the order of execution."""

Item = TypeVar("Item")
Number = int | float
_Key = tuple[Any, ...]

FILLED: Mapping[str, int] = MappingProxyType({"group": 2, "kernel_shape": 2, "pads": 1})
"""Attributes whose numbers are sizes, from which number on; others belong to the structure. What passes look for by
itself (one group, a dimension of 1) does too."""

_LEAST = 2  # of a dimension that is a size; a smaller one is a condition
_FILLED = tuple(FILLED.items())


class Structures(Generic[Item]):
    """Remembers what fuses in the graphs that it is given.

    Args:
        charged: what answers without: runs the passes.
        item: what is wanted of a kernel by its kind and config; it is made once for those that come again.
    """

    _KNOWN = 256
    _WAYS = 64
    """Of one structure so many sets of conditions are remembered: whether channels come in whole blocks decides, at
    each width of its own."""

    _NODES = 5_000
    """Larger graphs come one at a time, and so do files that leave sizes free: their structure is not looked at."""

    def __init__(self, charged: Callable[[Graph], Charged], item: Callable[[str, KernelConfig], Item]) -> None:
        self._charged, self._made = charged, _Made(item)
        self._known: dict[_Key, _Ways[Item]] = {}
        self._latest: tuple[_Key, _Ways[Item]] | None = None

    def items(self, graph: Graph) -> list[Item]:
        """The items of what ``charged`` answers; a structure that comes again is not fused again."""
        found = self._found(graph) if len(graph.nodes) <= self._NODES and not graph.stated else None
        return [self._made.item(*each) for each in self._charged(graph)] if found is None else found

    def _found(self, graph: Graph) -> list[Item] | None:
        found = _structure(graph)
        if found is None:
            return None
        key, sizes = found
        if self._latest is None or self._latest[0] != key:  # a key is compared faster than it is hashed
            ways = self._known.pop(key, None)
            first = ways is None
            if ways is None:
                if len(self._known) >= self._KNOWN:
                    del self._known[next(iter(self._known))]
                ways = _Ways({}, self._WAYS)
            self._known[key] = ways  # the last that was asked for goes last
            self._latest = key, ways
            if first:
                return None
        ways, line = self._latest[1], 0
        branches = ways.branches
        while line in branches:
            way = branches[line]
            kernels = way.items(sizes)
            if not isinstance(kernels, int):
                return kernels
            branches, line = way.branches, kernels
        if not ways.left:
            return None
        try:
            way = branches[line] = _Way(graph, self._charged, self._made)
        except (TypeError, AttributeError):  # a pass does with sizes what only numbers can
            ways.left = 0
            return None
        ways.left -= 1
        kernels = way.items(sizes)
        return None if isinstance(kernels, int) else kernels


def _structure(graph: Graph) -> tuple[_Key, list[int]] | None:
    """All but the sizes and what nodes are called, and the sizes; nothing for attributes that are not plain values."""
    nodes, tensors = graph.nodes, graph.tensors.values()
    shapes = [tensor.shape for tensor in tensors if tensor.value is None]
    known = [(tensor.name, tensor.shape, tensor.value) for tensor in tensors if tensor.value is not None]
    sizes = [*chain.from_iterable(shapes)]
    try:
        attrs = [node.attrs.copy() if node.attrs else None for node in nodes]  # type: ignore[attr-defined]
        for own in filter(None, attrs):
            for name, least in _FILLED:
                given = own.get(name)
                if type(given) is tuple:
                    sizes += given
                    own[name] = [each if each < least else least for each in given]
                elif given is not None:
                    sizes.append(given)
                    own[name] = min(given, least)
        plain = marshal.dumps((attrs, known, [*map(len, shapes)]), 2)  # where 1, 1.0 and True are not the same
    except (AttributeError, TypeError, ValueError):
        return None
    # this is most of what a graph of a known structure costs; lists of what is written out take half as long as maps
    wired = tuple([(node.op_type, node.inputs, node.outputs, node.domain) for node in nodes])
    typed = tuple([(tensor.name, tensor.dtype, tensor.const) for tensor in tensors])
    return (graph.inputs, graph.outputs, wired, typed, plain), sizes


@dataclass(slots=True)
class _Ways(Generic[Item]):
    """The ways in which graphs of a structure fuse: where one parts from another is a line of a trace, the first is at
    line 0. So many more may be added."""

    branches: dict[int, _Way[Item]]
    left: int


class _Way(Generic[Item]):
    """One way in which graphs of a structure fuse; ``branches`` are those that part from it, by line.

    Raises:
        TypeError, AttributeError: a pass, or the config of a kernel, asks of a size what it does not answer.
    """

    _REMEMBERED = 10_000
    """Of each kernel, so many sizes."""

    def __init__(self, graph: Graph, charged: Callable[[Graph], Charged], made: _Made[Item]) -> None:
        trace = _Trace()
        self.branches: dict[int, _Way[Item]] = {}
        self._made = made
        self._kernels = [*charged(_traced(graph, trace))]
        found = [[*_sizes(config)] for _, config in self._kernels]
        self._values = trace.function(found)
        self._known = [made.known(*each) for each in self._kernels]

    def items(self, sizes: Sequence[int]) -> list[Item] | int:
        """Those of a graph of these sizes; where another way is taken, the line at which it parts."""
        try:
            values = self._values(sizes)
        except ArithmeticError:
            return -1
        if isinstance(values, int):
            return values
        found = map(dict.get, self._known, values)
        return [self._filled(place, values[place]) if item is None else item for place, item in enumerate(found)]

    def _filled(self, place: int, values: tuple[Number, ...]) -> Item:
        known = self._known[place]
        if len(known) >= self._REMEMBERED:
            known.clear()
        kind, config = self._kernels[place]
        made = known[values] = self._made.item(kind, _filled(config, iter(values)))
        return made


class _Made(Generic[Item]):
    """Items that were made of kernels that are the same but for their sizes, in whichever graph they were."""

    _REMEMBERED = 1_000

    def __init__(self, item: Callable[[str, KernelConfig], Item]) -> None:
        self.item = item
        self._known: dict[tuple[str, KernelConfig], dict[tuple[Number, ...], Item]] = {}

    def known(self, kind: str, config: KernelConfig) -> dict[tuple[Number, ...], Item]:
        """The items of such kernels by their sizes, for whoever asks to add to."""
        if len(self._known) >= self._REMEMBERED:
            self._known.clear()
        return self._known.setdefault((kind, _filled(config, repeat(_ANY))), {})


_ANY: Any = object()
"""In the place of a size."""


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
        self._plain: list[tuple[str, int]] = []
        self._lines: list[str] = []
        self._made: dict[str, Size] = {}
        self._asked: dict[str, bool] = {}

    def given(self, value: int, least: int) -> Size | int:
        """The next size of a graph; a number below ``least`` stays one."""
        text = f"d[{self._count}]"
        self._count += 1
        if value >= least:
            return Size(self, text, value)
        if type(value) is not int:
            raise TypeError(f"a size is {type(value).__name__}")
        self._plain.append((text, value))
        return value

    def computed(self, sign: str, a: Size | Number, b: Size | Number) -> Any:
        """``a sign b``."""
        text = f"{_text(a)} {sign} {_text(b)}"
        if text not in self._made:
            name = f"v{len(self._made)}"
            self._made[text] = Size(self, name, _SIGNS[sign](_value(a), _value(b)))
            self._lines.append(f"{name} = {text}")
        return self._made[text]

    def asked(self, sign: str, a: Size, b: Size | Number) -> bool:
        """Whether ``a sign b``, which becomes a condition where the structure does not say so already."""
        answer = _SIGNS[sign](a.value, _value(b))
        text = f"{a.text} {sign} {_text(b)}"
        if text not in self._asked:
            self._asked[text] = answer
            self._lines.append(f"if {'not ' if answer else ''}{text}: return {len(self._lines) + 1}")
        return bool(answer)

    def function(self, kernels: Sequence[Sequence[Size]]) -> Callable[[Sequence[int]], Any]:
        """What gives the numbers of each kernel, or the line of the first condition that does not hold: 0 for the sizes
        that are plain numbers."""
        plain = "".join(f"{text}, " for text, _ in self._plain)
        numbers = "".join(f"{number!r}, " for _, number in self._plain)
        results = "".join(f"({''.join(f'{size.text}, ' for size in own)}), " for own in kernels)
        lines = [f"if ({plain}) != ({numbers}): return 0", *self._lines, f"return ({results})"]
        text = "\n    ".join(["def values(d):", *lines])
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

    __slots__ = ("text", "trace", "value")

    def __init__(self, trace: _Trace, text: str, value: Number) -> None:
        self.trace, self.text, self.value = trace, text, value

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


def _text(number: Size | Number) -> str:
    return number.text if isinstance(number, Size) else f"({number!r})"


def _parts(given: Any) -> Sequence[Any]:
    """What a config, or a tuple in one, is made of; nothing for a plain value."""
    kind: Any = type(given)
    return given if kind is tuple else [getattr(given, name) for name in _names(kind)]


@cache
def _names(kind: type) -> Sequence[str]:
    """Of a config's parts; a plain value has none."""
    if is_dataclass(kind):
        return [each.name for each in fields(kind)]
    if kind in (str, int, float, bool, type(None)):
        return ()
    raise TypeError(f"a config holds {kind.__name__}")


def _sizes(given: Any) -> Iterator[Size]:
    if type(given) is Size:
        yield given
    else:
        for part in _parts(given):
            yield from _sizes(part)


def _filled(given: Any, values: Iterator[Number]) -> Any:
    """``given`` with numbers in the place of its sizes."""
    if type(given) is Size:
        return next(values)
    if type(given) is tuple:
        return tuple([_filled(part, values) for part in given])
    made = [_filled(part, values) for part in _parts(given)]
    return type(given)(*made) if made else given
