"""Predictors of GPUs in PyTorch from NeuSight's kernels, and of GPUs left out from their data sheets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nn_meter.devices.sheet import Sheet
from nn_meter.errors import BuildError, ModelError
from nn_meter.fitting import Errors
from nn_meter.kernels.partition import Kernel, Partition
from nn_meter.learning.sheets import IN_MODELS, LEFT_OUT, from_sheet, speeds_of
from nn_meter.learning.training import train
from nn_meter.measuring.records import Record
from nn_meter.networks import published_neusight as neusight
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.runtime import GraphEngine
from nn_meter.runtimes import pytorch
from nn_meter.storage import read_json

ASKED = 4
"""Of the kernels of a GPU left out, every so many are asked about; those that are read as two kinds count once."""


def run(folder: Path, ship: bool, errors: bool = True) -> None:
    """Fit each GPU; print errors of kernels held out, of language models, and of each GPU answered for by others."""
    here = folder / "neusight"
    sheets = neusight.read_sheets(here / "device_configs.json")
    models = neusight.read_models(here / "end_to_end.csv.gz").records
    configs = read_json(here / "model_configs.json", "the models' configurations", BuildError)
    made: dict[str, Bundle] = {}
    records: dict[str, tuple[Record, ...]] = {}
    for name in neusight.GPUS:
        start = time.monotonic()
        found = neusight.read_kernels(here, name)
        for text in found.left_out:
            print("  left out", text)
        records[name] = found.records
        made[name] = _trained(name, found.records, sheets, made)
        print(f"{made[name].name}: {len(found.records)} kernels, {time.monotonic() - start:.0f} s")
        held: Any = made[name].environment["held_out"]
        _say({operator: (each["kernels"], each["mean"], each["median"]) for operator, each in held.items()})
        told = [m for m in models if _short(m) == name]
        made[name] = _at_the_clock_of(told, configs, _say_models(made[name], told, configs))
    if errors:
        made = left_out(made, records, sheets, models, configs)
    if ship:
        from ship import add

        add(list(made.values()))


def left_out(
    made: Mapping[str, Bundle],
    records: Mapping[str, Sequence[Record]],
    sheets: Mapping[str, Sheet],
    models: Sequence[Record],
    configs: Mapping[str, Any],
) -> dict[str, Bundle]:
    """Print how each GPU is answered for by the others, and GPUs of which no kernel was measured by all; the bundles
    with that."""
    told = {}
    for name, bundle in made.items():
        sheet = sheets[neusight.GPUS[name][1][0]]
        guessed = from_sheet(sheet, [each for other, each in made.items() if other != name], name=name)
        print(f"{name}, answered for from its data sheet; {guessed.notes[0]}")
        once = [r for r in records[name] if r.kernels[0].kind != "fc"]
        found_ms, measured_ms, operators = _asked(guessed, once[::ASKED])
        off = np.abs(found_ms / measured_ms - 1)
        which = {operator: operators == operator for operator in np.unique(operators)}
        _say({o: (int(w.sum()), float(off[w].mean()), float(np.median(off[w]))) for o, w in which.items()})
        print(f"    all: mean {off.mean():.1%}, median {np.median(off):.1%}")
        low, high = np.quantile(np.log(measured_ms / found_ms), (0.05, 0.95))
        about = {"mean": off.mean(), "median": np.median(off), "log_low": low, "log_high": high}
        about = {key: round(float(value), 4) for key, value in about.items()}
        told[name] = replace(bundle, environment={**bundle.environment, LEFT_OUT: about})
        _say_models(guessed, [m for m in models if _short(m) == name], configs)
    for device in sorted({_short(m) for m in models} - made.keys()):
        print(f"{device}, of which no kernel was measured")
        guessed = from_sheet(sheets[device], list(told.values()), name=device)
        _say_models(guessed, [m for m in models if _short(m) == device], configs)
    return told


def _trained(name: str, records: Sequence[Record], sheets: Mapping[str, Sheet], made: Mapping[str, Bundle]) -> Bundle:
    """With the codes of those that are made, so that all can be merged."""
    around = records[0].circumstances
    codes = {k: p.categories for each in list(made.values())[:1] for k, p in each.kinds.items()}
    sheet = sheets[neusight.GPUS[name][1][0]]
    bundle = train(
        records, name=neusight.predictor_name(around), rules=pytorch.RULES, sheet=speeds_of(sheet), codes=codes
    )
    text = f"{sheet.flops_per_s / 1e12:g} TFLOP/s, {sheet.bytes_per_s / 1e9:g} GB/s, {sheet.processors} processors, " \
        f"{sheet.cache_bytes / 1e6:g} MB of cache, {sheet.board_watts:g} W"  # fmt: skip
    facts = {"maker": around.device.maker, "source": around.source, "licence": around.licence, "batch": 1,
             "sheet": text, "board_watts": sheet.board_watts}  # fmt: skip
    return replace(bundle, environment={**bundle.environment, **facts})


COMPUTING = ("conv", "fc", "matmul")
"""Kinds that wait for arithmetic, and so for the clock."""


def _at_the_clock_of(models: Sequence[Record], configs: Mapping[str, Any], bundle: Bundle) -> Bundle:
    """With products as quick as in whole models, where all of these lie outside of the bundle's interval: a card that
    slows down under load ran single kernels, over and over, at another clock than models. Its errors are then of each
    model by what the others make of products: they are of one network at several batches."""
    span = bundle.interval
    shares = np.array([_shares(bundle, each, configs) for each in models if _known(each, configs)])
    if span is None or not len(shares):
        return bundle
    computing_ms, others_ms, measured_ms = shares.T
    ratios = np.log(measured_ms / (computing_ms + others_ms))
    if np.any((span.low <= ratios) & (ratios <= span.high)):
        return bundle
    slower = np.log((measured_ms - others_ms) / computing_ms)
    by_others = [float(np.delete(slower, i).mean()) for i in range(len(slower))]
    blind_ms = others_ms + computing_ms * np.exp(by_others)
    for each_ms, found_ms in zip(measured_ms, blind_ms, strict=True):
        print(f"    measured {each_ms:.0f} ms, by the others' clock {found_ms:.0f} ms, {found_ms / each_ms - 1:+.1%}")
    factor = float(slower.mean())
    print(f"    products take {np.exp(factor):.2f} of what they do by themselves")
    kinds = {
        kind: replace(each, regressor=replace(each.regressor, init=each.regressor.init + factor))
        if kind in COMPUTING else each for kind, each in bundle.kinds.items()
    }  # fmt: skip
    facts = {"errors": Errors.of(blind_ms, measured_ms).written(), IN_MODELS: round(float(np.exp(factor)), 4)}
    return replace(bundle, kinds=kinds, environment={**bundle.environment, **facts})


def _known(model: Record, configs: Mapping[str, Any]) -> bool:
    return configs.get(model.subject.split("@")[0], {}).get("model_type") in ("bert", "gpt2", "opt")


def _shares(bundle: Bundle, model: Record, configs: Mapping[str, Any]) -> tuple[float, float, float]:
    """What kinds that compute take of a model, what the others take, and what was measured, in ms."""
    assert model.whole is not None
    name, tokens = model.subject.split("@")
    graph = neusight.language_model(name, configs[name], int(tokens), model.circumstances.batch)
    found = GraphEngine(bundle).explain(graph)
    computing_ms = sum(k.latency_ms for k in found.kernels if k.kernel.kind in COMPUTING)
    return computing_ms, found.latency_ms - computing_ms, model.whole.median_ms


def _asked(bundle: Bundle, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and measured latencies of single kernels in ms, and their operators."""
    kernels = [Kernel(k.kind, k.config, (), r.subject) for r in records for k in r.kernels]
    found = GraphEngine(bundle).explain_partition(Partition("kernels", tuple(kernels)))
    measured = [k.latency_ms for r in records for k in r.kernels]
    return (np.array([k.latency_ms for k in found.kernels]), np.array(measured),
            np.array([k.label for k in kernels]))  # fmt: skip


def _say(errors: Mapping[str, tuple[int, float, float]]) -> None:
    for operator, (count, mean, median) in errors.items():
        print(f"    {operator:8s} {count:6d} kernels, mean {mean:6.1%}, median {median:6.1%}")


def _say_models(bundle: Bundle, models: Sequence[Record], configs: Mapping[str, Any]) -> Bundle:
    """Print each model's error; the bundle with all of them."""
    predicted_ms, measured_ms = [], []
    for each in models:
        assert each.whole is not None
        name, tokens = each.subject.split("@")
        try:
            graph = neusight.language_model(name, configs.get(name, {}), int(tokens), each.circumstances.batch)
        except ModelError as error:
            print(f"    {each.subject}: left out: {error}")
            continue
        predicted_ms.append(GraphEngine(bundle).latency_ms(graph))
        measured_ms.append(each.whole.median_ms)
        print(f"    {each.subject} at batch {each.circumstances.batch}: measured {measured_ms[-1]:.0f} ms, "
              f"predicted {predicted_ms[-1]:.0f} ms, {predicted_ms[-1] / measured_ms[-1] - 1:+.1%}")  # fmt: skip
    errors = Errors.of(np.array(predicted_ms), np.array(measured_ms)).written()
    print(f"    language models: mean {errors['mean']:.1%}")
    return replace(bundle, environment={**bundle.environment, "errors": errors})


def _short(record: Record) -> str:
    return str(record.circumstances.device.environment["short"])
