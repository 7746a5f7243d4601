"""The Python calls."""

from __future__ import annotations

import io
import json
import math
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest

import nn_meter
from nn_meter import frontends
from nn_meter.api import Predictor
from nn_meter.backends.onnx_writer import to_onnx
from nn_meter.errors import (
    DownloadError,
    GraphError,
    InputError,
    ModelError,
    PredictorError,
    UnknownPredictorError,
)
from nn_meter.ir import GraphBuilder
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import Roofline

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
TOTAL_MS = 39.75


@pytest.fixture
def predictor(tiny: Bundle) -> Predictor:
    return Predictor(tiny)


def ir() -> dict[str, Any]:
    return nn_meter.model_to_graph(EXAMPLE, "onnx")


@pytest.mark.parametrize(
    ("model", "model_type"),
    [
        (EXAMPLE, "onnx"),
        (EXAMPLE, None),
        (str(EXAMPLE), None),
        (EXAMPLE.read_bytes(), None),
        (onnx.load(EXAMPLE), "onnx"),
        (onnx.load(EXAMPLE), None),
        (frontends.read(EXAMPLE), None),
        (ir(), "nnmeter-ir"),
        (ir(), None),
    ],
    ids=["path", "path sniffed", "text", "bytes", "proto", "proto sniffed", "graph", "ir", "ir sniffed"],
)
def test_every_form_of_a_model_gives_one_answer(
    predictor: Predictor, model: Any, model_type: str | None
) -> None:
    latency_ms = predictor.predict(model, model_type)
    assert type(latency_ms) is float
    assert latency_ms == TOTAL_MS == predictor.explain(model, model_type).latency_ms
    assert predictor.predict_many([model, model], model_type) == [TOTAL_MS, TOTAL_MS]


def test_nn_meters_positional_call(predictor: Predictor) -> None:
    assert predictor.predict(str(EXAMPLE), "onnx", (1, 3, 96, 96), False) == TOTAL_MS


def test_a_file_keeps_its_shape_unless_one_is_given(predictor: Predictor) -> None:
    own = predictor.explain(EXAMPLE).kernels[0].kernel.config
    given = predictor.explain(EXAMPLE, input_shape=(1, 3, 224, 224)).kernels[0].kernel.config
    assert own.input_tensors == ((1, 96, 96, 3),)
    assert given.input_tensors == ((1, 224, 224, 3),)


def test_models_are_named_by_their_file(predictor: Predictor) -> None:
    assert predictor.explain(EXAMPLE).model == "small_net.onnx"
    assert predictor.explain(ir()).model == "nn-Meter IR"


def test_nodes_that_compute_constants_are_free(predictor: Predictor) -> None:
    b = GraphBuilder("folded")
    x = b.input((1, 3, 8, 8))
    weight = b.op("Identity", b.weight((4, 3, 1, 1)))
    graph = b.graph(b.op("Conv", x, weight))
    explained = predictor.explain(graph)
    (free,) = [each for each in explained.kernels if each.status == "free"]
    assert free.kernel.nodes == (graph.nodes[0].name,)
    assert predictor.predict(graph) == 2.0


def test_apply_nni_is_warned_about(predictor: Predictor) -> None:
    with pytest.warns(UserWarning, match="NNI is archived") as caught:
        assert predictor.predict(EXAMPLE, "onnx", apply_nni=True) == TOTAL_MS
    assert caught[0].filename == __file__


def test_nni_ir_is_refused(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="'nni-ir': NNI is archived"):
        predictor.predict({}, "nni-ir")


def test_an_unknown_model_type_names_those_there_are(predictor: Predictor) -> None:
    with pytest.raises(ModelError, match=r"'caffe'; there are: onnx, "):
        predictor.predict(EXAMPLE, "caffe")


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"a": {}},
        {"a": {"attr": {}, "inbounds": []}},
        {"a": None},
        {
            "a": {
                "attr": {"type": "Conv", "attr": {}, "input_shape": [], "output_shape": []},
                "inbounds": [[]],
            }
        },
        {"a": {"attr": {"type": ["Conv"], "attr": {}}, "inbounds": []}},
        {"a": {"attr": {"type": "Conv", "attr": {}}, "inbounds": []}},
    ],
)
def test_a_broken_dictionary_is_an_error_of_the_tree(predictor: Predictor, broken: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        predictor.predict(broken, "nnmeter-ir")
    good, bad = predictor.predict_many([ir(), broken], "nnmeter-ir")
    assert good == TOTAL_MS
    assert isinstance(bad, ModelError)
    with pytest.raises(ModelError):
        predictor.explain(broken, "nnmeter-ir")


def test_a_cyclic_dictionary_names_the_node(predictor: Predictor) -> None:
    attr = {"type": "Relu", "attr": {}, "input_shape": [[1, 8]], "output_shape": [[1, 8]]}
    cycle = {"a": {"attr": attr, "inbounds": ["b"]}, "b": {"attr": attr, "inbounds": ["a"]}}
    with pytest.raises(GraphError, match="cycle through or before node 'a'"):
        predictor.predict(cycle)


def test_a_bundle_in_terms_of_onnx_answers_alike() -> None:
    roofline = Predictor(Bundle("roofline", "1.0", {}, {}, "onnx-1", fallback=Roofline(1e10, 1e10, 0.001)))
    explained = roofline.explain(EXAMPLE)
    assert explained.model == "small_net.onnx"
    assert explained.coverage["estimated"].share == pytest.approx(1)
    assert explained.source == str(EXAMPLE)
    assert roofline.predict(EXAMPLE) == pytest.approx(explained.latency_ms)
    assert roofline.predict_many([EXAMPLE, ir()]) == pytest.approx([explained.latency_ms] * 2)


def test_an_unknown_schema_is_refused(tiny: Bundle) -> None:
    with pytest.raises(PredictorError, match=r"tiny_cpu: .* schema 'onnx-9'.* upgrade with"):
        Predictor(replace(tiny, schema="onnx-9"))


def test_predictors_are_listed_with_nn_meters_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path))
    monkeypatch.delenv("NN_METER_MIRROR", raising=False)
    (cortex,) = [
        each for each in nn_meter.list_latency_predictors() if each["name"] == "cortexA76cpu_tflite21"
    ]
    address = "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data/cortexA76cpu_tflite21.zip"
    assert (cortex["version"], cortex["category"], cortex["download"]) == (1.0, "cpu", address)
    assert len(cortex["kernel_predictors"]) == 16


def test_an_unknown_predictor_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path))
    with pytest.raises(UnknownPredictorError, match="did you mean cortexA76cpu_tflite21"):
        nn_meter.load_latency_predictor("cortexA76cpu_tflite", 1.0)


def test_graphs_are_nn_meters_dictionaries() -> None:
    graph = nn_meter.model_file_to_graph(str(EXAMPLE), "onnx")
    assert set(graph["conv_0"]) == {"attr", "inbounds", "outbounds"}
    assert graph["conv_0"]["attr"]["type"] == "Conv"
    assert graph["conv_0"]["outbounds"] == ["relu_1"]
    assert nn_meter.model_to_graph(graph, "nnmeter-ir") is graph
    json.dumps(graph)


def test_metrics_are_nn_meters() -> None:
    rmse, rmspe, error, acc5, acc10, acc15 = nn_meter.latency_metrics(
        [104, 92, 112, 200], [100, 100, 100, 100]
    )
    assert rmse == pytest.approx(math.sqrt((16 + 64 + 144 + 10000) / 4))
    assert rmspe == pytest.approx(rmse)
    assert error == pytest.approx(rmse / 100)
    assert (acc5, acc10, acc15) == (0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("pred", "true", "text"),
    [([], [], "at least one"), ([1, 2], [1], "2 predicted and 1 true"), ([1], [0], "no relative error")],
)
def test_metrics_of_nothing_are_refused(pred: list[float], true: list[float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        nn_meter.latency_metrics(pred, true)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served as the mirror, and a data folder beside it."""
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("NN_METER_MIRROR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "{}\n")
    return buffer.getvalue()


def test_measurements_are_fetched_once(mirror: Path, tmp_path: Path) -> None:
    (mirror / "datasets.zip").write_bytes(zipped("data/alexnets.jsonl", "resnets.jsonl", "readme.txt"))
    found = nn_meter.bench_dataset()
    folder = tmp_path / "home" / "dataset"
    assert found == [str(folder / "alexnets.jsonl"), str(folder / "resnets.jsonl")]
    assert sorted(path.name for path in folder.iterdir()) == ["alexnets.jsonl", "resnets.jsonl"]
    (mirror / "datasets.zip").unlink()
    assert nn_meter.bench_dataset() == found


@pytest.mark.parametrize("content", [None, b"no zip"], ids=["absent", "no zip"])
def test_measurements_that_cannot_be_fetched(mirror: Path, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (mirror / "datasets.zip").write_bytes(content)
    with pytest.raises(DownloadError, match=r"/datasets\.zip"):
        nn_meter.bench_dataset()
    assert list((tmp_path / "home" / "dataset").iterdir()) == []


def test_shapes_go_by_either_name(tmp_path: Path) -> None:
    b = GraphBuilder("net")
    x = b.input((1, 3, 8, 8), name="x")
    onnx.save(to_onnx(b.graph(b.op("Relu", x))), tmp_path / "net.onnx")
    predictor = nn_meter.load_latency_predictor()
    wide = predictor.explain(tmp_path / "net.onnx", input_shapes={"x": (1, 3, 64, 64)})
    assert wide.kernels == predictor.explain(tmp_path / "net.onnx", input_shape=(1, 3, 64, 64)).kernels
    with pytest.raises(InputError, match="both input_shape and input_shapes"):
        predictor.predict(tmp_path / "net.onnx", input_shape=(1, 3, 8, 8), input_shapes=[(1, 3, 8, 8)])
