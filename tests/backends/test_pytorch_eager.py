"""PyTorch without its compiler keeps the contract of backends, and computes what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import pytest

from nn_meter.backends import load
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.backends.pytorch import ROWS
from nn_meter.backends.pytorch.site import Site
from nn_meter.errors import BackendError
from nn_meter.ir import Tensor, parse
from nn_meter.kernels.rules import read_rules
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse


@pytest.fixture
def there() -> None:
    pytest.importorskip("torch")


REFUSED_IN_PART = [name for name, row in FAMILIES.items() if name.startswith("operators_") or row.precisions]
"""Single operators, some of which have no call in PyTorch, and quantised networks."""

LIKE_ONNX = [name for name in FAMILIES if name not in REFUSED_IN_PART and name != "micro_resizes"]
"""Torch resizes with other rules of rounding."""


@pytest.mark.heavy
@pytest.mark.parametrize("family", LIKE_ONNX)
def test_it_computes_what_onnxruntime_does_by_the_kernels_that_are_predicted(family: str, there: None) -> None:
    runtime = pytest.importorskip("onnxruntime")
    graph = FAMILIES[family](1)
    data = as_bytes(graph)
    wanted = runtime.InferenceSession(data).run(list(graph.outputs), random_inputs(data))
    with load("pytorch_eager").prepare(graph) as prepared:
        assert len(prepared.run(1)) == 1
        executed = [trace.executed for trace in prepared.trace(1)]
        found = [prepared.values[prepared.place[name]] for name in graph.outputs]  # type: ignore[attr-defined]
    made = [(np.asarray(mine), theirs) for mine, theirs in zip(found, wanted, strict=True) if mine is not None]
    for mine, theirs in made:  # what an operator that is not executed would make is left out
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-3 * max(1.0, float(np.abs(theirs).max())))
    ours = [(k.kind, k.config) for k in fuse(graph, read_rules({"runtime": "pytorch_eager"})).kernels if not k.free]
    assert ours == [(k.kind, k.config) for k in read_all(executed, find("pytorch_eager"), graph)]


@pytest.mark.heavy
@pytest.mark.parametrize("family", REFUSED_IN_PART)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_runs_single_operators_or_names_them(family: str, seed: int, there: None) -> None:
    graph = FAMILIES[family](seed)
    refused = ""
    try:
        load("pytorch_eager").prepare(graph).close()
    except BackendError as error:
        refused = str(error)
    assert not refused or any(node.op_type in refused for node in graph.nodes)


def test_what_torch_has_no_call_for_is_said_before_it_is_made() -> None:
    x, y = Tensor("x", (1, 2, 4, 4, 4), "float32"), Tensor("y", (1, 2, 8, 8, 8), "float32")
    for op_type, attrs, reason in (
        ("Resize", {"mode": "cubic"}, "resizing 3 axes in the mode cubic"),
        ("Cast", {"to": 12}, "to the type that ONNX numbers 12"),
    ):
        with pytest.raises(NotImplementedError, match=reason):
            ROWS[op_type](Site(None, attrs, (x,), (y,), (None,)))


@pytest.mark.heavy
def test_elements_that_torch_has_not_are_a_refusal(there: None) -> None:
    graph = parse("input x: bfloat16[1,8]\ny = Relu(x)\noutput y")
    with pytest.raises(BackendError, match="no tensor of x, whose elements are bfloat16; export the model in float32"):
        load("pytorch_eager").prepare(graph)


@pytest.mark.heavy
@pytest.mark.parametrize("pads", [(0, 1, 0, 1), (0, 0, 1, 2)])
def test_places_of_the_largest_are_given_beside_them(pads: tuple[int, ...], there: None) -> None:
    graph = parse(
        "input x: float32[1,1,9,9]\n"
        f"y, places = MaxPool(x) {{kernel_shape=(2, 3), strides=(2, 2), pads={pads}}}\n"
        "output y\noutput places"
    )
    runtime = pytest.importorskip("onnxruntime")
    data = as_bytes(graph)
    wanted = runtime.InferenceSession(data).run(list(graph.outputs), random_inputs(data))
    with load("pytorch_eager").prepare(graph) as prepared:
        prepared.run(1)
        y, places = (np.asarray(prepared.values[prepared.place[name]]) for name in graph.outputs)  # type: ignore[attr-defined]
    np.testing.assert_allclose(y, wanted[0])
    assert places.shape == wanted[1].shape
    if pads == (0, 1, 0, 1):  # of the only plane; where it is padded before, its places are those of the padded one
        np.testing.assert_array_equal(places, wanted[1])
