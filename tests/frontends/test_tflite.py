"""TFLite files, made byte by byte, read without TensorFlow."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn_meter.errors import GraphError, ModelError, ModelFormatError, NnMeterError, UnsupportedOperatorError
from nn_meter.frontends import tflite
from nn_meter.frontends.tflite.operators import CODES
from nn_meter.ir import Graph, verify

FLOAT32, INT32, INT8 = 0, 2, 9

# A writer of flatbuffers, as small as these tests need it: a field is (kind, value), kind a struct format or
# "table", "tables", "text", "bytes", "ints".


def write(out: bytearray, kind: str, value: Any, places: dict[int, int]) -> int:
    """Append a child and return where it lies."""
    if kind == "table":
        return write_table(out, value, places)
    at = len(out)
    if kind == "tables":
        out += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for i, each in enumerate(value):
            slot = at + 4 + 4 * i
            struct.pack_into("<I", out, slot, write_table(out, each, places) - slot)
    elif kind == "ints":
        out += struct.pack(f"<I{len(value)}i", len(value), *value)
    else:
        data = value.encode() if kind == "text" else value
        out += struct.pack("<I", len(data)) + data
    return at


def write_table(out: bytearray, fields: dict[int, tuple[str, Any]], places: dict[int, int]) -> int:
    """Append a table, and note by its ``id`` where."""
    slots = max(fields, default=-1) + 1
    vtable = len(out)
    inside = {slot: 4 + 8 * i for i, slot in enumerate(fields)}
    out += struct.pack("<HH", 4 + 2 * slots, 4 + 8 * len(fields))
    out += struct.pack(f"<{slots}H", *(inside.get(slot, 0) for slot in range(slots)))
    table = places[id(fields)] = len(out)
    out += struct.pack("<i", table - vtable) + bytes(8 * len(fields))
    for slot, (kind, value) in fields.items():
        at = table + inside[slot]
        if len(kind) == 1:
            struct.pack_into("<" + kind, out, at, value)
        else:
            struct.pack_into("<I", out, at, write(out, kind, value, places) - at)
    return table


@dataclass
class File:
    """A TFLite file in the making."""

    tensors: list[dict[int, tuple[str, Any]]] = field(default_factory=list)
    buffers: list[dict[int, tuple[str, Any]]] = field(default_factory=lambda: [{}])
    codes: list[dict[int, tuple[str, Any]]] = field(default_factory=list)
    operators: list[dict[int, tuple[str, Any]]] = field(default_factory=list)

    def tensor(
        self, name: str, *shape: int, dtype: int = FLOAT32, data: bytes = b"", signature: tuple[int, ...] = ()
    ) -> int:
        self.buffers.append({0: ("bytes", data)} if data else {})
        entry: dict[int, tuple[str, Any]] = {
            0: ("ints", shape),
            1: ("b", dtype),
            2: ("I", len(self.buffers) - 1),
            3: ("text", name),
        }
        if signature:
            entry[7] = ("ints", signature)
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def ints(self, name: str, *values: int) -> int:
        return self.tensor(name, len(values), dtype=INT32, data=struct.pack(f"<{len(values)}i", *values))

    def op(self, name: str, inputs: list[int], outputs: list[int], options: Any = None, custom: str = "") -> None:
        number = CODES.index(name)
        code: dict[int, tuple[str, Any]] = {0: ("b", min(number, 127)), 3: ("i", number)}
        if custom:
            code[1] = ("text", custom)
        self.codes.append(code)
        entry: dict[int, tuple[str, Any]] = {
            0: ("I", len(self.codes) - 1),
            1: ("ints", inputs),
            2: ("ints", outputs),
        }
        if options is not None:
            entry[4] = ("table", options)
        self.operators.append(entry)

    def write(self, inputs: list[int], outputs: list[int], places: dict[int, int] | None = None) -> bytes:
        """The file; ``places`` takes where its tables lie, by their ``id``."""
        graph = {
            0: ("tables", self.tensors),
            1: ("ints", inputs),
            2: ("ints", outputs),
            3: ("tables", self.operators),
        }
        out = bytearray(b"\0\0\0\0TFL3")
        model = {
            0: ("I", 3),
            1: ("tables", self.codes),
            2: ("tables", [graph]),
            4: ("tables", self.buffers),
        }
        struct.pack_into("<I", out, 0, write_table(out, model, {} if places is None else places))
        return bytes(out)


def sharing(count: int, inputs: int = 2, letters: int = 4) -> bytes:
    """``count`` sums one after the other that all have one list of inputs, and tensors that all have one name: each is
    written once, behind all that refer to it."""
    file = File()
    tensors = [file.tensor("", 1, 4) for _ in range(count + 1)]
    for i in range(count):
        file.op("ADD_N", [0], [tensors[i + 1]])
    for owner, slot in (*((each, 3) for each in file.tensors), *((each, 1) for each in file.operators)):
        owner[slot] = ("I", 0)
    places: dict[int, int] = {}
    stored = bytearray(file.write([0], [tensors[-1]], places))
    for owners, slot, shared in (
        (file.tensors, 3, struct.pack("<I", letters) + b"a" * letters),
        (file.operators, 1, struct.pack(f"<I{inputs}i", inputs, *[0] * inputs)),
    ):
        for owner in owners:
            at = places[id(owner)] + 4 + 8 * [*owner].index(slot)
            struct.pack_into("<I", stored, at, len(stored) - at)
        stored += shared
    return bytes(stored)


def conv_options(stride: int = 1, activation: int = 0, padding: int = 0) -> dict[int, tuple[str, Any]]:
    return {0: ("b", padding), 1: ("i", stride), 2: ("i", stride), 3: ("b", activation)}


def stem(dtype: int = FLOAT32, activation: int = 3) -> tuple[File, int, int]:
    """A convolution of stride 2 with bias and a fused activation: the file, its input, its output."""
    file = File()
    x = file.tensor("x", 1, 8, 8, 3, dtype=dtype, signature=(-1, 8, 8, 3))
    w = file.tensor("w", 16, 3, 3, 3, dtype=dtype)
    b = file.tensor("b", 16, dtype=INT32 if dtype == INT8 else FLOAT32)
    y = file.tensor("y", 1, 4, 4, 16, dtype=dtype)
    file.op("CONV_2D", [x, w, b], [y], conv_options(2, activation))
    return file, x, y


def one(name: str, shape: tuple[int, ...], out: tuple[int, ...], *more: tuple[int, ...], options: Any = None) -> Graph:
    """The graph of one operator; ``more`` are constant vectors that it also reads."""
    file = File()
    x, y = file.tensor("x", *shape), file.tensor("y", *out)
    rest = [file.ints(f"c{i}", *values) for i, values in enumerate(more)]
    file.op(name, [x, *rest], [y], options)
    return tflite.read(file.write([x], [y]))


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def out_shape(graph: Graph) -> tuple[int, ...]:
    return graph.tensors[graph.outputs[0]].shape


def test_a_convolution_and_its_fused_activation_are_two_nodes() -> None:
    file, x, y = stem()
    graph = tflite.read(file.write([x], [y]))
    conv, clip = graph.nodes
    assert (conv.op_type, conv.origin, clip.op_type, clip.origin) == ("Conv", "CONV_2D", "Clip", "RELU6")
    assert graph.tensors["x"].shape == (1, 3, 8, 8)
    assert graph.tensors[conv.inputs[1]].shape == (16, 3, 3, 3)
    assert conv.attrs["pads"] == (0, 0, 1, 1)
    assert graph.outputs == ("y",)
    assert out_shape(graph) == (1, 16, 4, 4)
    assert graph.notes == ("the unset batch of the input 'x' became 1",)


def test_equal_names_are_told_apart() -> None:
    graph = tflite.read(sharing(3))
    assert graph.inputs == ("aaaa",)
    assert [node.outputs[0] for node in graph.nodes] == ["aaaa_1", "aaaa_2", "aaaa_3"]


@pytest.mark.parametrize("most", [{"inputs": 3000}, {"letters": 9000}])
def test_a_file_stands_for_no_more_than_it_holds_some_times_over(most: dict[str, int]) -> None:
    with pytest.raises(ModelFormatError, match="its tables share so much that the file"):
        tflite.read(sharing(3000, **most))
    assert len(tflite.read(sharing(3000)).nodes) == 3000


def test_quantised_tensors_keep_their_types() -> None:
    file, x, y = stem(INT8)
    image = file.tensor("image", 1, 8, 8, 3)
    z = file.tensor("z", 1, 4, 4, 16)
    file.op("QUANTIZE", [image], [x])
    file.op("DEQUANTIZE", [y], [z])
    file.operators.insert(0, file.operators.pop(1))
    graph = tflite.read(file.write([image], [z]))
    assert kinds(graph) == ["QuantizeLinear", "Conv", "Clip", "DequantizeLinear"]
    assert [graph.tensors[name].dtype for name in graph.nodes[1].inputs] == ["int8", "int8", "int32"]
    assert [graph.tensors[node.outputs[0]].dtype for node in graph.nodes] == [
        "int8",
        "int8",
        "int8",
        "float32",
    ]


def test_depthwise_convolution_has_groups() -> None:
    file = File()
    x, w, y = (
        file.tensor(name, *shape) for name, shape in (("x", (1, 8, 8, 4)), ("w", (1, 3, 3, 8)), ("y", (1, 6, 6, 8)))
    )
    file.op("DEPTHWISE_CONV_2D", [x, w, -1], [y], {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("i", 2)})
    graph = tflite.read(file.write([x], [y]))
    assert graph.nodes[0].attrs["group"] == 4
    assert graph.tensors[graph.nodes[0].inputs[1]].shape == (8, 1, 3, 3)
    assert out_shape(graph) == (1, 8, 6, 6)


@pytest.mark.parametrize(
    ("keep", "out", "expected"), [(False, (6, 7), ["Reshape", "Gemm"]), (True, (2, 3, 7), ["MatMul"])]
)
def test_fully_connected(keep: bool, out: tuple[int, ...], expected: list[str]) -> None:
    file = File()
    x, w, y = file.tensor("x", 2, 3, 5), file.tensor("w", 7, 5), file.tensor("y", *out)
    file.op("FULLY_CONNECTED", [x, w, -1], [y], {2: ("?", keep)})
    graph = tflite.read(file.write([x], [y]))
    assert kinds(graph) == expected
    assert out_shape(graph) == out


def test_transposed_convolution() -> None:
    file = File()
    sizes = file.ints("sizes", 1, 16, 16, 5)
    w, x, y = file.tensor("w", 5, 3, 3, 4), file.tensor("x", 1, 8, 8, 4), file.tensor("y", 1, 16, 16, 5)
    file.op("TRANSPOSE_CONV", [sizes, w, x], [y], {0: ("b", 0), 1: ("i", 2), 2: ("i", 2)})
    graph = tflite.read(file.write([x], [y]))
    assert kinds(graph) == ["ConvTranspose"]
    assert graph.tensors[graph.nodes[0].inputs[1]].shape == (4, 5, 3, 3)
    assert out_shape(graph) == (1, 5, 16, 16)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [("AVERAGE_POOL_2D", None, "AveragePool"), ("MAX_POOL_2D", {5: ("b", 1)}, "MaxPool")],
)
def test_pools(name: str, options: dict[int, Any] | None, kind: str) -> None:
    pool = {0: ("b", 1), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2), **(options or {})}
    graph = one(name, (1, 8, 8, 3), (1, 4, 4, 3), options=pool)
    assert kinds(graph) == [kind, *(["Relu"] if options else [])]
    assert out_shape(graph) == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("name", "shape", "constants", "options", "kind", "out"),
    [
        ("MEAN", (2, 3, 5), [(1,)], {0: ("?", True)}, "ReduceMean", (2, 1, 5)),
        ("SUM", (2, 3, 5), [(1, 2)], None, "ReduceSum", (2,)),
        ("RESHAPE", (2, 3, 4), [(6, -1)], None, "Reshape", (6, 4)),
        ("RESHAPE", (2, 3, 4), [], {0: ("ints", (4, 6))}, "Reshape", (4, 6)),
        ("TRANSPOSE", (2, 3, 4), [(2, 0, 1)], None, "Transpose", (4, 2, 3)),
        ("SOFTMAX", (2, 3), [], {0: ("f", 1.0)}, "Softmax", (2, 3)),
        ("SQUEEZE", (2, 1, 3), [], {0: ("ints", (1,))}, "Squeeze", (2, 3)),
        ("EXPAND_DIMS", (2, 3), [(1,)], None, "Unsqueeze", (2, 1, 3)),
        ("STRIDED_SLICE", (6, 5), [(1, 0), (5, 5), (2, 1)], None, "Slice", (2, 5)),
        ("SLICE", (6, 5), [(1, 0), (3, -1)], None, "Slice", (3, 5)),
        ("PAD", (2, 3), [], None, "Pad", (2, 3)),
        ("RESIZE_BILINEAR", (1, 4, 4, 2), [(8, 6)], {3: ("?", True)}, "Resize", (1, 2, 8, 6)),
        ("BROADCAST_TO", (1, 3), [(2, 3)], None, "Expand", (2, 3)),
        ("GELU", (2, 3), [], {0: ("?", True)}, "Gelu", (2, 3)),
        ("HARD_SWISH", (2, 3), [], None, "HardSwish", (2, 3)),
        ("LOGISTIC", (2, 3), [], None, "Sigmoid", (2, 3)),
        ("RSQRT", (2, 3), [], None, "Pow", (2, 3)),
        ("LEAKY_RELU", (2, 3), [], {0: ("f", 0.25)}, "LeakyRelu", (2, 3)),
        ("DEPTH_TO_SPACE", (1, 2, 2, 8), [], {0: ("i", 2)}, "DepthToSpace", (1, 2, 4, 4)),
    ],
)
def test_one_operator(
    name: str,
    shape: tuple[int, ...],
    constants: list[tuple[int, ...]],
    options: Any,
    kind: str,
    out: tuple[int, ...],
) -> None:
    if name == "PAD":
        file = File()
        x, y = file.tensor("x", *shape), file.tensor("y", 3, 3)
        pads = file.tensor("pads", 2, 2, dtype=INT32, data=struct.pack("<4i", 1, 0, 0, 0))
        file.op("PAD", [x, pads], [y])
        assert out_shape(tflite.read(file.write([x], [y]))) == (3, 3)
        return
    graph = one(name, shape, out, *constants, options=options)
    assert kinds(graph) == [kind]
    assert out_shape(graph) == out


def test_concatenation_along_the_channels_of_an_image() -> None:
    file, x, y = stem(activation=0)
    z = file.tensor("z", 1, 4, 4, 32)
    file.op("CONCATENATION", [y, y], [z], {0: ("i", 3)})
    graph = tflite.read(file.write([x], [z]))
    assert graph.nodes[1].attrs["axis"] == 1
    assert out_shape(graph) == (1, 32, 4, 4)


def test_products_of_batches_transpose_what_the_option_says() -> None:
    file = File()
    a, b, y = file.tensor("a", 2, 3, 5), file.tensor("b", 2, 7, 5), file.tensor("y", 2, 3, 7)
    file.op("BATCH_MATMUL", [a, b], [y], {1: ("?", True)})
    graph = tflite.read(file.write([a, b], [y]))
    assert kinds(graph) == ["Transpose", "MatMul"]
    assert out_shape(graph) == (2, 3, 7)


def test_shapes_may_be_given() -> None:
    file, x, y = stem()
    data = file.write([x], [y])
    for shape in ((4, 8, 8, 3), (4, 3, 8, 8)):
        assert out_shape(tflite.read(data, input_shapes={"x": shape})) == (4, 16, 4, 4)
    with pytest.raises(ModelError, match=r"\(1, 9, 9, 3\) given for the input 'x' does not fit \(\?, 8, 8, 3\)"):
        tflite.read(data, input_shapes=(1, 9, 9, 3))


def test_a_file_is_recognised_by_its_content(tmp_path: Path) -> None:
    file, x, y = stem()
    path = tmp_path / "model"
    path.write_bytes(file.write([x], [y]))
    assert tflite.sniff(path)
    assert tflite.read(path).name == "model"
    assert not tflite.sniff(b"TFL3")


# Bad input


@pytest.mark.parametrize(
    ("operator", "custom", "text"),
    [
        ("CUSTOM", "MyNorm", "operator 1 is the custom operator 'MyNorm'"),
        ("WHILE", "", r"operator 1 is control flow \(WHILE\)"),
        ("SVDF", "", r"operator 1 \(SVDF\) has no row"),
    ],
)
def test_operators_that_are_not_read_are_named_with_their_index(operator: str, custom: str, text: str) -> None:
    file, x, y = stem()
    z = file.tensor("z", 1, 4, 4, 16)
    file.op(operator, [y], [z], custom=custom)
    with pytest.raises(UnsupportedOperatorError, match=text):
        tflite.read(file.write([x], [z]))


def test_a_tensor_that_is_not_there_is_damage() -> None:
    file, x, y = stem()
    file.op("RELU", [99], [y])
    with pytest.raises(ModelFormatError, match="there is no tensor 99"):
        tflite.read(file.write([x], [y]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    for data in (b"", b"not a flatbuffer at all"):
        path.write_bytes(data)
        with pytest.raises(ModelFormatError, match="lacks the identifier TFL3"):
            tflite.read(path)
    with pytest.raises(ModelError, match="no such file"):
        tflite.read(tmp_path / "none.tflite")


def test_a_truncated_file_is_damaged() -> None:
    file, x, y = stem()
    data = file.write([x], [y])
    with pytest.raises(ModelFormatError, match="damaged TFLite file"):
        tflite.read(data[: len(data) // 2])


def test_unset_dimensions_are_asked_for() -> None:
    file = File()
    x = file.tensor("x", 1, 1, 1, 3, signature=(-1, -1, -1, 3))
    y = file.tensor("y", 1, 1, 1, 3)
    file.op("RELU", [x], [y])
    with pytest.raises(GraphError, match="give its shape: --input-shape x="):
        tflite.read(file.write([x], [y]))


def _seed() -> bytes:
    file, x, y = stem()
    z = file.tensor("z", 1, 16)
    axes = file.ints("axes", 1, 2)
    file.op("MEAN", [y, axes], [z])
    return file.write([x], [z])


SEED = _seed()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SEED)),
)
def test_any_bytes_end_in_a_graph_or_in_an_error_of_the_tree(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    for candidate in (bytes(data), bytes(data[:end])):
        try:
            graph = tflite.read(candidate)
        except NnMeterError:
            continue
        verify(graph)
