"""What runtimes executed for the models of the corpus: a file for each model and runtime, a kernel to a line.

The first line says what recorded it. To record anew, in an environment with the runtime and on a processor with
AVX-512 (ONNX Runtime's blocks of channels follow from it)::

    PYTHONPATH=src python tests/corpus/executed.py onnxruntime_cpu
    PYTHONPATH=src python tests/corpus/executed.py openvino_cpu
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nn_meter.backends import load
from nn_meter.backends.onnx_writer import with_random_weights
from nn_meter.runtimes.trace import ExecutedKernel, Operand

HERE = Path(__file__).parent
MODELS = sorted((HERE / "models").glob("*.onnx"))
RUNTIMES = {"onnxruntime_cpu": "onnxruntime", "openvino_cpu": "openvino"}
"""Backend to the name of its files."""


def file_of(model: Path, runtime: str) -> Path:
    """Where the kernels that ``runtime`` executed for ``model`` are written."""
    return HERE / "executed" / f"{model.stem}.{runtime}.jsonl"


def read(path: Path) -> list[ExecutedKernel]:
    """The kernels of a file, in the order of their execution."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    return [_kernel(json.loads(line)) for line in lines]


def write(path: Path, facts: Mapping[str, Any], kernels: Sequence[ExecutedKernel]) -> None:
    """Write a file: what recorded it, then a kernel to a line.

    Empty fields are left out; of a runtime that tells which nodes a kernel covers, all is but names.
    """
    told = any(kernel.nodes for kernel in kernels)
    kept = [f.name for f in fields(ExecutedKernel) if not told or f.type in ("str", "tuple[str, ...]")]
    rows = [{name: v for name in kept if (v := getattr(kernel, name))} for kernel in kernels]
    lines = [json.dumps(row, default=_plain, separators=(",", ":")) for row in (facts, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """What JSON has no type for: an operand, names of constants, attributes."""
    if isinstance(value, Operand):
        return f"{value.dtype} {'x'.join(map(str, value.shape))}"
    return sorted(value) if isinstance(value, frozenset) else dict(value)


def _kernel(row: Mapping[str, Any]) -> ExecutedKernel:
    texts = {key: row.get(key, "") for key in ("name", "op_type", "domain")}
    operands = {
        key: tuple(each and _operand(each) for each in row.get(key, ()))
        for key in ("inputs", "outputs")
    }
    names = {key: tuple(row.get(key, ())) for key in ("input_names", "output_names", "nodes")}
    attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in row.get("attrs", {}).items()}
    return ExecutedKernel(
        **texts,
        **operands,
        **names,
        attrs=attrs,
        constant_inputs=frozenset(row.get("constant_inputs", ())),
        constant_values={name: tuple(values) for name, values in row.get("constant_values", {}).items()},
    )


def _operand(text: str) -> Operand:
    dtype, _, shape = text.partition(" ")
    return Operand(tuple(map(int, filter(None, shape.split("x")))), dtype)


def main(names: Sequence[str]) -> None:
    """Record what each backend executes for every model."""
    for name in names or tuple(RUNTIMES):
        backend = load(name)
        facts = {key: value for key, value in backend.check().items() if key != "device"}
        for model in MODELS:
            kernels = backend.fused(with_random_weights(model).SerializeToString())
            write(file_of(model, RUNTIMES[name]), facts, kernels)
            print(f"{model.stem}: {len(kernels)} kernels, {facts['runtime']} {facts['runtime_version']}")


if __name__ == "__main__":
    main(sys.argv[1:])
