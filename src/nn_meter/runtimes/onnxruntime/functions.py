"""Operators without a kernel: the runtime executes the operators by which ONNX defines them, each as it stands there.

It writes them out after it has folded constants and fused what it fuses, so that arithmetic on shapes is executed, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from nn_meter.ir import Attr, Node, Tensor, infer
from nn_meter.ir.shapes import DTYPES, dtype_of
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options


class Step(NamedTuple):
    """One operator of a body; what it reads and computes is named as in the body."""

    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attrs: Mapping[str, Attr] = MappingProxyType({})


class Body(NamedTuple):
    """What an operator consists of; its own operands are ``inputs`` and ``outputs``."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    steps: Sequence[Step]


_SIXTH: Mapping[str, Attr] = MappingProxyType({"alpha": 1 / 6})

_OFTEN: Mapping[str, Body] = MappingProxyType(
    {
        "HardSwish": Body("X", "Y", (Step("HardSigmoid", "X", "G", _SIXTH), Step("Mul", "XG", "Y"))),
        "Mish": Body("X", "Y", (Step("Softplus", "X", "S"), Step("Tanh", "S", "G"), Step("Mul", "XG", "Y"))),
    }
)
"""Those that models hold often, so that ``onnx`` is not imported for them (onnx.ai/onnx/operators)."""

_SELDOM = (
    "Bernoulli", "CastLike", "CenterCropPad", "GroupNormalization", "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss", "Swish",
)  # fmt: skip

FUNCTIONS = (*_OFTEN, *_SELDOM)
"""Operators that the runtime executes as others."""

OPSET = 24
"""Whose definitions are taken: the newest that has kernels for what these consist of."""


def expand_functions(work: Work, options: Options) -> None:
    """Replace each by the operators of its body; those in a blocked layout have been fused."""
    while todo := [op for op in work.ops(*FUNCTIONS) if not op.layout]:
        for op in todo:
            expand(work, op)


def expand(work: Work, op: Op) -> None:
    """Replace an operator by those of its body."""
    body = _OFTEN.get(op.op_type) or _defined(work, op)
    names = {"": ""} | dict(zip(body.outputs, op.outputs, strict=False))
    names |= dict(zip(body.inputs, [*op.inputs, *[""] * len(body.inputs)], strict=False))
    stem, members = op.outputs[0], op.members
    known: dict[str, Tensor] = {}  # what follows from shapes is known, and computed all the same
    work.remove(op)
    for step in body.steps:
        outputs = [names.setdefault(out, f"{stem}/{out}") for out in step.outputs]
        if step.op_type == "Constant":
            work.tensors[outputs[0]] = _constant(outputs[0], step.attrs)
            continue
        inputs = [names[each] for each in step.inputs]
        node = Node(stem, step.op_type, tuple(inputs), tuple(outputs), step.attrs)
        for tensor in infer(node, [known.get(each) or work.tensors[each] if each else None for each in inputs]):
            known[tensor.name] = tensor
            work.tensors.setdefault(tensor.name, replace(tensor, const=False))
        made = Op(step.op_type, inputs, outputs, step.attrs, members)
        if members:
            work.add(made, at=op)
        else:
            work.add(made, behind=op)
        members = ()


def _constant(name: str, attrs: Mapping[str, Attr]) -> Tensor:
    value = next(iter(attrs.values()))
    values = value if isinstance(value, tuple) else (value,)
    dtype = str(attrs["dtype"]) if "dtype" in attrs else "int64" if isinstance(values[0], int) else "float32"
    return Tensor(name, (len(values),) if isinstance(value, tuple) else (), dtype, True, values)  # type: ignore[arg-type]


def _defined(work: Work, op: Op) -> Body:
    """The body that ONNX's definition gives for these operands."""
    from onnx import FunctionProto, TypeProto, defs, helper

    older = op.attrs.get("opset")
    schema = defs.get_schema(op.op_type, older if isinstance(older, int) else OPSET)
    node = helper.make_node(op.op_type, op.inputs, op.outputs)
    for name, value in op.attrs.items():
        declared = schema.attributes.get(name)
        if declared is not None:
            real = declared.type.value == helper.make_attribute("", 1.0).type
            node.attribute.append(helper.make_attribute(name, float(value) if real else value))  # type: ignore[arg-type]
    if schema.has_function:
        function: Any = schema.function_body
    else:
        types = [_type(work.tensors[each]) if each else TypeProto() for each in op.inputs]
        read = schema.get_context_dependent_function(node.SerializeToString(), [t.SerializeToString() for t in types])
        function = FunctionProto.FromString(read)
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            given[name] = helper.get_attribute_value(attribute.default_value)
    steps = [Step(each.op_type, each.input, each.output, _attrs(each, given)) for each in function.node]
    return Body(function.input, function.output, steps)


def _type(tensor: Tensor) -> Any:
    from onnx import helper

    return helper.make_tensor_type_proto(DTYPES.index(tensor.dtype), tensor.shape)


def _attrs(node: Any, given: Mapping[str, Any]) -> dict[str, Attr]:
    """Attributes in our terms; those that refer to the operator's own take their values."""
    from onnx import TensorProto, helper, numpy_helper

    found: dict[str, Attr] = {}
    for each in node.attribute:
        value = given.get(each.ref_attr_name) if each.ref_attr_name else helper.get_attribute_value(each)
        if isinstance(value, TensorProto):
            array = numpy_helper.to_array(value)
            found[each.name] = tuple(array.reshape(-1).tolist()) if array.ndim else array.item()
            found["dtype"] = dtype_of(value.data_type)
        elif isinstance(value, bytes):
            found[each.name] = value.decode()
        elif value is not None:
            found[each.name] = tuple(value) if isinstance(value, list) else value
    return found
