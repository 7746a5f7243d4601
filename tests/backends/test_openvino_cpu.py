"""OpenVINO keeps the contract of backends, and shows what it fuses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

from nn_meter.backends import load, openvino_cpu
from nn_meter.testing import sample_graph


@pytest.mark.heavy
def test_a_fused_layer_names_its_operators() -> None:
    pytest.importorskip("openvino")
    kernels = load("openvino_cpu").fused(sample_graph())
    convolution = next(kernel for kernel in kernels if kernel.op_type == "Convolution")
    assert "Relu_0" in str(convolution.attrs["originalLayersNames"]).split(",")
    assert "Relu" not in [kernel.op_type for kernel in kernels]


@pytest.mark.heavy
def test_a_small_model_prepared_again_is_imported_as_it_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    kept: OrderedDict[object, bytes] = OrderedDict()
    monkeypatch.setattr(openvino_cpu, "_kept", kept)
    monkeypatch.setattr(openvino_cpu, "_KEPT_MODELS", 1)
    backend, graph = load("openvino_cpu"), sample_graph()
    with backend.prepare(graph) as first, backend.prepare(graph) as again:
        layers = [openvino_cpu._layers(each._request.get_compiled_model()) for each in (first, again)]  # type: ignore[attr-defined]
        assert layers[0] == layers[1] == backend.fused(graph)
        assert len(again.run(3)) == 3
    (known,) = kept
    other = replace(graph, name="other")
    backend.prepare(other).close()
    assert len(kept) == 1
    assert known not in kept
    monkeypatch.setattr(openvino_cpu, "_KEPT_BYTES", 0)
    backend.prepare(graph).close()
    assert known not in kept


def test_what_the_counters_cut_off_is_put_back() -> None:
    rng, runs = np.random.default_rng(0), openvino_cpu._SLOW_RUNS + 12
    true_us = rng.uniform(2, 30, 2000)
    taken_us = np.floor(true_us[:, None] * rng.uniform(1, 1.2, (2000, runs)))  # as PerfCount adds up
    before_ms = taken_us[:, : openvino_cpu._SLOW_RUNS].sum(1) // openvino_cpu._SLOW_RUNS / 1000
    after_ms = taken_us.sum(1) // runs / 1000
    told_us = [1000 * openvino_cpu.between_ms(*each, 12) for each in zip(before_ms, after_ms, strict=True)]
    assert np.mean(told_us - 1.1 * true_us) == pytest.approx(0, abs=0.05)  # 1.0 less where nothing is put back
    assert openvino_cpu.between_ms(0.0, 0.0, 12) == 0
