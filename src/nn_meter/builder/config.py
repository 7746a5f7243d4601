"""The workspace of nn-Meter's builder: its folder, its YAML files, and the one global that holds them.

::

    <workspace>/configs/{backend_config,ruletest_config,predictorbuild_config}.yaml
    <workspace>/fusion_rule_test/{testcases,results}/
    <workspace>/predictor_build/{kernels,results}/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nn_meter.builder.kernels import KERNELS
from nn_meter.detection.cases import BASIC, MON, VECTORS
from nn_meter.detection.drawings import Sizes
from nn_meter.errors import BuildError
from nn_meter.storage import Fields, exists, read_json, read_yaml, write

FILES: Mapping[str, str] = {
    "backend": "backend_config.yaml",
    "ruletest": "ruletest_config.yaml",
    "predbuild": "predictorbuild_config.yaml",
}
"""Module of the configuration to its file."""

FOLDERS: Mapping[str, tuple[str, str]] = {
    "ruletest": ("fusion_rule_test", "testcases"),
    "predbuild": ("predictor_build", "kernels"),
}
"""Module to its folder in the workspace, and to the folder of models in that."""

SIZE_KEYS: Mapping[str, str] = {
    "HW": "hw",
    "CIN": "cin",
    "SHAPE_1D": "length",
    "COUT": "cout",
    "KERNEL_SIZE": "kernel_size",
    "PADDING": "padding",
    "STRIDES": "strides",
    "POOL_STRIDES": "pool_strides",
}
"""nn-Meter's key in ``ruletest_config.yaml`` to the field of ``Sizes``."""

PLATFORMS: Mapping[str, Mapping[str, Any]] = {
    "tflite": {
        "REMOTE_MODEL_DIR": "/mnt/sdcard/tflite_bench",
        "BENCHMARK_MODEL_PATH": "/data/local/tmp/benchmark_model",
        "DEVICE_SERIAL": None,
        "KERNEL_PATH": None,
    },
    "openvino": {"THREADS": 1, "DATA_TYPE": "FP32"},
    "onnxruntime": {"THREADS": 1, "EXECUTION_MODE": "sequential", "OPTIMISATION": "all"},
}
"""Platform to what its ``backend_config.yaml`` says. A key in lower case is the backend's setting."""


def ruletest_defaults() -> dict[str, Any]:
    """What a new ``ruletest_config.yaml`` says."""
    sizes = Sizes()
    return {
        "DETAIL": False,
        "IMPLEMENT": "onnx",
        **{key: getattr(sizes, name) for key, name in SIZE_KEYS.items()},
        "EMP_ALPHA": 0.5,
        "PROBES": ["small", "large"],
        "BASIC_TESTCASES": ["_".join(case.operators) for case in BASIC],
        "OTHER_TESTCASES": [MON.name],
        "LAYERS_1D": sorted(VECTORS),
    }


def predbuild_defaults() -> dict[str, Any]:
    """What a new ``predictorbuild_config.yaml`` says; the numbers of samples are nn-Meter's."""
    samples = {name: kernel.init_samples for name, kernel in KERNELS.items()}
    return {
        "DETAIL": False,
        "IMPLEMENT": "onnx",
        "BATCH_SIZE": 1,
        "SEED": 0,
        "KERNELS": {
            name: {
                "INIT_SAMPLE_NUM": count,
                "FINEGRAINED_SAMPLE_NUM": 20,
                "ITERATION": 3,
                "ERROR_THRESHOLD": 0.1,
            }
            for name, count in samples.items()
        },
    }


def create_workspace(path: Path | str, backend_config: Mapping[str, Any] | None) -> Path:
    """Write a workspace's configuration; files that are there already are kept.

    ``backend_config`` is what ``backend_config.yaml`` should say; ``None`` writes none.

    Raises:
        StorageError: the folder cannot be written.
    """
    import yaml

    workspace = Path(path).absolute()
    wanted = {"backend": backend_config, "ruletest": ruletest_defaults(), "predbuild": predbuild_defaults()}
    for module, values in wanted.items():
        target = workspace / "configs" / FILES[module]
        if values is not None and not target.exists():
            write(target, yaml.safe_dump(dict(values), sort_keys=False))
    return workspace


class ConfigManager:
    """The configuration of the workspace at hand, by module: ``backend``, ``ruletest``, ``predbuild``."""

    def __init__(self) -> None:
        self.workspace_path = ""
        self._modules: dict[str, dict[str, Any]] = {}

    def init(self, workspace_path: Path | str) -> None:
        """Read a workspace.

        Raises:
            BuildError: a configuration file is missing or is not YAML; names it.
        """
        workspace = Path(workspace_path).absolute()
        modules = {module: _read(workspace / "configs" / file, module) for module, file in FILES.items()}
        for module, (folder, _) in FOLDERS.items():
            modules[module]["WORKSPACE"] = str(workspace / folder)
        self.workspace_path, self._modules = str(workspace), modules

    def get(self, name: str, module: str = "") -> Any:
        """The value of a key, ``None`` where the file does not say.

        Raises:
            BuildError: no workspace was read, or it has no such module.
        """
        return self.get_module(module).get(name)

    def set(self, name: str, value: Any, module: str = "") -> None:
        """Change a key for this process; the file stays as it is."""
        self.get_module(module)[name] = value

    def get_module(self, module: str = "") -> dict[str, Any]:
        """All keys of a module.

        Raises:
            BuildError: no workspace was read, or it has no such module.
        """
        if module not in self._modules:
            raise BuildError(
                f"the builder's configuration has no module {module!r}; "
                f"read a workspace with builder_config.init(PATH) first, modules: {', '.join(FILES)}"
            )
        return self._modules[module]

    def set_module(self, value: dict[str, Any], module: str = "") -> None:
        """Change all keys of a module for this process."""
        self._modules[module] = value

    def get_settings(self) -> Mapping[str, dict[str, Any]]:
        """All modules."""
        return dict(self._modules)

    def results(self, mode: str) -> Path:
        """Where results of ``mode``, ``"ruletest"`` or ``"predbuild"``, are written."""
        return Path(self.get("WORKSPACE", mode)) / "results"

    def models(self, mode: str) -> Path:
        """Where models of ``mode`` are written."""
        return Path(self.get("WORKSPACE", mode)) / FOLDERS[mode][1]


builder_config = ConfigManager()


def _read(path: Path, module: str) -> dict[str, Any]:
    if module == "backend" and not exists(path):
        return {}  # a customised backend may have none
    advice = "correct it, or create it anew with nn-meter create"
    values = read_yaml(path, "the configuration", BuildError, advice)
    return Fields({} if values is None else values, str(path), BuildError, advice).values


def read_results(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file of the builder's.

    Raises:
        BuildError: it cannot be read or holds no object.
    """
    return Fields(read_json(path, "the file", BuildError), str(path), BuildError).values


def add_json(path: Path, new: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``new`` over what the file says already: sections of the same name are joined, as in nn-Meter."""
    merged = merge_info(new, read_results(path)) if path.exists() else dict(new)
    write(path, json.dumps(merged, indent=4) + "\n")


def merge_info(new_info: Mapping[str, Any], prev_info: Mapping[str, Any]) -> dict[str, Any]:
    """``prev_info`` with ``new_info`` over it, section by section; both stay as they are."""
    sections = {**prev_info, **new_info}
    return {name: {**prev_info.get(name, {}), **new_info.get(name, {})} for name in sections}
