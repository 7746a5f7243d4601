"""Quantises models as a user of ONNX Runtime would, so that predictions of quantised networks can be judged.

The list has a line ``SOURCE:NAME FORM OPTION`` for each; its head says what they mean. Weights are random; a model's
file holds them, quantised. A model whose file is there is left alone:

    python scripts/quantise_models.py FOLDER
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from export_models import built, exported, listed
from onnxruntime import quantization
from onnxruntime.quantization import matmul_nbits_quantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from nn_meter.frontends.zoo.modules import importable

MODELS = Path(__file__).with_name("quantised_models.txt")


class Noise(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Two inputs of noise."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self._left = [{name: rng.standard_normal(shape, dtype=np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        """The next input, ``None`` behind the last."""
        return self._left.pop() if self._left else None


def qdq(model: onnx.ModelProto, target: Path, option: str) -> None:
    """Static int8, every operator that the quantiser knows."""
    given = model.graph.input[0]
    quantization.quantize_static(
        model,
        str(target),
        Noise(given.name, tuple(d.dim_value for d in given.type.tensor_type.shape.dim)),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=option == "channel",
    )


def dynamic(model: onnx.ModelProto, target: Path, option: str) -> None:
    """int8 weights, activations quantised in every inference."""
    products = option == "products"
    weight_type = quantization.QuantType.QInt8 if products else quantization.QuantType.QUInt8
    operators = ["MatMul"] if products else None
    quantization.quantize_dynamic(model, str(target), op_types_to_quantize=operators, weight_type=weight_type)


def int4(model: onnx.ModelProto, target: Path, option: str) -> None:
    """Weights of products in 4 bits, in blocks of 32."""
    quantiser = matmul_nbits_quantizer.MatMulNBitsQuantizer(model, block_size=32, accuracy_level=int(option))
    quantiser.process()
    onnx.save(quantiser.model.model, str(target))


FORMS: Mapping[str, Callable[[onnx.ModelProto, Path, str], None]] = {"qdq": qdq, "dynamic": dynamic, "int4": int4}


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """What the quantiser's own preparation makes of a model: operators folded, shapes inferred."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        quant_pre_process(model, str(path), skip_symbolic_shape=True)
        return onnx.load(path)


def main() -> int:
    """Parse the arguments and quantise what is missing; 1 where a model failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the .onnx files go, one folder per form")
    parser.add_argument("--models", type=Path, default=MODELS, help="the list")
    parser.add_argument("--only", nargs="*", help="names of the list to quantise")
    options = parser.parse_args()
    importable()
    logging.disable(logging.ERROR)
    failed = 0
    for source, name, form, option in listed(options.models):
        path = options.folder / form / f"{name}.onnx"
        if path.exists() or (options.only and name not in options.only):
            continue
        begun = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            FORMS[form](prepared(exported(*built(source, name))), part, option)
        except Exception as error:
            part.unlink(missing_ok=True)
            reason = (str(error).splitlines() or [""])[0]
            print(f"{source}:{name} {form} failed: {type(error).__name__}: {reason}", file=sys.stderr)
            failed += 1
            continue
        part.rename(path)
        print(f"{form}/{name}: {path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - begun:.1f} s", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
