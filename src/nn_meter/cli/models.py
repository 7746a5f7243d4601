"""Arguments that name models and predictors, shared by the commands that read them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nn_meter.cli.output import OK, exit_code, note, progress, say, tracked, unexpected
from nn_meter.errors import InputError, NnMeterError

if TYPE_CHECKING:
    from nn_meter.api import Predictor
    from nn_meter.predictors.bundle import Bundle
    from nn_meter.predictors.prediction import Prediction

_FILES = (
    ("--onnx", "onnx", "ONNX file, or a folder of *.onnx"),
    ("--tensorflow", "pb", "frozen TensorFlow graph or SavedModel, or a folder of *.pb"),
    ("--nn-meter-ir", "nnmeter-ir", "nn-Meter IR graph, or a folder of *.json"),
    ("--tflite", "tflite", "TFLite file, or a folder of *.tflite"),
)
_ZOOS = (
    ("--torchvision", "torchvision", "names of models in the torchvision zoo"),
    ("--timm", "timm", "names of models in timm"),
    ("--hf", "hf", "names of models on the Hugging Face hub, or folders with a config"),
)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Where models come from, and what is to be known to read them."""
    parser.usage = "%(prog)s [options] [PATH ...]"
    parser.add_argument("paths", nargs="*", metavar="PATH", help="models of any kind, or folders of them")
    source = parser.add_mutually_exclusive_group()
    for option, _, text in _FILES:
        source.add_argument(option, metavar="PATH", help=text)
    for option, _, text in _ZOOS:
        source.add_argument(option, nargs="+", metavar="NAME", help=text)
    add_input_arguments(parser)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """What goes into a model, and what its data decides."""
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]1,3,224,224",
        help="shape of an input; once per input, by name where there are several",
    )
    parser.add_argument(
        "--seq-len", type=int, metavar="N", help="tokens in one inference of a language model (128; 1 with a past)"
    )
    parser.add_argument(
        "--past", type=int, metavar="N", help="tokens before them whose keys and values are in the model's cache"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples per inference, for models from a zoo")
    parser.add_argument(
        "--input-value", action="append", default=[], metavar="NAME=V[,V]",
        help="value of an input, or of another tensor, that decides a shape or a branch of an ONNX model",
    )  # fmt: skip
    parser.add_argument(
        "--count", action="append", default=[], metavar="NODE=N",
        help="how often a loop of an ONNX model runs, how many elements an operator finds, where the data decides it",
    )  # fmt: skip


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """Which predictors answer."""
    parser.add_argument(
        "--predictor",
        action="append",
        metavar="NAME",
        help="name of a predictor, or path of its bundle (folder or zip); several times to compare",
    )
    parser.add_argument("--predictor-version", metavar="V", help="its version; the latest if left out")


@dataclass(frozen=True, slots=True)
class Models:
    """What the arguments name. In a ``batch`` one bad model does not stop the others."""

    sources: tuple[str, ...]
    kind: str | None
    options: Mapping[str, Any]
    batch: bool


def models(args: argparse.Namespace) -> Models:
    """The models that ``args`` name.

    Raises:
        InputError: none, a folder without any, or a shape that is none.
    """
    kind: str | None = None
    given: list[str] = list(args.paths)
    for option, each, _ in (*_FILES, *_ZOOS):
        value = getattr(args, option[2:].replace("-", "_"))
        if value:
            if given:
                raise InputError(f"{given[0]} and {option}: name models by one or the other")
            kind, given = each, [value] if isinstance(value, str) else value
    if not given:
        raise InputError("no model is named; give a path, or see: nn-meter predict --help")
    from nn_meter.frontends.sources import models as named

    sources = named(given, kind, lambda text: note(f"note: {text}"))
    return Models(sources, kind, input_options(args), len(sources) > 1 or list(sources) != given)


def input_options(args: argparse.Namespace) -> dict[str, Any]:
    """What ``args`` say of the inputs, as front ends take it.

    Raises:
        InputError: a shape or a value that is none.
    """
    options: dict[str, Any] = {}
    if args.input_shape:
        options["input_shapes"] = input_shapes(args.input_shape)
    for name in ("seq_len", "past", "batch_size"):
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    if args.input_value:
        options["input_values"] = {
            name: tuple(map(_number, values.split(","))) for name, values in _named("--input-value", args.input_value)
        }
    if args.count:
        options["counts"] = {name: _number(count) for name, count in _named("--count", args.count)}
    return options


def _named(option: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise InputError(f"{option} {text}: write it as NAME=1")
        yield name, value


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r} is no number; write values as 16000 or 1,2,3") from None


def input_shapes(texts: Sequence[str]) -> Mapping[str, tuple[int, ...]] | tuple[int, ...]:
    """The shapes that ``name=1,3,224,224`` (repeated) or ``1,3,224,224`` state.

    Raises:
        InputError: not of that form.
    """
    named: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.replace("x", ",").split(",")) if dims else ()
        except ValueError:
            raise InputError(f"--input-shape {text}: write it as 1,3,224,224 or input=1,3,224,224") from None
        if any(dim < 0 for dim in shape):
            raise InputError(f"--input-shape {text}: a dimension cannot be negative")
        if not name and len(texts) == 1:
            return shape
        if not name or name in named:
            raise InputError(f"--input-shape {text}: with several shapes, name each input once: input=1,3,224,224")
        named[name] = shape
    return named


def load_predictors(args: argparse.Namespace) -> list[Predictor]:
    """The predictors that ``args`` name, the default one where they name none."""
    return [load_predictor(name, args.predictor_version) for name in args.predictor or [None]]


def load_predictor(name: str | None, version: str | None) -> Predictor:
    """The predictor of that name or path, else the default one; fetching is shown."""
    from nn_meter.api import load_latency_predictor

    return load_latency_predictor(name, version, progress=progress(f"fetching {name or 'the predictor'}"))


def keep(bundle: Bundle, output: str | None) -> str:
    """Register a predictor that was made, written to ``output`` too where that is asked for; says its notes, returns
    its name."""
    from nn_meter.predictors.bundle import save
    from nn_meter.predictors.registration import register_bundle

    if output:
        save(bundle, Path(output))
    name = register_bundle(bundle).name
    for text in bundle.notes:
        say(text)
    return name


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions in the order asked for, the models that failed with the error, the exit code so far."""

    predictions: tuple[Prediction, ...]
    failed: tuple[tuple[str, str], ...]
    code: int


def ask(wanted: Models, predictors: Sequence[Predictor]) -> Iterator[tuple[str, Prediction | NnMeterError]]:
    """Each model with each predictor's prediction, or with the error that reading it gave.

    Raises:
        NnMeterError: the only model fails.
    """
    for source in tracked(wanted.sources, "predicting"):
        try:
            answers = [each.explain(source, wanted.kind, **wanted.options) for each in predictors]
        except NnMeterError as error:
            if not wanted.batch:
                raise
            yield source, error
            continue
        except Exception as error:  # a fault of ours, which shall not cost the other models their answers
            if not wanted.batch or os.environ.get("NN_METER_DEBUG"):
                raise
            yield source, NnMeterError(unexpected(error))
            continue
        for answer in answers:
            yield source, answer


def collect(wanted: Models, predictors: Sequence[Predictor]) -> Answers:
    """All answers; says on stderr which models failed, and what the others had to assume."""
    predictions: list[Prediction] = []
    failed: list[tuple[str, str]] = []
    code = OK
    for source, answer in ask(wanted, predictors):
        if isinstance(answer, NnMeterError):
            failed.append((source, str(answer)))
            code = max(code, exit_code(answer))
            note(f"error: {answer}" if source in str(answer) else f"error: {source}: {answer}")
            continue
        predictions.append(answer)
        for text in (*answer.notes, *(answer.assumed if wanted.batch else ()), answer.caution):
            if text:
                note(f"note: {text}")
    return Answers(tuple(predictions), tuple(failed), code)
