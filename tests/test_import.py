"""Importing is light and leaves no trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "small_net.onnx"
FRAMEWORKS = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "tensorflow",
    "sklearn",
    "onnxruntime",
    "openvino",
    "MNN",
    "ai_edge_litert",
    "ncnn",
    "executorch",
    "matplotlib",
)


def modules_after(code: str, home: Path) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``code``."""
    report = "\nimport sys; print('\\n'.join({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    env = {
        "PATH": "",
        "HOME": str(home),
        "NN_METER_HOME": str(home / "data"),
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code + report], env=env, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_the_package_alone_imports_no_other(tmp_path: Path) -> None:
    found = modules_after("import nn_meter", tmp_path)
    assert found.isdisjoint({"numpy", "onnx", "yaml", "rich", "platformdirs", "logging", *FRAMEWORKS})


def test_import_writes_nothing(tmp_path: Path) -> None:
    modules_after("import nn_meter, nn_meter.api, nn_meter.cli.main", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_predicting_an_onnx_file_imports_no_framework(tmp_path: Path) -> None:
    code = f"from nn_meter import model_to_graph; assert model_to_graph({str(EXAMPLE)!r}, 'onnx')"
    assert modules_after(code, tmp_path).isdisjoint({"rich", *FRAMEWORKS})


@pytest.mark.parametrize("argument", ["--help", "--version", "--list-predictors"])
def test_the_command_starts_without_frameworks(argument: str, tmp_path: Path) -> None:
    code = f"""
from nn_meter.cli.main import main
try:
    main([{argument!r}])
except SystemExit as stop:
    assert not stop.code
"""
    assert modules_after(code, tmp_path).isdisjoint({"onnx", "rich", *FRAMEWORKS})


def test_logging_is_left_alone(tmp_path: Path) -> None:
    code = """
import logging
import nn_meter.api
assert not logging.getLogger().handlers
assert not logging.getLogger("nn_meter").handlers
assert not hasattr(logging, "KEYINFO")
"""
    modules_after(code, tmp_path)
