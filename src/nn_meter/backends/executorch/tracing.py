"""Which calls the profiler's events belong to.

An event outside XNNPACK has the number of its instruction. XNNPACK tells kinds alone, in the order of the graph that it
was handed; what it joins with a neighbour tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from nn_meter.backends.executorch.conversion import Converted, Step
from nn_meter.errors import BackendError
from nn_meter.frontends.tflite.flatbuffer import Table, root
from nn_meter.runtimes.base import LAYOUT_CHANGE
from nn_meter.runtimes.executorch import JOINED
from nn_meter.runtimes.trace import ExecutedKernel
from nn_meter.storage import legible

_RUNS, _NAME, _EVENTS, _PROFILED = 1, 0, 3, 0
_CALLED, _INSTRUCTION, _INSIDE, _START, _END = 0, 2, 4, 6, 7
"""Slots of the tables of a trace (``devtools/etdump/etdump_schema_flatcc.fbs``)."""
_PREFIX_BYTES = 4
"""A trace begins with its length."""
_OUTSIDE = "OPERATOR_CALL"
_FLOORED_MS = 0.5e-3

_TOLD: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        1: ("Add",),
        2: ("Fully Connected",),
        3: ("Softmax",),
        4: ("Sigmoid",),
        5: ("Transpose",),
        6: ("Clamp",),
        7: ("Convolution", "Fully Connected"),
        8: ("Divide",),
        9: ("Resize Bilinear",),
        10: ("Constant Pad",),
        11: ("Average Pooling",),
        12: ("Minimum",),
        13: ("Convolution",),
        14: ("Max Pooling",),
        15: ("Multiply",),
        16: ("Subtract",),
        17: ("Floor",),
        19: ("Mean", "Sum", "Global Average Pooling"),
        20: ("Static Reshape", "Copy"),
        22: ("Square Root",),
        23: ("Ceiling",),
        24: ("HardSwish",),
        25: ("LeakyReLU",),
        26: ("Maximum",),
        27: ("Negate",),
        28: ("Square",),
        29: ("ELU",),
        30: ("Abs",),
        31: ("PReLU",),
        32: ("Copy",),
        33: ("Copy",),
        34: ("Copy",),
        35: ("Slice", "Copy"),
        36: ("Scaled Dot-Product Attention",),
        37: ("Batch Matrix Multiply", "Fully Connected"),
        38: ("Copy",),
        39: ("Deconvolution",),
        40: ("Reciprocal Square Root",),
        41: ("Log",),
        42: ("GELU", "ApproxGELU"),
        43: ("TanH",),
        44: ("Exp",),
        45: ("Sine",),
        46: ("Copy",),
        47: ("Cosine",),
    }
)
"""Number of a node of XNNPACK's graph (``XNodeUnion`` of the schema) to how what it tells of it may begin."""


@dataclass(frozen=True, slots=True)
class Event:
    """A kernel as the profiler tells it."""

    name: str
    inside: bool
    instruction: int
    latency_ms: float


def runs(trace: bytes) -> list[list[Event]]:
    """The kernels of each run."""
    return [
        [event for told in run.tables(_EVENTS) if (event := _event(told.table(_PROFILED))) is not None]
        for run in root(memoryview(trace)[_PREFIX_BYTES:]).tables(_RUNS)
        if run.text(_NAME) == "Execute"
    ]


def _event(told: Table | None) -> Event | None:
    if told is None:
        return None
    inside = told.text(_INSIDE)
    if not inside and told.text(_CALLED) != _OUTSIDE:
        return None
    latency_ms = (told.integer(_END, "q") - told.integer(_START, "q")) / 1e6
    name = inside.rpartition(" #")[0] if inside else _OUTSIDE
    return Event(name, bool(inside), told.integer(_INSTRUCTION, "i", -1), latency_ms + bool(inside) * _FLOORED_MS)


def kernels(events: Sequence[Event], model: Converted) -> list[tuple[ExecutedKernel, tuple[int, ...]]]:
    """What was executed, in its order, each with the places of its events.

    Raises:
        BackendError: events that belong to no step of the program; says which.
    """
    found: list[tuple[int, str, str, list[int]]] = []
    for number, part in enumerate(model.parts):
        own = [place for place, event in enumerate(events) if event.instruction == number]
        if own and not events[own[0]].inside:
            found.append((part[0].call, model.calls[part[0].call].op_type, "executorch", own))
            continue
        for step, places in _matched(part, [(place, events[place].name) for place in own]):
            kind = events[places[-1]].name if step.call >= 0 else LAYOUT_CHANGE
            found.append((step.call, kind, "xnnpack", places))
    told = {call for call, *_ in found}
    silent = [number for number in range(len(model.calls)) if number not in told]
    return [
        (_kernel(place, call, kind, domain, silent, model), tuple(places))
        for place, (call, kind, domain, places) in enumerate(found)
    ]


def _kernel(
    place: int, call: int, kind: str, domain: str, silent: Sequence[int], model: Converted
) -> ExecutedKernel:
    if call < 0:
        return ExecutedKernel(f"{kind}_{place}", kind, domain, (), (), (), ())
    own = model.calls[call]
    nodes, last = list(own.nodes), own
    for number in silent:  # what is computed with what it reads
        other = model.calls[number]
        if other.op_type in JOINED and other.input_names[0] in last.output_names:
            nodes += other.nodes
            last = other
    return replace(
        own,
        name=f"{own.name}_{place}",
        op_type=kind,
        domain=domain,
        outputs=last.outputs,
        output_names=last.output_names,
        nodes=tuple(nodes),
    )


def _matched(part: Sequence[Step], told: Sequence[tuple[int, str]]) -> list[tuple[Step, list[int]]]:
    """The steps that tell something, each with the places of what they tell."""
    found: list[tuple[Step, list[int]]] = []
    at = 0
    for place, name in told:
        following = next((i for i in range(at, len(part)) if name.startswith(_TOLD.get(part[i].kind, ()))), None)
        if following is None:
            raise BackendError(
                f"ExecuTorch tells of {legible(name)}, which belongs to no step of its program; nn-meter knows the "
                "kernels of executorch 1.5: install that"
            )
        found.append((part[following], [place]))
        at = following + 1
    return found
