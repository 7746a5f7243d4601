"""Convert and measure lists of models, as nn-Meter's workspace files describe them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nn_meter.builder.backends import BaseBackend
from nn_meter.builder.config import add_json, builder_config, read_results
from nn_meter.builder.latency import Models, dump_profiled_results, read_profiled_results
from nn_meter.errors import NnMeterError
from nn_meter.storage import write

_log = logging.getLogger(__name__)

SAVE_EVERY = 50
"""Models after which results are written in between."""


def convert_models(
    backend: BaseBackend, models: Models | str, mode: str = "predbuild", broken_point_mode: bool = False
) -> Models:
    """Convert each model to what the backend takes; adds ``converted_model`` to its entry.

    Results go to ``<workspace>/<mode's folder>/results``, under the name of the file that ``models`` came
    from, else ``converted_results.json``; what fails, to ``convert_error.log`` beside it.

    Args:
        models: modules of models, or the path of the JSON file that holds them.
        mode: ``"ruletest"`` or ``"predbuild"``.
        broken_point_mode: skip what has a ``converted_model`` already.

    Raises:
        BuildError: no workspace was read, or the file cannot be used.
    """
    save_name = Path(models).name if isinstance(models, str) else "converted_results.json"
    described: Models = read_results(models) if isinstance(models, str) else models
    folder, results = builder_config.models(mode), builder_config.results(mode)
    folder.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        write(results / save_name, json.dumps(described, indent=4) + "\n")

    def convert(model: dict[str, Any]) -> None:
        model["converted_model"] = backend.convert_model(model["model"], str(folder), model["shapes"])

    skipped = (lambda model: "converted_model" in model) if broken_point_mode else (lambda model: False)
    count = _each(described, convert, skipped, save, results / "convert_error.log", SAVE_EVERY)
    _log.info("converted %d models; results in %s", count, results / save_name)
    return described


def profile_models(
    backend: BaseBackend,
    models: Models | str,
    mode: str = "ruletest",
    metrics: Sequence[str] = ("latency",),
    save_name: str = "profiled_results.json",
    have_converted: bool = False,
    log_frequency: int = SAVE_EVERY,
    broken_point_mode: bool = False,
    **kwargs: Any,
) -> Models:
    """Measure each model; adds the metrics to its entry, latencies as ``Latency`` in ms.

    Results are joined with what ``<workspace>/<mode's folder>/results/<save_name>`` holds; what fails goes to
    ``profile_error.log`` beside it.

    Args:
        models: modules of models, or the path of the JSON file that holds them.
        mode: ``"ruletest"`` or ``"predbuild"``.
        have_converted: measure ``converted_model`` instead of converting ``model``.
        log_frequency: models after which results are written in between.
        broken_point_mode: skip what has a latency there already.
        kwargs: handed to the backend's ``profile``.

    Raises:
        BuildError: no workspace was read, or the file cannot be used.
    """
    described: Models = read_profiled_results(read_results(models) if isinstance(models, str) else models)
    folder, results = builder_config.models(mode), builder_config.results(mode)
    folder.mkdir(parents=True, exist_ok=True)
    target = results / save_name
    if broken_point_mode and target.exists():
        for module, known in read_profiled_results(read_results(target)).items():
            for name, model in described.get(module, {}).items():
                model.update(known.get(name, {}))
    detail = bool(builder_config.get("DETAIL", mode))

    def save() -> None:
        add_json(target, dump_profiled_results(described, detail, metrics))

    def profile(model: dict[str, Any]) -> None:
        if have_converted:
            found = backend.profile(model["converted_model"], metrics, model["shapes"], **kwargs)
        else:
            found = backend.profile_model_file(model["model"], str(folder), model["shapes"], metrics, **kwargs)
        model.update({metric: found[metric] for metric in metrics})

    def skipped(model: dict[str, Any]) -> bool:
        return broken_point_mode and "latency" in model and model["latency"].avg != 0

    count = _each(described, profile, skipped, save, results / "profile_error.log", log_frequency)
    _log.info("measured %d models; results in %s", count, target)
    return described


def _each(
    models: Models,
    work: Callable[[dict[str, Any]], None],
    skipped: Callable[[dict[str, Any]], bool],
    save: Callable[[], None],
    errors: Path,
    save_every: int,
) -> int:
    """Work through the models that are not skipped, saving in between; how many succeeded."""
    count = 0
    for name, model in (entry for module in models.values() for entry in module.items()):
        if skipped(model):
            continue
        try:
            work(model)
        except (NnMeterError, OSError, KeyError, ValueError, RuntimeError) as error:
            _log.warning("%s failed: %s", name, error)
            errors.parent.mkdir(parents=True, exist_ok=True)
            with errors.open("a", encoding="utf-8") as file:
                file.write(f"{name}: {error}\n")
            continue
        count += 1
        if count % save_every == 0:
            save()
    save()
    return count
