"""The registry finds a front end by kind, by content, by suffix, and says what it tried."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nn_meter import frontends
from nn_meter import plugins as registry
from nn_meter.errors import ModelError, ModelFormatError
from nn_meter.ir import parse

GRAPH = parse("graph g\ninput x: float32[1]\ny = Relu(x)\noutput y\n")
PLUGIN = SimpleNamespace(
    name="mine",
    suffixes=(".mine",),
    sniff=lambda source: source == "mine",
    read=lambda source, **options: GRAPH,
)


@pytest.fixture
def plugins(monkeypatch):
    """Only the ONNX front end, and entry points of the test's choice."""
    points = {}
    group = registry.Group("front end", "nn_meter.frontends", {"onnx": "nn_meter.frontends.onnx"}, error=ModelError)
    monkeypatch.setattr(registry, "GROUPS", {"frontend": group})
    monkeypatch.setattr(registry, "_installed", lambda group: points)
    return points


def test_kinds_include_nn_meters_names(plugins):
    assert frontends.front_end("onnx").name == "onnx"
    assert frontends.MODEL_TYPES["pb"] == "tensorflow"
    assert frontends.MODEL_TYPES["nnmeter-ir"] == "nnmeter_ir"
    with pytest.raises(ModelError, match="there is no front end 'caffe'; there are: onnx"):
        frontends.front_end("caffe")


def test_a_plugin_is_found_like_a_built_in_one(plugins):
    plugins["mine"] = f"{__name__}:PLUGIN"
    assert frontends.names() == ("onnx", "mine")
    assert frontends.read("mine") is GRAPH
    assert frontends.read("anything", kind="mine") is GRAPH


def test_a_broken_plugin_does_not_stop_the_others(plugins, caplog, tmp_path):
    plugins["broken"] = "no_such_module:thing"
    plugins["mine"] = f"{__name__}:PLUGIN"
    assert frontends.read("mine") is GRAPH
    assert "front end 'broken': no_such_module:thing cannot be loaded" in caplog.text


def test_the_suffix_decides_where_the_content_does_not(plugins, tmp_path):
    path = tmp_path / "broken.ONNX"
    path.write_bytes(b"hello")
    with pytest.raises(ModelFormatError, match=r"broken\.ONNX: not an ONNX model"):
        frontends.read(path)


def test_what_nothing_recognises_lists_what_was_tried(plugins, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ModelFormatError, match=r"photo\.jpg: not recognised as a model; tried onnx"):
        frontends.read(path)
    with pytest.raises(ModelError, match=r"no such file"):
        frontends.read(tmp_path / "missing.bin")
    with pytest.raises(ModelFormatError, match=r"<object>: not recognised"):
        frontends.read(object())


def test_a_name_that_is_no_file_may_be_one_of_a_library():
    with pytest.raises(ModelError) as refused:
        frontends.read("resnet18")
    assert str(refused.value) == (
        "resnet18: no such file; check the path, or name the library of an architecture: "
        "torchvision:resnet18, timm:resnet18, hf:resnet18"
    )
    with pytest.raises(ModelError, match=r"resnet18\.onnx: no such file; check the path$"):
        frontends.read("resnet18.onnx")
