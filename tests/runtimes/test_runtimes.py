"""A runtime is one value: found by its names, apart from all others, and sound after each of its passes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nn_meter import plugins, runtimes
from nn_meter.errors import RuleError
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph, GraphBuilder, parse
from nn_meter.kernels.rewriting import Work
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import FAMILIES
from nn_meter.runtimes import Options, Pass, Runtime
from nn_meter.runtimes.base import Run
from nn_meter.runtimes.fusion import fuse
from nn_meter.testing import check_runtime, check_work

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / ".." / "shared" / "models").glob("*.onnx"))[::4]
OBEYED = (
    "BF_conv_bn", "BF_conv_relu", "BF_conv_add", "BF_conv_add_relu", "BF_conv_Swish", "BF_conv_hswish", "BF_fc_Gelu",
    "BF_add_relu", "BF_relu_add", "BF_LayerNormalization_add", "BF_concat_concat",
)  # fmt: skip
RULES = read_rules({name: {"obey": True} for name in OBEYED})


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("onnxruntime", "onnxruntime"),
        ("onnxruntime_cpu", "onnxruntime"),
        ("openvino_cpu", "openvino"),
        ("rules", "rules"),
        ("", "nn-meter"),
    ],
)
def test_a_runtime_is_found_by_what_rule_files_and_backends_call_it(asked: str, name: str) -> None:
    assert runtimes.find(asked).name == name


def test_an_unknown_runtime_names_those_that_exist_and_what_to_write_instead() -> None:
    graph = parse("input x: float32[2]\ny = Relu(x)\noutput y")
    with pytest.raises(RuleError) as error:
        fuse(graph, read_rules({"runtime": "openvno"}))
    text = str(error.value)
    assert text.startswith("there is no runtime 'openvno'; did you mean openvino? there are: onnxruntime, openvino, ")
    assert 'write "runtime": "rules"' in text
    assert len(fuse(graph, read_rules({"runtime": "rules"})).kernels) == 1


MINE = Runtime("mine", (Pass("nothing", lambda work, options: None),), known_as=("mine_npu",))


def test_another_package_brings_a_runtime_through_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"mine": f"{__name__}:MINE"}
    monkeypatch.setattr(plugins, "_installed", lambda group: there if group == "nn_meter.runtimes" else {})
    assert runtimes.find("mine_npu") is MINE
    assert "mine" in runtimes.available()
    there["mine"] = "absent:RUNTIME"
    assert runtimes.find("openvino").name == "openvino"
    with pytest.raises(RuleError, match="runtime 'mine': absent:RUNTIME cannot be loaded"):
        runtimes.find("mine")


def test_no_runtime_imports_another() -> None:
    own = {place.partition(":")[0] for place in plugins.GROUPS["runtime"].built_in.values()}
    for module in own:
        path = ROOT / "src" / module.replace(".", "/")
        for file in path.glob("*.py") if path.is_dir() else (path.with_suffix(".py"),):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    named = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
                    others = {n for n in named for o in own - {module} if n == o or n.startswith(f"{o}.")}
                    assert not others, f"{file.name} imports {', '.join(others)}"


def padded(op_type: str, fill: float = 0.0) -> Graph:
    b = GraphBuilder("padded")
    x = b.op("Pad", b.input((1, 16, 8, 8)), b.const((0, 0, 1, 1, 0, 0, 1, 1)), b.const(fill))
    extra = (b.weight((16, 16, 3, 3)),) if op_type == "Conv" else ()
    return b.graph(b.op(op_type, x, *extra, kernel_shape=(3, 3)))


@pytest.mark.parametrize(
    ("op_type", "version", "kernels"),
    [
        ("Conv", "", 1),
        ("AveragePool", "1.32.0", 1),
        ("MaxPool", "1.31.1", 1),
        ("MaxPool", "1.32.0", 2),
        ("MaxPool", "", 2),
        ("MaxPool", "9" * 5000, 2),
    ],
)
def test_a_version_is_an_axis_of_the_passes(op_type: str, version: str, kernels: int) -> None:
    found = fuse(padded(op_type), read_rules({"runtime": "onnxruntime"}), version=version).kernels
    assert len([k for k in found if k.nodes]) == kernels


def test_a_pad_that_stays_says_why() -> None:
    partition = fuse(padded("Conv", fill=1.0), read_rules({"runtime": "onnxruntime", "block": 0}))
    assert [each.reason for each in partition.unfused] == ["the Pad adds another value than zero"]


def optimised_step_by_step(runtime: Runtime, graph: Graph) -> None:
    """By rules that admit a lot; ``check_runtime`` does the same without rules, in every version."""
    work = Work(graph)
    for each in runtime.passes_of():
        each.run(work, Options(RULES, runtime.facts))
        check_work(work, graph)


def drops_a_node(work: Work, options: Options) -> None:
    work.remove(next(work.ops("Relu")))


def reads_too_early(work: Work, options: Options) -> None:
    first, *_, last = work.ops()
    work.swap_input(first, first.inputs[0], last.outputs[0])


@pytest.mark.parametrize(
    ("run", "found"), [(drops_a_node, "before anything makes it"), (reads_too_early, "before anything makes it")]
)
def test_a_pass_that_breaks_the_graph_is_told(run: Run, found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        check_runtime(Runtime("broken", (Pass("breaks", run),)))


VALUES = [runtimes.find(name) for name in runtimes.available()]


@pytest.mark.parametrize("runtime", VALUES, ids=lambda each: each.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_generated_networks_are_sound_after_each_pass(family: str, runtime: Runtime) -> None:
    graph = FAMILIES[family](7)
    optimised_step_by_step(runtime, graph)
    check_runtime(runtime, graph)


@pytest.mark.parametrize("runtime", VALUES, ids=lambda each: each.name)
@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").rglob("*.onnx")), *MODELS], ids=lambda path: path.name)
def test_models_are_sound_after_each_pass(path: Path, runtime: Runtime) -> None:
    graph = reader.read(path)
    optimised_step_by_step(runtime, graph)
    check_runtime(runtime, graph)


def test_views_are_free_in_pytorch_and_cost_something_in_onnx_runtime() -> None:
    b = GraphBuilder("view")
    y = b.op("Reshape", b.op("Relu", b.input((2, 3, 4))), b.const((6, 4)))
    graph = b.graph(b.op("Softmax", y, axis=-1))
    for runtime, free in (("pytorch", True), ("onnxruntime_cpu", False)):
        found = {k.kind: bool(k.free) for k in fuse(graph, read_rules({"runtime": runtime})).kernels}
        assert found["reshape"] is free
        assert not found["softmax"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "rules"])
def test_an_operator_of_an_unknown_domain_is_not_the_one_whose_name_it_shares(runtime: str) -> None:
    graph = parse(
        "input x: float32[1,4,8,8]\nconst w: float32[4,4,1,1]\nc: float32[1,4,8,8] = mine::Conv(x, w)\n"
        "d: float32[1,4,8,8] = mine::Identity(c)\ny = Relu(d)\noutput y"
    )
    kernels = fuse(graph, read_rules({"runtime": runtime, "BF_conv_relu": {"obey": True}})).kernels
    mine = [("other", "mine.Conv"), ("other", "mine.Identity")]
    assert [(kernel.kind, kernel.label) for kernel in kernels][:2] == mine
    assert len(kernels) == 3


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert", "mnn", "ncnn", "pytorch", "rules"])
def test_a_slice_that_turns_around_keeps_the_shape_and_is_executed(name: str) -> None:
    b = GraphBuilder("turned")
    x = b.op("Relu", b.input((2, 3, 8)))
    y = b.op("Slice", x, b.const((-1,)), b.const((-9,)), b.const((2,)), b.const((-1,)))
    kernels = fuse(b.graph(b.op("Sigmoid", y)), read_rules({"runtime": name})).kernels
    assert [kernel.kind for kernel in kernels] == ["unary", "slice", "unary"]
