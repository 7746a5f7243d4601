"""What a runtime is: one value that says all that is known of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.ir import Graph
from nn_meter.kernels.kinds import Operator
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.kernels.work import BY_DATA
from nn_meter.runtimes.trace import ExecutedKernel

LAYOUT_CHANGE = "LayoutChange"
"""Executed kernels that only change the order of axes, which no node of the graph asked for."""

_NO_RULES = read_rules({})


@dataclass(frozen=True, slots=True)
class Options:
    """What passes may ask: the rules, detected or written down, and facts that hold beside them."""

    rules: RuleSet
    facts: Mapping[tuple[str, ...], bool] = field(default_factory=dict)

    def denies(self, work: Work, producer: Op, consumer: Op) -> bool:
        """Whether a rule is there for the pair and does not admit it: it says no, or is undecided.

        Rules with ``add`` are about sums of two values, not about biases.
        """
        if consumer.op_type == "Add" and any(work.const(i) for i in consumer.inputs):
            return False
        pair = work.rule_name(producer), work.rule_name(consumer)
        return pair in self.rules.pairs and not self.rules.fuses(*pair)


Run = Callable[[Work, Options], None]


@dataclass(frozen=True, slots=True)
class Pass:
    """One step of a runtime's optimiser. ``replays`` is what the runtime calls it; it is run by the versions from
    ``since`` on and before ``until``, all where they are empty."""

    name: str
    run: Run
    replays: str = ""
    since: str = ""
    until: str = ""

    def holds(self, version: str) -> bool:
        """Whether that version runs it; an empty one stands for the newest."""
        if not version:
            return not self.until
        asked = _numbers(version)
        return _numbers(self.since) <= asked and (not self.until or asked < _numbers(self.until))


def rewriting(*patterns: Pattern) -> Run:
    """A pass that makes one operator of each occurrence of the patterns, one pattern after the other."""

    def run(work: Work, options: Options) -> None:
        for pattern in patterns:
            pattern.rewrite(work)

    return run


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a runtime makes of a graph, and how to read what it says that it executed.

    Attributes:
        name: as new rule files call it.
        known_as: what rule files and backends call it besides.
        passes: in the order in which they run, those of all versions.
        facts: rules over operators that hold beside those of a rule file: what no test case shows.
        settled: whether its facts say all: rules change nothing, and builds detect none. One about ReLU would else
            speak for all that is like it.
        read: one of its executed kernels in our terms; ``None`` where its kernels are read by the nodes of the model
            that they cover.
        layout_kernels: operators of executed kernels that only change a layout; they come and go with what
            surrounds an operator.
        precisions: numpy's names of the element types that its passes are known to hold for; builds measure networks
            of these alone, since what it computes with integers would be filed as what it does with floats.
        views: why what only looks at data another way costs nothing there; empty where it costs something.
        idle: names of a graph's nodes that are not executed, though they stand in a kernel that is: nothing of its
            config follows from them.
        laid: says of a graph's operators, but those of the nodes that it is given, how their data lies, where what they
            cost follows from that.
        few: element types that only these of its operators take; it refuses a model that has others of them.
        by_data: names of kernels' categories, operators above all, by themselves or behind their column's, whose time
            follows from the values by more than a factor of two, and how: none of them is *predicted*.
        free: what becomes of sizes that a file leaves to each inference.
    """

    name: str
    passes: tuple[Pass, ...]
    known_as: tuple[str, ...] = ()
    facts: Mapping[tuple[str, ...], bool] = field(default_factory=lambda: MappingProxyType({}))
    settled: bool = False
    read: Callable[[ExecutedKernel], Operator] | None = None
    layout_kernels: frozenset[str] = frozenset()
    precisions: tuple[str, ...] = ("float32",)
    views: str = ""
    idle: Callable[[Graph], frozenset[str]] = lambda graph: frozenset()
    laid: Callable[[Work, Collection[str]], None] = lambda work, idle: None
    few: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    by_data: Mapping[str, str] = field(default_factory=lambda: BY_DATA)
    free: str = "it is answered for as if they were fixed before the runtime compiles it"

    def passes_of(self, version: str = "") -> tuple[Pass, ...]:
        """The passes that a version runs; an empty or unreadable one stands for the newest."""
        known = version if _numbers(version) else ""
        return tuple(each for each in self.passes if each.holds(known))

    def optimise(self, work: Work, rules: RuleSet, version: str = "") -> Work:
        """Run the passes on ``work``; returns it. What ``rules`` deny or leave undecided is not fused.

        Raises:
            UnsupportedOperatorError: the runtime refuses an operator for its element type.
        """
        self._check(work)
        options = Options(_NO_RULES if self.settled else rules, self.facts)
        for each in self.passes_of(version):
            each.run(work, options)
        return work

    def _check(self, work: Work) -> None:
        few = self.few.keys() & {tensor.dtype for tensor in work.tensors.values()} if self.few else ()
        for op in work.ops() if few else ():
            for name in (*op.inputs, *op.outputs):
                dtype = work.tensors[name].dtype if name else ""
                if dtype in few and op.op_type not in self.few[dtype]:
                    raise UnsupportedOperatorError(
                        f"{op.members[0]} is a {op.op_type} of {dtype}, for which {self.name} has no kernel on a CPU: "
                        "it does not load the model; export it in float32 (in PyTorch: model.float())"
                    )


@cache
def _numbers(version: str) -> tuple[int, ...]:
    """``1.32.0`` as numbers, without what follows them; empty where it begins with none."""
    match = re.match(r"\d{1,9}(\.\d{1,9})*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
