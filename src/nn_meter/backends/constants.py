"""Constants of a model, those that are computed of others before inference included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nn_meter.errors import BackendError
from nn_meter.kernels.rewriting import Work


def constants(data: bytes, work: Work) -> dict[str, np.ndarray]:
    """Constants by name, those that are computed of others before inference included."""
    model = onnx.load_model_from_string(data)
    found = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for name, tensor in work.tensors.items():
        if name not in found and tensor.const and tensor.value is not None:
            found[name] = np.array(tensor.value, tensor.dtype).reshape(tensor.shape)
    read = {name for op in work.ops() for name in op.inputs if name}
    wanted = [name for name in read if name not in found and work.tensors[name].const]
    return found | _computed(model, wanted, found) if wanted else found


def _computed(model: Any, wanted: Sequence[str], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Constants that nodes compute of others.

    Raises:
        BackendError: onnx cannot compute them.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # type: ignore[misc]
        """onnx's own fails on rows of which elements are taken (onnx 1.23)."""

        def _run(self, data: np.ndarray, places: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
            return (np.take_along_axis(data, places, axis),)

    makers = {out: node for node in model.graph.node for out in node.output if out}
    needed, open_names, given = set[int](), list(wanted), dict[str, np.ndarray]()
    while open_names:
        name = open_names.pop()
        if name in found:
            given[name] = found[name]
        elif name and id(makers[name]) not in needed:
            needed.add(id(makers[name]))
            open_names += makers[name].input
    part = onnx.helper.make_graph(
        [node for node in model.graph.node if id(node) in needed],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    whole = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        with np.errstate(all="ignore"):
            arrays = ReferenceEvaluator(whole, new_ops=[GatherElements]).run(None, {})
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        kinds = ", ".join(sorted({node.op_type for node in part.node}))
        raise BackendError(f"{model.graph.name}: onnx cannot compute its constants, of {kinds}: {error}") from error
    return dict(zip(wanted, arrays, strict=True))
