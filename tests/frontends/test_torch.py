"""A PyTorch module gives the graph that its ONNX export gives, and stays as it was."""

from __future__ import annotations

import ast
import io
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nn_meter import frontends
from nn_meter.backends.onnx_writer import to_onnx
from nn_meter.errors import ModelError, ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends import front_end, nnmeter_ir, onnx
from nn_meter.frontends import torch as pytorch
from nn_meter.ir import Graph, verify
from nn_meter.ir.shapes import infer
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

for package in ("torch", "torchvision", "timm", "transformers"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

import torch  # noqa: E402

torchvision, timm, hf = (front_end(zoo) for zoo in ("torchvision", "timm", "hf"))
nn = torch.nn
F = torch.nn.functional

COMPUTE = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "MaxPool",
    "AveragePool",
    "LayerNormalization",
    "Softmax",
    "Concat",
)


def compute(graph: Graph) -> Counter[tuple[Any, ...]]:
    """Operators that compute, with the shapes that they read and give."""
    return Counter(
        (
            node.op_type,
            *(graph.tensors[i].shape for i in node.inputs[:2] if i),
            *(graph.tensors[o].shape for o in node.outputs[:1]),
        )
        for node in graph.nodes
        if node.op_type in COMPUTE
        and not all(graph.tensors[i].const for i in node.inputs if i)
        and not (node.op_type == "Concat" and len(node.inputs) == 1)
    )


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def exported(module: Any, inputs: tuple[Any, ...], path: Path) -> Graph:
    """The TorchScript exporter's file, read by the ONNX front end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), dynamo=False, opset_version=17, do_constant_folding=True)
    return onnx.read(path)


CORPUS = (
    "resnet18", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "densenet121", "regnety_004",
    "repvgg_a0", "ghostnet_100", "vit_tiny_patch16_224", "convnext_atto", "mobilevit_xs", "poolformer_s12",
    "rexnet_100", "efficientformer_l1", "xcit_nano_12_p16_224", "tf_mixnet_s",
)  # fmt: skip


@pytest.mark.parametrize("title", CORPUS)
def test_the_module_and_its_onnx_file_compute_the_same(title: str) -> None:
    file = Path(__file__).parents[2] / ".." / "shared" / "models" / f"{title}.onnx"
    if not file.exists():
        pytest.skip(f"no {file}")
    assert compute(timm.read(title)) == compute(onnx.read(file))


ALIGNED = ({"mode": "bilinear", "align_corners": corners} for corners in (True, False))


@pytest.mark.parametrize("how", [{"mode": "nearest"}, *ALIGNED])
def test_a_resized_map_lies_in_blocks_where_it_does_in_the_exported_file(how: dict[str, Any], tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Upsample(scale_factor=2, **how)).eval()
    x = torch.rand(1, 16, 12, 12)
    rules = read_rules({"runtime": "onnxruntime_cpu"})

    def kernels(graph: Graph) -> list[str]:
        return [kernel.label for kernel in fuse(graph, rules).kernels if not kernel.free]

    file = exported(module, (x,), tmp_path / "m.onnx")
    assert kernels(pytorch.read(module, input_shapes=tuple(x.shape))) == kernels(file)


EXPORTER_LEAVES_NO_OPS = frozenset(("densenet121", "ghostnet_100"))
"""The file has a Concat of one tensor and Slices of the whole, which compute nothing and are not in ours."""


@pytest.mark.parametrize("title", sorted(set(CORPUS) - EXPORTER_LEAVES_NO_OPS))
def test_the_module_and_its_onnx_file_fall_into_the_same_kernels(title: str) -> None:
    file = Path(__file__).parents[2] / ".." / "shared" / "models" / f"{title}.onnx"
    if not file.exists():
        pytest.skip(f"no {file}")
    rules = read_rules({"runtime": "onnxruntime_cpu"})

    def kernels(graph: Graph) -> Counter[Any]:
        return Counter((k.kind, repr(k.config)) for k in fuse(graph, rules).kernels if k.kind != "free")

    assert kernels(timm.read(title)) == kernels(onnx.read(file))


class Branches(nn.Module):
    """Layers whose spelling differs between PyTorch and ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.grow = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = F.silu(self.norm(self.stem(x)))
        a, b = self.pool(self.grow(x)).chunk(2, dim=1)
        x = torch.cat((b, a), dim=1)
        x = F.pad(x, (1, 1)).roll(1, dims=2)
        return F.log_softmax(self.head(x.mean((2, 3))), dim=-1)


def test_a_module_of_many_layers_matches_its_export(tmp_path: Path) -> None:
    module = Branches().eval()
    graph = pytorch.read(module, input_shapes=(1, 3, 16, 16))
    assert compute(graph) == compute(
        exported(module, (torch.zeros(1, 3, 16, 16),), tmp_path / "branches.onnx")
    )


@pytest.mark.parametrize(
    "title", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128"]
)
def test_shape_rules_agree_with_pytorch(title: str) -> None:
    graph = verify(timm.read(title))
    for node in graph.nodes:
        for tensor in infer(node, graph.input_tensors(node)):
            assert tensor.shape == graph.tensors[tensor.name].shape, node


# The module stays as it was


def snapshot(module: Any) -> tuple[Any, ...]:
    return (
        [part.training for part in module.modules()],
        [
            (key, id(value), value.device, value.clone())
            for key, value in module.state_dict(keep_vars=True).items()
        ],
        [dict(part._forward_hooks) | dict(part._forward_pre_hooks) for part in module.modules()],
        [sorted(vars(part)) for part in module.modules()],
    )


class Counting(nn.Module):
    """Writes into its buffers as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.calls[1:].mul_(2)
        return self.drop(self.norm(self.conv(x))) * self.calls.sum()


def test_the_module_stays_as_it_was() -> None:
    module = Counting()
    module.norm.eval()
    module.conv.register_forward_hook(lambda *_: None)
    before = snapshot(module)
    graph = pytorch.read(module, input_shapes=(1, 3, 8, 8))
    after = snapshot(module)
    assert ops(graph) == ["Conv", "BatchNormalization", "Mul"]
    assert before[0] == after[0]
    assert before[2:] == after[2:]
    for (key, ident, device, value), now in zip(before[1], after[1], strict=True):
        assert (key, ident, device) == now[:3]
        assert torch.equal(value, now[3])
    assert module(torch.zeros(2, 3, 8, 8)).requires_grad


class Caching(nn.Module):
    def forward(self, x: Any) -> Any:
        self.last = x
        self.register_buffer("ramp", torch.arange(x.shape[1]))
        return x + self.ramp


def test_what_a_module_keeps_for_itself_is_not_kept() -> None:
    module = Caching()
    before = snapshot(module)
    assert ops(pytorch.read(module, input_shapes=(1, 3))) == ["Add"]
    assert snapshot(module) == before


def test_a_failing_read_restores_training_mode() -> None:
    module = Counting().train()
    with pytest.raises(ModelError):
        pytorch.read(module, input_shapes=(1, 5, 8, 8))
    assert all(part.training for part in module.modules())


def test_a_module_on_the_meta_device_gives_the_same_graph() -> None:
    with torch.device("meta"):
        empty = Branches()
    real = pytorch.read(Branches(), input_shapes=(1, 3, 16, 16))
    assert pytorch.read(empty, input_shapes=(1, 3, 16, 16)) == real


def test_weights_keep_their_names_and_dtype() -> None:
    graph = pytorch.read(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).half(), input_shapes=(1, 3, 4, 4))
    assert graph.tensors["0.weight"].dtype == "float16"
    assert graph.tensors[graph.inputs[0]].dtype == "float16"
    assert [node.name for node in graph.nodes] == ["/0/Conv", "/1/Relu"]


# Views and operators in place


class InPlace(nn.Module):
    def forward(self, x: Any) -> Any:
        y = torch.zeros(x.shape[0], 4)
        y[:, 1:3] = x
        y[:, :1] += x[:, :1]
        return y.relu_()


def test_writing_into_a_view_changes_the_tensor_behind_it() -> None:
    graph = pytorch.read(InPlace(), input_shapes=(2, 2))
    assert ops(graph) == ["ScatterND", "Slice", "Slice", "Add", "ScatterND", "ScatterND", "Relu"]


class Constants(nn.Module):
    def forward(self, x: Any) -> Any:
        sizes = torch.tensor([x.shape[2], x.shape[3]])
        if int(sizes.sum()) > 10 and bool((torch.arange(4) < 2).any()):
            return torch.relu(x)
        return torch.sigmoid(x)


def test_code_may_branch_on_constants() -> None:
    assert ops(pytorch.read(Constants(), input_shapes=(1, 3, 8, 8))) == ["Relu"]
    assert ops(pytorch.read(Constants(), input_shapes=(1, 3, 4, 4))) == ["Sigmoid"]


# Inputs


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, input_ids: Any, weights: Any | None = None) -> Any:
        x = self.layer(self.words(input_ids))
        return x if weights is None else {"weighted": x * weights, "plain": (x,)}


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 7), (2, 7, 1)),
        {"input_ids": (2, 7), "weights": (2, 7, 1)},
        [((2, 7), "int64"), ((2, 7, 1), "float32")],
        (torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 7, 1)),
    ],
)
def test_several_inputs_in_every_form(shapes: Any) -> None:
    graph = pytorch.read(Text(), input_shapes=shapes)
    assert graph.inputs == ("input_ids", "weights")
    assert [graph.tensors[i].dtype for i in graph.inputs] == ["int64", "float32"]
    assert [graph.tensors[o].shape for o in graph.outputs] == [(2, 7, 16), (2, 7, 16)]
    assert "Softmax" in ops(graph)


def test_the_default_input_is_an_image() -> None:
    graph = pytorch.read(nn.Conv2d(3, 8, 3))
    assert graph.tensors[graph.inputs[0]].shape == (1, 3, 224, 224)


# Exported programs and files


def test_exported_programs_and_their_files(tmp_path: Path) -> None:
    module = Branches().eval()
    wanted = compute(pytorch.read(module, input_shapes=(1, 3, 16, 16)))
    program = torch.export.export(module, (torch.zeros(1, 3, 16, 16),))
    assert compute(pytorch.read(program)) == wanted
    path = tmp_path / "branches.pt2"
    torch.export.save(program, path)
    assert pytorch.sniff(path)
    assert compute(pytorch.read(path)) == wanted


def test_torchscript_says_what_to_do(tmp_path: Path) -> None:
    scripted = torch.jit.trace(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4))
    path = tmp_path / "scripted.pt"
    torch.jit.save(scripted, path)
    assert pytorch.sniff(path)
    for source in (path, scripted):
        with pytest.raises(ModelFormatError, match=r"is TorchScript.*torch\.export\.save"):
            pytorch.read(source)


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Conv2d(3, 4, 1).state_dict(), path)
    with pytest.raises(ModelFormatError, match="holds weights or a pickled object, not a program"):
        pytorch.read(path)


def test_weights_and_a_class_are_told_from_models() -> None:
    layer = nn.Linear(4, 4)
    assert pytorch.sniff(layer.state_dict())
    assert not nnmeter_ir.sniff(layer.state_dict())
    with pytest.raises(ModelFormatError, match=r"holds weights.*build the torch\.nn\.Module and pass that"):
        frontends.read(layer.state_dict())
    with pytest.raises(ModelError, match=r"ReLU is a class; pass a module that was made of it: ReLU\(\.\.\.\)"):
        frontends.read(nn.ReLU)


class Levels(nn.Module):
    def forward(self, maps: list[torch.Tensor], scale: float = 1.0) -> list[torch.Tensor]:
        return [scale * each.relu() for each in maps]


class Masked(nn.Module):
    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> torch.Tensor:
        return x * mask


@pytest.mark.parametrize(
    ("module", "shapes"), [(Levels(), [(1, 3, 8, 8), (1, 3, 4, 4), (1, 3, 2, 2)]), (Masked(), (2, 4))]
)
def test_inputs_by_name_are_shown_as_forward_takes_them(module: nn.Module, shapes: object) -> None:
    """Followed literally, the advice works."""
    with pytest.raises(ModelError, match="by name as in") as error:
        pytorch.read(module, input_shapes=shapes)
    advice = ast.literal_eval(str(error.value).partition("by name as in ")[2])
    assert pytorch.read(module, input_shapes=advice).nodes


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "cut.pt2"
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), buffer)
    path.write_bytes(buffer.getvalue()[:200])
    with pytest.raises(ModelFormatError, match=r"cut\.pt2: not a torch\.export archive"):
        pytorch.read(path)
    with pytest.raises(ModelError, match="no such file"):
        pytorch.read(tmp_path / "absent.pt2")


# Errors


class Depends(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return x + 1
        return x


class Outer(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), inner)

    def forward(self, x: Any) -> Any:
        return self.body(x)


class Strange(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.inv(x)


def test_a_wrong_shape_names_module_and_line() -> None:
    with pytest.raises(
        ModelError, match=r"Outer: in body\.1 at .*RuntimeError.*input_shapes that fit the model"
    ):
        pytorch.read(Outer(nn.Conv2d(4, 4, 1)), input_shapes=(1, 3, 8, 8))


def test_a_branch_on_values_names_the_line() -> None:
    with pytest.raises(ModelError, match=r"in body\.1 at .*test_torch\.py:\d+: the code asks for the value"):
        pytorch.read(Outer(Depends()), input_shapes=(1, 3))


def test_an_unknown_operator_names_itself_and_the_line() -> None:
    with pytest.raises(
        UnsupportedOperatorError, match=r"at .*test_torch\.py:\d+: no row for the PyTorch operator aten\.\S+"
    ):
        pytorch.read(Strange(), input_shapes=(1, 3, 3))


@pytest.mark.parametrize(
    ("shapes", "text"), [("224", "is no shape"), ((1, -3, 8, 8), "below 1"), (((2,), "int65"), "no dtype")]
)
def test_shapes_that_are_none(shapes: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        pytorch.read(nn.ReLU(), input_shapes=shapes)


def test_something_else_is_no_module() -> None:
    assert not pytorch.sniff(3)
    with pytest.raises(ModelError, match="cannot read a int as a PyTorch model"):
        pytorch.read(3)


class Ordered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Any, *, scale: float, relu: bool = False) -> Any:
        y = self.layer(x) * scale
        return torch.relu(y) if relu else y


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (
            (1, 8),
            r"Ordered: missing a required argument: 'scale'; it takes forward\(x, \*, scale, relu=False\)",
        ),
        (((1, 8), (1, 8)), r"Ordered: too many positional arguments; .* or by name as in"),
        ({"x": (1, 8), "scale": 2.0, "bias": (4,)}, "Ordered: got an unexpected keyword argument 'bias'"),
    ],
)
def test_inputs_that_forward_does_not_take(shapes: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        pytorch.read(Ordered(), input_shapes=shapes)


def test_plain_values_by_name_reach_forward() -> None:
    graph = pytorch.read(Ordered(), input_shapes={"x": (1, 8), "scale": 2.0, "relu": True})
    assert ops(graph) == ["Gemm", "Mul", "Relu"]
    assert graph.inputs == ("x",)


class Selects(nn.Module):
    def forward(self, x: Any) -> Any:
        return x[x > 0]


class AsNumpy(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * torch.from_numpy(x.numpy())


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Selects(), r"Selects: in forward at .*test_torch\.py:\d+: the code selects elements by the value"),
        (AsNumpy(), r"AsNumpy: in forward at .*test_torch\.py:\d+: the code asks for the value of a tensor"),
        (
            nn.Sequential(nn.Conv1d(1, 1, 1).half(), nn.Conv1d(1, 1, 1)),
            r"Sequential: in 1: .*; the inputs were input float16\(1, 8\)",
        ),
    ],
)
def test_what_a_forward_must_not_do_names_the_place(module: Any, said: str) -> None:
    with pytest.raises((ModelError, UnsupportedOperatorError), match=said):
        pytorch.read(module, input_shapes=(1, 8))


def test_a_quantised_module_says_what_to_read_instead() -> None:
    module = nn.Sequential(torch.ao.nn.quantized.Quantize(1.0, 0, torch.quint8))
    with pytest.raises(
        UnsupportedOperatorError, match=r"in 0: aten\.quantize_per_tensor of a quantised module .*"
    ):
        pytorch.read(module, input_shapes=(1, 8))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.fx.symbolic_trace])
def test_a_wrapped_module_reads_as_what_it_wraps(wrap: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    assert ops(pytorch.read(wrap(module), input_shapes=(1, 3, 8, 8))) == ["Conv", "Relu"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_input_takes_the_dtype_of_the_weights(dtype: Any) -> None:
    graph = pytorch.read(nn.Linear(8, 4).to(dtype), input_shapes=(1, 8))
    assert {tensor.dtype for tensor in graph.tensors.values()} == {str(dtype).removeprefix("torch.")}


def test_buffers_may_lie_on_another_device() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module[0].to("meta")
    assert ops(pytorch.read(module, input_shapes=(1, 3, 8, 8))) == ["Conv", "BatchNormalization"]


class Hooked(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.cuda() + 1


def test_hooks_run_and_moves_to_a_gpu_do_nothing() -> None:
    module = Hooked()
    module.register_forward_hook(lambda _module, _args, out: out * 2)
    assert ops(pytorch.read(module, input_shapes=(1, 8))) == ["Add", "Mul"]


class Places(nn.Module):
    def forward(self, x: Any, index: Any) -> Any:
        x = x.clone()
        x[:, index] = 1.0
        x[index, index] += 2.0
        return x


def test_indices_that_place_values_are_kept() -> None:
    graph = pytorch.read(Places(), input_shapes=[(4, 4), ((3,), "int64")])
    scatters = [node for node in graph.nodes if node.op_type == "ScatterND"]
    shapes = [[graph.tensors[name].shape for name in node.inputs] for node in scatters]
    assert shapes == [[(4, 4), (3, 1), (3, 4)], [(4, 4), (3, 2), (3,)]]
    assert graph.notes == ()


class Masked(nn.Module):
    def forward(self, x: Any, values: Any) -> Any:
        x = x.clone()
        x[x > 0] = values
        return x


def test_a_mask_that_places_values_is_noted() -> None:
    graph = pytorch.read(Masked(), input_shapes=[(4, 4), (7,)])
    assert graph.notes == ("index_put: a mask was taken to select as many elements as there are values",)


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


ROWS = torch.tensor([2, 0])
COMPUTED: dict[str, Any] = {
    "index_add": lambda x: x.index_add(0, ROWS, x[:2], alpha=2),
    "index_copy": lambda x: x.index_copy(1, ROWS, x[:, :2]),
    **{
        f"scatter_reduce {how}, {'with' if kept else 'without'} what was there": lambda x, how=how, kept=kept: (
            x.scatter_reduce(1, torch.tensor([[0, 0, 2, 2, 2, 5, 5, 5]] * 4), x, how, include_self=kept)
        )
        for how in ("sum", "prod", "amax", "amin")
        for kept in (True, False)
    },
    "lerp": lambda x: torch.lerp(x, x.flip(0), 0.3),
    "logaddexp": lambda x: torch.logaddexp(x, -x),
    **{f"cdist of order {p}": lambda x, p=p: torch.cdist(x, x[:3], p=p) for p in (1.0, 2.0, 3.0, float("inf"))},
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.7])),
    "bucketize to the right": lambda x: torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.7]), right=True),
    "searchsorted": lambda x: torch.searchsorted(torch.sort(x, dim=1)[0], x[:, :3]),
    "median": lambda x: torch.median(x, 1)[0],
    "median of all": lambda x: torch.median(x),
    "kthvalue": lambda x: torch.kthvalue(x, 3, 0, keepdim=True)[0],
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_written_computes_what_pytorch_does(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    module, x = Applied(COMPUTED[name]), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    file = to_onnx(pytorch.read(module, input_shapes=(4, 8)), seed=0).SerializeToString()
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(x), rtol=1e-4, atol=1e-5, check_dtype=False)


def test_a_mean_of_what_falls_together_is_a_sum_over_a_count() -> None:
    graph = pytorch.read(Applied(lambda x: x.scatter_reduce(0, (x > 0).long(), x, "mean")), input_shapes=(4, 8))
    assert ops(graph)[-4:] == ["ScatterElements", "ScatterElements", "Max", "Div"]


def test_running_products_and_what_is_put_where_a_mask_says_are_read() -> None:
    assert ops(pytorch.read(Applied(lambda x: torch.cumprod(x, 1)), input_shapes=(4, 8))) == ["CumProd"]
    graph = pytorch.read(Applied(lambda x: x.masked_scatter(x > 0, x[:2])), input_shapes=(4, 8))
    assert ops(graph)[-1] == "ScatterND"
    assert graph.notes == ("masked_scatter: a mask was taken to select as many elements as there are values",)


# Mixtures of experts


def mixture(implementation: str) -> Any:
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    with torch.device("meta"):
        return transformers.MixtralForCausalLM._from_config(config, experts_implementation=implementation)


def test_experts_compute_an_even_share_of_the_tokens() -> None:
    graph = pytorch.read(mixture("grouped_mm"), input_shapes=[((1, 7), "int64")])
    (note,) = graph.notes
    assert note == "14 rows were taken to be spread evenly over 4 experts: 4 get 3 or 4 each"
    experts = [
        (graph.tensors[node.inputs[0]].shape[0], graph.tensors[node.inputs[1]].shape)
        for node in graph.nodes
        if node.op_type == "MatMul" and "/experts/" in node.name
    ]
    assert experts == [(n, shape) for shape in ((32, 96), (48, 32)) for n in (4, 4, 3, 3)] * 2


def test_fewer_rows_than_experts_reach_one_expert_each() -> None:
    graph = pytorch.read(mixture("grouped_mm"), input_shapes=[((1, 1), "int64")])
    assert graph.notes == ("2 rows were taken to be spread evenly over 4 experts: 2 get 1 each",)


def test_experts_chosen_by_value_say_what_to_use() -> None:
    with pytest.raises(ModelError, match=r"experts at .*A mixture of experts can be read where .*grouped_mm"):
        pytorch.read(mixture("eager"), input_shapes=[((1, 7), "int64")])


# Names


@pytest.mark.parametrize(
    ("front", "wrong", "near"),
    [
        (torchvision, "torchvision:resnet19", "resnet18"),
        (timm, "timm:vit_tinny_patch16_224", "vit_tiny"),
        (hf, "hf:bert-base-uncase", "bert-base-uncased"),
    ],
)
def test_near_names_are_suggested(front: Any, wrong: str, near: str) -> None:
    assert front.sniff(wrong)
    with pytest.raises(ModelError, match=f"did you mean .*{near}"):
        front.read(wrong)


def test_names_know_their_inputs() -> None:
    assert torchvision.build("inception_v3").inputs(1, 0) == ((1, 3, 299, 299),)
    assert torchvision.build("r3d_18").inputs(4, 0) == ((4, 3, 16, 112, 112),)
    assert len(torchvision.build("raft_small").inputs(1, 0)) == 2
    graph = torchvision.read("torchvision:resnet18")
    assert graph.name == "resnet18"
    assert Counter(ops(graph))["Conv"] == 20


def test_transformers_by_name_and_by_config(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False))
    assert hf.sniff(config)
    assert hf.sniff(tmp_path)
    by_object = hf.read(config, seq_len=9, batch_size=3)
    by_file = hf.read(tmp_path / "config.json", seq_len=9, batch_size=3)
    assert compute(by_object) == compute(by_file)
    assert by_object.tensors[by_object.inputs[0]].shape == (3, 9)
    assert Counter(ops(by_object))["Softmax"] == 2


def test_what_was_read_before_is_read_the_same_again() -> None:
    class Doubtful(nn.Module):
        """A dropout gives its argument itself, which the next operator then changes."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Dropout()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.conv(x))
            z = self.drop(y).add_(1).to(y.dtype)
            return torch.cat([F.relu(y), z.div(2), *z.split(1, dim=1)[:2]], dim=1)

    from nn_meter.frontends.torch import record

    record._REMEMBERED._known.clear()
    first = [pytorch.read(Doubtful(width), input_shapes=(1, 3, 8, 8)) for width in (4, 8)]
    asked = len(record._REMEMBERED._known)
    again = [pytorch.read(Doubtful(width), input_shapes=(1, 3, 8, 8)) for width in (4, 8)]
    assert again == first
    assert 0 < asked == len(record._REMEMBERED._known)
    torch.set_default_dtype(torch.float64)
    try:
        assert pytorch.read(Doubtful(4), input_shapes=(1, 3, 8, 8)).tensors["x"].dtype == "float64"
    finally:
        torch.set_default_dtype(torch.float32)


def meta(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.empty(shape, dtype=dtype, device="meta")


X, ROW, ONE = (2, 8, 4, 6), (3, 5, 8), meta(8)
TURNED, WHOLE, HALF = meta(2, 4, 6, 8).permute(0, 3, 1, 2), meta(*X, dtype=torch.int64), meta(*X, dtype=torch.float16)
ASKED = [
    ("relu", (meta(*X),)), ("hardtanh", (meta(*X), 0.0, 6.0)), ("gelu", (meta(*X),)), ("elu", (meta(0, 3),)),
    ("relu", (TURNED,)), ("sigmoid", (WHOLE,)), ("leaky_relu", (HALF, 0.1)), ("hardswish", (meta(),)),
    ("hardsigmoid", (meta(*X),)), ("silu", (meta(*X),)), ("tanh", (meta(*X),)), ("sigmoid", (meta(*X),)),
    *((name, (meta(*X), meta(*X))) for name in ("mul", "sub", "div")),
    ("add", (meta(*X), meta(*X))), ("mul", (meta(*X), meta(8, 1, 1))), ("sub", (meta(*X), HALF)),
    ("div", (WHOLE, WHOLE)),
    ("add", (meta(*X), TURNED)), ("add", (meta(*X), WHOLE)),
    ("batch_norm", (meta(*X), ONE, ONE, ONE, ONE, False, 0.1, 1e-5, True)),
    ("batch_norm", (meta(*X), None, None, ONE, ONE, False, 0.1, 1e-5, True)),
    ("batch_norm", (meta(*X), meta(7), ONE, ONE, ONE, False, 0.1, 1e-5, True)),
    ("batch_norm", (HALF, ONE, ONE, ONE, ONE, False, 0.1, 1e-5, True)),
    ("batch_norm", (TURNED, ONE, ONE, ONE, ONE, False, 0.1, 1e-5, True)),
    ("layer_norm", (meta(*ROW), [8], ONE, ONE)), ("layer_norm", (meta(*ROW), [5, 8])),
    ("layer_norm", (meta(*ROW), [7], meta(7), meta(7))), ("layer_norm", (meta(*ROW), [8], meta(7), None)),
    ("group_norm", (meta(*X), 4, ONE, ONE)), ("group_norm", (meta(*X), 3, ONE, ONE)), ("group_norm", (meta(*X), 0)),
    ("linear", (meta(*ROW), meta(10, 8), meta(10))), ("linear", (meta(8), meta(10, 8))),
    ("linear", (meta(*ROW), meta(8))), ("linear", (meta(*ROW), meta(10, 7))),
    ("linear", (meta(*ROW), meta(10, 8), ONE)),
    ("conv2d", (meta(*X), meta(10, 8, 3, 2), meta(10), [2, 1], [1, 0], [1, 2], 1)),
    ("conv2d", (meta(*X), meta(16, 1, 3, 3), None, [3], [1], [1], 8)), ("conv2d", (meta(*X), meta(10, 8, 3, 3))),
    ("conv1d", (meta(2, 8, 9), meta(4, 4, 3), None, [1], [0], [1], 2)),
    ("conv3d", (meta(1, 2, 4, 4, 4), meta(3, 2, 1, 2, 3))),
    ("conv2d", (meta(*X), meta(10, 8, 3, 3), None, [1, 1], "same")), ("conv2d", (meta(8, 4, 6), meta(10, 8, 3, 3))),
    ("conv2d", (meta(*X), meta(10, 8, 5, 5))), ("conv2d", (meta(*X), meta(10, 7, 1, 1))),
    ("conv2d", (meta(*X), meta(10, 8, 1, 1), ONE)), ("conv2d", (TURNED, meta(10, 8, 1, 1))),
    ("conv2d", (meta(*X), meta(9, 4, 1, 1), None, [1, 1], [0, 0], [1, 1], 2)),
    ("conv2d", (meta(*X), meta(10, 8, 1, 1), None, [1, 1], [-1, 0])),
    ("adaptive_avg_pool2d", (meta(*X), [1, 1])), ("adaptive_avg_pool2d", (meta(*X), [7, 7])),
    ("adaptive_avg_pool2d", (meta(*X), [0, 1])), ("adaptive_avg_pool2d", (meta(8, 4, 6), [2, 2])),
    ("adaptive_avg_pool2d", (TURNED, [2, 2])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), ASKED)
def test_what_is_not_asked_of_pytorch_is_what_it_answers(name: str, args: tuple[Any, ...]) -> None:
    from nn_meter.frontends.torch.shaped import RULES

    shape = RULES[name](*args)
    if shape is not None:
        said = getattr(torch.ops.aten, name)(*args)
        assert (shape, args[0].dtype, True) == (tuple(said.shape), said.dtype, said.is_contiguous())


def test_rules_answer_what_is_common() -> None:
    from nn_meter.frontends.torch.shaped import RULES

    answered = {name for name, args in ASKED if RULES[name](*args) is not None}
    assert answered == RULES.keys() - {"_grouped_mm"}, "which PyTorch refuses on meta"
