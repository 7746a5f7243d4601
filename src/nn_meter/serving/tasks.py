"""What a worker process does with an uploaded file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from nn_meter import frontends
from nn_meter.api import Predictor, fitting, load_latency_predictor
from nn_meter.errors import ModelFormatError
from nn_meter.ir import Graph
from nn_meter.report import html, json

FRONT_ENDS = ("onnx", "nnmeter_ir", "tflite", "tensorflow")
"""Formats that are read without executing anything of them."""

_EXECUTED = (b"PK\x03\x04", b"\x89HDF\r\n\x1a\n")
"""How files of Keras and PyTorch begin; reading these makes objects of what they name (``torch.export.load``
unpickles; Keras imports classes), which a process of its own does not make safe: it may do what this user may."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer as a JSON document (``docs/schema.json``) and as a page; ``totals`` are predictor and milliseconds."""

    document: str
    page: str
    totals: tuple[tuple[str, float], ...]


def answer(
    model: Path, predictors: tuple[str, ...], input_shape: tuple[int, ...], memory_bytes: int
) -> Answered:
    """Predict the file ``model`` by predictors of these names; an empty shape leaves the file its own.

    Raises:
        ModelError: it cannot be read, or reading it would execute something.
    """
    graph, ir = _read(model, input_shape, memory_bytes)
    asked = [_predictor(name) for name in predictors]
    with fitting(ir):
        found = [replace(each.explain(graph), model=model.name) for each in asked]
    document = json.dumps(json.documents(found, ()))
    page = html.page(found, (each.bundle for each in asked))
    totals = zip(predictors, (each.latency_ms for each in found), strict=True)
    return Answered(document, page, tuple(totals))


def latencies_ms(model: Path, predictors: tuple[str, ...], memory_bytes: int) -> tuple[float, ...]:
    """Milliseconds by each predictor; errors as of :func:`answer`."""
    graph, ir = _read(model, (), memory_bytes)
    with fitting(ir):
        return tuple(_predictor(name).predict(graph) for name in predictors)


def _read(model: Path, input_shape: tuple[int, ...], memory_bytes: int) -> tuple[Graph, bool]:
    """The graph, and whether it is one of nn-Meter's files."""
    _limit(memory_bytes)
    with model.open("rb") as file:
        if file.read(8).startswith(_EXECUTED):
            raise ModelFormatError(
                f"{model.name}: reading a file of Keras or PyTorch runs it; export it to ONNX, "
                "or run nn-meter predict where it comes from"
            )
    found = frontends.find(model)
    if found.name not in FRONT_ENDS:
        raise ModelFormatError(f"{model.name}: {found.name} models are not taken here; export it to ONNX")
    return found.read(model, input_shapes=input_shape or None), found.name == "nnmeter_ir"


@cache
def _predictor(name: str) -> Predictor:
    return load_latency_predictor(name)


def _limit(memory_bytes: int) -> None:
    """What a request may take beyond what the process had before the first, where the system can be told so."""
    if sys.platform == "linux":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = _base_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


@cache
def _base_bytes() -> int:
    """Address space of this process with the readers in it, which every request needs."""
    tuple(frontends.available())
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
