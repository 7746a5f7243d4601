"""Predictions as text."""

from __future__ import annotations

import pytest

from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig, Unfused
from nn_meter.predictors.prediction import KernelPrediction, Prediction
from nn_meter.report import text


def conv(latency_ms: float, *nodes: str, notes: tuple[str, ...] = ()) -> KernelPrediction:
    config = NnMeterConfig(((1, 8, 8, 3),), ((1, 8, 8, 4),), (3, 3), (1, 1))
    status = "estimated" if notes else "predicted"
    return KernelPrediction(
        Kernel("conv-bn-relu", config, nodes, "conv-relu"), status, latency_ms, None, notes
    )


FREE = KernelPrediction(
    Kernel("free", FreeConfig("Identity"), ("i",), "Identity", "nothing moves"), "free", 0.0
)
MIXED = Prediction(
    "net.onnx",
    "some_cpu",
    "1.0",
    "a cpu",
    "median",
    4.0,
    (conv(3.0, "a", "b"), conv(1.0, "c", notes=("no regressor",)), FREE),
    interval_ms=(3.5, 5.25),
    unfused=(Unfused("a", "c", "no rule BF_conv_conv"), Unfused("b", "c", "no rule BF_conv_conv")),
    notes=("the batch of 'x' is unset and taken as 1",),
)


@pytest.mark.parametrize(
    ("latency_ms", "digits"), [(1.0, "1.0"), (15754.17514864864, "15754.17514864864"), (1e-05, "1e-05")]
)
def test_the_result_line_holds_every_digit(latency_ms: float, digits: str) -> None:
    expected = f"(nn-Meter) [RESULT] predict latency for net.onnx: {digits} ms"
    assert text.result_line("net.onnx", latency_ms) == expected


def test_an_explanation_says_it_all() -> None:
    assert text.explanation(MIXED) == (
        "net.onnx on some_cpu 1.0 (a cpu)\n"
        "total 4.0000 ms (median), 90 % of such models between 3.5000 and 5.2500 ms\n"
        "\n"
        "#  kernel     kind          shape                                           ms  share  status\n"
        "1  conv-relu  conv-bn-relu  1x8x8x3 -> 1x8x8x4, kernel 3x3, stride 1x1  3.0000  75.0%  predicted\n"
        "2  conv-relu  conv-bn-relu  1x8x8x3 -> 1x8x8x4, kernel 3x3, stride 1x1  1.0000  25.0%  estimated\n"
        "\n"
        "why neighbours did not fuse:\n"
        "     2  no rule BF_conv_conv\n"
        "        a -> c\n"
        "        ... 1 more, with -v\n"
        "\n"
        "what the total rests on:\n"
        "  predicted  1 kernel  2 nodes  3.0000 ms  75.0%\n"
        "  estimated  1 kernel   1 node  1.0000 ms  25.0%\n"
        "  free       1 kernel   1 node  0.0000 ms   0.0%\n"
        "\n"
        "about single kernels:\n"
        "  conv-relu: no regressor\n"
        "  Identity: free, nothing moves\n"
        "\n"
        "notes:\n"
        "  the batch of 'x' is unset and taken as 1"
    )


def test_every_pair_on_demand() -> None:
    assert "        a -> c\n        b -> c\n" in text.explanation(MIXED, every=True)


def test_caution_is_silent_without_estimates() -> None:
    sure = Prediction("net.onnx", "some_cpu", "1.0", "", "", 3.0, (conv(3.0, "a"), FREE))
    assert text.caution(sure) == ""
    assert text.caution(MIXED).startswith(
        "net.onnx on some_cpu: 1 of 3 kernels (25% of the total) are estimated"
    )


def test_a_total_of_nothing_has_no_shares() -> None:
    nothing = Prediction("net.onnx", "some_cpu", "1.0", "", "", 0.0, (conv(0.0, "a"),))
    assert text.kernel_table(nothing).splitlines()[1].split()[-3:] == ["0.0000", "-", "predicted"]


@pytest.mark.parametrize("width", range(5, 30))
def test_shortened_text_fits(width: int) -> None:
    long = "conv-bn-relu-conv-bn-add"
    short = text.shortened(long, width)
    assert len(short) == min(width, len(long))
    assert short == long or (short[0], short[-1]) == (long[0], long[-1])
