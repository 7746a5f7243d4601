"""A graph that passes may change: what an optimiser does, replayed on operators without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, Node, Tensor
from nn_meter.ir.shapes import RULES
from nn_meter.kernels.kinds import Operator
from nn_meter.kernels.operators import RULE_NAMES

Place = tuple[int, ...]
"""Where an operator stands in the execution order: places compare as tuples do. The n-th node stands at ``(n, 0)``;
beside ``(*way, 0)`` there is room at ``(*way, side, turn, 0)``, before it for the side -1 and behind it for 1."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A pass that did not do what it looks for: nodes that it would have made one, and why it did not."""

    nodes: frozenset[str]
    reason: str


_Members = tuple["str | _Members", ...]
"""Names of nodes, or what several operators have of them."""


class Op:
    """An operator while passes run; ``members`` are the graph's nodes that it stands for. ``core`` is what its
    config is read from, where that is not the operator as it stands. ``Work.add`` gives it its ``place``; only ``Work``
    changes its ``inputs``, as it knows where each is read: they are the node's own tuple until then."""

    __slots__ = ("_nodes", "attrs", "core", "fused", "inputs", "layout", "op_type", "outputs", "place")

    def __init__(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attrs: Mapping[str, Attr],
        members: str | _Members = (),
    ) -> None:
        self.op_type = op_type
        self.inputs: Sequence[str] = tuple(inputs)
        self.outputs = tuple(outputs)
        self.attrs = attrs
        self._nodes = members  # of one node its name, without a tuple around it in each operator of a model
        self.place: Place = ()
        self.fused: tuple[str, ...] = ()
        self.layout = ""
        self.core: Operator | None = None

    @property
    def nested(self) -> _Members:
        """``members``, but those of several operators as each of them has them."""
        return (self._nodes,) if isinstance(self._nodes, str) else self._nodes

    @nested.setter
    def nested(self, members: _Members) -> None:
        self._nodes = members

    @property
    def members(self) -> tuple[str, ...]:
        """What is ``nested`` in a row: not at each fusion, whose time would grow with what was fused before."""
        if isinstance(self._nodes, str):
            return (self._nodes,)
        if self._nodes and isinstance(self._nodes[0], tuple):
            names: list[str] = []
            left: list[str | _Members] = [self._nodes]
            while left:
                each = left.pop()
                if isinstance(each, str):
                    names.append(each)
                else:
                    left += reversed(each)
            self._nodes = tuple(names)
        return self._nodes  # type: ignore[return-value]  # names alone by now


_Readers = tuple[Op, int] | dict[Op, list[int]]
"""Who reads a tensor, with the places where; as a tuple the usual one that reads it once, which takes a third."""


Dims = tuple[int | str | None, ...]
"""A shape as a runtime knows it: a size, a name for one that it does not know, or nothing."""


class Work:
    """Operators with their tensors; knows who computes and who reads each tensor. ``folded`` are operators whose
    result is known before inference, by tensor; ``dims`` the shapes of which the runtime does not know all sizes, where
    the file leaves some free: ``stated`` is what it says of shapes then."""

    KNOWN = "its result is known before inference"

    def __init__(self, graph: Graph) -> None:
        known = graph.tensors
        # a copy of the dictionary itself takes a fifth of the time
        self.tensors: dict[str, Tensor] = known.copy() if isinstance(known, MappingProxyType) else dict(known)
        self.outputs: dict[str, list[int]] = {}  # the model's, with their places among them
        for number, name in enumerate(graph.outputs):
            self.outputs.setdefault(name, []).append(number)
        self.inputs = frozenset(graph.inputs)
        self.stated = graph.stated
        self.dims: dict[str, Dims] = {}
        self.free: list[tuple[str, str, str]] = []
        self.refusals: list[Refusal] = []
        self.folded: dict[str, Op] = {}
        self.producer: dict[str, Op] = {}
        self._readers: dict[str, _Readers] = {}
        self._ops: dict[Op, None] = {}
        self._typed: dict[str, dict[Op, None]] = {}  # by the type that they were put in with
        self._mixed: set[str] = set()  # types that were put in out of order
        self._names = 0
        self._turns = 0
        known_before = {name for name, tensor in known.items() if tensor.const}  # in a row, not each by its name
        for number, node in enumerate(graph.nodes):
            op = Op(_operator(node), node.inputs, node.outputs, node.attrs, node.name or ("",))
            op.place = (number, 0)
            if known_before.issuperset(filter(None, node.outputs)):
                self.free.append((node.name, node.op_type, self.KNOWN))
                self.folded.update((o, op) for o in node.outputs if o)
            else:
                self._enter(op)
        self._last = {group: next(reversed(ops)).place for group, ops in (("", self._ops), *self._typed.items()) if ops}

    def add(self, op: Op, *, at: Op | None = None, before: Op | None = None, behind: Op | None = None) -> Op:
        """Put in an operator: in the place of one, or beside it; behind what was put there earlier."""
        if at is not None:
            return self._put(op, at.place)
        beside = before or behind
        assert beside is not None, "an operator needs a place"
        self._turns += 1
        return self._put(op, (*beside.place[:-1], -1 if before else 1, self._turns, 0))

    def _put(self, op: Op, place: Place) -> Op:
        op.place = place
        for group in ("", op.op_type):
            if place < self._last.get(group, ()):
                self._mixed.add(group)
            else:
                self._last[group] = place
        return self._enter(op)

    def _enter(self, op: Op) -> Op:
        self._ops[op] = None
        self._typed.setdefault(op.op_type, {})[op] = None
        for out in op.outputs:
            if out:
                self.producer[out] = op
        for place, name in enumerate(op.inputs):
            if name in self._readers:
                self._reads(op, name, [place])
            elif name:
                self._readers[name] = op, place
        return op

    def remove(self, op: Op) -> None:
        """Take out an operator; its outputs have no producer until another is added."""
        del self._ops[op]
        self._typed.get(op.op_type, {}).pop(op, None)
        for out in op.outputs:
            if out and self.producer.get(out) is op:
                del self.producer[out]
        for name in set(op.inputs):
            if name:
                self._reads_no_more(op, name)

    def _places(self, name: str) -> dict[Op, list[int]]:
        found = self._readers.setdefault(name, {})
        if isinstance(found, dict):
            return found
        op, place = found
        self._readers[name] = places = {op: [place]}
        return places

    def _reads(self, op: Op, name: str, places: list[int]) -> None:
        known = self._places(name).setdefault(op, places)
        if known is not places:
            known += places

    def _reads_no_more(self, op: Op, name: str) -> list[int]:
        found = self._readers[name]
        if isinstance(found, dict):
            return found.pop(op)
        del self._readers[name]
        return [found[1]]

    def alive(self, op: Op) -> bool:
        """Whether ``op`` is still in the graph."""
        return op in self._ops

    def has(self, *op_types: str) -> bool:
        """Whether an operator of one of these types is there."""
        return any(self._typed.get(each) for each in op_types)

    def ops(self, *op_types: str) -> Iterator[Op]:
        """Operators of these types in execution order, as they were when asked; gone ones are skipped."""
        groups = [own for each in op_types if (own := self._typed.get(each))] if op_types else [self._ops]
        found = [*chain.from_iterable(groups)]
        if len(groups) > 1 or not self._mixed.isdisjoint(op_types or ("",)):
            found.sort(key=_place)
        alive = self._ops
        for op in found:
            if op in alive:
                yield op

    def readers(self, name: str) -> Collection[Op]:
        """Operators that read a tensor, as they are at any time."""
        found = self._readers.get(name, ())
        return found.keys() if isinstance(found, dict) else found[:1]

    def places(self, op: Op, name: str) -> Sequence[int]:
        """Where ``op``, one of the readers of ``name``, reads it, by the numbers of its inputs."""
        return self._places(name)[op]

    def only_reader(self, name: str) -> Op | None:
        """The one operator that reads ``name``, if it is one, reads it once and ``name`` is no output."""
        found = self._readers.get(name, {})
        if not found or name in self.outputs:
            return None
        if isinstance(found, tuple):
            return found[0]
        if len(found) > 1:
            return None
        reader, places = next(iter(found.items()))
        return reader if len(places) == 1 else None

    def folded_by(self, name: str, *op_types: str) -> Op | None:
        """The operator that a constant was computed by before inference, if it is of one of these types."""
        op = self.folded.get(name)
        return op if op is not None and op.op_type in op_types else None

    def made_by(self, name: str, *op_types: str) -> Op | None:
        """The operator that computes ``name``, if it is of one of these types."""
        op = self.producer.get(name)
        return op if op is not None and op.op_type in op_types else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; empty where it is left out."""
        return self.tensors[name].shape if name else ()

    def known(self, name: str) -> bool:
        """Whether the runtime knows all sizes of a tensor before inference."""
        return name not in self.dims

    def alike(self, first: str, second: str) -> bool:
        """Whether the runtime knows before inference that two tensors are of one shape."""
        dims = self.told(first)
        return None not in dims and dims == self.told(second)

    def told(self, name: str) -> Dims:
        """What the runtime knows of a shape before inference."""
        return self.dims[name] if name in self.dims else self.shape(name)

    def const(self, name: str) -> bool:
        """Whether a tensor is constant."""
        return bool(name) and self.tensors[name].const

    def value(self, op: Op, index: int) -> tuple[int | float, ...] | None:
        """The elements of a small input, ``None`` where it is left out or they are not known."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        return self.tensors[name].value if name else None

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element, ``None`` where it is none or unknown."""
        if not name:
            return None
        tensor = self.tensors[name]
        return (
            float(tensor.value[0]) if tensor.const and tensor.value is not None and tensor.size == 1 else None
        )

    def is_one_element(self, name: str) -> bool:
        """Whether a tensor is a constant of one element."""
        return self.const(name) and self.tensors[name].size == 1

    def fresh(self, stem: str, shape: Sequence[int], like: str, told: Dims = ()) -> str:
        """A new tensor with the element type of ``like``; where not all is known of that one's shape, only what is
        ``told`` is of this one's."""
        self._names += 1
        name = f"{stem}#{self._names}"
        self.tensors[name] = Tensor(name, tuple(shape), self.tensors[like].dtype)
        if like in self.dims:
            self.dims[name] = told or (None,) * len(shape)
        return name

    def integers(self, stem: str, values: Sequence[int]) -> str:
        """A new constant of int64."""
        self._names += 1
        name = f"{stem}#{self._names}"
        self.tensors[name] = Tensor(name, (len(values),), "int64", True, tuple(values))
        return name

    def revive(self, ops: Collection[Op]) -> None:
        """Execute folded operators after all."""
        members = {member for op in ops for member in op.members}
        self.free = [entry for entry in self.free if entry[0] not in members]
        for op in ops:
            for out in filter(None, op.outputs):
                del self.folded[out]
                self.tensors[out] = replace(self.tensors[out], const=False)
            self._put(op, op.place)

    def fold(self, op: Op, results: Iterable[Tensor]) -> None:
        """Take out an operator whose ``results`` are known before inference."""
        self.remove(op)
        self.free += [(member, op.op_type, self.KNOWN) for member in op.members]
        for each in results:
            self.tensors[each.name], self.folded[each.name] = each, op
            self.dims.pop(each.name, None)

    def drop(self, name: str) -> None:
        """Take out what computes a tensor that nothing reads any longer, and what leads to that alone."""
        left = [name]
        while left:
            name = left.pop()
            op = self.producer.get(name)
            if op is not None and not any(self.readers(o) or o in self.outputs for o in op.outputs):
                self.remove(op)
                self.free += [(member, op.op_type, "nothing reads its result") for member in op.members]
                left += filter(None, op.inputs)

    def constant(self, name: str) -> None:
        """Say that a new tensor is constant."""
        self.tensors[name] = replace(self.tensors[name], const=True)

    def swap_input(self, op: Op, old: str, new: str) -> None:
        """Let ``op`` read ``new`` where it read ``old``."""
        if old == new:
            return
        places = self._reads_no_more(op, old)
        own = _changeable(op)
        for place in places:
            own[place] = new
        self._reads(op, new, places)

    def swap_place(self, op: Op, place: int, new: str) -> None:
        """Let ``op`` read ``new`` as its input of this number, and what it read there elsewhere alone."""
        old = op.inputs[place]
        self._places(old)[op].remove(place)
        if not self.places(op, old):
            self._reads_no_more(op, old)
        _changeable(op)[place] = new
        self._reads(op, new, [place])

    def turn(self, op: Op, first: int, second: int) -> None:
        """Let ``op`` read two of its inputs the other way round."""
        own = _changeable(op)
        names = own[first], own[second]
        for name, old, new in zip(names, (first, second), (second, first), strict=True):
            own[new] = name
            if name and names[0] != names[1]:
                places = self._places(name)[op]
                places[places.index(old)] = new

    def give(self, new: str, old: str) -> None:
        """Let ``new`` be an output of the model, as which it is not known yet, in the place of ``old``."""
        self.outputs[new] = self.outputs.pop(old)

    def outputs_in_order(self) -> list[str]:
        """The model's outputs as it has them."""
        return [name for _, name in sorted((each, name) for name, places in self.outputs.items() for each in places)]

    def bypass(self, op: Op, reason: str) -> bool:
        """Take out an operator whose output equals its first input, unless both are the model's own; it is free."""
        source, out = op.inputs[0], op.outputs[0]
        if out in self.outputs:
            if source in self.inputs or source in self.outputs or self.const(source):
                return False
            self.give(source, out)
        for reader in list(self.readers(out)):
            self.swap_input(reader, out, source)
        self.remove(op)
        self.free += [(member, op.op_type, reason) for member in op.members]
        return True

    def fuse(
        self,
        ops: Iterable[Op],
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attrs: Mapping[str, Attr] = {},
    ) -> Op:
        """Replace operators by one, at the place of the last."""
        ops = sorted(dict.fromkeys(ops), key=_place)
        for op in ops:
            self.remove(op)
        members = tuple([op.nested for op in ops if op.nested])
        return self._put(Op(op_type, inputs, outputs, attrs, members), ops[-1].place)

    def refuse(self, ops: Iterable[Op], reason: str) -> None:
        """Remember why ``ops`` do not become one."""
        self.refusals.append(Refusal(frozenset(m for op in ops for m in op.members), reason))

    def rule_name(self, op: Op) -> str:
        """How fusion rules call an operator."""
        name = RULE_NAMES.get(op.op_type, op.op_type)
        group = op.attrs.get("group", 1)
        return "dwconv" if name == "conv" and group != 1 and group == self.shape(op.inputs[0])[1] else name

    def executed(self, op: Op) -> Operator:
        """The operator as its config is read."""
        return op.core or self.as_it_stands(op)

    def as_it_stands(self, op: Op) -> Operator:
        """The operator of its own inputs, outputs and attributes."""
        return Operator(
            op.op_type,
            tuple([self.tensors[i] if i else None for i in op.inputs]),
            tuple([self.tensors[o] for o in op.outputs if o]),
            op.attrs,
            op.fused,
            op.layout,
            not self.outputs.keys().isdisjoint(op.outputs),
            bool(op.inputs) and op.inputs[0] in self.producer and self.only_reader(op.inputs[0]) is op,
        )


def _operator(node: Node) -> str:
    """Its type; one of a domain that is not known here may share the name of an operator and nothing else."""
    return node.op_type if node.domain in RULES else f"{node.domain}.{node.op_type}"


def _changeable(op: Op) -> list[str]:
    """Its inputs, as a list of its own."""
    if not isinstance(op.inputs, list):
        op.inputs = [*op.inputs]
    return op.inputs


def _place(op: Op) -> Place:
    return op.place
