"""A bundle comes back as it was saved, and one that breaks the format is refused by name."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trees import STUMP

from nn_meter import limits
from nn_meter.errors import BundleError, StorageError
from nn_meter.predictors.bundle import MANIFEST, Bundle, load, save, verify
from nn_meter.predictors.kind import ByData, Few, KindPredictor, OutOfRange, Unseen
from nn_meter.predictors.parts import Interval, Roofline

RELU = KindPredictor(
    "relu", "mine-1", ("inputh",), STUMP, "latency_ms", {"inputh": (1.0, 224.0)}, 120, {"mape": 0.04}
)
BUNDLE = Bundle(
    name="mine",
    version="1.2",
    kinds={
        "relu": RELU,
        "a/b: odd": replace(
            RELU,
            kind="a/b: odd",
            trained_range={},
            categories={"inputh": {"low": 4, "high": 0}},
            seen={"inputh": {"low": 9}},
        ),
        "narrow": replace(
            RELU,
            kind="narrow",
            categories={"inputh": {"low": 4}},
            seen={"inputh": {"low": 9}},
            range_of={"inputh": {"low": {"inputh": (7.0, 112.0)}}},
        ),
    },
    rules={"BF_conv_relu": {"obey": True}},
    schema="mine-1",
    device="a board",
    category="cpu",
    runtime="onnxruntime",
    runtime_version="1.20",
    threads=4,
    statistic="median",
    fallback=Roofline(1e9, 1e9, 0.01),
    interval=Interval(-0.1, 0.2, models=40, estimated=(-1.0, 1.5)),
    notes=("measured at night",),
    created="2026-01-01",
    environment={"governor": "performance"},
)


@pytest.mark.parametrize("name", ["folder", "file.zip"])
def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path, name: str) -> None:
    save(BUNDLE, tmp_path / name)
    save(BUNDLE, tmp_path / name)
    found = verify(load(tmp_path / name))
    assert replace(found, kinds={}, path=None) == replace(BUNDLE, kinds={})
    for kind, predictor in BUNDLE.kinds.items():
        assert replace(found.kinds[kind], regressor=STUMP) == predictor
        assert found.kinds[kind].regressor.to_bytes() == STUMP.to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bundle_takes_the_place_of_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years")
    with pytest.raises(StorageError, match="holds something else than a bundle, which would be lost; choose another"):
        save(BUNDLE, tmp_path)
    assert (tmp_path / "thesis").read_text() == "years"
    (tmp_path / "new").mkdir()
    save(BUNDLE, tmp_path / "new")
    verify(load(tmp_path / "new"))


def test_a_kind_is_opened_when_first_asked_for(tmp_path: Path) -> None:
    save(BUNDLE, tmp_path / "b")
    (tmp_path / "b" / "kinds" / "01.npz").unlink()
    found = load(tmp_path / "b")
    assert found.kinds["relu"].predict(np.array([[2.0]])) == [20.0]
    with pytest.raises(BundleError, match=r"b/kinds/01\.npz: this file of the bundle cannot be read"):
        verify(found)


def test_kinds_take_no_more_memory_by_sharing_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(BUNDLE, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / MANIFEST).read_text())
    manifest["kinds"] |= {str(number): manifest["kinds"]["relu"] for number in range(100)}
    (tmp_path / "b" / MANIFEST).write_text(json.dumps(manifest))
    assert len([*load(tmp_path / "b").kinds.values()]) == len(manifest["kinds"])
    monkeypatch.setattr(limits, "KINDS_BYTES", limits.Limit(50 * len(STUMP.to_bytes()), "bytes"))
    with pytest.raises(BundleError, match=r"up to kinds/00\.npz: [0-9,]+ bytes; at most"):
        [*load(tmp_path / "b").kinds.values()]


def test_a_ratio_is_turned_into_ms() -> None:
    trees = replace(STUMP, n_columns=2)
    ratio = KindPredictor("conv", "mine-1", ("cin", "roofline_ms"), trees, "log_roofline_ratio")
    assert ratio.predict(np.array([[1.0, 0.5]])) == pytest.approx([np.exp(10.0) * 0.5])


def _edited(folder: Path, **keys: Any) -> Path:
    save(BUNDLE, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**manifest, **keys}))
    return folder


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"format_version": 2}, "format version 2, this nn-meter reads up to 1; upgrade"),
        ({"format_version": "1"}, "'format_version' is '1'; it must be a whole number"),
        ({"unit": "s"}, "'unit' is 's'; it must be 'ms'"),
        ({"threads": "four"}, "'threads' is 'four'"),
        ({"name": None}, "'name' is None; it must be a text"),
        ({"notes": "x"}, "'notes' is 'x'"),
        ({"kinds": []}, "kinds must be keys with values, not a list"),
        ({"rules": {"file": "../rules.json", "sha256": ""}}, "leaves the bundle"),
        ({"rules": {"file": "fusion_rules.json", "sha256": "0"}}, "has the sha256 .* changed or damaged"),
    ],
)
def test_a_manifest_that_breaks_the_format_is_refused(
    tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        load(_edited(tmp_path / "b", **keys))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ("a", "a")}, "named twice"),
        ({"columns": ("inputh", "cin")}, "takes 1 columns, but 2 are named: inputh, cin"),
        ({"trained_range": {"cin": (0, 1)}}, "no such column"),
        ({"trained_range": {"inputh": (2, 1)}}, "runs from 2 to 1"),
        ({"categories": {"op": {"Add": 0}}}, "codes of 'op' are given, but it has no such column"),
        ({"categories": {"inputh": {"a": 0, "b": 0}}}, "two names of 'inputh' have one code"),
        ({"seen": {"inputh": {"a": 3}}}, "inputh 'a' was seen in training but has no code"),
        ({"seen": {"inputh with cin": {"a with b": 3}}}, "seen of .inputh with cin. are given, but it has no such"),
        ({"range_of": {"op": {"a": {"inputh": (1, 2)}}}}, "range is given for 'op', which has no names"),
        ({"target": "log_roofline_ratio"}, "needs a column 'roofline_ms'"),
    ],
)
def test_a_kind_that_contradicts_itself_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        replace(RELU, **change)


def test_what_lies_outside_of_what_was_learned_is_named() -> None:
    both = replace(
        RELU,
        columns=("inputh", "op"),
        regressor=replace(STUMP, n_columns=2),
        categories={"op": {"Add": 0, "Mul": 1, "Sub": 2}},
        seen={"op": {"Add": 7, "Mul": 6}},
    )
    assert both.outside((224, 1), {"op": "Mul"}) == ()
    assert both.outside((225, 2), {"op": "Sub"}) == (OutOfRange("inputh", 225, 1, 224), Unseen("op", "Sub"))
    assert both.outside((1, -1), {"op": "Div"}) == (Unseen("op", "Div"),)
    small = replace(both, range_of={"op": {"Mul": {"inputh": (7, 112)}}})
    assert small.outside((112, 1), {"op": "Mul"}) == small.outside((224, 0), {"op": "Add"}) == ()
    (found,) = small.outside((224, 1), {"op": "Mul"})
    assert str(found) == "inputh 224 is outside the trained range 7..112 of 'Mul'"
    paired = replace(
        both,
        columns=("to", "op"),
        categories={"op": {"Add": 0, "Mul": 1}, "to": {"float16": 0, "float32": 1}},
        trained_range={},
        seen={
            "op": {"Add": 7, "Mul": 9},
            "to": {"float16": 7, "float32": 11},
            "op with to": {"Add with float16": 5, "Mul with float32": 9},
        },
    )
    assert paired.outside((1, 1), {"op": "Mul", "to": "float32"}) == ()
    assert paired.outside((0, 1), {"op": "Mul", "to": "float16"}) == (Unseen("op with to", "Mul with float16"),)
    rare = replace(paired, seen={**paired.seen, "op with to": {"Mul with float32": 2}})
    assert rare.outside((1, 1), {"op": "Mul", "to": "float32"}) == (Few("op with to", "Mul with float32", 2, 3),)
    rare = replace(paired, seen={**paired.seen, "to": {"float32": 5}})
    assert rare.outside((1, 1), {"op": "Mul", "to": "float32"}) == (Few("to", "float32", 5, 6),)
    forgotten = replace(both, seen={}, trained_range={"op": (0, 1)})
    assert forgotten.outside((999, 1), {"op": "Mul"}) == ()
    assert forgotten.outside((999, 2), {"op": "Sub"}) == (Unseen("op", "Sub"),)


@pytest.mark.parametrize(
    ("column", "trained", "other"),
    [
        ("mask", "", "bool"), ("mask", "", "float32 causal"), ("activations", "", "relu"), ("way", "one", "select"),
        ("dtype", "float32", "float64"), ("dtype", "uint8", "int8"),
    ],
)  # fmt: skip
def test_a_bundle_from_before_a_column_says_what_it_cannot_tell_apart(column: str, trained: str, other: str) -> None:
    """Each takes 2 to 17 times as long as the other."""
    assert RELU.outside((100,), {column: trained}) == ()
    assert RELU.outside((100,), {column: other}) == (Unseen(column, other),)


def test_what_values_decide_is_never_predicted() -> None:
    known = replace(RELU, columns=("op",), categories={"op": {"NonMaxSuppression": 0}}, trained_range={})
    why = "which boxes overlap decides"
    found = known.outside((0,), {"op": "NonMaxSuppression"}, {"NonMaxSuppression": why})
    assert found == (ByData("NonMaxSuppression", why),)
    assert known.outside((0,), {"op": "NonMaxSuppression"}) == ()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        load(tmp_path / "absent")
    (tmp_path / "b.zip").write_bytes(b"junk")
    with pytest.raises(BundleError, match="no zip that can be read"):
        load(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w"):
        pass
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        load(tmp_path / "b.zip")


@given(at=st.integers(0, 5000), byte=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_zip_ends_in_a_bundle_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "b.zip"
    save(BUNDLE, path)
    stored = bytearray(path.read_bytes())
    stored[at % len(stored)] = byte
    path.write_bytes(stored)
    try:
        found = verify(load(path))
    except BundleError as e:
        found = None
        message = str(e)
    assert found is not None or str(path) in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"fallback": {"policy": "roofline"}}, r"'fallback\.flops_per_s' is missing; it must be a finite number"),
        ({"fallback": {**BUNDLE.fallback.written(), "flops_per_s": 0}}, r"'fallback\.flops_per_s' is 0"),
        ({"fallback": {**BUNDLE.fallback.written(), "bytes_per_s": "1"}}, r"'fallback\.bytes_per_s' is '1'"),
        ({"fallback": {**BUNDLE.fallback.written(), "overhead_ms": -1}}, r"'fallback\.overhead_ms' is -1"),
        ({"fallback": {**BUNDLE.fallback.written(), "overhead_ms": 1e308}}, r"'fallback\.overhead_ms' is 1e\+308"),
        ({"call_ms": 1e308}, r"'call_ms' is 1e\+308"),
        ({"fallback": {**BUNDLE.fallback.written(), "factor": None}}, r"'fallback\.factor' is None"),
        ({"fallback": {**BUNDLE.fallback.written(), "factor": 10**400}}, r"'fallback\.factor' is 1000"),
        ({"fallback": {}}, r"'fallback\.policy' is missing"),
        ({"fallback": {"policy": "guess"}}, r"'fallback\.policy' is 'guess'; it must be one of 'roofline', 'zero'"),
        ({"interval": {"low": 0.2, "high": 0.1}}, r"'interval\.high' is 0\.1; it must be a finite number, from 0\.2"),
        ({"interval": {"low": -1, "high": 1e6}}, r"'interval\.high' is 1000000\.0"),
        ({"interval": {"low": "a"}}, r"'interval\.low' is 'a'"),
        ({"name": 7}, "'name' is 7"),
        ({"environment": {"probe_ms": 0.0}}, r"'environment\.probe_ms' is 0\.0; it must be a finite number"),
        ({"environment": {"board_watts": "70"}}, r"'environment\.board_watts' is '70'"),
        ({"environment": {"errors": [1]}}, r"environment\.errors must be keys with values"),
        ({"environment": {"errors": {"models": 3}}}, r"'environment\.errors\.median' is missing"),
        ({"environment": {"evaluated": {"models": 1, "median": 0, "families": {"a": {"median": 1, "models": 2}}}}},
         r"'environment\.evaluated\.families\.a\.models' is 2; it must be a list of texts"),
        ({"environment": {"left_out": {"mean": 1e308}}}, r"'environment\.left_out\.mean' is 1e\+308"),
    ],
)  # fmt: skip
def test_numbers_of_a_bundle_give_finite_answers(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        load(_edited(tmp_path / "b", **keys))


def test_a_folder_with_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    save(BUNDLE, tmp_path / "b")
    (tmp_path / "b" / "fusion_rules.json").unlink()
    os.mkfifo(tmp_path / "b" / "fusion_rules.json")
    with pytest.raises(BundleError, match="no regular file"):
        load(tmp_path / "b")


@pytest.mark.parametrize(
    ("target", "leaf", "shown"),
    [
        ("latency_ms", -1e-9, "-1e-09 ms"),
        ("log_roofline_ratio", 1000.0, "inf ms"),
    ],
)
def test_an_answer_that_no_latency_can_be_names_the_kind(target: Any, leaf: float, shown: str) -> None:
    trees = replace(STUMP, n_columns=2, value=np.where(STUMP.left < 0, leaf, STUMP.value))
    altered = KindPredictor("conv", "mine-1", ("cin", "roofline_ms"), trees, target)
    with pytest.raises(BundleError, match=f"predictor of 'conv': it answers {shown}, which no latency can be"):
        altered.predict(np.array([[1.0, 0.5], [2.0, 0.5]]))
