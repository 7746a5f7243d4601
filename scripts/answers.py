"""Writes what predictors answer for models, kernel by kernel and bit by bit, and holds two such files side by side.

A change of the code that means to change no answer shows so: run it before and after, then compare::

    python scripts/answers.py FOLDER ... -o before.json        # of the old checkout, with its PYTHONPATH
    python scripts/answers.py FOLDER ... -o after.json
    python scripts/answers.py --compare before.json after.json # exit code 1 where they differ

Generated networks (``--generated N``) are taken beside the models in the folders. Latencies are written as
hexadecimal floats, so that equal means equal bits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nn_meter
from nn_meter.networks import FAMILIES

SUFFIXES = (".onnx", ".json", ".gz", ".tflite", ".pb")
SPREAD = 31
"""Seeds lie so far apart that the networks of a family differ in all that is drawn."""


def models(folders: list[Path], generated: int) -> Iterator[tuple[str, Any]]:
    """Name and model, of files first."""
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES)
        yield from ((str(path), path) for path in files)
    if generated:
        for number in range(generated):
            for name, family in FAMILIES.items():
                yield f"{name}:{SPREAD * number}", family(SPREAD * number)


def answer(predictor: nn_meter.Predictor, model: Any) -> dict[str, Any]:
    """The total, and kind, nodes, status and latency of each kernel; or the error."""
    try:
        said = predictor.explain(model)
    except nn_meter.NnMeterError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "latency_ms": said.latency_ms.hex(),
        "kernels": [
            [k.kernel.kind, list(k.kernel.nodes), k.kernel.label, k.status, k.latency_ms.hex()] for k in said.kernels
        ],
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """One line for each model whose answers differ."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield f"{name}: only {'after' if old is None else 'before'}"
        elif old != new:
            if "error" in old or "error" in new:
                yield f"{name}: {old.get('error', 'answered')} -> {new.get('error', 'answered')}"
                continue
            mine = {json.dumps(k) for k in old["kernels"]} ^ {json.dumps(k) for k in new["kernels"]}
            was_ms, is_ms = float.fromhex(old["latency_ms"]), float.fromhex(new["latency_ms"])
            yield f"{name}: {was_ms:.6g} -> {is_ms:.6g} ms, {len(mine)} kernels differ: {sorted(mine)[:2]}"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--predictor", action="append", default=[])
    parser.add_argument("--generated", type=int, default=0, metavar="N", help="networks of each generated family")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", action="store_true", help="two files written before")
    asked = parser.parse_args()
    if asked.compare:
        before, after = (json.loads(path.read_text(encoding="utf-8")) for path in asked.paths)
        found = list(differences(before, after))
        print("\n".join(found) or f"{len(before)} answers, all equal")
        return 1 if found else 0
    predictors = [nn_meter.load_latency_predictor(name) for name in asked.predictor or ["zen4cpu_onnxruntime132"]]
    answers: dict[str, Any] = {}
    for name, model in models(asked.paths, asked.generated):
        for predictor in predictors:
            answers[f"{name} {predictor.bundle.name}"] = answer(predictor, model)
    print(f"{len(answers)} answers", file=sys.stderr)
    asked.output.write_text(json.dumps(answers), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
