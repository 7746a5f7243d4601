"""ONNX models of every age and shape read into graphs that verify, or end in an error that says why."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nn_meter.errors import GraphError, ModelError, ModelFormatError, NnMeterError, UnsupportedOperatorError
from nn_meter.frontends.onnx import read, sniff
from nn_meter.ir import parse, to_text

SHARED = Path(__file__).parents[3] / "shared"
CORPUS = sorted([*SHARED.glob("models/*.onnx"), *SHARED.glob("parity/onnx/*.onnx")])
NAMES = {code: name.lower().replace("double", "float64") for name, code in TensorProto.DataType.items()}
NAMES[TensorProto.FLOAT] = "float32"


def weight(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def value(name, shape=None, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs=("y",), initializers=(), opset=17, **options):
    outs = [value(name) if isinstance(name, str) else name for name in outputs]
    graph = helper.make_graph(nodes, "tiny", inputs, outs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **options)


def tiny(shape=(1, 3, 8, 8), **options):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    return model(nodes, [value("x", shape)], initializers=[weight("w", 4, 3, 3, 3)], **options)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_shapes_of_the_corpus_are_onnx_own(path):
    graph = read(path)
    stated = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True).graph
    compared = 0
    for info in (*stated.value_info, *stated.output):
        kind = info.type.tensor_type
        if kind.HasField("shape"):
            tensor = graph.tensors[info.name]
            dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
            assert len(dims) == len(tensor.shape), info.name
            assert all(dim in (None, own) for dim, own in zip(dims, tensor.shape, strict=True)), info.name
            assert tensor.dtype == NAMES[kind.elem_type], info.name
            compared += 1
    assert compared
    assert len(graph.nodes) == sum(node.op_type != "Constant" for node in stated.node)
    assert parse(to_text(graph)) == graph


@pytest.mark.skipif(not CORPUS, reason="the shared models are not beside the repository")
def test_reading_an_ordinary_model_imports_neither_onnx_nor_protobuf():
    code = (
        "import sys; from nn_meter.frontends.onnx import read; read(sys.argv[1]); "
        "sys.exit(any(name in sys.modules for name in ('onnx', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(CORPUS[0])], check=False).returncode == 0


@pytest.mark.parametrize(("opset", "said"), [(6, "opset 6 is older than 7"), (99, "opset 99 is newer than 28")])
def test_an_opset_that_is_not_known_is_read_as_the_nearest_that_is(opset, said):
    assert f"{said}; read as if it were {said.split()[-1]}" in read(tiny(opset=opset)).notes


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_reads(opset):
    graph = read(tiny(opset=opset))
    assert graph.tensors["y"].shape == (1, 4, 8, 8)


def test_path_bytes_file_and_proto_read_alike(tmp_path):
    proto = tiny()
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    graph = read(path)
    assert graph.name == "net"
    for source in (str(path), proto, path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert sniff(source)
        assert read(source, name="net") == graph


def test_a_large_file_reads_as_its_bytes_do(tmp_path):
    path = tmp_path / "large.onnx"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    path.write_bytes(model(nodes, [value("x", (1, 1024))], initializers=[weight("w", 1024, 512)]).SerializeToString())
    assert path.stat().st_size > 1 << 20
    assert read(path) == read(path.read_bytes(), name="large")
    assert read(path).tensors["y"].shape == (1, 512)


@pytest.mark.parametrize("unknown", [b"\xa0\x06\x05", b"\x50\x05", b"\x55abcd", b"\xa2\x06\x81\x01" + b"\xff" * 129])
def test_a_node_of_a_later_onnx_is_read_without_what_is_new(unknown):
    proto = tiny()
    node = proto.graph.node[0]
    node.name = "a long name " * 20  # its length takes two bytes
    node.ParseFromString(unknown + node.SerializeToString() + unknown)
    conv, relu = read(tiny(), name="tiny").nodes
    assert read(proto, name="tiny").nodes == (replace(conv, name=node.name), relu)


def test_names_of_any_alphabet_stay():
    nodes = [helper.make_node("Relu", ["x"], ["größe"], "größe"), helper.make_node("Relu", ["größe"], ["y"], "层")]
    assert [node.name for node in read(model(nodes, [value("x", (1, 3))])).nodes] == ["größe", "层"]


def test_the_graph_as_text():
    assert to_text(read(tiny())) == (
        "graph tiny\n"
        "input x: float32[1,3,8,8]\n"
        "const w: float32[4,3,3,3]\n"
        'c: float32[1,4,8,8] = Conv(x, w) {pads=(1, 1, 1, 1)} name "conv"\n'
        'y: float32[1,4,8,8] = Relu(c) name "relu"\n'
        "output y\n"
    )


def test_initialisers_among_the_inputs_are_no_inputs():
    proto = tiny(opset=8, ir_version=3)
    proto.graph.input.append(value("w", (4, 3, 3, 3)))
    assert read(proto).inputs == ("x",)


def test_equal_and_missing_names_become_unique_and_stable():
    labels = ["a", "a", "", "a_1", ""]
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name) for i, name in enumerate(labels)]
    graph = read(model(nodes, [value("t0", (2,))], ["t5"]))
    assert [node.name for node in graph.nodes] == ["a", "a_2", "Relu_2", "a_1", "Relu_4"]


def test_an_unset_batch_becomes_one_and_the_notes_say_so():
    graph = read(tiny(("N", 3, 8, 8)))
    assert graph.tensors["y"].shape == (1, 4, 8, 8)
    assert graph.notes == ("the unset batch (N) of the input 'x' became 1",)


def test_a_first_dimension_of_0_is_an_unset_batch_unless_tensors_are_empty():
    assert read(tiny((0, 3, 8, 8))).tensors["y"].shape == (1, 4, 8, 8)
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    graph = read(model(nodes, [value("a", (4, 0)), value("b", (0, 8))], ["y"]))
    assert (graph.tensors["y"].shape, graph.notes) == ((4, 8), ())


@pytest.mark.parametrize("shapes", [(2, 3, 16, 8), {"x": (2, 3, 16, 8)}])
def test_given_shapes_settle_what_is_unset(shapes):
    for shape in (("N", 3, "h", "w"), (1, 3, 8, 8), None):
        graph = read(tiny(shape), input_shapes=shapes)
        assert graph.tensors["y"].shape == (2, 4, 16, 8)
        assert not graph.notes


def test_unset_shapes_name_the_input_and_the_option():
    with pytest.raises(GraphError, match=r"dimension 2 \(h\) of the input 'x' is unset; .*--input-shape x="):
        read(tiny((1, 3, "h", 8)))
    with pytest.raises(GraphError, match=r"the input 'x' has no shape; give one, .*: --input-shape x=2,3"):
        read(tiny(None))
    flat = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", None)])
    assert read(flat, input_shapes={"x": (2, 3)}).tensors["y"].shape == (2, 3)
    with pytest.raises(GraphError, match=r"there is no input 'z'; the inputs are x"):
        read(tiny(), input_shapes={"z": (1,)})
    with pytest.raises(GraphError, match=r"the shape \(1, -3, 8, 8\) given for the input 'x' is negative"):
        read(tiny(), input_shapes=(1, -3, 8, 8))
    with pytest.raises(GraphError, match=r"'x' has 4 dimensions, the given shape \(1, 3\)"):
        read(tiny(), input_shapes=(1, 3))
    two = model([helper.make_node("Add", ["a", "b"], ["y"])], [value("a", ("n",)), value("b", ("n",))])
    with pytest.raises(GraphError, match=r"for 2 inputs .*; name each: --input-shape a=N --input-shape b"):
        read(two, input_shapes=(1,))
    assert read(two, input_shapes={"a": (5,)}).tensors["b"].shape == (5,)


def test_constants_become_tensors_and_large_ones_keep_no_value():
    big = numpy_helper.from_array(np.zeros(1000, np.int64))
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([1, -1]))),
        helper.make_node("Constant", [], ["scale"], value_float=0.5),
        helper.make_node("Constant", [], ["big"], value=big),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Mul", ["r", "scale"], ["y"]),
    ]
    graph = read(model(nodes, [value("x", (2, 3))]))
    assert [node.op_type for node in graph.nodes] == ["Reshape", "Mul"]
    assert graph.tensors["shape"].value == (1, -1)
    assert graph.tensors["scale"].value == (0.5,)
    assert graph.tensors["big"].value is None
    assert graph.tensors["y"].shape == (1, 6)


def test_typed_and_raw_values_are_the_same():
    for code, numbers in (
        (1, [0.5, -2.0]),
        (7, [-1, 1 << 40]),
        (6, [-5, 5]),
        (9, [True, False]),
        (10, [0.5, 2.0]),
    ):
        typed = helper.make_tensor("t", code, [2], numbers)
        raw = numpy_helper.from_array(numpy_helper.to_array(typed), "t")
        for tensor in (typed, raw):
            graph = read(model([helper.make_node("Identity", ["t"], ["y"])], [], initializers=[tensor]))
            assert graph.tensors["t"].value == tuple(numbers)


def test_outputs_for_training_that_nothing_reads_go():
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["b", "m", "v", "sm", "sv"]),
        helper.make_node("Dropout", ["b"], ["y", "mask"]),
    ]
    proto = model(nodes, [value("x", (1, 4, 8, 8))], initializers=[weight("s", 4)], opset=8)
    assert [node.outputs for node in read(proto).nodes] == [("b",), ("y",)]
    proto.graph.output.append(value("mask"))
    assert [node.outputs for node in read(proto).nodes] == [("b",), ("y", "mask")]


def test_functions_are_inlined():
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    function = helper.make_function("mine", "Flip", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = model([helper.make_node("Flip", ["x"], ["y"], domain="mine")], [value("x", (2,))], functions=[function])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    assert [node.op_type for node in read(proto).nodes] == ["Relu", "Neg"]


def branches(condition):
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"]), helper.make_node("Neg", ["t"], ["o"])], "t", [], [value("o")]
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "e", [], [value("o")])
    choice = helper.make_node("If", [condition], ["y"], "choice", then_branch=then, else_branch=other)
    known = numpy_helper.from_array(np.array(True), "known")
    inputs = [value("x", (2,)), value("asked", (), TensorProto.BOOL)]
    return model([choice], inputs, initializers=[known])


def test_a_constant_branch_is_taken_and_the_notes_say_so():
    graph = read(branches("known"))
    assert [node.op_type for node in graph.nodes] == ["Relu", "Neg"]
    assert graph.notes == ("node 'choice' (If) is constant; its then_branch was taken",)


def test_control_flow_that_makes_no_sense_names_the_node():
    body = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["o"])], "b", [value("s", ()), value("e", ())], [value("o")]
    )
    loop = helper.make_node("Scan", ["x", "x"], ["a", "y"], "again", body=body, num_scan_inputs=3)
    with pytest.raises(GraphError, match=r"node 'again' \(Scan\) says no count of scanned inputs"):
        read(model([loop], [value("x", (2,))]))


def test_an_operator_without_a_rule_takes_the_shapes_that_the_file_states():
    node = helper.make_node("Frobnicate", ["x"], ["y"], "odd", domain="mine")
    graph = read(model([node], [value("x", (2,))], [value("y", (3, 4))]))
    assert graph.tensors["y"].shape == (3, 4)
    with pytest.raises(UnsupportedOperatorError, match=r"node 'odd': the operator mine\.Frobnicate has no shape rule"):
        read(model([node], [value("x", (2,))]))


def test_nodes_out_of_order_are_put_in_order():
    nodes = [helper.make_node("Relu", ["a"], ["y"], "second"), helper.make_node("Neg", ["x"], ["a"], "first")]
    assert [node.name for node in read(model(nodes, [value("x", (2,))])).nodes] == ["first", "second"]


def test_a_cycle_and_a_missing_tensor_are_named():
    cycle = [helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]
    with pytest.raises(GraphError, match=r"a cycle through or before node 'one'"):
        read(model(cycle, [value("x", (2,))], ["b"]))
    with pytest.raises(GraphError, match=r"node 'r' \(Relu\) reads 'gone', which nothing computes"):
        read(model([helper.make_node("Relu", ["gone"], ["y"], "r")], [value("x", (2,))]))


def test_what_is_no_onnx_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"missing\.onnx: no such file"):
        read(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match=r"is a folder"):
        read(tmp_path)
    for content in (b"", b"hello, world", b"\x80\x04pickle", b'{"a": 1}', b"\x08\x08"):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match=r"bad\.onnx: not an ONNX model"):
            read(path)
    with pytest.raises(ModelFormatError, match=r"<int>: no ONNX model"):
        read(42)


def test_every_truncation_is_an_error():
    data = tiny().SerializeToString()
    graph_end = len(data) - len(helper.make_opsetid("", 17).SerializeToString()) - 2
    for length in range(graph_end):
        with pytest.raises(ModelError):
            read(data[:length])


def test_weights_beyond_two_gigabytes_are_skipped(tmp_path):
    def field(number, content_bytes):
        size, length = content_bytes, b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size])

    raw_bytes = 4 * (1 << 29) + 4096
    tensor = TensorProto(dims=[raw_bytes // 4], data_type=1, name="huge").SerializeToString() + field(9, raw_bytes)
    proto = tiny()
    graph = proto.graph.SerializeToString() + field(5, len(tensor) + raw_bytes) + tensor
    proto.ClearField("graph")
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.write(proto.SerializeToString() + field(7, len(graph) + raw_bytes) + graph)
        file.truncate(file.tell() + raw_bytes)
    assert read(path).tensors["huge"].size == raw_bytes // 4


def test_external_weights_may_be_absent_and_small_constants_are_read(tmp_path):
    proto = model([helper.make_node("Reshape", ["x", "s"], ["y"])], [value("x", (2, 3))])
    proto.graph.initializer.append(numpy_helper.from_array(np.array([3, 2]), "s"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert read(tmp_path / "m.onnx").tensors["y"].shape == (3, 2)
    (tmp_path / "m.data").unlink()
    with pytest.raises(GraphError, match=r"the values of input 1 \('s'\) decide the shape"):
        read(tmp_path / "m.onnx")


SEEDS = [
    tiny().SerializeToString(),
    branches("known").SerializeToString(),
    model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "i"], ["d"]),
            helper.make_node("ConstantOfShape", ["d"], ["z"]),
            helper.make_node("Split", ["x"], ["p", "q"], axis=1),
            helper.make_node("Resize", ["p", "", "f"], ["y"]),
        ],
        [value("x", (1, 4))],
        initializers=[
            numpy_helper.from_array(np.array([0]), "i"),
            numpy_helper.from_array(np.float32([1, 2]), "f"),
        ],
    ).SerializeToString(),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    st.data(),
)
def test_mutated_bytes_end_in_a_graph_or_in_an_error_of_our_tree(seed, edits, data):
    mutated = bytearray(seed)
    for at, byte in edits:
        mutated[at % len(mutated)] = byte
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(mutated)))
        del mutated[start : start + data.draw(st.integers(0, 8))]
    with suppress(NnMeterError):
        read(bytes(mutated))
