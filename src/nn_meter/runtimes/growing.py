"""Kernels that grow operator by operator, where whoever knows a runtime admits it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.cores import FUSED_NAMES, core, operands, place, weight


class Growing:
    """A kernel while it grows. One operator alone takes a fourth of what several do: where many read one result, as
    many wait.

    Attributes:
        behind: its operators in the order in which they joined, but those of ``front``, which drew the others in later.
        main: the operator that gives it its kind.
        members: the nodes that it stands for, as the places of those that became one had them.
        at: the operator whose place it takes; ``since`` is its earliest one.
        types: of its operators.
        reads: what it reads of what others compute or the model is given.
        open: what it makes that others read or the model gives.
        several: how many of its operators read several such tensors; ``ends`` is whether the last one does.
    """

    __slots__ = (
        "_weight", "at", "behind", "ends", "front", "main", "members", "open", "reads", "several", "since", "types",
    )  # fmt: skip

    def __init__(self, work: Work, op: Op) -> None:
        self.front: Sequence[Op] = ()  # the last one first
        self.behind: Sequence[Op] = (op,)
        self.main = self.at = self.since = op
        self.members = op.nested
        self.types: Collection[str] = (op.op_type,)
        self.reads = _told(op.inputs, [i for i in op.inputs if i and not work.const(i)])
        self.open = _told(op.outputs, [*filter(None, op.outputs)])
        self.ends = operands(work, op) > 1
        self.several = int(self.ends)
        self._weight: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.front) + len(self.behind)

    @property
    def first(self) -> Op:
        """The operator before all others."""
        return self.front[-1] if self.front else self.behind[0]

    @property
    def last(self) -> Op:
        """The operator behind all others."""
        return self.behind[-1]

    def ops(self) -> list[Op]:
        """All of them."""
        return [*reversed(self.front), *self.behind]

    def weight(self, work: Work) -> tuple[int, int]:
        """Of its main operator: rank and size."""
        if self._weight is None:
            self._weight = weight(work, self.main)
        return self._weight

    def take(self, work: Work, other: Growing, front: bool) -> None:
        """Put in the only operator of ``other``; what the two read and make is left to who asks."""
        (op,) = other.behind
        if front:
            self.front = _with(self.front, op)
        else:
            self.behind = _with(self.behind, op)
        earlier, later = sorted((self, other), key=lambda each: each.at.place)
        self.members = earlier.members, later.members
        mine, its = self.weight(work), other.weight(work)
        if its > mine or (front and its == mine):
            self.main, self._weight = other.main, its
        if not isinstance(self.types, set):
            self.types = {*self.types}
        self.types.update(other.types)
        self.several += other.several
        self.ends = self.ends if front else other.ends
        self.since = min(self.since, other.since, key=place)


_FEW = 8
"""So many names are looked through as quickly as they are looked up."""

Names = dict[str, None] | tuple[str, ...]


def _told(names: Sequence[str], wanted: Sequence[str]) -> Names:
    """What is ``wanted`` of an operator's ``names``, each once: where they are all, its own tuple."""
    found = dict.fromkeys(wanted)
    if len(found) > _FEW:
        return found
    return names if isinstance(names, tuple) and len(found) == len(names) else tuple(found)


def _changeable(names: Names) -> dict[str, None]:
    return names if isinstance(names, dict) else dict.fromkeys(names)


def _with(ops: Sequence[Op], op: Op) -> list[Op]:
    """``ops``, a kernel's own, and one more."""
    found = ops if isinstance(ops, list) else [*ops]
    found.append(op)
    return found


STEPS = 500
"""Of walks through a graph for each of its operators, all walks together: what they have not found by then is not
there. Models need two, DenseNet-201 280 where all that several read may join."""


Judge = Callable[[Growing, Growing], bool]
"""What is asked of a kernel and of one that reads what it makes."""


class Growth:
    """Kernels while they grow. The graph stays as it is until all have grown, and of two that become one the single
    operator is put to the other, so that time grows with the number of operators."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._of: dict[Op, Growing] = {}
        self._counts: dict[str, int] = {}  # kernels that read a tensor, where they are fewer than operators
        self._left = 0

    def join(self, admits: Judge, shares: Judge | None, early: bool = False) -> None:
        """Let each operator join the kernel that computes what it reads, where that ``admits`` it and nobody else reads
        it, or the kernel ``shares`` it. ``early``: a kernel that shares what it makes stands where it stood before, so
        that all it reads has to be made by then."""
        ops = list(self._work.ops())
        self._left = STEPS * len(ops)
        for op in ops:
            kernel = self._kernel(op)
            if len(kernel) == 1:
                op.core = core(self._work, [op])
                op.layout = op.core.layout
                if len(self._grow(kernel, admits, shares, early)) == 1:
                    del self._of[op]
        for kernel in dict.fromkeys(self._of.values()):
            if len(kernel) > 1:
                _put_in(self._work, kernel)

    def made_before(self, kernel: Growing, reader: Growing) -> bool:
        """Whether all that ``reader`` reads beside what ``kernel`` makes is made before."""
        for name in reader.reads:
            self._left -= 1
            maker = self._maker(name)
            if maker is not None and maker is not kernel and not maker.at.place < kernel.at.place:
                return False
        return self._left > 0

    def waits(self, kernel: Growing, reader: Growing) -> bool:
        """Whether ``reader`` needs something that others compute from what ``kernel`` makes."""
        names = [name for name in reader.reads if name not in kernel.open]
        seen: set[Growing] = set()
        while names and self._left > 0:
            self._left -= 1
            maker = self._maker(names.pop())
            if maker is kernel:
                return True
            if maker is not None and maker not in seen and not maker.at.place < kernel.since.place:
                seen.add(maker)
                names += maker.reads
        return bool(names) or self._left <= 0

    def _kernel(self, op: Op) -> Growing:
        found = self._of.get(op)
        if found is None:
            found = self._of[op] = Growing(self._work, op)
        return found

    def _maker(self, name: str) -> Growing | None:
        op = self._work.producer.get(name)
        return None if op is None else self._kernel(op)

    def _count(self, name: str) -> int:
        found = self._counts.get(name)
        return len(self._work.readers(name)) if found is None else found

    def _grow(self, kernel: Growing, admits: Judge, shares: Judge | None, early: bool) -> Growing:
        """Ask who reads what ``kernel`` makes: when it is made, and again where the kernel's kind changes or one is
        left."""
        work = self._work
        asked = deque(kernel.open)
        while asked:
            name = asked.popleft()
            if shares is None and not self._alone(name):
                continue
            denied: set[Growing] = set()
            for op in [*work.readers(name)]:
                reader = self._kernel(op)  # when it has its turn: of many that join, none waits
                if reader is kernel or reader in denied or len(kernel) > 1 < len(reader):
                    continue
                if (self._alone(name) or (shares is not None and shares(kernel, reader))) and admits(kernel, reader):
                    kernel, more = self._merged(kernel, reader, early)
                    asked += more
                elif len(reader) > 1:
                    denied.add(reader)
        return kernel

    def _alone(self, name: str) -> bool:
        return self._count(name) == 1 and name not in self._work.outputs

    def _merged(self, kernel: Growing, reader: Growing, early: bool) -> tuple[Growing, Iterable[str]]:
        """One of two, and the tensors whose readers are to be asked."""
        front = len(reader) > 1
        one, other = (kernel, reader) if front else (reader, kernel)
        reads, made = _changeable(other.reads), _changeable(other.open)
        other.reads, other.open = reads, made
        between = [name for name in one.open if name in reads] if front else [
            name for name in one.reads if name in made
        ]
        for name in (*between, *(name for name in one.reads if name in reads)):
            self._counts[name] = self._count(name) - 1
        closed = {name for name in between if not self._counts[name] and name not in self._work.outputs}
        own = [name for name in one.open if name not in closed]
        more, rank = [*(name for name in between if self._counts[name] == 1), *own], other.weight(self._work)[0]
        if front:
            for name in between:
                del reads[name]
            reads |= dict.fromkeys(one.reads)
        else:
            for name in closed:
                del made[name]
            inner = {*between}
            reads |= dict.fromkeys([name for name in one.reads if name not in inner])
        still_open = own if front else made
        at = kernel.at if early and still_open else max(kernel.at, reader.at, key=place)
        made |= dict.fromkeys(own)
        other.take(self._work, one, front)
        other.at = at
        self._of[one.last] = other
        return other, more if other.weight(self._work)[0] == rank else list(other.open)


def _put_in(work: Work, kernel: Growing) -> None:
    """Replace the operators of a kernel by one."""
    ops = kernel.ops()
    for op in ops:
        work.remove(op)
    made = {name for op in ops for name in op.outputs}
    others = (name for op in ops[1:] for name in op.inputs if name and name not in made and not work.const(name))
    outputs = [name for op in ops for name in op.outputs if name in kernel.open]
    config = core(work, ops)
    merged = Op(config.op_type, [*ops[0].inputs, *others], outputs, config.attrs, kernel.members)
    merged.core, merged.layout = config, config.layout
    merged.fused = tuple(FUSED_NAMES.get(op.op_type, work.rule_name(op)) for op in ops if op is not kernel.main)
    work.add(merged, at=kernel.at)
