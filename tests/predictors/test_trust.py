"""How far to trust an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nn_meter.kernels.partition import FreeConfig, Kernel, Unfused
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import OutOfRange
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.prediction import KernelPrediction, Prediction, Status
from nn_meter.predictors.trust import family_of, missed_ms, trust


def part(status: Status, latency_ms: float, beyond: float = 0.0) -> KernelPrediction:
    return KernelPrediction(Kernel("fc", FreeConfig("Gemm"), ("n",), "Gemm"), status, latency_ms, beyond=beyond)


def answer(*kernels: KernelPrediction, interval_ms: tuple[float, float] | None = (9.0, 11.0)) -> Prediction:
    total_ms = sum(each.latency_ms for each in kernels)
    return Prediction("resnet34.onnx", "tiny_cpu", "1.0", "", "median", total_ms, kernels, interval_ms)


@pytest.mark.parametrize(
    ("given", "level"),
    [
        (answer(part("predicted", 10.0)), "good"),
        (answer(part("predicted", 9.0), part("extrapolated", 1.0)), "careful"),
        (answer(part("predicted", 9.96), part("extrapolated", 0.04)), "good"),
        (answer(part("predicted", 9.96), part("extrapolated", 0.03), part("estimated", 0.03)), "careful"),
        (answer(part("predicted", 7.0), part("extrapolated", 3.0)), "bad"),
        (answer(part("predicted", 7.0), part("estimated", 3.0)), "bad"),
        (answer(part("predicted", 7.0), part("extrapolated", 1.5), part("estimated", 1.5)), "bad"),
        (answer(part("predicted", 10.0), part("estimated", 0.0)), "bad"),
        (answer(part("predicted", 10.0), interval_ms=None), "careful"),
        (answer(part("predicted", 10.0), interval_ms=(2.0, 9.0)), "bad"),
    ],
)
def test_what_is_not_predicted_costs_trust(given: Prediction, level: str) -> None:
    found = trust(given)
    assert found.level == level
    assert bool(found.reasons) == (level != "good" or any(each.status != "predicted" for each in given.kernels))


def test_kinds_say_what_they_were_trained_on(tiny: Bundle) -> None:
    fc = replace(tiny.kinds["fc"], rows=1000, errors={"median_ape": 12.5})
    given = answer(part("predicted", 3.0), part("extrapolated", 1.0, beyond=2.0))
    [found] = trust(given, replace(tiny, kinds={"fc": fc})).kinds
    assert (found.kind, found.kernels, found.share, found.rows, found.median_error) == ("fc", 2, 1.0, 1000, 0.125)
    assert (found.doubtful, found.beyond) == (1, 2.0)


def test_errors_are_those_of_the_family(tiny: Bundle) -> None:
    families = {
        "resnet": {"models": ["resnet18", "resnet50"], "median": 0.02, "bias": -0.01},
        "mobilenet": {"models": ["mobilenetv2_100"], "median": 0.04, "bias": 0.04},
    }
    facts = {"evaluated": {"models": 3, "median": 0.03, "bias": 0.0, "families": families}}
    found = trust(answer(part("predicted", 1.0)), replace(tiny, environment=facts))
    assert found.errors is not None
    assert found.family is not None
    assert (found.errors.models, found.errors.median) == (3, 0.03)
    assert (found.family.family, found.family.models, found.family.bias) == ("resnet", 2, -0.01)
    assert found.family.names == tuple(families["resnet"]["models"])
    assert trust(answer(part("predicted", 1.0)), tiny).errors is None


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("resnet50.onnx", "resnet"), ("resnetv2_50", "resnet"), ("models/inception_next_atto.onnx", "convnext"),
        ("inception_v3.onnx", "inception"), ("res.onnx", ""), ("7.onnx", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_family_is_known_by_how_its_models_are_called(model: str, family: str) -> None:
    families = {
        "convnext": ["convnext_tiny", "inception_next_atto"],
        "inception": ["inception_v4"],
        "resnet": ["resnet18", "resnetv2_18"],
    }
    assert family_of(model, families) == family


@pytest.mark.parametrize(("value", "doublings"), [(7.0, 1.0), (31.0, 3.0), (0.0, 1.0)])
def test_distance_is_in_doublings(value: float, doublings: float) -> None:
    assert OutOfRange("cin", value, 1.0, 3.0).doublings == doublings


def test_a_seam_costs_what_passes_through_it_but_no_more_than_the_second_kernel(tiny: Bundle) -> None:
    given = replace(
        answer(part("predicted", 5.0), part("predicted", 2.0)),
        unfused=(Unfused("a", "b", "", (0, 1), 1e6), Unfused("a", "b", "", (0, 1), 9e9), Unfused("a", "b", "")),
    )
    known = replace(tiny, fallback=Roofline(1e12, 1e9, 0.25))
    assert missed_ms(given, known) == (1.25, 2.0, None)
    assert missed_ms(given, tiny) == (None, None, None)
