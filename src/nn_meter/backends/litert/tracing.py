"""Which operators of a TFLite file the profiler's events belong to.

Those outside XNNPACK have the operator's number. XNNPACK tells kinds alone, in the order of the file, for each part of
the file that it was handed. What it joins with a neighbour tells nothing: a PAD with the convolution behind it, a
SQUARE with the MEAN behind it, a clamp with what is before. A layer may tell of a view before it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nn_meter.backends.litert.model import Stored, Written
from nn_meter.backends.litert.native import Event
from nn_meter.errors import BackendError
from nn_meter.runtimes.base import LAYOUT_CHANGE
from nn_meter.runtimes.trace import ExecutedKernel
from nn_meter.storage import legible

_VIEW = "Static Reshape (NC)"
_LAYER = "Fully Connected"
"""What a linear layer tells, and what it tells before that where its operand has two axes."""

_TOLD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ABS": ("Abs",),
        "ADD": ("Add",),
        "AVERAGE_POOL_2D": ("Average Pooling",),
        "BATCH_MATMUL": ("Batch Matrix Multiply", _LAYER),
        "CEIL": ("Ceiling",),
        "CONCATENATION": ("Copy",),
        "CONV_2D": ("Convolution", _LAYER),
        "COS": ("Cosine",),
        "DEPTHWISE_CONV_2D": ("Convolution",),
        "DEPTH_TO_SPACE": ("Depth To Space",),
        "DIV": ("Divide",),
        "ELU": ("ELU",),
        "EXP": ("Exp",),
        "FLOOR": ("Floor",),
        "FULLY_CONNECTED": (_LAYER, _VIEW),
        "GELU": ("GELU", "ApproxGELU"),
        "HARD_SWISH": ("HardSwish",),
        "LEAKY_RELU": ("LeakyReLU",),
        "LOG": ("Log",),
        "LOGISTIC": ("Sigmoid",),
        "MAXIMUM": ("Maximum", "Clamp"),
        "MAX_POOL_2D": ("Max Pooling",),
        "MEAN": ("Mean",),
        "MINIMUM": ("Minimum", "Clamp"),
        "MUL": ("Multiply",),
        "NEG": ("Negate",),
        "PAD": ("Constant Pad",),
        "POW": ("Power",),
        "PRELU": ("PReLU",),
        "REDUCE_MAX": ("Reduce Max",),
        "REDUCE_MIN": ("Reduce Min",),
        "RELU": ("Clamp",),
        "RELU6": ("Clamp",),
        "RELU_N1_TO_1": ("Clamp",),
        "RESHAPE": (_VIEW,),
        "RESIZE_BILINEAR": ("Resize Bilinear",),
        "ROUND": ("Bankders Rounding",),
        "RSQRT": ("Reciprocal Square Root",),
        "SIGN": ("Sign",),
        "SIN": ("Sine",),
        "SLICE": ("Slice",),
        "SOFTMAX": ("Softmax",),
        "SPACE_TO_DEPTH": ("Space To Depth",),
        "SPLIT": ("Copy",),
        "SQRT": ("Square Root",),
        "SQUARE": ("Square",),
        "SQUARED_DIFFERENCE": ("Squared Difference",),
        "STRIDED_SLICE": ("Slice",),
        "SUB": ("Subtract",),
        "SUM": ("Sum", "Normalize"),
        "TANH": ("TanH",),
        "TRANSPOSE": ("Transpose",),
        "TRANSPOSE_CONV": ("Deconvolution",),
    }
)
"""Operator of the file to how what XNNPACK tells of it may begin."""

_CLAMPS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1"})


def kernels(
    events: Sequence[Event], operators: Sequence[Written]
) -> list[tuple[ExecutedKernel, tuple[int, ...]]]:
    """What was executed, in its order, each with the places of its events.

    Raises:
        BackendError: events that belong to no operator; says which.
    """
    places = _places(events, operators)
    nodes = {number: list(operators[number].nodes) for number in places}
    makers = {stored.number: number for number, each in enumerate(operators) for stored in each.outputs}
    part_of = {number: number for number in places}
    for number, operator in enumerate(operators):
        maker = makers.get(operator.inputs[0].number)
        if number not in places and maker in part_of and _follows(operator, operators[maker]):
            part_of[number] = part_of[maker]
            nodes[part_of[maker]] += operator.nodes
    ordered = sorted(places.items(), key=lambda item: item[1])
    return [
        (_kernel(number, operators[number], events[own[-1]], tuple(nodes[number])), tuple(own))
        for number, own in ordered
    ]


def _follows(operator: Written, maker: Written) -> bool:
    """Whether what tells nothing is part of what is before it, and not of what is behind."""
    return operator.code in _CLAMPS or operator.code == maker.code == "RESHAPE"


def _kernel(number: int, operator: Written, event: Event, nodes: tuple[str, ...]) -> ExecutedKernel:
    def names(tensors: Sequence[Stored]) -> tuple[str, ...]:
        return tuple(f"t{each.number}" for each in tensors)

    return ExecutedKernel(
        name=f"{operator.code}_{number}",
        op_type=event.name if operator.nodes else LAYOUT_CHANGE,
        domain="xnnpack" if event.inside else "tflite",
        inputs=tuple(each.operand for each in operator.inputs),
        outputs=tuple(each.operand for each in operator.outputs),
        input_names=names(operator.inputs),
        output_names=names(operator.outputs),
        constant_inputs=frozenset(f"t{each}" for each in operator.constants),
        nodes=nodes,
    )


def _places(events: Sequence[Event], operators: Sequence[Written]) -> dict[int, list[int]]:
    """The places of each operator's events, by its number."""
    outside = {event.number for event in events if not event.inside}
    parts = _parts(operators, outside)
    found: dict[int, list[int]] = {}
    part: list[int] = []
    at = 0
    for place, event in enumerate(events):
        if not event.inside:
            if event.number >= len(operators):
                raise _unknown(f"{event.name} as the operator {event.number}")
            found.setdefault(event.number, []).append(place)
            continue
        if event.number == 0:  # the first of a part
            part, at = (parts.pop(0) if parts else []), 0
        if event.name == _VIEW and place + 1 < len(events):
            at = _layer_behind(part, at, operators, events[place + 1]) or at
        while at < len(part) and not event.name.startswith(_TOLD.get(operators[part[at]].code, ())):
            at += 1
        if at == len(part):
            raise _unknown(event.name)
        found.setdefault(part[at], []).append(place)
        if event.name != _VIEW or operators[part[at]].code != "FULLY_CONNECTED":
            at += 1
    return found


def _unknown(what: str) -> BackendError:
    return BackendError(
        f"LiteRT tells of {legible(what)}, which belongs to no operator of its file; nn-meter knows the kernels of "
        "ai-edge-litert 2.3: install that"
    )


def _layer_behind(part: Sequence[int], at: int, operators: Sequence[Written], following: Event) -> int:
    """Where the linear layer stands that a view just before it belongs to: one of two axes tells one; else 0."""
    layer = next((i for i in range(at, len(part)) if _LAYER in _TOLD.get(operators[part[i]].code, ())), 0)
    told = following.inside and following.name.startswith(_LAYER) and at < len(part)
    operator = operators[part[layer]] if told else None
    alone = operator is not None and operator.code == "FULLY_CONNECTED" and len(operator.inputs[0].shape) == 2
    return layer if alone else 0


def _parts(operators: Sequence[Written], outside: set[int]) -> list[list[int]]:
    """The operators that XNNPACK was handed together, as LiteRT parts a file: it goes through the file again and again,
    each time taking all of one side that can run (``PartitionGraphIntoIndependentNodeSubsets``)."""
    made = {stored.number: i for i, each in enumerate(operators) for stored in each.outputs}
    needs = [{made[s.number] for s in each.inputs if s.number in made} for each in operators]
    left, done, parts = list(range(len(operators))), set[int](), list[list[int]]()
    while left:
        side, part, rest = None, [], []
        for number in left:
            ready = needs[number] <= done
            if ready and side is None:
                side = number in outside
            if ready and (number in outside) == side:
                part.append(number)
                done.add(number)
            else:
                rest.append(number)
        if not side:
            parts.append(part)
        left = rest
    return parts
