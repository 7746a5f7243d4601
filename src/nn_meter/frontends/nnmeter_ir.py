"""nn-Meter's own graph files: a JSON object of nodes, in the spellings of its ONNX and TensorFlow converters.

A node is ``name: {"attr": {"type", "attr", "input_shape", "output_shape"}, "inbounds", "outbounds"}``; shapes
of four dimensions are NHWC; weights are left out. ``read`` turns it into a graph and ``write`` a graph into it.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import GraphError, ModelFormatError
from nn_meter.frontends._source import are_weights, head, path_of
from nn_meter.ir import Attr, Graph, Node, Tensor, verify
from nn_meter.ir.shapes import check_attributes
from nn_meter.limits import DIMENSION, RANK, TEXT_BYTES
from nn_meter.storage import check_json, read_bytes

name = "nnmeter_ir"
suffixes = (".json", ".json.gz")

_GZIP = b"\x1f\x8b"
_NODE_KEYS = (b'"attr"', b'"inbounds"', b'"outbounds"')


def sniff(source: object) -> bool:
    """Whether ``source`` is such a dictionary, or starts like the text of one: an object of nodes."""
    if isinstance(source, Mapping):
        return not are_weights(source)
    start = head(source).lstrip()
    if start[:2] == _GZIP:
        path = path_of(source)
        return path is not None and ".json" in path.suffixes
    return start[:1] == b"{" and any(key in start for key in _NODE_KEYS)


def load(source: object) -> dict[str, Any]:
    """The dictionary itself, from a dictionary, JSON bytes or a file (gzip too).

    Raises:
        ModelFormatError: no such file, no JSON, or no object of nodes.
    """
    if isinstance(source, Mapping):
        ir: object = source
        label = "nn-Meter IR"
    else:
        label = str(source) if isinstance(source, str | Path) else "nn-Meter IR"
        data = source if isinstance(source, bytes) else read_bytes(str(source), "nn-Meter IR", ModelFormatError)
        try:
            text = _unpacked(data) if data[:2] == _GZIP else data
            check_json(text, label, ModelFormatError)
            ir = json.loads(text)
        except (ValueError, OSError, EOFError, RecursionError, zlib.error) as error:
            raise ModelFormatError(f"{label}: no valid JSON, so no nn-Meter IR: {error}") from error
    if not isinstance(ir, dict) or not ir:
        raise ModelFormatError(f"{label}: nn-Meter IR is an object with at least one node, found {type(ir).__name__}")
    for node_name, node in ir.items():
        _check(label, node_name, node)
    return ir


def _unpacked(data: bytes) -> bytes:
    """What is in a gzip file, as far as the limit goes and one byte more."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(TEXT_BYTES.most + 1)


def _check(label: str, node_name: str, node: Any) -> None:
    attr = node.get("attr") if isinstance(node, dict) else None
    if not isinstance(attr, dict) or not isinstance(attr.get("type"), str) or not isinstance(attr.get("attr"), dict):
        raise ModelFormatError(
            f"{label}: node {node_name!r} needs an entry 'attr' with 'type', 'attr', 'input_shape' and 'output_shape'"
        )
    if not isinstance(node.get("inbounds"), list) or not all(isinstance(i, str) for i in node["inbounds"]):
        raise ModelFormatError(f"{label}: node {node_name!r}: 'inbounds' must be a list of node names")
    for key in ("input_shape", "output_shape"):
        shapes = attr.get(key)
        if not isinstance(shapes, list) or not all(
            isinstance(s, list) and all(type(d) is int for d in s) for s in shapes
        ):
            raise GraphError(f"{label}: node {node_name!r}: {key!r} must be a list of shapes, found {shapes!r:.80}")
        _check_sizes(label, node_name, shapes)


def _check_sizes(label: str, node_name: str, shapes: Sequence[Sequence[int]]) -> None:
    for shape in shapes:
        RANK.check(len(shape), f"{label}: node {node_name!r}", GraphError)
        DIMENSION.check(max(shape, default=0), f"{label}: node {node_name!r}", GraphError)


def _nchw(shape: Sequence[int]) -> tuple[int, ...]:
    """Logical NCHW; an unknown batch counts as 1."""
    dims = [1 if i == 0 and d < 0 else d for i, d in enumerate(shape)]
    return (dims[0], dims[3], dims[1], dims[2]) if len(dims) == 4 else tuple(dims)


def _nhwc(shape: Sequence[int]) -> list[int]:
    return [shape[0], shape[2], shape[3], shape[1]] if len(shape) == 4 else list(shape)


def _attrs(raw: Mapping[str, Any]) -> dict[str, Attr]:
    found: dict[str, Attr] = {}
    for key, value in raw.items():
        if isinstance(value, bool):
            found[key] = int(value)
        elif isinstance(value, int | float | str):
            found[key] = value
        elif isinstance(value, list) and all(type(v) in (int, float, str) for v in value):
            found[key] = tuple(value)
    return found


_TENSORFLOW: Mapping[str, str] = MappingProxyType(
    {
        "AddV2": "Add",
        "AvgPool": "AveragePool",
        "BiasAdd": "Add",
        "ConcatV2": "Concat",
        "Const": "Constant",
        "Conv2D": "Conv",
        "DepthwiseConv2dNative": "Conv",
        "FusedBatchNorm": "BatchNormalization",
        "FusedBatchNormV3": "BatchNormalization",
        "Mean": "ReduceMean",
        "Pack": "Concat",
        "Placeholder": "Identity",
        "RealDiv": "Div",
        "Relu6": "Clip",
        "StridedSlice": "Slice",
    }
)
"""nn-Meter's TensorFlow operators to ONNX's; the node keeps the first as its ``origin``."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators that have a weight, in the file or not."""


def _weights(
    op: str, kind: str, attr: Mapping[str, Any], data: Sequence[tuple[int, ...]], out: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Shapes of the weights that the file leaves out, in ONNX's input order."""
    if op == "Conv" and data and len(data[0]) > 2 and len(out) > 2:
        kernel = attr.get("weight_shape", attr.get("kernel_shape", attr.get("ks")))
        cin, cout = data[0][1], out[1]
        group = cin if kind == "DepthwiseConv2dNative" else int(attr.get("group", 1))
        sizes = isinstance(kernel, list) and all(isinstance(size, int) and size > 0 for size in kernel)
        if not sizes or group < 1 or cin % group:
            raise ValueError("a convolution needs its kernel size, and groups that divide its channels")
        return [(cout, cin // group, *kernel[: len(data[0]) - 2])]
    if op == "Gemm" and len(data) == 1:
        return [(out[-1], data[0][-1]) if attr.get("transB") else (data[0][-1], out[-1])]
    if op == "MatMul" and len(data) == 1:
        return [(data[0][-1], out[-1])]
    if op == "BatchNormalization" and data and len(data[0]) > 1:
        return [(data[0][1],)] * 4
    if op in ("Add", "Mul", "Sub", "Div") and len(data) == 1:
        return [(data[0][1], 1, 1) if len(data[0]) == 4 else data[0][-1:]]
    return []


def read(source: object, *, input_shapes: object = None, name: str | None = None) -> Graph:
    """Graph of an nn-Meter dictionary or file. Shapes are the file's own; ``input_shapes`` must be ``None``.

    Raises:
        ModelFormatError: not of the format.
        GraphError: missing shapes, two nodes that disagree, a cycle.
    """
    ir = load(source)
    label = name or (Path(str(source)).name if isinstance(source, str | Path) else "nn-Meter IR")
    if input_shapes:
        raise GraphError(f"{label}: nn-Meter IR states all its shapes; leave the input shape out")
    tensors: dict[str, Tensor] = {}
    inputs: list[str] = []
    notes: list[str] = []
    nodes: list[Node] = []
    read_somewhere: set[str] = set()

    def tensor(tensor_name: str, shape: tuple[int, ...], *, const: bool = False) -> str:
        tensors[tensor_name] = Tensor(tensor_name, shape, const=const)
        return tensor_name

    for node_name, node in ir.items():
        attr = node["attr"]
        for i, shape in enumerate(attr["output_shape"]):
            tensor(f"{node_name}:{i}", _nchw(shape), const=attr["type"] == "Const")
    for node_name, node in ir.items():
        attr = node["attr"]
        kind: str = attr["type"]
        op = _TENSORFLOW.get(kind, kind)
        shapes = [_nchw(s) for s in attr["input_shape"]]
        uses: list[str] = []
        for i, parent in enumerate(node["inbounds"]):
            if parent not in ir:
                notes.append(f"node {node_name!r} reads {parent!r}, which is not in the file; taken as a weight")
                continue
            wanted = shapes[i] if i < len(shapes) else None
            made = [f"{parent}:{k}" for k in range(len(ir[parent]["attr"]["output_shape"]))]
            if not made:
                raise GraphError(f"{label}: node {parent!r} has no output shape, and {node_name!r} reads it")
            used = next((o for o in made if tensors[o].shape == wanted), made[0])
            uses.append(used)
        read_somewhere.update(uses)
        if not uses and kind != "Const":
            for k, shape in enumerate(shapes or ([_nchw(attr["output_shape"][0])] if attr["output_shape"] else [])):
                uses.append(tensor(f"{node_name}:input{k}", shape))
                inputs.append(uses[-1])
        outputs = tuple(f"{node_name}:{i}" for i in range(len(attr["output_shape"])))
        if not outputs:
            raise GraphError(f"{label}: node {node_name!r} ({kind}) has no output shape")
        raw = dict(attr["attr"])
        if "ksize" in raw:
            raw["kernel_shape"] = raw.pop("ksize")
        try:
            check_attributes(_attrs(raw))
            extra = _weights(op, kind, attr["attr"], [tensors[u].shape for u in uses], tensors[outputs[0]].shape)
            if op in _WEIGHTED and len(uses) + len(extra) < 2:
                raise ValueError("it has no input of a shape that it can work on")
        except (ValueError, TypeError, LookupError, GraphError) as error:
            raise GraphError(f"{label}: node {node_name!r} ({kind}): {error}") from error
        uses += [tensor(f"{node_name}:weight{k}", shape, const=True) for k, shape in enumerate(extra)]
        if kind == "DepthwiseConv2dNative" and tensors[uses[0]].shape[1:2]:
            raw["group"] = tensors[uses[0]].shape[1]
        nodes.append(
            Node(
                node_name,
                op,
                tuple(uses),
                outputs,
                MappingProxyType(_attrs(raw)),
                origin=kind if kind != op else "",
            )
        )
    outs = tuple(o for n in nodes for o in n.outputs if o not in read_somewhere)
    return verify(Graph(label, tuple(nodes), MappingProxyType(tensors), tuple(inputs), outs, tuple(notes)))


def _written_attrs(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    attrs: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in node.attrs.items()}
    if node.op_type in ("Conv", "ConvTranspose") and len(node.inputs) > 1:
        # ONNX leaves it to the weight, which nn-Meter's dictionary does not have
        attrs.setdefault("kernel_shape", list(tensors[node.inputs[1]].shape[2:]))
    return attrs


def write(graph: Graph) -> dict[str, Any]:
    """nn-Meter's dictionary of a graph, as its ONNX converter would write it.

    Nodes that compute constants stay out, and so do the shapes of weights. Slices of one tensor become one node
    with an output for each, which lists them under ``"nodes"``.
    Nodes are in the order of their names, as in the files that nn-Meter writes: where two fusions are open, the
    order decides, so that a model and its file give the same kernels.
    """
    consumers, producer, tensors = graph.consumers, graph.producer, graph.tensors
    written: dict[str, Node] = {}
    sliced: dict[str, str] = {}
    stands_in: dict[str, str] = {}
    others: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if not [o for o in node.outputs if o and not tensors[o].const]:
            continue
        if node.op_type == "Slice":
            first = sliced.setdefault(node.inputs[0], node.name)
            if first != node.name:
                stands_in[node.name] = first
                others.setdefault(first, []).append(node)
                continue
        written[node.name] = node

    def place(node: Node) -> str:
        return stands_in.get(node.name, node.name)

    result: dict[str, Any] = {}
    for node_name, node in written.items():
        together = [node, *others.get(node_name, ())]
        data = [i for i in node.inputs if i and not tensors[i].const]
        outs = [o for n in together for o in n.outputs if o]
        result[node_name] = {
            "attr": {
                "type": node.origin or node.op_type,
                "attr": _written_attrs(node, tensors),
                "input_shape": [_nhwc(tensors[i].shape) for i in data],
                "output_shape": [_nhwc(tensors[o].shape) for o in outs],
            },
            "inbounds": [place(producer[i]) for i in data if i in producer],
            "outbounds": [place(reader) for o in outs for reader in consumers.get(o, ()) if place(reader) in written],
        }
        if len(together) > 1:
            result[node_name]["nodes"] = [n.name for n in together]
    return dict(sorted(result.items()))
