"""Published measurements as studies, ready to fit: which tables, which models, which families were looked at."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nn_meter import frontends
from nn_meter.errors import ModelError
from nn_meter.fitting import Kernels, Study, study
from nn_meter.frontends.zoo.modules import imported
from nn_meter.ir import Graph
from nn_meter.kernels.kinds import (
    AttentionConfig,
    BroadcastConfig,
    ConvConfig,
    CopyConfig,
    GemmConfig,
    PiecesConfig,
    PoolConfig,
    ReduceConfig,
    ResizeConfig,
    RowsConfig,
    TransposeConfig,
)
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.learning.lowerings import LOWERINGS, lowering_of
from nn_meter.measuring.records import config_from_json, config_to_json
from nn_meter.networks import published_phones as phones
from nn_meter.networks import published_timm as timm
from nn_meter.runtimes.fusion import fuse

Source = Callable[[Path], Iterator[tuple[Study, frozenset[str]]]]


def first_half(families: set[str], seed: int = 7) -> frozenset[str]:
    """The families that the method was made with."""
    shuffled = sorted(families)
    random.Random(seed).shuffle(shuffled)
    return frozenset(shuffled[: len(shuffled) // 2])


def PHONES(folder: Path) -> Iterator[tuple[Study, frozenset[str]]]:  # noqa: N802
    """The phones' processors in single precision, in integers, then their GPUs."""
    here = folder / "phones"

    def read(subject: str, batch: int) -> Graph:
        path = here / "models" / f"{subject}.onnx"
        if not path.exists():
            raise ModelError(f"{subject}: no such model")
        return frontends.read(path)

    table = phones.read_models(here / "tflite_cnn_e2e.csv.gz")
    kernels = phones.read_gpu_kernels(here / "tflite_cnn_ops_gpu.csv.gz")
    for text in (*table.left_out, *kernels.left_out):
        print("  left out", text)
    for way in (("tflite", "cpu"), ("tflite", "cpu", "int8"), ("tflite", "gpu")):
        records = [r for r in (*table.records, *kernels.records) if lowering_of(r.circumstances) == way]
        yield study(records, read), first_half({r.family for r in table.records})


def TIMM(folder: Path) -> Iterator[tuple[Study, frozenset[str]]]:  # noqa: N802
    """Each table of timm's by itself. Models are read once, at one image, and kept in ``KEPT`` beside this script;
    ``batched`` makes their kernels those of a batch."""
    tables = {path: timm.circumstances(path.name) for path in sorted((folder / "timm").glob("*.csv.gz"))}
    for way, kept in KEPT.items():
        known = _kept(kept)
        rules = read_rules(LOWERINGS[way].rules, "rules of PyTorch")
        for path, around in tables.items():
            if lowering_of(around) != way:
                continue
            merged = around.runtime_version.startswith(_MERGED_SINCE)

            def lower(
                subject: str,
                batch: int,
                known: dict[str, Kernels] = known,
                rules: RuleSet = rules,
                merged: bool = merged,
            ) -> Kernels:
                name = f"{subject}+merged" if merged and MERGED.match(subject) else subject
                if name not in known:
                    known[name] = [(k.kind, k.config) for k in fuse(_image(name), rules).kernels if not k.free]
                return [(kind, batched(config, batch)) for kind, config in known[name]]

            table = timm.read_table(path)
            for text in table.left_out:
                print("  left out", text)
            yield study(table.records, _unread, lower=lower), first_half({r.family for r in table.records})
        _keep(kept, known)


MERGED = re.compile("timm:(mobileone|repghostnet|repvgg|repvit|shvit)")
"""Networks whose branches timm merges before inference (``reparameterize_model``): in the tables of PyTorch 2.9.1 their
multiply-adds are those of the merged ones."""

_MERGED_SINCE = "291"


def _image(name: str) -> Graph:
    """The graph of ``timm:NAME@SIZE`` for one image, its branches merged where ``+merged`` stands behind it."""
    title, size = name.removesuffix("+merged").split("@")
    shape = (1, 3, int(size), int(size))
    if not name.endswith("+merged"):
        return frontends.read(title, input_shapes=shape)
    module = imported("timm", "timm").create_model(title.removeprefix("timm:")).eval()
    return frontends.read(imported("timm.utils.model", "timm").reparameterize_model(module), input_shapes=shape)


def batched(config: Any, batch: int) -> Any:
    """A kernel of one image as it is for a batch of them. Operands of an elementwise operator that lack a dimension are
    taken to be weights."""
    if batch == 1:
        return config
    match config:
        case ConvConfig() | PoolConfig() | ResizeConfig():
            return replace(config, n=config.n * batch)
        case GemmConfig():
            if config.weights:
                return replace(config, m=config.m * batch)
            return replace(config, batch=config.batch * batch)
        case AttentionConfig():
            return replace(config, batch=config.batch * batch)
        case BroadcastConfig(present=present):
            full = tuple((all(p) or len(present) == 1, *p) for p in present)
            return replace(config, dims=(batch, *config.dims), present=full)
        case RowsConfig():
            return replace(config, rows=config.rows * batch)
        case ReduceConfig():
            return replace(config, dims=(config.dims[0] * batch, *config.dims[1:]))
        case TransposeConfig():
            return replace(config, dims=(batch, *config.dims), perm=(0, *(p + 1 for p in config.perm)))
        case PiecesConfig():
            return replace(config, outer=config.outer * batch)
        case CopyConfig():
            return replace(config, size=config.size * batch, out=config.out * batch)
    return config


KEPT = {
    ("pytorch", "cpu"): Path(__file__).with_name("timm_kernels.jsonl.gz"),
    ("pytorch", "gpu"): Path(__file__).with_name("timm_kernels_compiled.jsonl.gz"),
    ("pytorch", "gpu", "eager"): Path(__file__).with_name("timm_kernels_eager.jsonl.gz"),
}
"""By the row of ``LOWERINGS``. The first was read before configs held some of their fields: 2 stands for the strides of
236 rows that lie apart, 0 for the operations of 780 operators of no kind. No term asks for either."""


def _kept(path: Path) -> dict[str, Kernels]:
    if not path.exists():
        return {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        read = (json.loads(line) for line in lines)
        return {name: [(k, config_from_json(k, c)) for k, c in kernels] for name, kernels in read}


def _keep(path: Path, known: dict[str, Kernels]) -> None:
    lines = (
        json.dumps([name, [[k, config_to_json(c)] for k, c in kernels]], separators=(",", ":"))
        for name, kernels in sorted(known.items())
    )
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _unread(subject: str, batch: int) -> Graph:
    raise ModelError(f"{subject}: no such model")
