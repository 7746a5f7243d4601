"""Exports the models that accuracy is judged on to ONNX, as a user of PyTorch would, but without weights.

The list has a line ``SOURCE:NAME FAMILY`` for each. Weights are random and are not kept: a large one refers
to a file that does not exist, so that a model takes about 100 kB. A model whose file is there is left alone:

    python scripts/export_models.py FOLDER
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
import warnings
from collections.abc import Iterator
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


def listed(path: Path) -> Iterator[tuple[str, str, str]]:
    """Source, name and family of each line."""
    for line in path.read_text().splitlines():
        text = line.partition("#")[0].split()
        if text:
            source, _, name = text[0].partition(":")
            yield source, name, text[1]


def built(source: str, name: str) -> tuple[Any, tuple[int, ...]]:
    """The module with random weights, and the shape of one image."""
    if source == "timm":
        import timm

        module = timm.create_model(name, pretrained=False, exportable=True)
        return module, (1, *(module.pretrained_cfg or {}).get("input_size", IMAGE))
    from torchvision import models

    size = (3, 299, 299) if name.startswith("inception") else IMAGE
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options), (1, *size)


def exported(module: Any, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The module as ONNX, by the TorchScript exporter."""
    import torch

    target = io.BytesIO()
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
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
    for source, name, family in listed(options.models):
        path = options.folder / family / f"{name}.onnx"
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
