"""Exports the models that accuracy is judged on to ONNX, as a user of PyTorch would, but without weights.

The list has a line ``SOURCE:NAME FAMILY HALF`` for each; ``looked`` at while developing, or ``kept`` away until the
end. ``NAME@SIZE`` takes images of so many pixels each way, or texts of so many words, in place of its own. Weights are
random and are not kept: a large one refers to a file that does not exist, so that a model takes about 100 kB. A model
whose file is there is left alone:

    python scripts/export_models.py FOLDER
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from nn_meter.frontends.zoo.modules import importable

MODELS = Path(__file__).with_name("accuracy_models.txt")
OPSET = 17
KEPT_BYTES = 1024
"""Up to this size a weight is stored: smaller ones decide shapes and axes."""
WEIGHTS = "weights.bin"
IMAGE = (3, 224, 224)


SMALL = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
"""Language models have these sizes, lest their weights fill the memory; 64 tokens."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "albert": {**SMALL, "embedding_size": 128},
    "bloom": {"hidden_size": 384, "n_layer": 4, "n_head": 6},
    "convbert": {**SMALL, "embedding_size": 384},
    "distilbert": {"dim": 384, "n_layers": 4, "n_heads": 6, "hidden_dim": 1536},
    "mamba": {"hidden_size": 256, "num_hidden_layers": 2},
    "mobilebert": {"num_hidden_layers": 6},
    "mpt": {"d_model": 384, "n_heads": 6, "n_layers": 4},
    "mra": {},
    "opt": {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "ffn_dim": 1536,
            "word_embed_proj_dim": 384},
    "roformer": {**SMALL, "embedding_size": 384},
    "xglm": {"d_model": 384, "num_layers": 4, "attention_heads": 6, "ffn_dim": 1536},
    "yoso": {},
}  # fmt: skip
"""Model types whose configs call them otherwise."""


def listed(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Source, name and two words of each line: family and half, or form and option."""
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].split()
        if text:
            source, _, name = text[0].partition(":")
            yield source, name, text[1], text[2]


def built(source: str, name: str) -> tuple[Any, tuple[int, ...]]:
    """The module with random weights, and the shape of one image, or of a text."""
    name, _, size = name.partition("@")
    if size:
        module, shape = built(source, name)
        return module, (*shape[:2], int(size), int(size)) if len(shape) == 4 else (1, int(size))
    if source == "transformers":
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.for_model(name, vocab_size=8000, **OWN.get(name, SMALL))
        config.use_cache, config._attn_implementation = False, "eager"
        return alone(AutoModel.from_config(config)), (1, 64)
    if source == "timm":
        import timm

        module = timm.create_model(name, pretrained=False, exportable=True)
        return module, (1, *(module.pretrained_cfg or {}).get("input_size", IMAGE))
    from torchvision import models

    size = (3, 299, 299) if name.startswith("inception") else IMAGE
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options), (1, *size)


def alone(model: Any) -> Any:
    """A language model that takes a text and gives its first answer, nothing else."""
    import torch

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, words: Any) -> Any:
            return self.model(input_ids=words)[0]

    return Alone()


def exported(module: Any, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The module as ONNX, by the TorchScript exporter."""
    import torch

    target = io.BytesIO()
    dice = torch.Generator().manual_seed(0)
    words = len(shape) == 2
    image = torch.randint(5, 1000, shape, generator=dice) if words else torch.rand(shape, generator=dice)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (image,), target, opset_version=OPSET, dynamo=False)
    return onnx.load_from_string(target.getvalue())


def forget_weights(model: onnx.ModelProto, kept_bytes: int = KEPT_BYTES) -> None:
    """Let each weight of more than ``kept_bytes`` refer to an absent file."""
    offset = 0
    for tensor in _tensors(model.graph):
        size = len(tensor.raw_data)
        if size <= kept_bytes or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        offset += size


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (each.t for each in node.attribute if each.type == onnx.AttributeProto.TENSOR)


def main() -> int:
    """Parse the arguments and export what is missing; 1 where a model failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the .onnx files go, one folder per family")
    parser.add_argument("--models", type=Path, default=MODELS, help="the list")
    parser.add_argument("--only", nargs="*", help="names of the list to export")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="begin none after it")
    options = parser.parse_args()
    importable()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    started, failed = time.monotonic(), 0
    for source, name, family, half in listed(options.models):
        path = options.folder / half / family / f"{name}.onnx"
        if path.exists() or (options.only and name not in options.only):
            continue
        if time.monotonic() - started > options.budget_s:
            break
        begun = time.monotonic()
        try:
            model = exported(*built(source, name))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            print(f"{source}:{name} failed: {type(error).__name__}: {reason}", file=sys.stderr)
            failed += 1
            continue
        forget_weights(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        print(f"{name}: {path.stat().st_size / 1e3:.0f} kB, {time.monotonic() - begun:.1f} s", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
