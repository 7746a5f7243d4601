"""Predictors from measurements that others took: tables, fitting through sums, adapting, what ships."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nn_meter
from nn_meter.devices.device import Device
from nn_meter.errors import BuildError, ModelError
from nn_meter.fitting import adapt, fit, shipped_bases, study
from nn_meter.ir import Graph, GraphBuilder, Node, Tensor
from nn_meter.kernels.kinds import ConvConfig, GemmConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.terms import TERMS, rows
from nn_meter.learning.environments import default_name
from nn_meter.learning.lowerings import LOWERINGS, Lowering, lowering_of
from nn_meter.learning.sums import (
    Design,
    Environment,
    Prior,
    fit_together,
    kernel_subject,
    model_subject,
    parameters_of,
)
from nn_meter.measuring.measure import Measurement
from nn_meter.measuring.records import Circumstances, Record, config_from_json
from nn_meter.networks import published_neusight, published_phones, published_timm
from nn_meter.networks.published import read_csv
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors import catalogue
from nn_meter.predictors.bundle import load
from nn_meter.runtimes.fusion import fuse

TFLITE = LOWERINGS["tflite", "cpu"]
AROUND = Circumstances(Device("phone of the mind"), "tflite", statistic="mean", source="a test")


def network(width: int, depth: int, size: int, batch: int = 1) -> Graph:
    """Convolutions of 3x3 and 1x1 in turns, a pooling, a matrix product."""
    b = GraphBuilder(f"net_{width}_{depth}_{size}")
    x, cin = b.input((batch, 3, size, size), "float32"), 3
    for layer in range(depth):
        k = 3 if layer % 2 == 0 else 1
        x = b.op("Conv", x, b.weight((width, cin, k, k), "float32"), kernel_shape=(k, k), pads=(k // 2,) * 4)
        x, cin = b.op("Relu", x), width
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    return b.graph(b.op("Gemm", x, b.weight((width, 10), "float32")))


def read(subject: str, batch: int) -> Graph:
    _, width, depth, size = subject.split("_")
    return network(int(width), int(depth), int(size), batch)


def true_ms(graph: Graph, slower: float = 1.0) -> float:
    """A device whose arithmetic is slow for few channels, and whose memory is fast."""
    total = 0.3
    for kernel in fuse(graph, read_rules(TFLITE.rules)).kernels:
        if kernel.free:
            continue
        for name, row in rows(kernel.kind, kernel.config, TFLITE.staged):
            slope = -0.2 * row[1] if name == "gemm" else 0.0
            base = {"arithmetic": -2.0, "memory": -4.0}.get(TERMS[name].group, -6.0)
            total += slower * float(np.exp(base + row[0] + slope))
    return total


SUBJECTS = [f"net_{w}_{d}_{s}" for w in (8, 16, 32, 64, 96) for d in (3, 6) for s in (16, 32, 48)]


def measured(slower: float = 1.0, around: Circumstances = AROUND, subjects: list[str] = SUBJECTS) -> list[Record]:
    return [
        Record(s, around, whole=Measurement((true_ms(read(s, 1), slower),)), family=s.split("_")[1])
        for s in subjects
    ]


def test_sums_give_back_the_device_that_made_them() -> None:
    predictor = nn_meter.Predictor(fit(measured(), read=read))
    for subject in ("net_48_5_40", "net_24_4_24"):
        graph = read(subject, 1)
        assert predictor.predict(graph) == pytest.approx(true_ms(graph), rel=0.05)


def test_a_fitted_predictor_is_the_same_after_a_file(tmp_path: Path) -> None:
    bundle = fit(measured(), read=read, name="mind")
    bundles.save(bundle, tmp_path / "mind.zip")
    graph = read("net_48_5_40", 1)
    again = nn_meter.Predictor(bundles.load(tmp_path / "mind.zip"))
    assert again.predict(graph) == nn_meter.Predictor(bundle).predict(graph)


def test_what_was_not_measured_is_said() -> None:
    predictor = nn_meter.Predictor(fit(measured(), read=read))
    assert any("batch 64" in note for note in predictor.explain(read("net_16_3_32", 64)).notes)
    b = GraphBuilder("mixing")
    x = b.input((1, 8, 16), "float32")
    mixed = b.op("MatMul", b.op("Softmax", b.op("MatMul", x, b.op("Transpose", x, perm=(0, 2, 1))), axis=-1), x)
    answer = predictor.explain(b.graph(mixed))
    assert any("only convolutional networks" in note for note in answer.notes)
    assert {k.status for k in answer.kernels if k.kernel.kind in ("matmul", "softmax")} == {"estimated"}
    assert answer.interval_ms is not None
    low, high = answer.interval_ms
    plain = predictor.explain(read("net_16_3_32", 1))
    assert plain.interval_ms is not None
    assert high / low > plain.interval_ms[1] / plain.interval_ms[0]


def test_the_parts_add_up_to_the_total() -> None:
    answer = nn_meter.Predictor(fit(measured(), read=read)).explain(read("net_32_6_32", 1))
    assert sum(k.latency_ms for k in answer.kernels) + answer.call_ms == pytest.approx(answer.latency_ms)
    assert answer.call_ms > 0


def test_adapting_needs_few_models_and_says_less_with_fewer() -> None:
    bases = [
        fit(measured(slower, Circumstances(Device(f"phone {slower}"), "tflite", source="a test")), read=read)
        for slower in (0.5, 1.0, 2.0, 3.0)
    ]
    new = Circumstances(Device("new phone"), "tflite", source="a test")
    widths, asked = [], read("net_48_5_40", 1)
    for count in (1, 4):
        found = adapt(measured(8.0, new, SUBJECTS[:: len(SUBJECTS) // count][:count]), bases, read=read)
        answer = nn_meter.Predictor(found.bundle).explain(asked)
        assert answer.interval_ms is not None
        widths.append(answer.interval_ms[1] / answer.interval_ms[0])
    assert answer.latency_ms == pytest.approx(true_ms(asked, 8.0), rel=0.1)
    assert widths[1] < widths[0]


def test_kernels_alone_adapt_nothing(tmp_path: Path) -> None:
    (tmp_path / "kernels.csv").write_text(
        "kind,n,cin,size,cout,out,kernel,strides,group,fused,latency_ms\n"
        "conv,1,64,56x56,64,56x56,3x3,1x1,1,relu,0.826\n"
    )
    records = read_csv(tmp_path / "kernels.csv", AROUND).records
    with pytest.raises(BuildError, match="no whole model among the measurements"):
        adapt(records, [fit(measured(), name="base", read=read)], read=read)


KERNELS_KNOWN = ("zen4cpu_onnxruntime132", "xeoncpu_onnxruntime132")


def test_predictors_of_kernels_are_adapted_and_the_nearest_is_taken() -> None:
    here = Circumstances(Device("a desktop", kind="cpu"), "onnxruntime")
    subjects = [f"net_{w}_{d}_{s}" for w in (16, 64) for d in (3, 6) for s in (32, 64)]
    asked = read("net_48_5_48", 1)
    for name in KERNELS_KNOWN:
        known = nn_meter.load_latency_predictor(name)
        records = [
            Record(each, here, whole=Measurement((1.7 * known.predict(read(each, 1)),))) for each in subjects
        ]
        found = adapt(records, shipped_bases(records), name="mine", read=read, candidates=[subjects[0], "net_8_3_96"])
        answer = nn_meter.Predictor(found.bundle).explain(asked)
        assert answer.latency_ms == pytest.approx(1.7 * known.predict(asked), rel=0.05)
        assert found.bundle.notes == (f"adapted from {name} 1.0 by {len(subjects)} measurements",)
        assert (found.bundle.device, found.bundle.statistic, found.next) == ("a desktop", "quiet", ("net_8_3_96",))
        assert answer.interval_ms is not None
        assert answer.interval_ms[0] < answer.latency_ms < answer.interval_ms[1]


def test_predictors_of_kernels_and_of_sums_are_not_mixed_and_a_model_that_is_none_is_named() -> None:
    base = load(nn_meter.load_latency_predictor(KERNELS_KNOWN[0]).bundle.path)
    around = replace(AROUND, runtime="onnxruntime", statistic="quiet")
    with pytest.raises(BuildError, match="several runtimes or schemas"):
        adapt(measured()[:2], [base, fit(measured(), read=read)], read=read)
    with pytest.raises(BuildError, match=r"no whole model .* no_such\.onnx"):
        adapt([Record("no_such.onnx", around, whole=Measurement((1.0,)))], [base])
    with pytest.raises(BuildError, match="several environments"):
        adapt([*measured()[:1], *measured(around=around)[1:2]], [base], read=read)


def test_the_next_to_measure_is_unlike_what_was_measured() -> None:
    base = fit(measured(), read=read)
    few = measured(2.0, subjects=["net_8_3_16"])
    found = adapt(few, [base], read=read, candidates=["net_8_3_16", "net_8_4_16", "net_96_6_48"], suggest=1)
    assert found.next == ("net_96_6_48",)


def terms_of(
    width: int, group: int = 1, pad: int = 1, size: int = 16, lowering: Lowering = TFLITE, bias: bool = False
) -> dict[str, float]:
    """Terms of a convolution of 3 by 3, and the logarithms of their work."""
    b = GraphBuilder("one")
    x = b.input((1, width, size, size), "float32")
    weights = [b.weight((width, width // group, 3, 3), "float32"), *[b.weight((width,), "float32")] * bias]
    graph = b.graph(b.op("Conv", x, *weights, kernel_shape=(3, 3), pads=(pad,) * 4, group=group))
    kernels = fuse(graph, read_rules(lowering.rules)).kernels
    return {name: row[0] for k in kernels for name, row in rows(k.kind, k.config, lowering.staged)}


def test_tflite_pads_before_a_convolution_without_a_normalisation_in_it_and_loops_over_groups() -> None:
    product = ["gemm", "gemm_patches", "gemm_out", "im2col"]
    assert list(terms_of(32)) == ["launch", "pad_rows", *product]
    assert np.exp(terms_of(32)["pad_rows"]) * 1e5 == pytest.approx(32 * 18 * 18)
    assert list(terms_of(32, pad=0)) == list(terms_of(32, bias=True)) == ["launch", *product]
    assert list(terms_of(32, 4)) == ["launch", "pad_rows", "grouped_loop"]
    assert list(terms_of(32, 4, bias=True)) == ["launch", "grouped_loop"]
    depthwise = ["launch", "pad_rows", "depthwise", "depthwise_out"]
    assert list(terms_of(32, 32)) == list(terms_of(32, 32, bias=True)) == depthwise


def test_tflite_packs_floats_by_channels_side_by_side_and_copies_their_pads_in_rows() -> None:
    of_integers = LOWERINGS["tflite", "cpu", "int8"]
    assert lowering_of(replace(AROUND, precision="int8")) == ("tflite", "cpu", "int8")
    assert lowering_of(AROUND) == lowering_of(replace(AROUND, precision="float16")) == ("tflite", "cpu")
    assert list(terms_of(32, lowering=of_integers)) == ["launch", "pad", "gemm", "gemm_in", "gemm_out", "im2col"]
    assert list(terms_of(32, 32, lowering=of_integers)) == ["launch", "pad", "depthwise"]
    assert np.exp(terms_of(32, pad=0)["gemm_patches"]) * 1e5 == pytest.approx(32 * 9 * 14 * 14)
    assert np.exp(terms_of(32, 32)["depthwise_out"]) * 1e5 == pytest.approx(32 * 16 * 16)
    point = ConvConfig(
        n=1, cin=1, size=(16, 16), cout=8, out=(16, 16), kernel=(1, 1), strides=(1, 1), dilations=(1, 1), group=1,
        fused=(), layout="native", dtype="float32",
    )  # fmt: skip
    assert [name for name, _ in rows("conv", point, TFLITE.staged)] == ["launch", "gemm", "gemm_in", "gemm_out"]


def padded(nodes: Sequence[tuple[str, tuple[str, ...], str]], weights: Sequence[str]) -> list[str]:
    """Kinds of the kernels on a phone's processor of convolutions of 3 by 3, normalisations and ReLUs in a row."""
    tensors = {"x": Tensor("x", (1, 8, 9, 9), "float32")}
    for name in weights:
        tensors[name] = Tensor(name, (8, 8, 3, 3) if name.endswith("weight") else (8,), "float32", const=True)
    tensors |= {out: Tensor(out, (1, 8, 9, 9), "float32") for _, _, out in nodes}
    attrs = {"Conv": {"kernel_shape": (3, 3), "pads": (1,) * 4}}
    made = tuple(Node(f"/{out}/{op}", op, inputs, (out,), attrs.get(op, {})) for op, inputs, out in nodes)
    graph = Graph("row", made, tensors, ("x",), (nodes[-1][2],))
    return [k.kind for k in fuse(graph, read_rules(TFLITE.rules)).kernels]


def test_a_file_pads_by_itself_where_a_network_normalises_before_or_not_at_all() -> None:
    norm = ("scale", "shift", "mean", "spread")
    after = [("Conv", ("x", "c.weight"), "c"), ("BatchNormalization", ("c", *norm), "n"), ("Relu", ("n",), "y")]
    assert padded(after, ("c.weight", *norm)) == ["conv"]
    before = [("BatchNormalization", ("x", *norm), "n"), ("Conv", ("n", "folded.weight", "bias"), "y")]
    assert padded(before, ("folded.weight", *norm, "bias")) == ["bn", "copy", "conv"]
    assert padded([("Conv", ("x", "folded.weight", "bias"), "y")], ("folded.weight", "bias")) == ["conv"]
    assert padded([("Conv", ("x", "y.weight", "bias"), "y")], ("y.weight", "bias")) == ["copy", "conv"]


def test_tflite_multiplies_in_tiles_of_eight_and_its_loop_skips_what_lies_outside() -> None:
    tiles = terms_of(31, size=7, pad=1)["gemm"]
    assert np.exp(tiles) * 1e6 == pytest.approx(9 * 31 * 32 * 56)
    inside = (3 * 7 - 2) ** 2 / (3 * 7) ** 2
    for bias, share in ((True, inside), (False, 1.0)):  # what was padded before has no outside
        work = np.exp(terms_of(32, 4, size=7, bias=bias)["grouped_loop"]) * 1e6
        assert work == pytest.approx((8 + 4) * 9 * 32 * 49 * share)


def test_the_delegate_takes_winograds_convolutions_where_channels_and_squares_suffice() -> None:
    # kernels named so, and not, on Mali and Apple's GPUs
    ran = {(64, 28): True, (64, 222): True, (48, 56): False, (32, 56): False, (64, 14): False, (512, 7): False}
    for (width, size), winograd in ran.items():
        terms = terms_of(width, size=size, lowering=LOWERINGS["tflite", "gpu"])
        assert ("winograd" in terms, "conv" in terms) == (winograd, not winograd), (width, size)


def test_pytorch_on_a_gpu_pays_for_what_it_reads_and_writes_beside_the_work() -> None:
    cards = LOWERINGS["pytorch", "gpu"]
    staged = cards.staged
    dense, depthwise = terms_of(64, size=28, lowering=cards), terms_of(64, 64, size=28, lowering=cards)
    elements = 2 * 64 * 28 * 28
    assert np.exp(dense["conv_traffic"]) * 1e5 == pytest.approx(elements)
    assert np.exp(depthwise["depthwise_traffic"]) * 1e5 == pytest.approx(elements)
    assert np.exp([dense["conv_weights"], depthwise["conv_weights"]]) * 1e5 == pytest.approx([64 * 64 * 9, 64 * 9])
    product = GemmConfig(batch=8, m=10, k=20, n=30, weights=True, trans=(False, False), fused=(), dtype="float32")
    for weights, second in ((True, 20 * 30), (False, 8 * 20 * 30)):
        found = dict(rows("matmul", replace(product, weights=weights), staged))
        traffic = [found["gemm_traffic"][0], found["gemm_weights"][0]]
        assert np.exp(traffic) * 1e5 == pytest.approx([8 * 10 * (20 + 30), second])
    assert not {"conv_traffic", "gemm_traffic"} & {name for name, _ in rows("matmul", product, "")}


def test_what_is_no_product_takes_what_moving_its_bytes_takes_where_each_operator_is_a_kernel() -> None:
    eager = LOWERINGS["pytorch", "gpu", "eager"]

    def of(op: str, *shapes: tuple[int, ...], dtype: str = "float32", **attrs: int) -> dict[str, float]:
        b = GraphBuilder("one")
        graph = b.graph(b.op(op, *(b.input(shape, dtype) for shape in shapes), **attrs))
        kernels = fuse(graph, read_rules(eager.rules)).kernels
        return {name: float(np.exp(row[0])) for k in kernels for name, row in rows(k.kind, k.config, eager.staged)}

    size, unit = (4, 8, 56, 56), 8e5
    elements = 4 * 8 * 56 * 56
    assert of("Relu", size) == pytest.approx({"launch": 1, "stream": 8 * elements / unit})
    assert of("Relu", size, dtype="float16") == pytest.approx({"launch": 1, "stream": 4 * elements / unit})
    assert of("Add", size, size) == pytest.approx({"launch": 1, "stream": 12 * elements / unit})
    assert of("Softmax", size, axis=-1)["stream"] == pytest.approx(8 * elements / unit)
    convolved = {"stream", "conv", "conv_traffic", "conv_weights"}  # its input is cast
    assert convolved < terms_of(64, size=28, lowering=eager).keys()


def test_models_in_half_precision_on_a_card_are_called_operator_by_operator_unless_compiled() -> None:
    card = Circumstances(Device("a card", kind="gpu"), "pytorch", "291", precision="float16")
    rows_of = {"291": ("pytorch", "gpu", "eager"), "291_dynamo": ("pytorch", "gpu")}
    for version, row in rows_of.items():
        around = replace(card, runtime_version=version)
        assert lowering_of(around) == row
        bases = shipped_bases([Record("timm:resnet50", around, whole=Measurement((1.0,)))])
        assert len(bases) >= 3
        assert all(dict(each.rules) == dict(LOWERINGS[row].rules) for each in bases)
    assert lowering_of(replace(card, precision="float32")) == ("pytorch", "gpu")
    assert lowering_of(replace(card, device=Device("a processor"))) == ("pytorch", "cpu")


def test_what_waits_for_memory_on_a_card_is_not_slower_for_being_larger() -> None:
    """Networks that take means over larger pictures are slow for what else is in them."""

    def subject(size: int) -> Graph:
        b = GraphBuilder(f"mean_{size}")
        return b.graph(b.op("GlobalAveragePool", b.input((1, 32, size, size), "float32")))

    sizes = (7, 14, 28, 56)
    around = Circumstances(Device("a card", kind="gpu"), "pytorch")
    records = [Record(f"m_{s}", around, whole=Measurement((1e-6 * s**4 + 0.01,)), family=str(s)) for s in sizes]
    made = {}
    for bounded in (True, False):
        found = study(
            records,
            lambda name, batch: subject(int(name[2:])),
            lowering=replace(LOWERINGS["pytorch", "gpu"], bounded=bounded),
        )
        made[bounded] = found.bundles(None, lambda around: "card")[0].terms["learned"]["mean"]["slopes"]
    assert max(made[True]) <= 0 < max(made[False])
    assert LOWERINGS["pytorch", "gpu"].bounded


def test_kernels_that_a_profiler_saw_faster_than_they_run_in_models_tell_by_how_much() -> None:
    """A kernel takes 0.05 ms and its work; by itself four fifths of that."""
    staged = LOWERINGS["tflite", "gpu"].staged

    def work_ms(terms: Sequence[tuple[str, tuple[float, ...]]]) -> float:
        return sum(np.exp(row[0]) * {"call": 1.0, "start": 0.05, "conv1x1": 0.02}.get(name, 0.0) for name, row in terms)

    subjects, latencies_ms = [], []
    for width in (16, 24, 32, 48, 64, 96):
        x = (b := GraphBuilder("one")).input((1, width, 28, 28), "float32")
        graph = b.graph(b.op("Conv", x, b.weight((width, width, 1, 1), "float32"), kernel_shape=(1, 1)))
        (one,) = fuse(graph, read_rules(TFLITE.rules)).kernels
        alone = kernel_subject(one.kind, one.config, str(width), staged=staged)
        models = [model_subject([(one.kind, one.config)] * n, str(width), staged=staged) for n in (1, 5, 20)]
        subjects += [*models, *[alone] * 40]
        latencies_ms += [*(work_ms(m.terms) for m in models), *[0.8 * work_ms(alone.terms)] * 40]
    design = Design(subjects)
    found = fit_together(design, [Environment("mind", (), np.array(latencies_ms))])
    assert np.exp(found.parameters[0, design.parameters.index("profiled")]) == pytest.approx(0.8, abs=0.03)
    assert np.exp(found.parameters[0, design.parameters.index("start")]) == pytest.approx(0.05, rel=0.3)


def test_threads_do_nothing_for_groups_on_a_phone() -> None:
    def ms(cores: str, group: int) -> float:
        b = GraphBuilder("one")
        x = b.input((1, 128, 28, 28), "float32")
        for _ in range(6):
            weight = b.weight((128, 128 // group, 3, 3), "float32")
            x = b.op("Conv", x, weight, kernel_shape=(3, 3), pads=(1,) * 4, group=group)
        return nn_meter.load_latency_predictor(f"a03s_{cores}_float_tflite").predict(b.graph(x))

    assert ms("1large", 1) / ms("4large", 1) > 1.8
    assert ms("1large", 8) / ms("4large", 8) < 1.3


def test_several_environments_are_not_mixed() -> None:
    other = Circumstances(Device("another phone"), "tflite", source="a test")
    with pytest.raises(BuildError, match="several environments"):
        fit([*measured(), *measured(2.0, other)], read=read)
    with pytest.raises(BuildError, match="too few"):
        fit(measured(subjects=SUBJECTS[:3]), read=read)
    with pytest.raises(BuildError, match="no measurements"):
        fit([])


def test_a_prior_knows_how_devices_differ() -> None:
    names = parameters_of("conv")
    learned = [
        {"conv": {"base": base, "slopes": [base / 10] * len(TERMS["conv"].columns)}} for base in (-1.0, 0.0, 1.0)
    ]
    prior = Prior.of(learned, names)
    assert prior.mean[0] == pytest.approx(0.0)
    assert prior.covariance[0, 1] > 0


# --- tables ------------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_that_cannot_be_used_are_named_by_line(tmp_path: Path) -> None:
    text = "model,latency_us,device,batch\na.onnx,1500,Phone,4\nb.onnx,-3,Phone,1\nc.onnx,fast,Phone,1\n"
    text += "d.onnx,5e12,Phone,1\ne.onnx,7,Phone,none\n,7,Phone,1\n"
    found = read_csv(written(tmp_path, text))
    assert len(found.records) == 1
    record = found.records[0]
    assert record.whole is not None
    assert (record.subject, record.whole.median_ms, record.circumstances.batch) == ("a.onnx", 1.5, 4)
    assert record.circumstances.device.name == "Phone"
    assert [text.split(":")[1] for text in found.left_out] == ["3", "4", "5", "6", "7"]
    assert "-0.003 ms" in found.left_out[0]
    assert "no number" in found.left_out[1]
    assert "absurd" in found.left_out[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,device\na,b\n", "no column of latencies"),
        ("model,latency_ms,latency_s\na,1,1\n", "2 units"),
        ("model,model,latency_ms\na,a,1\n", "twice"),
        ("network,latency_ms\na,1\n", "no column 'model'"),
        ("model,latency_ms,colour\na,1,red\n", "unknown column colour"),
        ("", "no column 'model'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        read_csv(written(tmp_path, text))


def test_models_that_cannot_be_read_are_named_where_too_few_are_left() -> None:
    def some(subject: str, batch: int) -> Graph:
        if subject not in SUBJECTS[:3]:
            raise ModelError(f"{subject}: no such file")
        return read(subject, batch)

    with pytest.raises(BuildError, match=r"27 models cannot be read .*16: no such file.*3 are left, 4 are needed"):
        fit(measured(), read=some)


def test_a_table_of_kernels_gives_configs(tmp_path: Path) -> None:
    text = "kind,cin,size,cout,out,kernel,fused,latency_ms\nconv,64,56x56,32,56x56,3x3,relu+sum,0.8\n"
    text += "conv,64,56x56,32,56x56,,relu,0.8\nspell,1,1,1,1,1,,1\n"
    path = tmp_path / "kernels.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_csv(path)
    assert len(found.records) == 1
    kernel = found.records[0].kernels[0]
    assert kernel.config.describe() == "1x64x56x56 -> 32x56x56, kernel 3x3"
    assert kernel.config.fused == ("relu", "sum")  # type: ignore[attr-defined]
    assert "needs kernel" in found.left_out[0]
    assert "no kernel kind 'spell'" in found.left_out[1]


def test_tables_of_timm_say_device_runtime_and_batch(tmp_path: Path) -> None:
    path = tmp_path / "amp-nchw-pt291-cu128-4090-dynamo.csv"
    text = "architecture,image_size,batch_size,batch_ms,gmacs_per_image\nresnet18,224,1024,50.5,1.8\n"
    path.write_text(text + "resnet18,224,0,50,1.8\ntf_efficientnet_b0,224,512,40,0.4\n", encoding="utf-8")
    found = published_timm.read_table(path)
    first, second = found.records
    around = first.circumstances
    assert (first.subject, around.batch, around.precision) == ("timm:resnet18@224", 1024, "float16")
    assert published_timm.predictor_name(around) == "rtx4090_amp_pytorch291_dynamo"
    assert second.family == "efficientnet"
    assert len(found.left_out) == 1
    with pytest.raises(BuildError, match="benchmarks"):
        published_timm.circumstances("results.csv")


def test_tables_of_phones_give_models_and_the_delegates_kernels(tmp_path: Path) -> None:
    path = tmp_path / "models.csv"
    text = "model,device,processors,precision,mean_ms\nresnet18,pixel4,4small,quant,40.5\nresnet18,abacus,1,float,3\n"
    path.write_text(text, encoding="utf-8")
    found = published_phones.read_models(path)
    around = found.records[0].circumstances
    assert default_name(around) == "pixel4_4small_quant_tflite"
    assert (around.threads, around.precision, found.records[0].family) == (4, "int8", "resnet")
    assert "abacus" in found.left_out[0]
    with pytest.raises(BuildError, match="operation"):
        published_phones.read_gpu_kernels(path)
    path = tmp_path / "kernels.csv"
    features = '{""Input_shape"": ""58"", ""Input_channel"": 64, ""Output_shape"": ""56"", ""Stride"": ""1"", '
    features += '""Kernel"": ""3"", ""Filter"": ""32"", ""Group"": ""1""}'
    name = "convolution_2d_11_linked_:_add_12_linked_:_relu_13"
    header = "model,position,operation,features,device,latency_ms,kernel\n"
    path.write_text(f'{header}net,0,CONV_2D,"{features}",pixel4,0.8,{name}\n', encoding="utf-8")
    kernel = published_phones.read_gpu_kernels(path).records[0].kernels[0]
    assert kernel.config.describe() == "1x64x56x56 -> 32x56x56, kernel 3x3"
    assert kernel.config.fused == ("sum", "relu")  # type: ignore[attr-defined]


# --- what ships --------------------------------------------------------------------------------------------


def test_gpus_ship_and_say_that_one_image_is_another_batch() -> None:
    predictor = nn_meter.load_latency_predictor("rtx4090_amp_pytorch291_dynamo")
    alone, many = (predictor.explain(network(32, 6, 64, batch)) for batch in (1, 256))
    assert any("asked about batch 1:" in note for note in alone.notes)
    assert not any("batch" in note for note in many.notes)
    assert alone.latency_ms < many.latency_ms


def test_phones_ship_and_answer() -> None:
    predictor = nn_meter.load_latency_predictor("pixel4_gpu_float_tflite")
    answer = predictor.explain(network(32, 6, 64))
    assert 0 < answer.latency_ms < 100
    assert answer.interval_ms is not None
    assert not answer.strict_problems


def test_the_list_opens_no_shipped_bundle_of_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = bundles.load
    monkeypatch.setattr(catalogue, "load", lambda path: opened.append(str(path)) or load(path))  # type: ignore[func-returns-value]
    named = {each.name: each for each in catalogue.list_predictors()}
    assert not [path for path in opened if "published.zip" in path]
    for name in ("pixel4_1large_float_tflite", "iphonexs_gpu_float_tflite", "a03s_4small_quant_tflite"):
        assert "median error" in named[name].summary


def test_the_archive_stays_small() -> None:
    assert (catalogue.SHIPPED / "published.zip").stat().st_size < 25e6


def test_gpus_of_data_centres_ship_and_say_what_they_were_not_trained_on() -> None:
    config = {"model_type": "bert", "hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 2}
    graph = published_neusight.language_model("bert", {**config, "vocab_size": 8000}, 128, 8)
    answers = {
        name: nn_meter.load_latency_predictor(f"{name}_fp32_pytorch21").explain(graph)
        for name in ("p4", "p100", "v100", "t4", "a100")
    }
    assert answers["a100"].latency_ms < answers["v100"].latency_ms < answers["t4"].latency_ms < answers["p4"].latency_ms
    status = {(k.kernel.kind, k.status) for k in answers["v100"].kernels}
    assert {("matmul", "predicted"), ("softmax", "predicted"), ("norm", "predicted")} <= status
    assert ("transpose", "estimated") in status


def test_the_kernels_that_are_kept_of_timms_models_can_be_read() -> None:
    """Of a few, so that the cards' predictors can be fitted again."""
    kept = Path(__file__).parents[1] / "scripts" / "timm_kernels.jsonl.gz"
    with gzip.open(kept, "rt", encoding="utf-8") as lines:
        some = [json.loads(line) for line in list(lines)[::200]]
    configs = [config_from_json(kind, config) for _, kernels in some for kind, config in kernels]
    assert len(configs) > 1000
