"""Predictions as text."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from nn_meter.ir import Tensor
from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig, Unfused
from nn_meter.predictors.prediction import DOUBTFUL, STATUSES, KernelPrediction, Prediction
from nn_meter.report import lines, text


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
    (conv(3.0, "/a.0/conv", "b"), conv(1.0, "c", notes=("no regressor",)), FREE),
    interval_ms=(3.5, 5.25),
    unfused=(Unfused("a", "c", "no rule BF_conv_conv"), Unfused("b", "c", "no rule BF_conv_conv")),
    notes=("the batch of 'x' is unset and taken as 1",),
)


def printed(content: RenderableType, width: int = 100, crop: bool = True) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    with console.capture() as caught:
        console.print(content, crop=crop)
    return "\n".join(line.rstrip() for line in caught.get().splitlines())


@pytest.mark.parametrize(
    ("latency_ms", "digits"), [(1.0, "1.0"), (15754.17514864864, "15754.17514864864"), (1e-05, "1e-05")]
)
def test_the_result_line_holds_every_digit(latency_ms: float, digits: str) -> None:
    expected = f"(nn-Meter) [RESULT] predict latency for net.onnx: {digits} ms"
    assert lines.result_line("net.onnx", latency_ms) == expected


@pytest.mark.parametrize(
    ("latency_ms", "shown"),
    [(28.440194, "28.44"), (1.9664, "1.966"), (0.087134, "0.08713"), (15754.17, "15754"), (0.0, "0"), (2.0, "2.000")],
)
def test_milliseconds_have_four_digits(latency_ms: float, shown: str) -> None:
    assert text.milliseconds(latency_ms) == shown


def test_an_explanation_says_it_all() -> None:
    assert printed(text.explanation(MIXED)) == (
        "net.onnx on some_cpu 1.0\n"
        "answered by  some_cpu 1.0, a cpu\n"
        "latency      4.000 ms (median), 90 % of such models between 3.500 and 5.250 ms\n"
        "rests on     predicted 75.0% (1 kernel), estimated 25.0% (1 kernel), free 0.0% (1 kernel)\n"
        "by kind      conv-bn-relu 100.0%\n"
        "\n"
        "layer  kernel     shape                                          ms  share     sum  status\n"
        "a.0    conv-relu  1x8x8x3 -> 1x8x8x4, kernel 3x3, stride 1x1  3.000  75.0%   75.0%  predicted\n"
        "c      conv-relu  1x8x8x3 -> 1x8x8x4, kernel 3x3, stride 1x1  1.000  25.0%  100.0%  estimated\n"
        "\n"
        "why neighbours did not fuse:\n"
        "     2  no rule BF_conv_conv\n"
        "        a -> c\n"
        "        ... 1 more, with -v\n"
        "\n"
        "what the total rests on  kernels  nodes     ms  share\n"
        "predicted                      1      2  3.000  75.0%\n"
        "estimated                      1      1  1.000  25.0%\n"
        "free                           1      1      0   0.0%\n"
        "\n"
        "about single kernels:\n"
        "  conv-relu: no regressor\n"
        "  Identity: free, nothing moves\n"
        "\n"
        "notes:\n"
        "  the batch of 'x' is unset and taken as 1"
    )


def test_every_pair_on_demand() -> None:
    assert "        a -> c\n        b -> c\n" in printed(text.explanation(MIXED, every=True))


@pytest.mark.parametrize("width", range(40, 120, 8))
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(width: int) -> None:
    shown = printed(text.answer(MIXED), width)
    assert max(map(len, shown.splitlines())) <= width
    words = shown.replace("\n", " ").split()
    assert {"predicted", "estimated", "conv-bn-relu", "75.0%", "3.000"} <= set(words)


def test_caution_is_silent_without_estimates() -> None:
    sure = Prediction("net.onnx", "some_cpu", "1.0", "", "", 3.0, (conv(3.0, "a"), FREE))
    assert sure.caution == ""
    assert MIXED.caution.startswith(
        "net.onnx on some_cpu: 1 of 3 kernels (25.0% of the total) are estimated, not predicted"
    )


def test_every_status_that_occurs_has_its_line() -> None:
    every = tuple(replace(conv(1.0, status), status=status) for status in STATUSES)
    shown = printed(text.coverage_table(replace(MIXED, kernels=every))).splitlines()[1:]
    assert [line.split()[0] for line in shown] == list(STATUSES)
    assert len(printed(text.coverage_table(MIXED)).splitlines()[1:]) == 3
    assert {"predicted", "free"}.isdisjoint(DOUBTFUL)


def test_a_total_of_nothing_has_shares_of_nothing() -> None:
    nothing = Prediction("net.onnx", "some_cpu", "1.0", "", "", 0.0, (conv(0.0, "a"),))
    assert printed(text.answer(nothing)).splitlines()[-1].split()[-3:] == ["0", "0.0%", "0.0%"]


def test_a_comparison_leaves_out_what_nobody_knows() -> None:
    plain = Prediction("net.onnx", "other", "2.0", "", "", 3.0, (conv(3.0, "a"),))
    assert printed(text.Comparison([plain])).splitlines() == [
        "model     predictor     ms  predicted",
        "net.onnx  other 2.0  3.000     100.0%",
    ]
    both = printed(text.Comparison([MIXED, plain])).splitlines()
    assert both[0].split() == ["model", "predictor", "device", "ms", "90", "%", "interval", "predicted", "estimated"]


def test_where_there_is_no_room_a_comparison_loses_columns_and_no_names() -> None:
    long = Prediction(
        "deit_tiny_patch16_224.onnx", "xeoncpu_onnxruntime132", "1.0", "Intel(R) Xeon(R) Processor", "", 3.0,
        (conv(3.0, "a"),), (2.5, 3.5),
    )  # fmt: skip
    shown = {width: printed(text.Comparison([long]), width) for width in (120, 112, 90, 80, 60)}
    heads = {width: each.splitlines()[0].split() for width, each in shown.items()}
    assert heads[120] == ["model", "predictor", "device", "ms", "90", "%", "interval", "predicted"] == heads[112]
    assert heads[90] == ["model", "predictor", "ms", "90", "%", "interval", "predicted"] == heads[80]
    assert heads[60] == ["model", "predictor", "ms", "predicted"]
    for width, each in shown.items():
        assert max(map(len, each.splitlines())) <= width
        rest = "".join("".join(line[:44].split()) for line in each.splitlines()[1:])
        assert "..." not in rest
        assert width < 90 or ("deit_tiny_patch16_224.onnx" in each and "xeoncpu_onnxruntime132 1.0" in each)
    assert printed(text.Comparison([long]), 80).splitlines()[1:] == [
        "deit_tiny_patch16_      xeoncpu_                3.000  2.500 .. 3.500     100.0%",
        "  224.onnx                onnxruntime132 1.0",
    ]


@pytest.mark.parametrize("width", range(5, 30))
def test_shortened_text_fits(width: int) -> None:
    long = "conv-bn-relu-conv-bn-add"
    short = text.shortened(long, width)
    assert len(short) == min(width, len(long))
    assert short == long or (short[0], short[-1]) == (long[0], long[-1])


@pytest.mark.parametrize(
    ("runtime", "threads", "said"),
    [
        ("onnxruntime 1.32.0", 1, "nn-meter measure 'my net.onnx' --backend onnxruntime_cpu"),
        ("openvino 2026.4", 4, "nn-meter measure 'my net.onnx' --backend openvino_cpu --threads 4"),
        ("tflite 2.13", 1, "nn-meter measure 'my net.onnx' --backend tflite_cpu --device adb://SERIAL"),
        ("pytorch 2.9", 4, ""),
        ("onnxruntime 1.32.0", 0, ""),
    ],
)
def test_an_answer_says_how_to_verify_it_where_a_backend_can(runtime: str, threads: int, said: str) -> None:
    asked = replace(MIXED, model="my net.onnx", runtime=runtime, threads=threads)
    lines = [line for line in printed(text.answer(asked)).splitlines() if line.startswith("verify by")]
    assert lines == ([f"verify by    {said}"] if said else [])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_command_that_measures_names_the_model_as_it_was_given(width: int) -> None:
    path = f"/models/{'of_a_long_name/' * 4}net.onnx"
    asked = replace(MIXED, model="net.onnx", source=path, runtime="onnxruntime 1.32.0", threads=1)
    shown = printed(text.answer(asked), width, crop=False)
    assert f"\nverify by    nn-meter measure {path} --backend onnxruntime_cpu\n" in shown


def test_the_command_that_measures_asks_for_the_same_tokens() -> None:
    step = replace(
        MIXED, model="step.onnx", runtime="onnxruntime 1.32.0", threads=1, past=9,
        inputs=(Tensor("input_ids", (1, 4), "int64"), Tensor("past_key_values.0.key", (1, 2, 9, 8))),
    )  # fmt: skip
    lines = [line for line in printed(text.answer(step)).splitlines() if line.startswith("verify by")]
    assert lines == ["verify by    nn-meter measure step.onnx --past 9 --seq-len 4 --backend onnxruntime_cpu"]


@pytest.mark.parametrize("width", [72, 80, 100])
def test_the_name_of_a_layer_stands_whole_whatever_the_width(width: int) -> None:
    name = "stages.2.1.transformer.{0,1}.attn/MatMul_1"
    shown = Table(box=None, show_header=False)
    cells = ("Conv-sum (nchwc)", "x24", "0.9392", "13.6%", "compute")
    shown.add_column()
    for _ in cells:
        shown.add_column(no_wrap=True)
    shown.add_row(text.Layer(name), *cells)
    console = Console(width=width, file=io.StringIO())
    with console.capture() as found:
        console.print(shown)
    column = found.get().splitlines()
    assert "".join(line[: column[0].index("Conv")].strip() for line in column) == name
