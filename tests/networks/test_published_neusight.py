"""NeuSight's tables become records of kernels, and its configurations graphs of language models."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from nn_meter.errors import BuildError, ModelError
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import published_neusight as neusight
from nn_meter.runtimes import pytorch
from nn_meter.runtimes.fusion import fuse

TABLES = {
    "linear": "opname,latency_ms,kernel_name,b,m,n,k\nlinear,0.05,sgemm,1,58,13,141\nlinear,-1,sgemm,1,58,13,141\n",
    "bmm": "opname,latency_ms,kernel_name,b,m,n,k\nbmm,0.03,sgemm,13,27,15,29\n",
    "conv": "opname,latency_ms,kernel_name,b,input_channel,output_channel,kernel_szie,input_size,stride,padding\n"
    "conv,2.7,sgemm,38,893,326,3,5,1,1\nconv,2.7,sgemm,1,3,8,9,5,1,1\n",
    "addu": "opname,latency_ms,kernel_name,b,h\naddu,0.02,k,127,168\n",
    "mul": "opname,latency_ms,kernel_name,b,h\nmul,0.03,k,127,168\n",
    "ln": "opname,latency_ms,kernel_name,b,h\nln,0.05,k,60,272\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Tesla_T4").mkdir()
    for name, text in TABLES.items():
        (tmp_path / "Tesla_T4" / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_kernels_are_read_with_their_families(folder: Path) -> None:
    found = neusight.read_kernels(folder, "t4")
    told = {(r.subject, r.kernels[0].kind): (r.kernels[0].config.describe(), r.family) for r in found.records}
    assert told == {
        ("addu", "binary"): ("Add 21336 , scalar -> 21336", "21336"),
        ("bmm", "matmul"): ("13 x (27, 29) @ (29, 15)", "27x15x29"),
        ("conv", "conv"): ("38x893x5x5 -> 326x5x5, kernel 3x3", "893x326x3x5x1"),
        ("linear", "fc"): ("(58, 141) @ (141, 13)", "13x141"),
        ("linear", "matmul"): ("(58, 141) @ (141, 13)", "13x141"),
        ("ln", "norm"): ("60 rows of 272", "60x272"),
        ("mul", "binary"): ("Mul 21336 , 21336 -> 21336", "21336"),
    }
    assert [text.split(": ")[1] for text in found.left_out] == [
        "a window of 9 does not fit an image of 5", "a latency of -1 ms", "a latency of -1 ms"
    ]  # fmt: skip
    around = found.records[0].circumstances
    assert neusight.predictor_name(around) == "t4_fp32_pytorch21"
    assert (around.device.name, around.licence) == ("NVIDIA Tesla T4", "MIT")


def test_what_grows_from_one_convolution_to_the_next_is_taken_off(folder: Path) -> None:
    """A fifth of the rows are 0.1 ms of work, so that the quickest of each part is one of them."""
    true_ms = [0.1 if row % 5 == 0 else 0.5 + row % 7 for row in range(2000)]
    grown_ms = [1e-4 * row + 5e-8 * row**2 for row in range(2000)]
    header = TABLES["conv"].splitlines()[0]
    lines = [f"conv,{t + g},k,1,{row + 1},8,3,9,1,1" for row, (t, g) in enumerate(zip(true_ms, grown_ms, strict=True))]
    (folder / "Tesla_T4" / "conv.csv.gz").write_bytes(gzip.compress("\n".join([header, *lines]).encode()))
    found = neusight.read_kernels(folder, "t4")
    convs = [r.kernels[0] for r in found.records if r.subject == "conv"]
    for kernel in convs:
        assert kernel.latency_ms == pytest.approx(true_ms[kernel.config.cin - 1], rel=1e-6)  # type: ignore[attr-defined]
    lost = sum(g > t for t, g in zip(true_ms, grown_ms, strict=True))
    assert lost
    assert len(convs) == 2000 - lost
    assert f"conv.csv.gz: {lost} of 2000 rows, more than half of which grew with the table" in found.left_out


def test_a_table_of_another_operator_is_refused(folder: Path) -> None:
    (folder / "Tesla_T4" / "sort.csv.gz").write_bytes(gzip.compress(b"latency_ms,b,h\n1,1,1\n"))
    with pytest.raises(BuildError, match="sort"):
        neusight.read_kernels(folder, "t4")


def test_data_sheets_are_read_in_base_units(tmp_path: Path) -> None:
    path = tmp_path / "sheets.json"
    known = {"Device": "T4", "Mem_Bw": 320, "Num_Sm": 40, "SingleFLOPs": 8141, "L2Cache": 4}
    path.write_text(json.dumps({"Tesla_T4": known}), encoding="utf-8")
    sheet = neusight.read_sheets(path)["Tesla_T4"]
    assert (sheet.flops_per_s, sheet.bytes_per_s, sheet.cache_bytes) == (8.141e12, 3.2e11, 4e6)
    path.write_text(json.dumps({"Tesla_P4": known}), encoding="utf-8")
    assert neusight.read_sheets(path)["Tesla_P4"].processors == 20


def test_models_are_of_a_device_a_length_and_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "end_to_end.csv"
    path.write_text(
        "device,model,sequence_length,batch_size,layers,latency_ms\nTesla_T4,bert_large,512,16,24,1485\n"
        "NVIDIA_L4,bert_large,512,8,24,410\nNVIDIA_L4,bert_large,,8,24,410\n", encoding="utf-8"
    )  # fmt: skip
    found = neusight.read_models(path)
    assert [(r.subject, r.circumstances.batch, r.circumstances.device.name) for r in found.records] == [
        ("bert_large@512", 16, "NVIDIA Tesla T4"), ("bert_large@512", 8, "NVIDIA L4")
    ]  # fmt: skip
    assert len(found.left_out) == 1


BERT = {"model_type": "bert", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 256, "vocab_size": 100}  # fmt: skip
GPT = {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 100}


@pytest.mark.parametrize(("config", "head"), [(BERT, 64 * 64 + 64 * 2), (GPT, 16 * 64 * 100)])
def test_a_language_model_has_the_products_of_its_layers(config: dict[str, object], head: int) -> None:
    graph = neusight.language_model("small", config, 16, 3)
    kernels = fuse(graph, read_rules(pytorch.RULES)).kernels
    products = [k.config for k in kernels if k.kind == "matmul"]
    weights = sum(c.macs for c in products if c.weights)  # type: ignore[attr-defined]
    mixing = [c for c in products if not c.weights]  # type: ignore[attr-defined]
    assert weights == 3 * (16 * 2 * 12 * 64 * 64 + head)
    assert [(c.batch, c.m, c.k, c.n) for c in mixing] == [(12, 16, 16, 16)] * 4  # type: ignore[attr-defined]
    assert sum(k.kind == "softmax" for k in kernels) == 2


def test_a_mixture_of_experts_is_refused() -> None:
    with pytest.raises(ModelError, match="switch_transformers"):
        neusight.language_model("switch", {"model_type": "switch_transformers"}, 16, 1)
