"""Damaged, odd and endless models end in an error of our tree."""

from __future__ import annotations

import gc
import gzip
import os
import zipfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter import frontends, limits, load_latency_predictor
from nn_meter.api import Predictor
from nn_meter.errors import GraphError, ModelError, ModelFormatError
from nn_meter.frontends import nnmeter_ir
from nn_meter.frontends import onnx as reader
from nn_meter.frontends.onnx import reading
from nn_meter.ir import ShapeError
from nn_meter.kernels.kinds import ResizeConfig
from nn_meter.predictors.bundle import Bundle
from nn_meter.report import csv

FLOAT = TensorProto.FLOAT
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1), helper.make_opsetid("ai.onnx.ml", 3)]


def model(nodes: list[Any], shape: Any = (1, 8), functions: Any = (), held: Any = ()) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info("x", FLOAT, shape)], [helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", *ends, [*held])
    return helper.make_model(graph, opset_imports=OPSETS, functions=[*functions])


def calls(depth: int) -> onnx.ModelProto:
    """Functions that each call the one before twice."""
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], OPSETS[:2])]
    for level in range(1, depth + 1):
        body = [helper.make_node(f"F{level - 1}", [i], [o], domain="f") for i, o in (("a", "t"), ("t", "b"))]
        functions.append(helper.make_function("f", f"F{level}", ["a"], ["b"], body, OPSETS[:2]))
    return model([helper.make_node(f"F{depth}", ["x"], ["y"], domain="f")], functions=functions)


def test_functions_are_written_out_and_counted_before() -> None:
    assert len(reader.read(calls(5)).nodes) == 32
    with pytest.raises(GraphError, match=r"1,099,511,627,\d+ nodes.*at most 100,000 are read"):
        reader.read(calls(40))
    with pytest.raises(GraphError, match="functions and branches within each other"):
        reader.read(calls(80))


def test_functions_of_nothing_are_counted_too() -> None:
    functions = [helper.make_function("f", "F0", [], [], [], OPSETS[:2])]
    for level in range(1, 50):
        body = [helper.make_node(f"F{level - 1}", [], [], domain="f")] * 2
        functions.append(helper.make_function("f", f"F{level}", [], [], body, OPSETS[:2]))
    nodes = [helper.make_node("F49", [], [], domain="f"), helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(GraphError, match=r"125,001 functions.*at most 125,000 are read"):
        reader.read(model(nodes, functions=functions))


def test_a_small_file_is_no_more_nodes_than_a_large_one_holds() -> None:
    sizes = (1 << 10, 1 << 20, 1 << 21, 1 << 40)
    nodes, bodies, tensors = zip(*map(limits.written_out, sizes), strict=True)
    assert [each.most for each in nodes] == [100_000, 104_857, 209_715, 1_000_000]
    assert bodies[0].most >= sum(10**level for level in range(6)), "ten calls each, five levels deep, are 100,000 nodes"
    assert [each.most for each in bodies] == [125_000, 131_071, 262_143, 1_250_000]
    assert [each.most for each in tensors] == [400_000, 419_428, 838_860, 4_000_000]


def test_names_that_grow_with_each_call_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty calls within thirty within thirty, each of a node with a long name, are gigabytes of names."""
    monkeypatch.setattr(reading, "LETTERS", limits.Limit(100_000, "letters"))
    assert reader.read(calls(5))
    long = "x" * 1000
    body = [helper.make_node("Relu", ["a"], [f"b{i}"], name=f"{long}{i}") for i in range(30)]
    functions = [helper.make_function("f", "F0", ["a"], ["b0"], body, OPSETS[:2])]
    nodes = [helper.make_node("F0", ["x"], [f"y{i}"], domain="f", name=f"{long}{i}") for i in range(30)]
    with pytest.raises(GraphError, match=r"letters; at most 100,000 are read"):
        reader.read(model([*nodes, helper.make_node("Relu", ["y0"], ["y"])], functions=functions))


def test_a_function_that_calls_itself_is_an_error() -> None:
    again = helper.make_function("f", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="f")], OPSETS[:2])
    with pytest.raises(GraphError, match="within each other"):
        reader.read(model([helper.make_node("F", ["x"], ["y"], domain="f")], functions=[again]))


def test_functions_take_attributes_and_leave_inputs_out() -> None:
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    leaky = helper.make_node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(slope)
    clip = helper.make_node("Clip", ["t", "low", "high"], ["b"])
    function = helper.make_function("f", "G", ["a", "low", "high"], ["b"], [leaky, clip], OPSETS[:2], ["slope"])
    zero = helper.make_tensor("zero", FLOAT, [], [0.0])
    call = helper.make_node("G", ["x", "zero"], ["y"], domain="f", slope=0.5, name="call")
    graph = reader.read(model([call], functions=[function], held=[zero]))
    assert [(node.name, node.op_type) for node in graph.nodes] == [
        ("call/LeakyRelu_0", "LeakyRelu"), ("call/Clip_1", "Clip"),
    ]  # fmt: skip
    assert graph.nodes[0].attrs["alpha"] == 0.5
    assert graph.nodes[1].inputs == ("call/t", "zero", "")
    assert graph.outputs == ("y",)


@pytest.mark.parametrize(("inner", "kinds"), [(True, ["Relu", "Neg", "Neg"]), (False, ["Relu", "Identity", "Neg"])])
def test_a_branch_within_a_branch_reads_what_the_outer_one_computes(inner: bool, kinds: list[str]) -> None:
    def branch(name: str, nodes: list[Any]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, FLOAT, [1, 8])])

    arms = {
        "then_branch": branch("a", [helper.make_node("Neg", ["g"], ["a"])]),
        "else_branch": branch("b", [helper.make_node("Identity", ["g"], ["b"])]),
    }
    outer = branch(
        "t",
        [
            helper.make_node("Relu", ["x"], ["g"]),
            helper.make_node("If", ["c2"], ["i"], **arms),
            helper.make_node("Neg", ["i"], ["t"]),
        ],
    )
    other = branch("e", [helper.make_node("Neg", ["x"], ["e"])])
    held = [helper.make_tensor(n, TensorProto.BOOL, [], [v]) for n, v in (("c1", True), ("c2", inner))]
    node = helper.make_node("If", ["c1"], ["y"], then_branch=outer, else_branch=other)
    graph = reader.read(model([node], held=held))
    assert [each.op_type for each in graph.nodes] == kinds


def test_a_required_input_that_is_left_out_is_an_error() -> None:
    tree = helper.make_node("TreeEnsemble", [""], ["y"], domain="ai.onnx.ml", n_targets=2)
    with pytest.raises(GraphError, match=r"TreeEnsemble\): input 0 is missing"):
        reader.read(model([tree]))
    weight = helper.make_tensor("w", FLOAT, [8, 8], [0.0] * 64)
    with pytest.raises(GraphError, match=r"MatMul\): has 3 inputs, the operator at most 2"):
        reader.read(model([helper.make_node("MatMul", ["x", "w", "w"], ["y"])], held=[weight]))
    with pytest.raises(GraphError, match=r"attribute 'axis' is 'x'; it must be a whole number"):
        reader.read(model([helper.make_node("Softmax", ["x"], ["y"], axis="x")]))


def test_classical_models_are_read_without_stated_shapes() -> None:
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.0] * 8, scale=[1.0] * 8),
        helper.make_node(
            "LinearClassifier", ["s"], ["label", "y"], domain="ai.onnx.ml",
            classlabels_ints=[0, 1, 2], coefficients=[0.1] * 24, intercepts=[0.0] * 3,
        ),
    ]  # fmt: skip
    graph = reader.read(model(nodes, (None, 8)))
    assert graph.tensors["y"].shape == (1, 3)
    assert graph.tensors["label"].shape == (1,)


def test_sizes_beyond_the_limits_are_errors() -> None:
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(GraphError, match="elements along one dimension; at most"):
        reader.read(model(relu, (2**62, 2**62)))
    with pytest.raises(GraphError, match="dimensions of one tensor; at most 64"):
        reader.read(model(relu, (1,) * 70))


def test_dimensions_of_zero_and_symbols_that_follow() -> None:
    join = helper.make_node("Concat", ["x", "k"], ["y"], axis=1)
    proto = model([join], ("batch", "past", 4))
    proto.graph.input.append(helper.make_tensor_value_info("k", FLOAT, ("batch", 3, 4)))
    proto.graph.input.append(helper.make_tensor_value_info("v", FLOAT, ("batch", "past", 4)))
    graph = reader.read(proto, input_shapes={"x": (2, 0, 4)})
    assert graph.tensors["y"].shape == (2, 3, 4)
    assert graph.tensors["v"].shape == (2, 0, 4)


def test_a_first_dimension_that_is_a_length_is_no_batch() -> None:
    with pytest.raises(GraphError, match=r"--input-shape x=SEQ_LEN,8 "):
        reader.read(model([helper.make_node("Relu", ["x"], ["y"])], ("seq_len", 8)))


def test_stated_shapes_take_batch_and_symbols_from_the_inputs() -> None:
    nodes = [helper.make_node("Own", ["x"], ["z"], domain="f"), helper.make_node("Relu", ["z"], ["y"])]
    proto = model(nodes, (None, "n"))
    proto.graph.value_info.append(helper.make_tensor_value_info("z", FLOAT, (None, "n", 2)))
    assert reader.read(proto, input_shapes=(5, 7)).tensors["y"].shape == (5, 7, 2)


class TooLarge:
    """Behaves like a ``ModelProto`` above 2 GB, which protobuf does not write in one piece."""

    def __init__(self, proto: onnx.ModelProto | None = None) -> None:
        self._proto = proto

    def __new__(cls, proto: onnx.ModelProto | None = None) -> Any:
        return super().__new__(cls) if proto is not None else onnx.ModelProto()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proto, name)

    def SerializeToString(self) -> bytes:  # noqa: N802  protobuf's name
        raise ValueError("exceeds maximum protobuf size of 2GB")


def test_models_too_large_for_protobuf_are_read_without_their_weights() -> None:
    held = [helper.make_tensor("w", FLOAT, [8, 4096], [0.0] * 8 * 4096)]
    held.append(helper.make_tensor("s", TensorProto.INT64, [2], [64, 64]))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Reshape", ["m", "s"], ["y"])]
    assert reader.read(TooLarge(model(nodes, held=held))).tensors["y"].shape == (64, 64)


def test_values_in_an_absent_file_say_which(tmp_path: Path) -> None:
    shape = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "16")):
        shape.external_data.add(key=key, value=value)
    proto = model([helper.make_node("Reshape", ["x", "s"], ["y"])], held=[shape])
    with pytest.raises(GraphError, match=r"values lie in 'w\.bin', not found"):
        reader.read(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "w.bin").write_bytes((2).to_bytes(8, "little") + (4).to_bytes(8, "little"))
    with (tmp_path / "m.onnx").open("rb") as file:
        assert reader.read(file).tensors["y"].shape == (2, 4)


def ir(op_type: str, attrs: dict[str, Any], given: Any, out: Any) -> dict[str, Any]:
    entry = {"type": op_type, "attr": attrs, "input_shape": given, "output_shape": out}
    return {"n": {"attr": entry, "inbounds": [], "outbounds": []}}


@pytest.mark.parametrize(
    "tree",
    [
        ir("Conv", {"kernel_shape": [1, 1], "strides": [float("inf"), 1]}, [[1, 8, 8, 4]], [[1, 8, 8, 4]]),
        ir("Conv", {"kernel_shape": [1, 1], "strides": ["a", "b"]}, [[1, 8, 8, 4]], [[1, 8, 8, 4]]),
        ir("Conv", {"kernel_shape": [1, 1], "group": float("inf")}, [[1, 8, 8, 4]], [[1, 8, 8, 4]]),
        ir("Conv", {"kernel_shape": [1, 1]}, [], [[4]]),
        ir("Conv", {"kernel_shape": [[1], [1]]}, [[1, 8, 8, 4]], [[1, 8, 8, 4]]),
        ir("Relu", {}, [[1] * 70], [[1] * 70]),
    ],
)
def test_odd_values_of_nn_meter_ir_are_errors(tree: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="node 'n'"):
        nnmeter_ir.read(tree)


def test_scalars_of_nn_meter_ir_are_read() -> None:
    assert nnmeter_ir.read(ir("Add", {}, [[]], [[]])).tensors["n:0"].shape == ()


def test_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b'{"a": {"attr": {}}}' * 20))
    packed[12:14] = b"\xff\xff"
    (tmp_path / "bad.json.gz").write_bytes(packed)
    with pytest.raises(ModelFormatError, match="no valid JSON"):
        frontends.read(tmp_path / "bad.json.gz")


def test_gzip_that_unpacks_to_too_much_is_an_error() -> None:
    with pytest.raises(ModelError, match="bytes of JSON; at most"):
        nnmeter_ir.load(gzip.compress(bytes(65 << 20), compresslevel=9))


def test_nodes_of_one_name_cost_no_more_than_others() -> None:
    count = 20_000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name="same") for i in range(count)]
    ends = [helper.make_tensor_value_info(t, FLOAT, [1]) for t in ("t0", f"t{count}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    names = [node.name for node in reader.read(helper.make_model(graph, opset_imports=OPSETS[:1])).nodes]
    assert names[0] == "same"
    assert names[-1] == f"same_{count - 1}"


@pytest.mark.parametrize("at_work", [True, False])
def test_the_collector_is_left_as_it_was(at_work: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if at_work else gc.disable)()
        assert load_latency_predictor().predict(reader.read(model([helper.make_node("Relu", ["x"], ["y"])]))) > 0
        with pytest.raises(ModelError):
            frontends.read(b"none")
        assert gc.isenabled() == at_work
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("kind", [None, "onnx", "tflite", "pb", "nnmeter-ir"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str | None) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for place in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(ModelError, match="no regular file"):
            frontends.read(place, kind)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and does not read")
@pytest.mark.parametrize("kind", ["onnx", "tflite", "pb", "nnmeter-ir"])
def test_a_file_that_opens_and_does_not_read_is_an_error(kind: str) -> None:
    with pytest.raises(ModelError, match="mem"):
        frontends.read("/proc/self/mem", kind)


def test_constants_in_a_pipe_beside_the_model_are_absent(tmp_path: Path) -> None:
    shape = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    shape.external_data.add(key="location", value="w.bin")
    proto = model([helper.make_node("Reshape", ["x", "s"], ["y"])], held=[shape])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(GraphError, match=r"values lie in 'w\.bin', not found"):
        reader.read(tmp_path / "m.onnx")


def test_text_of_nn_meter_ir_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_bytes(b'{"a":"' + bytes(65 << 20) + b'"}')
    with pytest.raises(ModelError, match="bytes of JSON; at most"):
        frontends.read(tmp_path / "big.json", "nnmeter-ir")


def test_values_of_nn_meter_ir_are_counted_before_they_are_made() -> None:
    with pytest.raises(ModelError, match=r"values of JSON, .*; at most"):  # 18 kB that would become 500 MB
        nnmeter_ir.load(gzip.compress(b'{"a":[' + b"{}," * 6_100_000 + b"0]}"))


def test_a_scale_beyond_all_numbers_is_an_error_without_a_warning() -> None:
    scales = helper.make_tensor("s", FLOAT, [2], [1.0, 3e38])
    with pytest.raises(ShapeError, match="Resize"):
        reader.read(model([helper.make_node("Resize", ["x", "", "s"], ["y"])], held=[scales]))


def test_a_damaged_zip_is_recognised_as_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a", "content")
    whole = (tmp_path / "m.zip").read_bytes()
    at = whole.index(b"PK\x01\x02")
    (tmp_path / "m.zip").write_bytes(whole[:at] + b"XX" + whole[at + 2 :])
    with pytest.raises(ModelFormatError, match="not recognised as a model"):
        frontends.read(tmp_path / "m.zip")


def test_nn_meter_ir_whose_nodes_lack_inputs_or_ranks_is_an_error(tiny: Bundle) -> None:
    predictor = load_latency_predictor()
    for tree in (ir("LSTM", {}, [[4, 8]], [[4, 8]]), ir("LSTM", {}, [[4, 1, 8]], [[4, 1, 1, 8]])):
        for ask in (predictor.predict, predictor.explain):
            with pytest.raises(GraphError, match="not the inputs or dimensions that its operator works on"):
                ask(tree, "nnmeter-ir")
        (error,) = predictor.predict_many([tree], "nnmeter-ir")
        assert isinstance(error, ModelError)


def test_nn_meter_ir_whose_product_reads_a_vector_is_counted_without_it() -> None:
    tree = ir("Gemm", {"transB": 1}, [[8]], [[1, 4]])
    predictor = load_latency_predictor()
    found = predictor.explain(tree, "nnmeter-ir")
    assert found.latency_ms == predictor.predict(tree, "nnmeter-ir")
    assert found.size is not None
    assert found.size.multiply_adds == 0


@pytest.mark.parametrize("steps", ["strides", "dilations"])
@pytest.mark.parametrize(
    ("op_type", "reads", "more"),
    [
        ("Conv", ["x", "w"], {}),
        ("ConvTranspose", ["x", "w"], {}),
        ("ConvTranspose", ["x", "w"], {"output_shape": [16, 16]}),
        ("AveragePool", ["x"], {"kernel_shape": [3, 3]}),
    ],
)
def test_a_window_that_does_not_move_is_an_error(
    op_type: str, reads: list[str], more: dict[str, list[int]], steps: str
) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 4, 3, 3], [0.0] * 144)
    node = helper.make_node(op_type, reads, ["y"], auto_pad="SAME_UPPER", **more, **{steps: [1, 0]})
    with pytest.raises(ShapeError, match=f"attribute '{steps}' is .1, 0.; each is at least 1"):
        reader.read(model([node], (1, 4, 8, 8), held=[weights]))


def test_nn_meter_ir_whose_constants_are_left_out_is_answered() -> None:
    tree = ir("Gather", {"axis": 1}, [[1, 4, 8]], [[1, 8]]) | {"m": {**ir("Relu", {}, [[1, 8]], [[1, 8]])["n"]}}
    tree["n"]["outbounds"], tree["m"]["inbounds"] = ["m"], ["n"]
    assert load_latency_predictor().predict(tree, "nnmeter-ir") > 0


def test_a_scalar_has_a_softmax() -> None:
    graph = reader.read(model([helper.make_node("LogSoftmax", ["x"], ["y"])], ()))
    assert load_latency_predictor().predict(graph) > 0


def test_a_softmax_of_nothing_over_several_dimensions_keeps_its_shape() -> None:
    written = model([helper.make_node("Softmax", ["x"], ["y"], axis=1)], (3, 4, 0))
    written.opset_import[0].version = 8
    assert reader.read(written).tensors["y"].shape == (3, 4, 0)


@pytest.mark.parametrize(("shape", "to"), [((4,), (8,)), ((4, 4), (8, 8)), ((1, 3, 4), (1, 3, 8))])
def test_what_has_no_batch_or_channels_is_resized(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    sizes = helper.make_tensor("s", TensorProto.INT64, [len(to)], to)
    graph = reader.read(model([helper.make_node("Resize", ["x", "", "", "s"], ["y"])], shape, held=[sizes]))
    (kernel,) = (each for each in load_latency_predictor().explain(graph).charged if each.kernel.kind == "resize")
    config = kernel.kernel.config
    assert isinstance(config, ResizeConfig)
    assert (config.in_size, config.out_size) == (prod(shape), prod(to))


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_convolutions_of_no_groups_are_errors(op_type: str) -> None:
    held = [helper.make_tensor("w", FLOAT, [2, 1, 3, 3], [0.0] * 18)]
    with pytest.raises(GraphError, match="do not fit in 0 groups"):
        reader.read(model([helper.make_node(op_type, ["x", "w"], ["y"], group=0)], (1, 2, 9, 9), held=held))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("GlobalMaxPool", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x", ""], ["y"]),
    ],
)
def test_low_ranks_and_axes_that_are_left_out_are_answered(node: onnx.NodeProto) -> None:
    assert load_latency_predictor().predict(reader.read(model([node]))) > 0


def test_halves_of_letters_in_names_are_escaped_in_tables() -> None:
    found = load_latency_predictor().explain(reader.read(model([helper.make_node("Relu", ["x"], ["y"])])))
    assert b"\\ud800" in csv.table([replace(found, model="\ud800")]).encode()


def test_a_model_with_nothing_to_price_takes_no_time(tiny: Bundle) -> None:
    free = ir("Const", {}, [], [[1]])
    answer = Predictor(tiny).predict(free, "nnmeter-ir")
    assert (answer, type(answer)) == (0.0, float)


@pytest.mark.parametrize("op_type", ["SplitToSequence", "ConcatFromSequence", "SequenceAt", "Loop", "If"])
def test_sequences_and_flow_of_no_inputs_are_errors(op_type: str) -> None:
    for outputs in (["y"], []):
        with pytest.raises(ModelError, match=op_type):
            reader.read(model([helper.make_node(op_type, [], outputs), helper.make_node("Relu", ["x"], ["z"])]))


@pytest.mark.parametrize("attrs", [{"block_size": 0}, {"block_size": 32, "bits": 0}])
def test_weights_packed_in_blocks_of_nothing_are_an_error(attrs: dict[str, int]) -> None:
    held = [
        helper.make_tensor("w", TensorProto.UINT8, [4, 1, 16], bytes(64), raw=True),
        helper.make_tensor("s", FLOAT, [4, 1], [0.1] * 4),
    ]
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=8, N=4, **attrs)
    with pytest.raises(GraphError, match=r"MatMulNBits\): blocks of"):
        reader.read(model([node], held=held))


@pytest.mark.parametrize("op_type", ["QuantizeLinear", "DequantizeLinear"])
def test_scales_along_an_axis_that_is_not_there_are_an_error(op_type: str) -> None:
    scales = helper.make_tensor("s", FLOAT, [8], [1.0] * 8)
    node = helper.make_node(op_type, ["x", "s"], ["y"], axis=10**15)
    with pytest.raises(ShapeError, match=r"axis 10+ is outside a tensor of 2 dimensions"):
        reader.read(model([node], held=[scales]))


def test_an_axis_of_nn_meter_ir_that_is_not_there_costs_no_memory() -> None:
    tree = ir("QuantizeLinear", {"axis": 10**15}, [[1, 8], [8]], [[1, 8]])
    assert load_latency_predictor().predict(tree, "nnmeter-ir") > 0
