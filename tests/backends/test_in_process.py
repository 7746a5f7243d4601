"""What every backend promises that runs models in this process; one that is added is held to it by being there."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from nn_meter import plugins
from nn_meter.backends import available, in_process, load, ncnn, pytorch
from nn_meter.backends.in_process import InProcess
from nn_meter.backends.litert import lowering
from nn_meter.errors import BackendError, MissingDependencyError
from nn_meter.ir.shapes import RULES
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.testing import check_backend, check_runtime, sample_graph

KINDS = {name: kind for name in available() if issubclass(kind := plugins.load("backend", name), InProcess)}
LIGHT = "onnxruntime_cpu"
"""Of a runtime that the default tests install."""


def test_all_are_there() -> None:
    assert {LIGHT, "openvino_cpu", "mnn", "litert", "ncnn", "executorch", "pytorch_eager"} <= KINDS.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each == LIGHT else pytest.mark.heavy) for each in KINDS]
)
def test_it_keeps_the_contract(name: str) -> None:
    pytest.importorskip(KINDS[name].package.module.partition(".")[0])
    check_backend(load(name))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["executorch", "litert", "mnn", "ncnn"])
def test_a_kernel_names_the_nodes_that_it_covers(name: str) -> None:
    pytest.importorskip(KINDS[name].package.module.partition(".")[0])
    graph = sample_graph()
    assert ("Conv_0", "Relu_0") in [each.nodes for each in read_all(load(name).fused(graph), find(name), graph)]


@pytest.mark.parametrize("name", ["executorch", "litert", "ncnn"])
def test_its_passes_leave_sound_operators(name: str) -> None:
    families = ("convnext", "cross_covariance", "decoder", "inverted", "linear_norm", "pool_mixer", "windowed")
    check_runtime(find(name), *(FAMILIES[each](1) for each in families))


@pytest.mark.parametrize("rows", [lowering.ROWS, ncnn.ROWS, pytorch.ROWS], ids=["litert", "ncnn", "pytorch"])
def test_every_row_has_an_operator_of_this_name(rows: dict[str, object]) -> None:
    assert rows.keys() <= {name for table in RULES.values() for name in table}


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_runtime_is_named_with_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, KINDS[name].package.module, None)
    for call in (load(name).check, lambda: load(name).prepare(sample_graph())):
        with pytest.raises(MissingDependencyError, match=rf"pip install 'nn-meter\[{KINDS[name].package.extra}\]'"):
            call()


@pytest.mark.parametrize("name", KINDS)
def test_a_setting_that_the_runtime_lacks_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match=f"{name}: threads is 0; use 1 or more"):
        load(name, threads=0)
    for setting, (called, values) in KINDS[name].choices.items():
        with pytest.raises(BackendError, match=f"{name}: no {called} 'f8'; use one of {', '.join(values)}"):
            load(name, **{setting: "f8"})


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.package.known])
def test_a_version_that_is_not_known_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = KINDS[name].package
    for module in ("torch", package.module):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setattr(in_process, "version", lambda package: f"{KINDS[name].package.known}0.0")
    told = rf"{package.name} {package.known}0\.0 is installed.*: pip install 'nn-meter\[{package.extra}\]'"
    with pytest.raises(BackendError, match=told):
        load(name).check()
