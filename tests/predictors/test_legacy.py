"""Old pickles convert bit for bit, and a hostile one executes nothing."""

from __future__ import annotations

import copy
import copyreg
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ensembles import from_forest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn_meter.errors import PredictorError, UnsafePickleError
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.legacy import convert_folder, read_forest
from nn_meter.predictors.parts import LeftOut

SHARED = Path(__file__).parents[2] / ".." / "shared" / "legacy" / "k8_predictor"
GOLDEN = json.loads((Path(__file__).parent / "golden" / "k8_predictor.json").read_text())["kernels"]
META = {"name": "k8cpu_tf", "version": 1.0, "category": "cpu", "kernel_predictors": list(GOLDEN)}

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared legacy predictor is not here")


def _floats(texts: list[str]) -> list[float]:
    return [float.fromhex(text) for text in texts]


@needs_shared
@pytest.mark.parametrize("kernel", GOLDEN)
def test_a_shared_pickle_answers_as_scikit_learn_did(kernel: str) -> None:
    path = SHARED / f"{kernel}.pkl"
    rows = np.array([_floats(row) for row in GOLDEN[kernel]["rows"]])
    assert list(read_forest(path.read_bytes(), str(path)).predict(rows)) == _floats(
        GOLDEN[kernel]["latency_ms"]
    )


@pytest.fixture(scope="module")
def model() -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(0)
    x = rng.random((60, 3))
    state = np.random.RandomState(3)
    return ensemble.RandomForestRegressor(5, random_state=state).fit(x, x.sum(axis=1))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(model: Any, protocol: int) -> None:
    asked = np.random.default_rng(1).random((50, 3))
    found = read_forest(pickle.dumps(model, protocol), "new.pkl").predict(asked)
    assert found.tobytes() == from_forest(model).predict(asked).tobytes() == model.predict(asked).tobytes()


def test_module_names_of_older_libraries_are_read(model: Any) -> None:
    stored = pickle.dumps(model, 2)
    for new, old in (
        (b"csklearn.ensemble._forest\n", b"csklearn.ensemble.forest\n"),
        (b"csklearn.tree._classes\n", b"csklearn.tree.tree\n"),
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
    ):
        assert new in stored
        stored = stored.replace(new, old)
    asked = np.random.default_rng(1).random((50, 3))
    assert list(read_forest(stored, "old.pkl").predict(asked)) == list(model.predict(asked))


def test_scikit_learn_is_not_imported() -> None:
    code = "import sys, nn_meter.predictors.legacy; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class _Runs:
    def __init__(self, call: Any, *args: Any) -> None:
        self._reduced = call, args

    def __reduce__(self) -> Any:
        return self._reduced


def _hostile(mark: Path) -> dict[str, bytes]:
    command = f"touch {mark}"
    attack = _Runs(os.system, command)

    system = b"cposix\nsystem\n"
    forest = b"csklearn.ensemble._forest\nRandomForestRegressor\n)R"
    text = b"V" + command.encode() + b"\n"
    return {
        "os.system": pickle.dumps(attack),
        "exec": pickle.dumps(_Runs(exec, f"open({str(mark)!r}, 'w')")),
        "eval in protocol 0": pickle.dumps(_Runs(eval, f"open({str(mark)!r}, 'w')"), 0),
        "in the state": forest + b"}Vverbose\n" + system + b"(" + text + b"tRsb.",
        "in the estimators": forest + b"}Vestimators_\n](" + system + b"(" + text + b"tResb.",
        "instance opcode": b"(" + text + b"iposix\nsystem\n.",
        "object opcode": b"(" + system + text + b"o.",
        "in the dtype": b"cnumpy\ndtype\n(" + system + b"(" + text + b"tRtR.",
        "setstate": b"csklearn.tree._tree\nTree\n)R" + system + b"(" + text + b"tRb.",
        "memo": system + b"q\x000h\x00(" + text + b"tR.",
        "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nV__class__\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0cos.path.join\x93.",
        "near name": b"cnumpy.randomized\nsystem\n.",
        "extension": b"\x80\x02\x82\xf0" + b"(" + text + b"tR.",
        "persistent id": b"Pevil\n.",
        "binary persistent id": text + b"Q.",
        "outside buffer": b"\x80\x05\x97.",
    }


@pytest.mark.parametrize("attack", _hostile(Path("mark")))
def test_a_hostile_pickle_is_refused_and_runs_nothing(attack: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        with pytest.raises(
            UnsafePickleError, match=r"^bad\.pkl: the pickle asks for .*nothing of it was run"
        ):
            read_forest(_hostile(mark)[attack], "bad.pkl")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert not mark.exists()


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"no pickle",
        b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x.",
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
        b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"N.",
        b"Nr\xff\xff\xff\x7f.",
        b"N.",
        pickle.dumps({"a": [1, 2]}),
        b"csklearn.ensemble._forest\nRandomForestRegressor\n.",
        b"csklearn.ensemble._forest\nRandomForestRegressor\n)R.",
        b"csklearn.ensemble._forest\nRandomForestRegressor\n}b.",
        b"csklearn.ensemble._forest\nRandomForestRegressor\n)R}Vestimators_\n]sb.",
        b"csklearn.ensemble._forest\nRandomForestRegressor\n)R}Vestimators_\n"
        + b"(" * 5000
        + b"t" * 5000
        + b"sb.",
    ],
)
def test_what_is_no_forest_is_refused(stored: bytes) -> None:
    with pytest.raises(PredictorError, match=r"^bad\.pkl: not a pickled scikit-learn forest"):
        read_forest(stored, "bad.pkl")


def test_a_tree_counts_as_often_as_it_is_named(model: Any) -> None:
    """Each name of it takes three bytes of the file; read, it would take a tree."""
    many = copy.copy(model)
    many.estimators_ = model.estimators_ * 1000
    with pytest.raises(PredictorError, match="trees of more bytes than the file has"):
        read_forest(pickle.dumps(many), "many.pkl")


def test_another_regressor_is_named() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    boosted = ensemble.GradientBoostingRegressor(n_estimators=2).fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(UnsafePickleError, match="GradientBoostingRegressor"):
        read_forest(pickle.dumps(boosted), "gb.pkl")


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_damaged_forest_ends_in_a_forest_or_an_error(model: Any, at: int, byte: int, cut: bool) -> None:
    stored = bytearray(pickle.dumps(model))
    stored[at % len(stored)] = byte
    with suppress(PredictorError):
        damaged = bytes(stored[: at % len(stored)] if cut else stored)
        assert read_forest(damaged, "bad.pkl").predict(np.zeros((1, 3))).shape == (1,)


@needs_shared
def test_a_folder_becomes_a_bundle(tmp_path: Path) -> None:
    bundle = bundles.verify(convert_folder(META, SHARED, tmp_path / "k8.zip"))
    assert (bundle.name, bundle.version, bundle.category, bundle.schema) == (
        "k8cpu_tf",
        "1.0",
        "cpu",
        "nn-meter-1",
    )
    assert bundle.fallback == LeftOut()
    assert bundle.rules == json.loads((SHARED / "fusion_rules.json").read_text())
    assert set(bundle.kinds) == set(GOLDEN)
    assert bundle.kinds["concat"].schema == "nn-meter-builder-1"
    assert bundle.kinds["add"].columns == ("inputh", "cin1", "cin2")


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    made = tmp_path / "pickles"
    made.mkdir()
    (made / "add.pkl").write_bytes(pickle.dumps(model))
    (made / "fusion_rules.json").write_text("{}")
    return made


SMALL = {"name": "small", "version": "1.0", "kernel_predictors": ["add"]}


def test_columns_that_no_schema_has_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "add.pkl", folder / "concat.pkl")
    with pytest.raises(
        PredictorError, match=r"'concat' takes 3 columns, 5 or 6 are expected \(inputh, branches"
    ):
        convert_folder({**SMALL, "kernel_predictors": ["concat"]}, folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("add.pkl", None, r"add\.pkl: the predictor of 'add' cannot be read .*restore the file"),
        ("add.pkl", b"junk", r"add\.pkl: not a pickled scikit-learn forest"),
        ("fusion_rules.json", None, r"fusion_rules\.json: the fusion rules cannot be read"),
        ("fusion_rules.json", b"{", r"fusion_rules\.json: the fusion rules: not JSON"),
        ("fusion_rules.json", b"[]", r"fusion_rules\.json: the fusion rules: it must be keys with values, not a list"),
    ],
)
def test_a_missing_or_broken_file_leaves_nothing(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(PredictorError, match=words):
        convert_folder(SMALL, folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pickles"]
