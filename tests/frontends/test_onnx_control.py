"""Loops, branches, sequences, and operators that find as many elements as the data has."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nn_meter.errors import GraphError, InputError, UnsupportedOperatorError
from nn_meter.frontends.onnx import read, reading, wire
from nn_meter.ir import Graph
from nn_meter.limits import BODIES, NODES, Limit

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name: str, shape: tuple[int, ...] | None = None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    held: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    stated: tuple[onnx.ValueInfoProto, ...] = (),
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in (held or {}).items()]
    ends = [value(name) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, ends, weights, value_info=list(stated))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(graph: Graph) -> Counter[str]:
    return Counter(each.op_type for each in graph.nodes if each.op_type != "Identity")


def executed(proto: onnx.ModelProto, graph: Graph) -> list[tuple[int, ...]]:
    """Shapes of ONNX Runtime's results for ones."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {name: np.ones(graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
    return [each.shape for each in session.run(None, feeds)]


# Loops


def loop(trips: Any, ends: str = "cond", name: str = "again") -> onnx.ModelProto:
    """Adds x to what is carried, and keeps each sum; its condition is what goes in, or computed of the data."""
    goes_on = [node("Identity", ["cond"], ["more"])]
    if ends == "data":
        goes_on = [node("ReduceMax", ["sum"], ["top"], keepdims=0), node("Less", ["top", "limit"], ["more"])]
    if ends == "counter":
        goes_on = [node("Less", ["i", "last"], ["more"])]
    body = helper.make_graph(
        [node("Add", ["c", "x"], ["sum"], "add"), node("Identity", ["sum"], ["kept"]), *goes_on], "body",
        [value("i", (), INT), value("cond", (), BOOL), value("c", (1, 4))],
        [value("more", (), BOOL), value("sum", (1, 4)), value("kept", (1, 4))],
    )  # fmt: skip
    held = {"go": True, "limit": np.float32(9), "last": 2}
    if trips is not None:
        held["n"] = trips
    nodes = [node("Loop", ["n" if trips is not None else "", "go", "x"], ["y", "all"], name, body=body)]
    return model(nodes, [value("x", (1, 4))], held, ("y", "all"))


def test_a_loop_of_a_constant_count_is_written_out() -> None:
    proto = loop(3)
    graph = read(proto)
    assert operators(graph) == {"Add": 3, "ConcatFromSequence": 1}
    assert [graph.tensors[name].shape for name in graph.outputs] == [(1, 4), (3, 1, 4)] == executed(proto, graph)
    (note,) = graph.notes
    assert note.startswith("node 'again' (Loop) was written out: 3 steps; what going from one to the next costs")
    assert not graph.assumed


def test_a_loop_that_takes_no_turn_gives_what_went_in_and_keeps_nothing() -> None:
    proto = loop(0)
    graph = read(proto)
    assert operators(graph) == {}
    assert [graph.tensors[name].shape for name in graph.outputs] == [(1, 4), (0, 1, 4)] == executed(proto, graph)


def test_a_loop_ends_by_its_condition_where_that_is_computed_of_its_counter() -> None:
    for trips in (None, 100):
        proto = loop(trips, "counter")
        graph = read(proto)
        assert operators(graph)["Add"] == 3
        assert graph.tensors[graph.outputs[1]].shape == executed(proto, graph)[1]


def test_a_loop_that_the_data_may_end_early_is_counted_in_full_and_the_answer_says_so() -> None:
    graph = read(loop(5, "data"))
    assert operators(graph)["Add"] == 5
    (assumed,) = graph.assumed
    assert "--count again=N states another number" in assumed
    fewer = read(loop(5, "data"), counts={"again": 2})
    assert operators(fewer)["Add"] == 2
    assert not fewer.assumed


def test_a_loop_that_the_data_may_not_even_begin_is_counted_and_the_answer_says_so() -> None:
    proto = loop(None, "counter")
    held = [each for each in proto.graph.initializer if each.name != "go"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(held)
    proto.graph.input.append(value("go", (), BOOL))
    graph = read(proto)
    assert operators(graph)["Add"] == 3
    (assumed,) = graph.assumed
    assert "all its 3 steps were assumed: --count again=N" in assumed
    assert not read(proto, counts={"again": 1}).assumed


def test_a_loop_runs_no_more_often_than_its_count_says() -> None:
    assert operators(read(loop(3), counts={"again": 10}))["Add"] == 3


def test_of_a_loop_within_a_loop_it_is_said_once_what_was_assumed() -> None:
    inner = helper.make_graph(
        [node("Add", ["c", "x"], ["sum"]), node("ReduceMax", ["sum"], ["top"], keepdims=0),
         node("Less", ["top", "limit"], ["more"])], "inner_body",
        [value("i", (), INT), value("cond", (), BOOL), value("c", (1, 4))],
        [value("more", (), BOOL), value("sum", (1, 4))],
    )  # fmt: skip
    outer = helper.make_graph(
        [node("Loop", ["two", "go", "d"], ["e"], "inner", body=inner), node("Identity", ["dc"], ["dm"])], "outer_body",
        [value("j", (), INT), value("dc", (), BOOL), value("d", (1, 4))],
        [value("dm", (), BOOL), value("e", (1, 4))],
    )  # fmt: skip
    held = {"go": True, "limit": np.float32(9), "two": 2, "three": 3}
    proto = model([node("Loop", ["three", "go", "x"], ["y"], "outer", body=outer)], [value("x", (1, 4))], held)
    graph = read(proto)
    assert operators(graph)["Add"] == 6
    assert (len(graph.assumed), len(graph.notes)) == (1, 2)
    fewer = read(proto, counts={"inner": 1})
    assert (operators(fewer)["Add"], fewer.assumed) == (3, ())


def test_the_advice_for_a_loop_that_only_the_data_ends_works() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"'again' \(Loop\) runs until the data .*--count again=10"):
        read(loop(None, "data"))
    assert operators(read(loop(None, "data"), counts={"again": 10}))["Add"] == 10


def test_a_count_for_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="stated for other, which is no tensor"):
        read(loop(3), counts={"other": 2})


def scan(**attrs: Any) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Add", ["h", "x_t"], ["h_t"]), node("Neg", ["h_t"], ["y_t"])], "body",
        [value("h", (2,)), value("x_t", (2,))], [value("h_t", (2,)), value("y_t", (2,))],
    )  # fmt: skip
    nodes = [node("Scan", ["h0", "x"], ["last", "y"], "steps", body=body, num_scan_inputs=1, **attrs)]
    shape = (2, 6) if attrs else (6, 2)
    return model(nodes, [value("h0", (2,)), value("x", shape)], outputs=("last", "y"))


@pytest.mark.parametrize("attrs", [{}, {"scan_input_axes": [1], "scan_output_axes": [1]}])
def test_a_scan_has_a_step_for_each_slice(attrs: dict[str, Any]) -> None:
    proto = scan(**attrs)
    graph = read(proto)
    assert operators(graph) == {"SplitToSequence": 1, "Add": 6, "Neg": 6, "ConcatFromSequence": 1}
    assert [graph.tensors[name].shape for name in graph.outputs] == executed(proto, graph)


def test_a_scan_of_opset_8_says_which_opset_to_export() -> None:
    """It has lengths of sequences before what is carried, and a batch."""
    old = scan()
    del old.graph.input[:], old.graph.node[0].input[:]
    old.graph.input.extend([value("h0", (1, 2)), value("x", (1, 6, 2))])
    old.graph.node[0].input.extend(["", "h0", "x"])
    old.opset_import[0].version = 8
    with pytest.raises(UnsupportedOperatorError, match=r"'steps' \(Scan\) is of opset 8.*in opset 9 or newer"):
        read(old)
    new = scan()
    new.opset_import[0].version = 9
    assert operators(read(new))["Add"] == 6


def test_what_would_be_written_out_without_end_is_refused() -> None:
    proto = scan()
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 1 << 30
    with pytest.raises(GraphError, match=r"'steps' \(Scan\): 1,073,741,824 nodes.*at most 100,000"):
        read(proto)
    nodes = [node("SplitToSequence", ["x"], ["s"], "split"), node("SequenceAt", ["s", "i"], ["y"])]
    with pytest.raises(GraphError, match=r"'split' \(SplitToSequence\): 1,073,741,824 nodes.*at most 100,000"):
        read(model(nodes, [value("x", (1 << 30, 2))], {"i": 0}))


def test_what_loops_hold_in_all_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "written_out", lambda size: (NODES, BODIES, Limit(20, "tensors")))
    assert operators(read(loop(2)))["Add"] == 2
    with pytest.raises(GraphError, match=r"node 'again/\d+': 2\d tensors; at most 20"):
        read(loop(30))


def test_a_body_is_read_once_however_often_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: Counter[wire.Span] = Counter()
    one = wire.GraphReader.graph

    def counted(self: wire.GraphReader, span: wire.Span) -> wire.RawGraph:
        taken[span] += 1
        return one(self, span)

    monkeypatch.setattr(wire.GraphReader, "graph", counted)
    assert operators(read(loop(5)))["Add"] == 5
    assert set(taken.values()) == {1}


# Branches


def branch(decided: bool) -> onnx.ModelProto:
    def body(*names: str) -> onnx.GraphProto:
        chain = [node(each, ["x" if not k else f"{each}{k - 1}"], [f"{each}{k}"]) for k, each in enumerate(names)]
        return helper.make_graph(chain, "b", [], [value(f"{names[-1]}{len(names) - 1}")])

    choice = node("If", ["c"], ["y"], "choice", then_branch=body("Relu"), else_branch=body("Neg", "Neg"))
    if decided:
        return model([choice], [value("x", (2,)), value("c", (), BOOL)])
    nodes = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "z"], ["c"]), choice]
    return model(nodes, [value("x", (2,))], {"z": np.float32(0)})


@pytest.mark.parametrize("decided", [True, False])
def test_of_branches_that_the_data_chooses_the_longer_is_assumed_and_a_value_takes_the_other(decided: bool) -> None:
    graph = read(branch(decided))
    assert operators(graph)["Neg"] == 2
    (assumed,) = graph.assumed
    assert "--input-value c=1 takes the other" in assumed
    other = read(branch(decided), input_values={"c": 1})
    assert (operators(other)["Relu"], operators(other)["Neg"], other.assumed) == (1, 0, ())


def test_a_value_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"2 values are stated for 'c', whose shape is \(\)"):
        read(branch(True), input_values={"c": (1, 0)})


# Sequences


def test_a_split_into_a_sequence_and_what_is_taken_of_it() -> None:
    nodes = [
        node("SplitToSequence", ["x", "n"], ["s"], "split", axis=1),
        node("SequenceAt", ["s", "i"], ["a"]),
        node("SequenceAt", ["s", "j"], ["b"]),
        node("SequenceLength", ["s"], ["count"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    proto = model(nodes, [value("x", (2, 7))], {"n": 3, "i": 0, "j": -2})
    graph = read(proto)
    assert operators(graph) == {"SplitToSequence": 1, "SequenceAt": 2, "Add": 1}
    assert [graph.tensors[name].shape for name in graph.node_by_name["split"].outputs] == [(2, 3), (2, 3), (2, 1)]
    assert graph.tensors["count"].value == (3,)
    assert [graph.tensors["y"].shape] == executed(proto, graph)


@pytest.mark.parametrize(("new_axis", "shape"), [(0, (8, 3)), (1, (2, 4, 3))])
def test_what_is_put_into_a_sequence_is_joined(new_axis: int, shape: tuple[int, ...]) -> None:
    nodes = [
        node("SequenceEmpty", [], ["s0"]),
        node("SequenceInsert", ["s0", "x"], ["s1"]),
        node("SequenceConstruct", ["x", "x"], ["t"]),
        node("SequenceErase", ["t", "i"], ["t1"]),
        node("SequenceInsert", ["t1", "x", "i"], ["t2"]),
        node("ConcatFromSequence", ["t2"], ["y"], axis=0, new_axis=new_axis),
    ]
    proto = model(nodes, [value("x", (4, 3))], {"i": 0})
    graph = read(proto)
    assert graph.tensors["y"].shape == shape == executed(proto, graph)[0]


def test_a_sequence_is_carried_through_a_loop_and_mapped() -> None:
    body = helper.make_graph(
        [node("Neg", ["x"], ["n"]), node("SequenceInsert", ["s", "n"], ["s2"]), node("Identity", ["c"], ["c2"])],
        "body",
        [value("i", (), INT), value("c", (), BOOL), helper.make_tensor_sequence_value_info("s", FLOAT, None)],
        [value("c2", (), BOOL), helper.make_tensor_sequence_value_info("s2", FLOAT, None)],
    )  # fmt: skip
    each = helper.make_graph([node("Relu", ["e"], ["r"])], "each", [value("e")], [value("r")])
    nodes = [
        node("SequenceEmpty", [], ["s0"]),
        node("Loop", ["n", "", "s0"], ["all"], body=body),
        node("SequenceMap", ["all"], ["mapped"], body=each),
        node("ConcatFromSequence", ["mapped"], ["y"], axis=0),
    ]
    graph = read(model(nodes, [value("x", (2, 3))], {"n": 4}))
    assert (operators(graph)["Neg"], operators(graph)["Relu"]) == (4, 4)
    assert graph.tensors["y"].shape == (8, 3)


def test_what_is_optional_is_there_or_not() -> None:
    nodes = [
        node("Optional", ["x"], ["o"]),
        node("OptionalHasElement", ["o"], ["there"]),
        node("OptionalGetElement", ["o"], ["t"]),
        node("Where", ["there", "t", "x"], ["y"]),
    ]
    proto = model(nodes, [value("x", (4, 3))])
    graph = read(proto)
    assert graph.tensors["there"].value == (1,)
    assert [graph.tensors["y"].shape] == executed(proto, graph) == [(4, 3)]
    nothing = [node("Optional", [], ["o"], "o", type=value("o", (4, 3)).type), node("OptionalGetElement", ["o"], ["y"])]
    with pytest.raises(GraphError, match="takes what 'o' does not have"):
        read(model(nothing, [value("x", (4, 3))]))
    kept = [node("SequenceConstruct", ["x"], ["s"]), node("Optional", ["s"], ["y"])]
    with pytest.raises(UnsupportedOperatorError, match="with the sequence in its place"):
        read(model(kept, [value("x", (4, 3))]))


@pytest.mark.parametrize("operator", ["SequenceErase", "SequenceAt"])
def test_an_element_that_is_not_there_is_an_error(operator: str) -> None:
    nodes = [node("SequenceConstruct", ["x", "x"], ["s"]), node(operator, ["s", "i"], ["y"], "take")]
    with pytest.raises(GraphError, match="node 'take' takes element 2 of 2"):
        read(model(nodes, [value("x", (4, 3))], {"i": 2}))


def test_what_sequences_hold_in_all_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ELEMENTS", Limit(4, "elements in sequences"))
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]),
        node("SequenceInsert", ["s", "x"], ["t"]),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    with pytest.raises(GraphError, match="5 elements in sequences; at most 4"):
        read(model(nodes, [value("x", (4, 3))]))


def test_a_sequence_as_input_says_what_to_do() -> None:
    given = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    with pytest.raises(GraphError, match="the input 's' is a sequence"):
        read(model([node("ConcatFromSequence", ["s"], ["y"], axis=0)], [given]))


# As many as the data has


def suppression(stated: bool = False) -> onnx.ModelProto:
    nodes = [
        node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"], "nms"),
        node("Cast", ["kept"], ["y"], to=FLOAT),
    ]
    inputs = [value("boxes", (1, 50, 4)), value("scores", (1, 3, 50))]
    return model(nodes, inputs, {"most": np.array([10])}, stated=(value("kept", (7, 3), INT),) if stated else ())


def test_as_many_boxes_as_may_be_kept_are_assumed_and_a_count_states_fewer() -> None:
    graph = read(suppression())
    assert graph.tensors["y"].shape == (30, 3)
    (assumed,) = graph.assumed
    assert "30, the most there can be, were assumed: --count nms=N states another number" in assumed
    fewer = read(suppression(), counts={"nms": 5})
    assert (fewer.tensors["y"].shape, fewer.assumed) == ((5, 3), ())
    assert read(suppression(stated=True)).tensors["y"].shape == (7, 3)


@pytest.mark.parametrize(
    ("nodes", "most", "three"),
    [
        ([node("NonZero", ["x"], ["y"], "find")], (2, 12), (2, 3)),
        ([node("Unique", ["x"], ["y"], "find")], (12,), (3,)),
        ([node("Unique", ["x"], ["y"], "find", axis=1)], (3, 4), (3, 3)),
        ([node("Cast", ["x"], ["b"], to=BOOL), node("Reshape", ["b", "flat"], ["c"]),
          node("Compress", ["x", "c"], ["y"], "find")], (12,), (3,)),
    ],
    ids=["NonZero", "Unique", "Unique along an axis", "Compress"],
)  # fmt: skip
def test_the_most_that_can_be_found(nodes: list[onnx.NodeProto], most: tuple[int, ...], three: tuple[int, ...]) -> None:
    proto = model(nodes, [value("x", (3, 4))], {"flat": np.array([12])})
    graph = read(proto)
    assert graph.tensors["y"].shape == most
    assert len(graph.assumed) == 1
    assert read(proto, counts={"find": 3}).tensors["y"].shape == three


def test_a_count_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="the count of 'nms' is -1; give a whole number, 0 or more"):
        read(suppression(), counts={"nms": -1})
    with pytest.raises(InputError, match=r"'nms' \(NonMaxSuppression\) finds 30 at most, not 31"):
        read(suppression(), counts={"nms": 31})


def test_what_is_found_in_a_constant_is_known() -> None:
    graph = read(model([node("NonZero", ["k"], ["y"])], [], {"k": np.array([[0, 3], [4, 0]])}))
    assert (graph.tensors["y"].value, graph.assumed) == ((0, 1, 1, 0), ())


def test_the_advice_for_a_value_that_decides_a_shape_works() -> None:
    nodes = [node("ReduceMax", ["x"], ["m"]), node("Cast", ["m"], ["k"], to=INT), node("Reshape", ["k", "one"], ["k1"]),
             node("TopK", ["x", "k1"], ["y", "at"])]  # fmt: skip
    proto = model(nodes, [value("x", (1, 40))], {"one": np.array([1])})
    with pytest.raises(GraphError, match=r"state them: --input-value k1=1 \(in Python input_values="):
        read(proto)
    assert read(proto, input_values={"k1": 6}).tensors["y"].shape == (1, 6)
