"""The same architectures by three doors, straight from PyTorch and from the files of both ONNX exporters.

    python bench/doors.py MODELS                      # MODELS: the folder that scripts/export_models.py filled
    python bench/doors.py MODELS --current            # the current exporter too, 2 to 20 s for each architecture
    python bench/doors.py MODELS --current FOLDER     # its files are kept there, and what is there is not made again

Do the kernels (kind and config, without what is free) and the predictions of the default predictor agree?
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nn_meter
from nn_meter.errors import NnMeterError
from nn_meter.evaluation import subjects
from nn_meter.frontends.zoo import DEFAULT_SEQ_LEN, hf
from nn_meter.frontends.zoo.modules import importable
from nn_meter.predictors.prediction import Prediction

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import export_models

CLOSE = 0.02
TEXTS = ("bert-base-uncased", "distilbert-base-uncased", "gpt2", "opt-125m")
"""Read by their config; the TorchScript exporter's files are of images only."""


def kernels(prediction: Prediction) -> Counter[object]:
    """Kind and config of what costs something."""
    return Counter((k.kernel.kind, k.kernel.config) for k in prediction.kernels if k.status != "free")


def kinds(only: Counter[Any]) -> str:
    """``5 reshape, 1 pool`` of kernels that one side has alone."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(k for k, _ in only.elements()).items()) or "none"


def architectures(only: list[str]) -> Iterator[tuple[str, str]]:
    """Source and name of those that are compared."""
    listed = [(source, name) for source, name, _, _ in export_models.listed(export_models.MODELS)]
    for source, name in [*listed, *(("hf", name) for name in TEXTS)]:
        if not only or name in only:
            yield source, name


def module_and_inputs(source: str, name: str) -> tuple[Any, dict[str, Any], tuple[Any, ...]]:
    """The module with random weights, and what it is called with by name and by place."""
    import torch

    if source != "hf":
        module, shape = export_models.built(source, name)
        return module, {}, (torch.rand(shape, generator=torch.Generator().manual_seed(0)),)
    import transformers

    row = hf.ARCHITECTURES[name]
    config = getattr(transformers, row.config)(**row.values)
    config.use_cache = False
    module = getattr(transformers, row.model)(config)
    shapes = hf.inputs(module, 1, DEFAULT_SEQ_LEN)
    return module, {key: torch.ones(shape, dtype=torch.int64) for key, (shape, _) in shapes.items()}, ()


def export(source: str, name: str, path: Path) -> None:
    """Write the file of the exporter that ``torch.onnx.export`` calls today, without weights.

    No parameter keeps its initial value: exporters drop scales of 1 and merge equal normalisations, which training
    ends.
    """
    import torch

    module, named, placed = module_and_inputs(source, name)
    with torch.no_grad(), warnings.catch_warnings():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 1.5)
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module.eval(), placed, kwargs=named or None, dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto
    export_models.forget_weights(model)
    path.write_bytes(model.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, help="files of the TorchScript exporter")
    parser.add_argument(
        "--current", nargs="?", const="", metavar="FOLDER", help="files of the current exporter"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of architectures")
    args = parser.parse_args()
    importable()
    logging.disable(logging.WARNING)
    predictor = nn_meter.load_latency_predictor()
    scripted = {s.name: s.source for s in subjects([args.models])}
    counts: Counter[tuple[str, str]] = Counter()
    with ExitStack() as stack:
        folder = None
        if args.current is not None:
            folder = Path(args.current or stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
        for source, name in architectures(args.only):
            files = {"TorchScript": scripted.get(name)}
            try:
                if folder is not None:
                    files["current"] = folder / f"{name}.onnx"
                    if not files["current"].exists():
                        export(source, name, files["current"])
                files = {door: file for door, file in files.items() if file is not None}
                if not files:
                    continue
                direct = predictor.explain(f"{source}:{name}")
                parts = []
                for door, file in files.items():
                    exported = predictor.explain(file)
                    ours, theirs = kernels(direct), kernels(exported)
                    apart = direct.latency_ms / exported.latency_ms - 1
                    counts[door, "compared"] += 1
                    counts[door, "same"] += ours == theirs
                    counts[door, "close"] += abs(apart) < CLOSE
                    text = "the same kernels"
                    if ours != theirs:
                        text = f"only direct {kinds(ours - theirs)}; only file {kinds(theirs - ours)}"
                    parts.append(f"{door} {apart:+.1%}: {text}")
                print(f"{source}:{name} | {' | '.join(parts)}", flush=True)
            except NnMeterError as error:
                print(f"{source}:{name} | not read: {error}", flush=True)
            except Exception as error:  # whatever an exporter raises
                print(f"{source}:{name} | not exported: {type(error).__name__}", flush=True)
    for door in dict.fromkeys(door for door, _ in counts):
        print(
            f"{door}: {counts[door, 'compared']} architectures, {counts[door, 'same']} with the same kernels, "
            f"{counts[door, 'close']} within {CLOSE:.0%}"
        )


if __name__ == "__main__":
    main()
