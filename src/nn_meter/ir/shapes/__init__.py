"""Shapes and dtypes of a node's outputs: a table from operator to rule.

The rules follow the operator's definition (https://onnx.ai/onnx/operators/, and for ``com.microsoft``
onnxruntime's ContribOperators.md). Where opsets differ in form (attributes that became inputs), a rule takes
both. ``ConstantOfShape`` carries its value as the attributes ``value`` (a number) and ``dtype``.
"""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir.graph import Node, Tensor
from nn_meter.ir.shapes import _classical, _contributed, _elementwise, _layout, _linear, _spatial
from nn_meter.ir.shapes._dtypes import DTYPES, dtype_of
from nn_meter.ir.shapes._fold import MAX_ELEMENTS, fold
from nn_meter.ir.shapes._forms import check, check_attributes
from nn_meter.ir.shapes._layout import FOUND
from nn_meter.ir.shapes._site import Rule, ShapeError, Site, ValueNeeded

__all__ = [
    "DTYPES", "FOUND", "MAX_ELEMENTS", "RULES", "ShapeError", "ValueNeeded", "check_attributes", "dtype_of", "infer",
]  # fmt: skip

_ONNX: dict[str, Rule] = {**_elementwise.RULES, **_spatial.RULES, **_linear.RULES, **_layout.RULES}
_MICROSOFT: dict[str, Rule] = {
    **_ONNX,
    **_elementwise.MICROSOFT,
    **_spatial.MICROSOFT,
    **_linear.MICROSOFT,
    **_contributed.MICROSOFT,
}

RULES: dict[str, dict[str, Rule]] = {
    "": _ONNX,
    "ai.onnx": _ONNX,
    "com.microsoft": _MICROSOFT,
    "com.microsoft.nchwc": _MICROSOFT,
    "ai.onnx.ml": _classical.RULES,
}
"""Domain to operator to rule."""

_ALWAYS_CONST = frozenset(("Shape", "Size"))
_NEVER_CONST = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
)
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def infer(node: Node, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The tensors that ``node`` computes, one for each output that is not ``""``.

    Where the data decides how many elements an operator finds (``FOUND``) it is the most that there can be. A tensor is
    ``const`` where every input is, and holds its ``value`` where those of all inputs are known
    and it has at most ``MAX_ELEMENTS`` elements. ``Shape`` and ``Size`` are constant whatever they read.

    Args:
        node: The node; its attributes in the form of any opset.
        inputs: Its inputs in order, ``None`` for an optional one left out.

    Raises:
        ShapeError: no rule for the operator, or shapes that do not fit; names the operator and the node.
    """
    op_type = node.op_type
    rule = RULES.get(node.domain, {}).get(op_type)
    if rule is None:
        operator = f"{node.domain}.{op_type}" if node.domain else op_type
        raise ShapeError(f"node {node.name!r}: no shape rule for the operator {operator}")
    site = Site(node, inputs)
    const = op_type not in _NEVER_CONST
    if const and op_type not in _ALWAYS_CONST:
        for tensor in inputs:
            if tensor is not None and not tensor.const:
                const = False
                break
    try:
        check(node, inputs)
        outs = rule(site)
        if not const:
            if len(node.outputs) == 1:
                shape, dtype = outs[0]
                return (Tensor(node.outputs[0], shape, dtype),)
            values: Sequence[tuple[int | float, ...] | None] = (None,) * len(outs)
        else:
            values = fold(site, outs)
    except ValueNeeded as error:
        raise ValueNeeded(f"node {node.name!r} ({op_type}): {error}", error.tensor) from None
    except ShapeError as error:
        raise ShapeError(f"node {node.name!r} ({op_type}): {error}") from None
    except _MALFORMED as error:
        shapes = ", ".join(str(tensor.shape) if tensor is not None else "none" for tensor in inputs)
        raise ShapeError(
            f"node {node.name!r} ({op_type}): inputs of shape {shapes} and attributes {dict(node.attrs)} "
            f"do not fit ({error})"
        ) from error
    if len(node.outputs) > len(outs):
        raise ShapeError(
            f"node {node.name!r} ({op_type}): has {len(node.outputs)} outputs, the operator {len(outs)}"
        )
    made = zip(node.outputs, outs, values, strict=False)
    return tuple([Tensor(name, shape, dtype, const, value) for name, (shape, dtype), value in made if name])
