"""PyTorch on GPUs of data centres: Lee, Phanishayee, Mahajan, *Forecasting GPU Performance for Deep Learning Training
and Inference* (NeuSight, ASPLOS 2025).

Their repository sitar-lab/NeuSight (MIT) holds latencies of single kernels in PyTorch 2.1, single precision, of whole
language models, and the GPUs' data sheets. The products of matrices are drawn at random; each elementwise operator was
run over the same list of sizes.

The convolutions, drawn at random too, were measured while something grew: the least latency of every twentieth of their
table rises from 0.06 to 0.11 ms at its head to 0.3 to 0.8 ms at its end, on all GPUs, and convolutions of every size
from 0.3 to 4 ms rise by as much. That is no work of theirs, and is taken off (``_steady``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.devices.device import Device
from nn_meter.devices.sheet import Sheet
from nn_meter.errors import BuildError, ModelError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import BroadcastConfig, ConvConfig, GemmConfig, RowsConfig
from nn_meter.kernels.partition import KernelConfig
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.networks.published import Published, header_of, number, plausible, read_rows, refuse, whole
from nn_meter.storage import Fields, read_json

SOURCE = "https://github.com/sitar-lab/NeuSight, Lee et al., ASPLOS 2025"
LICENCE = "MIT"

GPUS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "p4": ("NVIDIA Tesla P4", ("Tesla_P4",)),
        "p100": ("NVIDIA Tesla P100 PCIe 16GB", ("Tesla_P100-PCIE-16GB",)),
        "v100": ("NVIDIA Tesla V100 PCIe 32GB", ("Tesla_V100-PCIE-32GB",)),
        "t4": ("NVIDIA Tesla T4", ("Tesla_T4",)),
        "a100": ("NVIDIA A100 PCIe 40GB", ("NVIDIA_A100-PCIE-40GB", "NVIDIA_A100_80GB_PCIe")),
    }
)
"""Short name to the GPU's name and the folders of its kernels. Convolutions of the A100 were measured on its variant of
80 GB, which has the same processors."""

_ELEMENTWISE: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "add": ("Add", 2), "div": ("Div", 2), "mul": ("Mul", 2), "pow": ("Pow", 2),
        "addu": ("Add", 1), "divu": ("Div", 1), "mulu": ("Mul", 1), "powu": ("Pow", 1),
        "gelu": ("Gelu", 0), "relu": ("Relu", 0), "tanh": ("Tanh", 0),
    }
)  # fmt: skip
"""Operator to ours, and its second operand: 2 a tensor, 1 a number, 0 none."""


@cache
def circumstances(name: str, batch: int = 1) -> Circumstances:
    """Of a GPU, by its short name, or as the tables call it."""
    full = GPUS[name][0] if name in GPUS else name.replace("_", " ")
    maker = "AMD" if full.startswith("AMD") else "NVIDIA"
    device = Device(full, maker, "gpu", full, environment={"short": name})
    return Circumstances(device, "pytorch", "2.1", batch=batch, statistic="mean", source=SOURCE, licence=LICENCE)


def predictor_name(around: Circumstances) -> str:
    """``t4_fp32_pytorch21``."""
    return f"{around.device.environment['short']}_fp32_pytorch21"


def read_kernels(folder: Path, name: str) -> Published:
    """Kernels of one of ``GPUS``, a record each whose subject is the operator. The rows of a family have their sizes in
    common, but for the batch of a product or convolution.

    Raises:
        BuildError: no such table, or one without a column.
    """
    found = Published(())
    for place in GPUS[name][1]:
        for path in sorted((folder / place).glob("*.csv.gz")):
            operator = path.name.removesuffix(".csv.gz")
            for columns, config in _readers(operator):
                header_of(path, ("latency_ms", *columns))
                some = read_rows(path, _record(operator, columns, config, circumstances(name)))
                found += _steady(some, path.name) if operator == "conv" else some
    return found


_PARTS = 20
"""Of a table, each of which says by its quickest row what had grown until there; a parabola goes through them."""

_FEWEST_ROWS = 1000
"""Of fewer rows the quickest of a part is no small kernel."""


def _steady(found: Published, table: str) -> Published:
    """The rows without what grew from one to the next; those that consist of it by more than a half are left out."""
    latencies_ms = np.array([record.kernels[0].latency_ms for record in found.records])
    if len(latencies_ms) < _FEWEST_ROWS:
        return found
    rows = np.arange(len(latencies_ms))
    least = np.array([part[latencies_ms[part].argmin()] for part in np.array_split(rows, _PARTS)])
    curve = np.polyfit(least, latencies_ms[least], 2)
    grown_ms = np.polyval(curve, rows) - np.polyval(curve, 0)
    kept = []
    for record, off_ms in zip(found.records, grown_ms.tolist(), strict=True):
        (kernel,) = record.kernels
        left_ms = kernel.latency_ms - max(off_ms, 0.0)
        if left_ms > off_ms:
            kept.append(replace(record, kernels=(replace(kernel, latency_ms=left_ms),)))
    lost = len(rows) - len(kept)
    told = (f"{table}: {lost} of {len(rows)} rows, more than half of which grew with the table",) if lost else ()
    return Published(tuple(kept), (*found.left_out, *told))


Config = Callable[..., tuple[str, KernelConfig, str]]
"""From the columns to kind, config and family."""


def _record(
    operator: str, columns: tuple[str, ...], config: Config, around: Circumstances
) -> Callable[[Mapping[str, str]], Record]:
    def record(row: Mapping[str, str]) -> Record:
        kind, made, family = config(*(int(row[name]) for name in columns))
        one = Record.of_kernel(kind, made, plausible(number(row, "latency_ms")), around)
        return replace(one, subject=operator, family=family)

    return record


def _readers(operator: str) -> Iterator[tuple[tuple[str, ...], Config]]:
    """What a table gives, by its operator. A linear layer is exported as Gemm or as MatMul: it counts as both."""
    sizes = ("b", "m", "n", "k")
    if operator == "linear":
        yield sizes, lambda b, m, n, k: ("fc", _gemm(1, b * m, k, n, True, (False, True)), f"{n}x{k}")
        yield sizes, lambda b, m, n, k: ("matmul", _gemm(1, b * m, k, n, True), f"{n}x{k}")
    elif operator == "bmm":
        yield sizes, lambda b, m, n, k: ("matmul", _gemm(b, m, k, n, False), f"{m}x{n}x{k}")
    elif operator == "conv":
        # spelled so in the tables
        columns = ("b", "input_channel", "output_channel", "kernel_szie", "input_size", "stride", "padding")
        yield columns, _conv
    elif operator == "softmax":
        yield ("b", "h"), lambda b, h: ("softmax", RowsConfig("Softmax", b, h, 1, 1, "float32"), f"{b}x{h}")
    elif operator == "ln":
        name = "LayerNormalization"
        yield ("b", "h"), lambda b, h: ("norm", RowsConfig(name, b, h, 3, 1, "float32"), f"{b}x{h}")
    elif operator in _ELEMENTWISE:
        yield ("b", "h"), lambda b, h: _elementwise(operator, b * h)
    else:
        raise BuildError(f"{operator}: no operator of NeuSight's tables")


def _gemm(batch: int, m: int, k: int, n: int, weights: bool, trans: tuple[bool, bool] = (False, False)) -> GemmConfig:
    return GemmConfig(batch, m, k, n, weights, trans, (), "float32")


def _conv(
    n: int, cin: int, cout: int, area: int, size: int, stride: int, padding: int
) -> tuple[str, KernelConfig, str]:
    out = (size + 2 * padding - area) // stride + 1
    if out < 1:
        refuse(f"a window of {area} does not fit an image of {size}")
    config = ConvConfig(
        n, cin, (size,) * 2, cout, (out,) * 2, (area,) * 2, (stride,) * 2, (1, 1), 1, (), "native", "float32"
    )
    return "conv", config, f"{cin}x{cout}x{area}x{size}x{stride}"


def _elementwise(operator: str, size: int) -> tuple[str, KernelConfig, str]:
    op, second = _ELEMENTWISE[operator]
    present = ((True,),) if not second else ((True,), (second == 2,))
    constant = "other" if operator == "powu" else ""
    config = BroadcastConfig(op, (size,), present, "float32", "float32", constant)
    return "binary" if second else "unary", config, str(size)


_PROCESSORS: Mapping[str, int] = MappingProxyType({"Tesla_P4": 20})
"""The tables count a processor of 128 lanes as two of 64; products are shared among processors (NVIDIA Tesla P4 data
sheet: 2,560 CUDA cores; GeForce GTX 1080 whitepaper: GP104's 20 processors have 128 each)."""

_WATTS: Mapping[str, float] = MappingProxyType(
    {
        "Tesla_P4": 75, "Tesla_P100-PCIE-16GB": 250, "Tesla_V100-PCIE-32GB": 250, "Tesla_T4": 70,
        "NVIDIA_A100-PCIE-40GB": 250, "NVIDIA_A100_80GB_PCIe": 300, "NVIDIA_H100_80GB_HBM3": 700, "NVIDIA_L4": 72,
        "AMD_Instinct_MI250": 560,
    }
)  # fmt: skip
"""What a board may take; the tables lack it. As TechPowerUp (P4), cputronic.com (P100), io-tech.fi (V100), hmc-tech.com
(A100, L4), thundercompute.com (A100 of 80 GB), llmbook.apartsin.com (H100), zexron.com (MI250) and alldbin.com (T4G)
repeat their makers' data sheets."""


def read_sheets(path: Path) -> Mapping[str, Sheet]:
    """Data sheets by what the tables call a GPU; the peak of AMD's is that of matrix products.

    Raises:
        BuildError: it cannot be read.
    """
    what = "the GPUs' data sheets"
    stored: Any = read_json(path, what, BuildError)
    found = {}
    for name in Fields(stored, f"{path}: {what}", BuildError).values:
        each = Fields(stored[name], f"{path}: {what}", BuildError, key=f"{name}.")
        peak = "SingleFLOPs" if "SingleFLOPs" in each.values else "SingleFLOPsMM"
        found[name] = Sheet(
            each.text("Device"), 1e9 * each.number(peak), 1e9 * each.number("Mem_Bw"),
            _PROCESSORS.get(name) or each.whole("Num_Sm"), 1e6 * each.number("L2Cache"), _WATTS.get(name, 0.0),
            source=SOURCE,
        )  # fmt: skip
    return found


def read_models(path: Path) -> Published:
    """Whole language models: a table with the columns device, model, sequence_length, batch_size, latency_ms; a subject
    is ``bert_large@512``.

    Raises:
        BuildError: no such table.
    """
    header_of(path, ("device", "model", "sequence_length", "batch_size", "latency_ms"))
    short = {folder: name for name, (_, folders) in GPUS.items() for folder in folders[:1]}

    def record(row: Mapping[str, str]) -> Record:
        batch, tokens = whole(row["batch_size"], "batch_size"), whole(row["sequence_length"], "sequence_length")
        around = circumstances(short.get(row["device"], row["device"]), batch)
        latency_ms = plausible(number(row, "latency_ms"))
        return Record.of_model(f"{row['model']}@{tokens}", around, latency_ms, row["model"])

    return read_rows(path, record)


def language_model(name: str, config: Mapping[str, Any], tokens: int, batch: int) -> Graph:
    """What transformers executes of a configuration of BERT, GPT-2 or OPT, one forward pass as they were measured: BERT
    with a classifier of two classes, the others with a head over the vocabulary (``neusight/Tracing/trace.py``).

    Raises:
        ModelError: a configuration of another kind.
    """
    kind = config.get("model_type")
    names = (("n_embd", "hidden_size"), ("n_head", "num_attention_heads"), ("n_layer", "num_hidden_layers"))
    width, heads, layers = (config.get(gpt) or config.get(bert) for gpt, bert in names)
    if kind not in ("bert", "gpt2", "opt") or not (width and heads and layers):
        raise ModelError(f"{name}: a model of kind {kind!r}; known are bert, gpt2 and opt")
    hidden = config.get("intermediate_size") or config.get("ffn_dim") or 4 * width
    b = _Writer(name, batch, tokens, width, heads)
    x = b.embedded(config["vocab_size"])
    act = {"bert": b.gelu, "gpt2": b.new_gelu, "opt": b.relu}[kind]
    x = b.norm(x) if kind == "bert" else x
    for _ in range(layers):
        if kind == "bert":
            x = b.norm(b.op("Add", b.attention(x), x))
            x = b.norm(b.op("Add", b.linear(act(b.linear(x, hidden)), width), x))
        else:
            x = b.op("Add", b.attention(b.norm(x), joint=kind == "gpt2"), x)
            x = b.op("Add", b.linear(act(b.linear(b.norm(x), hidden)), width), x)
    if kind == "bert":
        first = b.op("Gather", x, b.const(0), axis=1)
        x = b.op("Tanh", b.linear(first, width))
        return b.graph(b.linear(x, 2))
    return b.graph(b.linear(b.norm(x), config["vocab_size"]))


class _Writer(GraphBuilder):
    """Layers of a transformer over ``batch`` times ``tokens`` vectors of ``width``."""

    def __init__(self, name: str, batch: int, tokens: int, width: int, heads: int) -> None:
        super().__init__(name)
        self._batch, self._tokens, self._width, self._heads = batch, tokens, width, heads

    def embedded(self, vocabulary: int) -> str:
        """Words and places."""
        ids = self.input((self._batch, self._tokens), "int64", "input_ids")
        words = self.op("Gather", self.weight((vocabulary, self._width)), ids, axis=0)
        return self.op("Add", words, self.weight((1, self._tokens, self._width)))

    def linear(self, x: str, width: int) -> str:
        """A product with weights, and a bias."""
        made = self.op("MatMul", x, self.weight((self.shape(x)[-1], width)))
        return self.op("Add", made, self.weight((width,)))

    def norm(self, x: str) -> str:
        """Layer normalisation."""
        return self.op("LayerNormalization", x, self.weight((self._width,)), self.weight((self._width,)), axis=-1)

    def attention(self, x: str, joint: bool = False) -> str:
        """Scores, scaled and masked, and what they mix; ``joint`` computes queries, keys and values by one product."""
        if joint:
            parts = self.multi("Split", (self.linear(x, 3 * self._width),), 3, axis=2, num_outputs=3)
        else:
            parts = tuple(self.linear(x, self._width) for _ in range(3))
        turns = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        q, k, v = (self._split(part, turn) for part, turn in zip(parts, turns, strict=True))
        scores = self.op("Div", self.op("MatMul", q, k), self.const(8.0, "float32"))
        masked = self.op("Add", scores, self.input((self._batch, 1, 1, self._tokens)))
        mixed = self.op("MatMul", self.op("Softmax", masked, axis=-1), v)
        shape = self.const((self._batch, self._tokens, self._width))
        return self.linear(self.op("Reshape", self.op("Transpose", mixed, perm=(0, 2, 1, 3)), shape), self._width)

    def _split(self, x: str, turn: tuple[int, ...]) -> str:
        shape = (self._batch, self._tokens, self._heads, self._width // self._heads)
        return self.op("Transpose", self.op("Reshape", x, self.const(shape)), perm=turn)

    def gelu(self, x: str) -> str:
        """One kernel."""
        return self.op("Gelu", x)

    def relu(self, x: str) -> str:
        """One kernel."""
        return self.op("Relu", x)

    def new_gelu(self, x: str) -> str:
        """By the hyperbolic tangent, operator by operator."""
        cubed = self.op("Mul", self.op("Pow", x, self.const(3.0, "float32")), self.const(0.044715, "float32"))
        inner = self.op("Mul", self.op("Add", x, cubed), self.const(0.7978845608, "float32"))
        outer = self.op("Add", self.op("Tanh", inner), self.const(1.0, "float32"))
        return self.op("Mul", self.op("Mul", x, self.const(0.5, "float32")), outer)
