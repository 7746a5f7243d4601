"""nn-Meter's calls that sample kernels, measure them and train a forest on them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import pickle
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nn_meter import plugins
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.builder.backends import connect_backend
from nn_meter.builder.config import add_json, builder_config, merge_info, read_results
from nn_meter.builder.kernels import (
    builder_kernel,
    kernel_graph,
    nhwc,
    row,
    sample_finegrained,
    sample_prior,
)
from nn_meter.builder.latency import Models, read_profiled_results
from nn_meter.builder.profile import profile_models
from nn_meter.errors import BuildError
from nn_meter.learning.forest import MIN_ROWS, fit_forest
from nn_meter.measuring.latency import Latency
from nn_meter.networks.sampling import Config
from nn_meter.predictors.nnmeter_columns import NN_METER_BUILDER_1
from nn_meter.storage import write

_log = logging.getLogger(__name__)

KernelData = Models | tuple[Any, Any]
"""Measured models, or (configs, latencies): each the path of a JSON file or a list of such paths."""


def generate_config_sample(
    kernel_type: str,
    sample_num: int,
    mark: str = "",
    sampling_mode: str = "prior",
    configs: Sequence[Config] | None = None,
) -> Models:
    """Draw configs and write their models to ``<workspace>/predictor_build/kernels``, as ONNX.

    Draws repeat themselves for the same ``SEED`` in ``predictorbuild_config.yaml``, kernel and mark.

    Args:
        sampling_mode: ``"prior"``, ``sample_num`` from the kernel's ranges; or ``"finegrained"``,
            ``sample_num`` around each of ``configs``.

    Raises:
        BuildError: an unknown kernel or mode, or no workspace was read.
        StorageError: the workspace cannot be written.
    """
    seed = [int(builder_config.get("SEED", "predbuild") or 0), _hash(kernel_type), _hash(mark)]
    drawn = _sampled(kernel_type, sample_num, sampling_mode, configs or (), np.random.default_rng(seed))
    described: dict[str, dict[str, Any]] = {}
    for config in drawn:
        name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
        path = builder_config.models("predbuild") / f"{kernel_type}_{mark}_{name}.onnx"
        shapes = _write_kernel(kernel_type, config, path)
        described[name] = {"model": str(path), "shapes": shapes, "config": config}
    add_json(builder_config.results("predbuild") / f"{kernel_type}_{mark}.json", {kernel_type: described})
    return {kernel_type: described}


def sample_and_profile_kernel_data(
    kernel_type: str,
    sample_num: int,
    backend: str,
    sampling_mode: str = "prior",
    configs: Sequence[Config] | None = None,
    mark: str = "",
    detail: bool = True,
    metrics: Sequence[str] = ("latency",),
    **kwargs: Any,
) -> Models:
    """Draw configs, write their models and measure them; results in ``profiled_<kernel>.json``.

    Raises:
        BuildError, BackendError, StorageError: as ``generate_config_sample``, ``connect_backend`` and
            ``profile_models`` raise them.
    """
    models = generate_config_sample(kernel_type, sample_num, mark, sampling_mode, configs)
    builder_config.set("DETAIL", detail, "predbuild")
    return profile_models(
        connect_backend(backend),
        models,
        mode="predbuild",
        metrics=metrics,
        save_name=f"profiled_{kernel_type}.json",
        **kwargs,
    )


def build_predictor_by_data(
    kernel_type: str,
    kernel_data: KernelData,
    backend: str | None = None,
    error_threshold: float = 0.1,
    mark: str = "",
    save_path: Path | str | None = None,
    predict_label: str = "latency",
    final_predictor: bool = False,
) -> tuple[Any, float | None, list[dict[str, int]] | None]:
    """Train a random forest on four fifths of the data and test it on the rest.

    Args:
        error_threshold: relative error from which a tested kernel counts as a large error.
        save_path: folder for the tables ``collection/*.csv`` and the forest ``predictors/*.pkl``.
        final_predictor: train on all data and test nothing.

    Returns:
        The forest; the share of tested kernels within 10 %; the configs of those with a large error.

    Raises:
        BuildError: fewer than ``learning.forest.MIN_ROWS`` measured kernels, or data that cannot be used.
        MissingDependencyError: scikit-learn is not installed.
    """
    columns, configs, rows, labels = _table(kernel_type, collect_kernel_data(kernel_data), predict_label)
    if len(rows) < MIN_ROWS:
        raise BuildError(
            f"kernel {kernel_type!r}: {len(rows)} measured samples are too few to train on, "
            f"{MIN_ROWS} are needed; see profile_error.log, or sample more"
        )
    forest, tested = fit_forest(rows, labels, test=not final_predictor)
    stem = f"{kernel_type}_{mark}" if mark else kernel_type
    folder = Path(save_path) if save_path is not None else None
    if folder is not None:
        write(folder / "collection" / f"Data_{stem}.csv", _csv((*columns, predict_label), np.c_[rows, labels]))
        write(folder / "predictors" / f"{stem}.pkl", pickle.dumps(forest))
    if final_predictor:
        return forest, None, None
    if folder is not None:
        tests = np.c_[rows[tested.rows], labels[tested.rows], tested.predicted_ms, tested.errors]
        write(folder / "collection" / f"TestResult_{stem}.csv", _csv((*columns, "True", "Pred", "Error"), tests))
    _log.info("%s: %.1f %% of %d kernels within 10 %%", stem, 100 * tested.acc10, len(tested.rows))
    large = [configs[i] for i, error in zip(tested.rows, tested.errors, strict=True) if error > error_threshold]
    return forest, tested.acc10, large


def build_predictor_for_kernel(
    kernel_type: str,
    backend: str,
    init_sample_num: int = 1000,
    finegrained_sample_num: int = 10,
    iteration: int = 5,
    error_threshold: float = 0.1,
    predict_label: str = "latency",
    mark: str = "",
) -> tuple[Any, Models]:
    """Sample and train, then ``iteration - 1`` times sample around the large errors and train again.

    Returns:
        The forest and all measured kernels, as in nn-Meter 2.0. Forests and tables of every round lie in
        ``<workspace>/predictor_build/results``.

    Raises:
        BuildError, BackendError, MissingDependencyError, StorageError: as the calls it is made of.
    """
    suffix = f"_{mark}" if mark else ""
    data = sample_and_profile_kernel_data(kernel_type, init_sample_num, backend, mark=f"prior{suffix}")
    forest, _, large = _trained(kernel_type, data, backend, error_threshold, f"prior{suffix}", predict_label)
    for number in range(1, iteration):
        if not large:
            break
        mark = f"finegrained{number}{suffix}"
        data = _refined(kernel_type, data, backend, finegrained_sample_num, large, mark)
        forest, _, large = _trained(kernel_type, data, backend, error_threshold, mark, predict_label)
    return forest, data


def build_initial_predictor_by_data(
    kernel_type: str,
    backend: str,
    init_sample_num: int = 20,
    error_threshold: float = 0.1,
    mark: str = "",
    predict_label: str = "latency",
) -> tuple[Any, Models]:
    """The first round of ``build_predictor_for_kernel``."""
    return build_predictor_for_kernel(
        kernel_type,
        backend,
        init_sample_num,
        iteration=1,
        error_threshold=error_threshold,
        predict_label=predict_label,
        mark=mark,
    )


def build_adaptive_predictor_by_data(
    kernel_type: str,
    kernel_data: KernelData,
    backend: str,
    finegrained_sample_num: int = 20,
    error_threshold: float = 0.1,
    mark: str = "",
    predict_label: str = "latency",
) -> tuple[Any, Models]:
    """One further round: find the large errors of ``kernel_data``, sample around them, train on both."""
    name = f"finegrained_{mark}" if mark else "finegrained"
    data = collect_kernel_data(kernel_data)
    forest, _, large = build_predictor_by_data(kernel_type, data, backend, error_threshold, predict_label=predict_label)
    if large:
        data = _refined(kernel_type, data, backend, finegrained_sample_num, large, name)
        forest, _, _ = _trained(kernel_type, data, backend, error_threshold, name, predict_label)
    return forest, data


def build_latency_predictor(backend: str) -> Path:
    """Build every kernel that ``predictorbuild_config.yaml`` lists.

    Returns:
        The meta file of the finished predictor, for ``nn-meter register --predictor``. Its fusion rules are
        those of ``detected_fusion_rule.json``, or none where that is missing.

    Raises:
        BuildError, BackendError, MissingDependencyError, StorageError: as the calls it is made of.
    """
    import yaml

    kernels: Mapping[str, Mapping[str, Any]] = builder_config.get("KERNELS", "predbuild") or {}
    folder = Path(builder_config.get("WORKSPACE", "predbuild")) / "predictor"
    for kernel_type, asked in kernels.items():
        _, data = build_predictor_for_kernel(
            kernel_type,
            backend,
            asked["INIT_SAMPLE_NUM"],
            asked["FINEGRAINED_SAMPLE_NUM"],
            asked["ITERATION"],
            asked["ERROR_THRESHOLD"],
        )
        final, _, _ = build_predictor_by_data(kernel_type, data, backend, final_predictor=True)
        write(folder / f"{kernel_type}.pkl", pickle.dumps(final))
    detected = builder_config.results("ruletest") / "detected_fusion_rule.json"
    rules = read_results(detected) if detected.exists() else {}
    write(folder / "fusion_rules.json", json.dumps(rules, indent=4) + "\n")
    meta = {
        "name": backend,
        "version": "1.0",
        "category": "cpu",
        "package_location": str(folder),
        "kernel_predictors": list(kernels),
    }
    write(folder / "meta.yaml", yaml.safe_dump(meta, sort_keys=False))
    return folder / "meta.yaml"


def collect_kernel_data(kernel_data: KernelData) -> Models:
    """Measured models from a dictionary, or joined from files of configs and files of latencies.

    Raises:
        BuildError: a file cannot be used.
    """
    if not isinstance(kernel_data, tuple):
        return read_profiled_results(kernel_data)
    configs, labels = (_joined(source) for source in kernel_data)
    return read_profiled_results(
        {
            module: {name: {**model, **labels.get(module, {}).get(name, {})} for name, model in models.items()}
            for module, models in configs.items()
        }
    )


def _joined(source: Any) -> Models:
    if isinstance(source, Mapping):
        return dict(source)
    files = [source] if isinstance(source, str | Path) else list(source)
    joined: Models = {}
    for file in files:
        joined = merge_info(read_results(file), joined)
    return joined


def _refined(kernel: str, data: Models, backend: str, count: int, large: Sequence[Config], mark: str) -> Models:
    """``data`` and what is sampled around its large errors."""
    return merge_info(sample_and_profile_kernel_data(kernel, count, backend, "finegrained", large, mark), data)


def _trained(
    kernel: str, data: Models, backend: str, threshold: float, mark: str, label: str
) -> tuple[Any, float | None, list[dict[str, int]] | None]:
    results = builder_config.results("predbuild")
    return build_predictor_by_data(kernel, data, backend, threshold, mark, results, label)


def _sampled(
    kernel: str, count: int, mode: str, configs: Sequence[Config], rng: np.random.Generator
) -> list[dict[str, int]]:
    if mode not in ("prior", "finegrained"):
        raise BuildError(f"no sampling mode {mode!r}; use 'prior' or 'finegrained'")
    entry = plugins.find("kernel", kernel)
    if entry is not None:
        sampler = entry.load("sampler")()
        own: list[dict[str, int]] = (
            sampler.prior_config_sampling(count)
            if mode == "prior"
            else sampler.finegrained_config_sampling(configs, count)
        )
        return own
    if mode == "prior":
        return sample_prior(kernel, count, rng)
    return sample_finegrained(kernel, configs, count, rng)


def _write_kernel(kernel: str, config: dict[str, int], path: Path) -> list[list[int]]:
    """Write the kernel's model; the shapes of its inputs, NHWC without the batch."""
    batch_size = int(builder_config.get("BATCH_SIZE", "predbuild") or 1)
    entry = plugins.find("kernel", kernel)
    if entry is not None:
        block = entry.load()(config, batch_size)
        path.parent.mkdir(parents=True, exist_ok=True)
        block.save_model(str(path))
        shapes: list[list[int]] = block.input_tensor_shape
        return shapes
    graph = kernel_graph(kernel, config, batch_size)
    write(path, as_bytes(graph))
    return [nhwc(graph.tensors[name].shape)[1:] for name in graph.inputs]


def _table(
    kernel: str, data: Models, label: str
) -> tuple[tuple[str, ...], list[dict[str, int]], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Columns, configs, rows and labels of the models that were measured."""
    entry = plugins.find("kernel", kernel)
    parse = entry.load("parser")(kernel).get_feature_by_config if entry else partial(row, kernel)
    configs, rows, labels = [], [], []
    for model in data.get(kernel, {}).values():
        value = model.get(label)
        value = value.avg if isinstance(value, Latency) else value
        if value and "config" in model:
            configs.append(model["config"])
            rows.append(parse(model["config"]))
            labels.append(value)
    if entry is not None:
        columns = tuple(f"feature{i}" for i in range(len(rows[0]) if rows else 0))
    else:
        columns = NN_METER_BUILDER_1[builder_kernel(kernel).encoded_as]
    return columns, configs, np.array(rows, np.float64), np.array(labels, np.float64)


def _csv(header: Sequence[str], rows: np.ndarray[Any, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows.tolist())
    return text.getvalue()


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())
