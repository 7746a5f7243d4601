"""A graph as text, for tests and for looking at; ``parse`` and ``to_text`` are inverse.

One statement a line::

    graph example
    input x: float32[1,3,8,8]
    const w: float32[4,3,3,3]
    const shape: int64[2](1, -1)
    c: float32[1,4,8,8] = Conv(x, w) {pads=(1, 1, 1, 1)}
    y = Reshape(c, shape) {allowzero=0} name "head/reshape" origin "Flatten"
    output y
    note "the unset batch became 1"

A tensor's values follow its shape in parentheses. A node that is not named takes the name of its first
output; an output whose shape is left out is inferred. ``_`` stands for an input or output left out, ``::``
follows a domain, ``const`` before the dtype of a node's output says that it is constant, ``tensor`` declares
one that nothing computes. Names other than letters, digits and ``_ . / -`` stand in quotes as JSON text does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import cast

from nn_meter.errors import GraphError, ModelFormatError
from nn_meter.ir.graph import Attr, Graph, Node, Tensor, verify
from nn_meter.ir.shapes import infer

_BARE = re.compile(r"[A-Za-z0-9_./-]+")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<float>[+-]?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|(?:inf|nan)(?![\w./-])))
      | (?P<int>[+-]?\d+(?![\w./-]))
      | (?P<word>[A-Za-z0-9_./-]+)
      | (?P<mark>::|[\[\](){},:=])
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(("graph", "input", "const", "tensor", "output", "note", "assumed"))


def to_text(graph: Graph) -> str:
    """``graph`` as text that ``parse`` reads back to an equal graph."""
    lines = [f"graph {_quoted(graph.name)}"]
    lines += [f"input {_declared(graph.tensors[name])}" for name in graph.inputs]
    named = {*graph.inputs, *graph.producer}
    for name, tensor in graph.tensors.items():
        if name not in named:
            lines.append(f"{'const' if tensor.const else 'tensor'} {_declared(tensor, const='')}")
    for node in graph.nodes:
        outputs = ", ".join(_declared(graph.tensors[name]) if name else "_" for name in node.outputs)
        operator = (
            f"{_quoted(node.domain)}::{_quoted(node.op_type)}" if node.domain else _quoted(node.op_type)
        )
        line = f"{outputs} = {operator}({', '.join(_named(name) for name in node.inputs)})"
        if node.attrs:
            line += (
                " {"
                + ", ".join(f"{_quoted(key)}={_written(value)}" for key, value in node.attrs.items())
                + "}"
            )
        if node.name != next((name for name in node.outputs if name), ""):
            line += f" name {json.dumps(node.name)}"
        if node.origin:
            line += f" origin {json.dumps(node.origin)}"
        lines.append(line)
    lines += [f"output {_named(name)}" for name in graph.outputs]
    lines += [f"note {json.dumps(note)}" for note in graph.notes]
    lines += [f"assumed {json.dumps(text)}" for text in graph.assumed]
    return "\n".join(lines) + "\n"


def parse(text: str) -> Graph:
    """The graph that ``text`` describes, verified.

    Raises:
        ModelFormatError: a line that is no statement; names the line.
        GraphError: statements that together are no graph.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            reader.read(number, line)
    return verify(reader.graph())


def _quoted(name: str) -> str:
    return name if _BARE.fullmatch(name) and not _looks_numeric(name) else json.dumps(name)


def _named(name: str) -> str:
    if not name:
        return "_"
    return json.dumps(name) if name == "_" or name in _KEYWORDS else _quoted(name)


def _looks_numeric(name: str) -> bool:
    match = _TOKEN.match(name)
    return match is None or match.lastgroup != "word"


def _declared(tensor: Tensor, const: str = "const ") -> str:
    dims = ",".join(str(dim) for dim in tensor.shape)
    line = f"{_named(tensor.name)}: {const if tensor.const else ''}{_quoted(tensor.dtype)}[{dims}]"
    return line if tensor.value is None else line + _written(tensor.value)


def _written(value: Attr | tuple[int | float, ...]) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_written(item) for item in value) + ")"
    if isinstance(value, str):
        return json.dumps(value)
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


class _Reader:
    """The statements read so far, and the tokens left of the current line."""

    def __init__(self) -> None:
        self._name = "graph"
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._notes: list[str] = []
        self._assumed: list[str] = []
        self._line = ""
        self._number = 0
        self._tokens: list[tuple[str, str]] = []

    def graph(self) -> Graph:
        return Graph(
            self._name,
            tuple(self._nodes),
            MappingProxyType(self._tensors),
            tuple(self._inputs),
            tuple(self._outputs),
            tuple(self._notes),
            tuple(self._assumed),
        )

    def read(self, number: int, line: str) -> None:
        """Read one statement."""
        self._number, self._line = number, line
        self._tokens = list(reversed(self._scan()))
        kind, word = self._tokens[-1]
        if kind != "word" or word not in _KEYWORDS:
            self._node()
            return
        self._tokens.pop()
        if word == "graph":
            self._name = self._text()
        elif word == "note":
            self._notes.append(self._text())
        elif word == "assumed":
            self._assumed.append(self._text())
        elif word == "output":
            self._outputs.append(self._text())
        else:
            tensor = self._type(self._text(), const=word == "const")
            self._add(tensor)
            if word == "input":
                self._inputs.append(tensor.name)
        self._end()

    def _fail(self, why: str) -> ModelFormatError:
        return ModelFormatError(f"line {self._number}: {why} in {self._line.strip()!r}")

    def _scan(self) -> list[tuple[str, str]]:
        tokens = []
        at = 0
        line = self._line.rstrip()
        while at < len(line):
            match = _TOKEN.match(line, at)
            if match is None or match.lastgroup is None:
                raise self._fail(f"unexpected {line[at:].strip()[:12]!r}")
            tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return tokens

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise self._fail("something is missing at the end")
        return self._tokens.pop()

    def _accept(self, mark: str) -> bool:
        if self._tokens and self._tokens[-1] in (("mark", mark), ("word", mark)):
            self._tokens.pop()
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            raise self._fail(
                f"expected {mark!r} before {self._tokens[-1][1] if self._tokens else 'the end'!r}"
            )

    def _end(self) -> None:
        if self._tokens:
            raise self._fail(f"unexpected {self._tokens[-1][1]!r}")

    def _text(self) -> str:
        kind, token = self._next()
        if kind == "text":
            try:
                return str(json.loads(token))
            except json.JSONDecodeError:
                raise self._fail(f"{token} is no text") from None
        if kind == "mark":
            raise self._fail(f"expected a name before {token!r}")
        return token

    def _optional_name(self) -> str:
        """A name, ``""`` for a bare ``_``."""
        return "" if self._accept("_") else self._text()

    def _value(self) -> Attr:
        if self._accept("("):
            items: list[int | float | str] = []
            while not self._accept(")"):
                item = self._value()
                if isinstance(item, tuple):
                    raise self._fail("a tuple within a tuple")
                items.append(item)
                if not self._accept(","):
                    self._expect(")")
                    break
            return cast(Attr, tuple(items))
        kind, token = self._tokens[-1] if self._tokens else ("", "")
        if kind in ("int", "float"):
            self._tokens.pop()
            return int(token) if kind == "int" else float(token)
        if kind != "text":
            raise self._fail(f"expected a value before {token or 'the end'!r}")
        return self._text()

    def _type(self, name: str, const: bool = False) -> Tensor:
        """``: [const] dtype[dims][(values)]`` behind ``name``."""
        self._expect(":")
        const = self._accept("const") or const
        dtype = self._text()
        self._expect("[")
        dims: list[int] = []
        while not self._accept("]"):
            kind, token = self._next()
            if kind != "int":
                raise self._fail(f"the dimension {token!r} is no integer")
            dims.append(int(token))
            if not self._accept(","):
                self._expect("]")
                break
        value = None
        if self._tokens and self._tokens[-1] == ("mark", "("):
            items = self._value()
            if not isinstance(items, tuple) or any(isinstance(item, str) for item in items):
                raise self._fail("a value that is no number")
            value = tuple(item for item in items if not isinstance(item, str))
        return Tensor(name, tuple(dims), dtype, const, value)

    def _add(self, tensor: Tensor) -> None:
        if tensor.name in self._tensors:
            raise GraphError(f"line {self._number}: the tensor {tensor.name!r} is declared twice")
        self._tensors[tensor.name] = tensor

    def _node(self) -> None:
        outputs: list[str] = []
        stated: dict[str, Tensor] = {}
        while not self._accept("="):
            name = self._optional_name()
            outputs.append(name)
            if self._tokens and self._tokens[-1] == ("mark", ":"):
                stated[name] = self._type(name)
            if not self._accept(","):
                self._expect("=")
                break
        domain, op_type = "", self._text()
        if self._accept("::"):
            domain, op_type = op_type, self._text()
        self._expect("(")
        inputs: list[str] = []
        while not self._accept(")"):
            inputs.append(self._optional_name())
            if not self._accept(","):
                self._expect(")")
                break
        attrs: dict[str, Attr] = {}
        if self._accept("{"):
            while not self._accept("}"):
                key = self._text()
                self._expect("=")
                attrs[key] = self._value()
                if not self._accept(","):
                    self._expect("}")
                    break
        node_name = self._text() if self._accept("name") else next((name for name in outputs if name), "")
        origin = self._text() if self._accept("origin") else ""
        self._end()
        node = Node(
            node_name, op_type, tuple(inputs), tuple(outputs), MappingProxyType(attrs), domain, origin
        )
        tensors = list(stated.values())
        if any(name and name not in stated for name in outputs):
            tensors += [tensor for tensor in infer(node, self._read_by(node)) if tensor.name not in stated]
        for tensor in tensors:
            self._add(tensor)
        self._nodes.append(node)

    def _read_by(self, node: Node) -> Sequence[Tensor | None]:
        missing = next((name for name in node.inputs if name and name not in self._tensors), None)
        if missing is not None:
            raise GraphError(
                f"line {self._number}: node {node.name!r} ({node.op_type}) reads {missing!r}, "
                "not declared above"
            )
        return [self._tensors[name] if name else None for name in node.inputs]
