"""Predictors are found, fetched once, registered and forgotten; whatever fails leaves nothing behind."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from test_trees import STUMP

from nn_meter import limits, settings, storage
from nn_meter.errors import (
    BundleError,
    DownloadError,
    NnMeterError,
    PredictorError,
    RegistrationError,
    StorageError,
    UnknownPredictorError,
)
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors import catalogue, registration
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.catalogue import find, list_predictors, load_predictor, version_key
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.registration import register, unregister
from nn_meter.storage import downloads

SHARED = Path(__file__).parents[2] / ".." / "shared" / "legacy" / "k8_predictor"
CPU = "cortexA76cpu_tflite21"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared legacy predictor is not here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NN_METER_MIRROR", raising=False)
    monkeypatch.setattr(catalogue, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "home"


class _Server(ThreadingHTTPServer):
    content = b""
    claimed: int | None = None
    asked = 0
    endless = False


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path != f"/data/{CPU}.zip":
            self.send_error(404)
            return
        self.send_response(200)
        if not self.server.endless:
            self.send_header("Content-Length", str(self.server.claimed or len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)
        with suppress(OSError):  # until the client has had enough
            while self.server.endless:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        """Keep standard error clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("NN_METER_MIRROR", f"http://127.0.0.1:{running.server_port}/data/")
        yield running
        running.shutdown()
        thread.join()


def _zipped(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture(scope="module")
def published() -> bytes:
    files = [*SHARED.glob("*.pkl"), SHARED / "fusion_rules.json"]
    return _zipped({f"{CPU}/{path.name}": path.read_bytes() for path in files})


def _stump(name: str = "mine", version: str = "1.0") -> Bundle:
    kinds = {"relu": KindPredictor("relu", "any", ("inputh",), STUMP)}
    return Bundle(name=name, version=version, kinds=kinds, rules={}, schema="any", category="cpu")


def _meta(folder: Path, **keys: Any) -> Path:
    bundles.save(_stump(), folder / "bundle")
    path = folder / f"{keys.get('name', 'mine')}-{keys.get('version', '1.0')}.yaml"
    path.write_text(json.dumps({"name": "mine", "version": 1.0, "package_location": "bundle", **keys}))
    return path


def _files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_the_data_folder_and_mirror_follow_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.data_folder() == home
    monkeypatch.delenv("NN_METER_HOME")
    assert settings.data_folder().name == "nn-meter"
    assert settings.mirror() == "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data"


def test_listing_writes_nothing(home: Path) -> None:
    assert [each.name for each in list_predictors()] == [row[0] for row in catalogue.PUBLISHED]
    assert not home.exists()


def test_versions_compare_as_numbers() -> None:
    assert version_key("1") == version_key("1.0") == version_key(str(1.0))
    assert sorted(["1.10", "1.9", "2", "beta"], key=version_key) == ["beta", "1.9", "1.10", "2"]


@pytest.mark.parametrize("version", [None, 1, 1.0, "1", "1.0"])
def test_names_compare_without_case(version: Any) -> None:
    assert find("CORTEXa76CPU_tflite21", version).name == CPU


def test_near_names_are_suggested() -> None:
    with pytest.raises(
        UnknownPredictorError, match=rf"named 'cortexA76'; did you mean {CPU}.*--list-predictors"
    ):
        find("cortexA76")
    with pytest.raises(UnknownPredictorError, match=rf"{CPU} has no version 3; there is 1\.0"):
        find(CPU, 3)


def test_a_shipped_bundle_is_found() -> None:
    bundles.save(_stump("house"), catalogue.SHIPPED / "house")
    assert find("house").origin == "shipped"
    assert load_predictor("HOUSE", 1).kinds["relu"].predict(np.array([[1.0]])) == [10.0]


@needs_shared
def test_a_published_predictor_is_fetched_once(server: _Server, published: bytes, home: Path) -> None:
    server.content = published
    seen: list[tuple[float, float | None]] = []
    bundle = load_predictor(CPU, progress=lambda done, total, eta_s, what: seen.append((done, total)))
    assert seen[-1] == (len(published), len(published))
    assert bundle.environment["fetched_bytes"] == len(published)
    assert len(bundle.environment["fetched_sha256"]) == 64
    assert len(bundles.verify(load_predictor(CPU)).kinds) == 16
    assert server.asked == 1
    assert _files(home) == ["published/.lock", f"published/{CPU.lower()}@1.zip", "published/sha256.json"]


@needs_shared
def test_the_second_fetch_gives_the_file_of_the_first(server: _Server, published: bytes, home: Path) -> None:
    server.content = published
    load_predictor(CPU)
    (home / "published" / f"{CPU.lower()}@1.zip").unlink()
    load_predictor(CPU)
    (home / "published" / f"{CPU.lower()}@1.zip").unlink()
    server.content = published + b"\0"
    with pytest.raises(DownloadError, match=r"has the sha256 .* take the line out of .*sha256\.json"):
        load_predictor(CPU)
    assert _files(home) == ["published/.lock", "published/sha256.json"]


@needs_shared
def test_two_processes_fetch_at_once(server: _Server, published: bytes, home: Path) -> None:
    server.content = published
    both = [
        multiprocessing.get_context("spawn").Process(target=load_predictor, args=(CPU,)) for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert [each.exitcode for each in both] == [0, 0]
    assert server.asked == 1
    assert _files(home) == ["published/.lock", f"published/{CPU.lower()}@1.zip", "published/sha256.json"]


def _link(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "no zip that can be read"),
        (_zipped({"../evil.pkl": b""}), r"'\.\./evil\.pkl' leaves the zip's folder"),
        (_zipped({f"{CPU}/../../evil.pkl": b""}), "leaves the zip's folder"),
        (_zipped({"/evil.pkl": b""}), "leaves the zip's folder"),
        (_zipped({"C:/evil.pkl": b""}), "leaves the zip's folder"),
        (_zipped({"a\\..\\..\\evil.pkl": b""}), "leaves the zip's folder"),
        (_link(f"{CPU}/add.pkl"), "is a link"),
        (_zipped({f"{CPU}/add.pkl": bytes(32 << 20)}), "claim to unpack"),
        (_zipped({"other/add.pkl": b""}), "conv-bn-relu|fusion rules"),
        (_zipped({f"{CPU}/add.pkl": b"junk", f"{CPU}/fusion_rules.json": b"{}"}), "conv-bn-relu"),
    ],
)
def test_a_zip_that_is_damaged_or_hostile_is_refused(
    server: _Server, home: Path, content: bytes, words: str
) -> None:
    server.content = content
    with pytest.raises(PredictorError, match=words):
        load_predictor(CPU)
    assert _files(home) == ["published/.lock"]
    assert not list(home.parent.rglob("*evil*"))


def test_a_fetch_that_breaks_off_leaves_nothing(server: _Server, home: Path) -> None:
    server.content, server.claimed = b"half", 8
    with pytest.raises(DownloadError, match=r"broke off after 4 of 8 bytes.*NN_METER_MIRROR"):
        load_predictor(CPU)
    with pytest.raises(DownloadError, match="404"):
        load_predictor("adreno640gpu_tflite21")
    assert _files(home) == ["published/.lock"]


def test_a_mirror_that_never_ends_or_claims_too_much_is_given_up(
    server: _Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_BYTES", limits.Limit(1 << 20, "bytes to fetch"))
    server.claimed = 1 << 21
    with pytest.raises(DownloadError, match="2,097,152 bytes to fetch; at most 1,048,576"):
        load_predictor(CPU)
    server.endless = True
    with pytest.raises(DownloadError, match="bytes to fetch; at most 1,048,576"):
        load_predictor(CPU)
    assert _files(home) == ["published/.lock"]


def test_who_waits_for_another_fetch_says_so(
    server: _Server, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.content = b"no zip"
    heard: list[str] = []

    def fetch() -> None:
        with pytest.raises(PredictorError):
            load_predictor(CPU, progress=lambda *step: heard.append(step[3]))

    with storage.locked(home / "published" / ".lock"):
        other = threading.Thread(target=fetch)
        other.start()
        while len(heard) < 2:
            assert other.is_alive()
            sleep(0.01)
    other.join()
    assert heard[:2] == ["waiting for another process that fetches"] * 2
    assert caplog.text.count("another process fetches into") == 1


def test_a_mirror_that_drips_is_given_up(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = b"x"
    monkeypatch.setattr(limits, "DOWNLOAD_S", 0.0)
    monkeypatch.setattr(downloads, "monotonic", count().__next__)  # a second goes by whenever somebody looks
    with pytest.raises(DownloadError, match=r"after 1 s there are 1 bytes, which is too slow.*NN_METER_MIRROR"):
        load_predictor(CPU)


@needs_shared
def test_a_folder_of_pickles_is_registered() -> None:
    done = register(SHARED / "meta.yaml")
    assert (done.name, done.version, done.origin, done.replaced) == ("k8cpu_tf", "1.0", "registered", False)
    assert len(load_predictor("K8CPU_TF", "1").kinds) == 16


def test_bundles_are_registered_replaced_and_forgotten(home: Path, tmp_path: Path) -> None:
    assert not register(_meta(tmp_path)).replaced
    assert register(_meta(tmp_path)).replaced
    register(_meta(tmp_path, version="2.0"))
    assert find("mine").version == "2.0"
    assert load_predictor("mine", 1).version == "1.0"
    assert [each.version for each in unregister("MINE", "2")] == ["2.0"]
    assert find("mine").version == "1.0"
    assert [each.version for each in unregister("mine")] == ["1.0"]
    assert _files(home) == []
    with pytest.raises(UnknownPredictorError, match="Only registered"):
        unregister(CPU)


def test_a_registered_predictor_goes_before_a_published_one(tmp_path: Path) -> None:
    register(_meta(tmp_path, name=CPU))
    assert find(CPU).origin == "registered"


def test_two_processes_register_at_once(tmp_path: Path) -> None:
    metas = [_meta(tmp_path, name=name) for name in ("one", "two")]
    both = [multiprocessing.get_context("spawn").Process(target=register, args=(meta,)) for meta in metas]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert {"one", "two"} <= {each.name for each in list_predictors()}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": None}, "'name' is None; it must be a name; a meta file says"),
        ({"name": "../x"}, "'name': '../x' is no name: begin with a letter"),
        ({"name": ["x"]}, "'name' is"),
        ({"version": None}, "'version' is None"),
        ({"version": "../1"}, "'version': '../1' is no name"),
        ({"version": True}, "'version' is True"),
        ({"package_location": None}, "'package_location' is None"),
        ({"package_location": "nowhere"}, "'package_location' is 'nowhere'; it must be a folder"),
        ({"kernel_predictors": "relu"}, "'kernel_predictors' is 'relu'; it must be a list"),
        ({"kernel_predictors": ["../relu"]}, "'kernel_predictors': '../relu' is no name"),
    ],
)
def test_a_broken_meta_file_is_refused(tmp_path: Path, home: Path, keys: dict[str, Any], words: str) -> None:
    path = tmp_path / "meta.yaml"
    path.write_text(_meta(tmp_path).read_text())
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    with pytest.raises(RegistrationError, match=words) as caught:
        register(path)
    assert str(path) in str(caught.value)
    assert not home.exists()


@pytest.mark.parametrize("content", [b"", b"a: [", b"- a", b"\xff\xfe\x00", b"2021-99-99", b"[" * 10_000])
def test_what_is_no_meta_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "meta.yaml"
    path.write_bytes(content)
    with pytest.raises(RegistrationError, match="meta file"):
        register(path)
    with pytest.raises(RegistrationError, match="cannot be read"):
        register(tmp_path / "absent.yaml")


@pytest.mark.parametrize("place", ["x" * 5000, "/" + "a" * 300, "a\0b", "/" + "a/" * 1950])
def test_a_data_folder_that_can_be_none_is_said(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"NN_METER_HOME": place})  # the system takes no NUL
    for ask in (catalogue.list_predictors, settings.data_folder):
        with pytest.raises(StorageError, match="which no folder can be; set it to another data folder") as error:
            ask()
        assert len(str(error.value)) < 1000


def test_a_data_folder_that_cannot_be_written(home: Path, tmp_path: Path, server: _Server) -> None:
    meta = _meta(tmp_path)
    home.write_text("a file in the folder's place")
    with pytest.raises(StorageError, match="NN_METER_HOME"):
        register(meta)
    with pytest.raises(StorageError, match="NN_METER_HOME"):
        load_predictor(CPU)


def test_a_full_data_folder_keeps_what_was_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(_meta(tmp_path))
    before = (home / "registered" / "mine@1.zip").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(StorageError, match="No space left"):
        register(_meta(tmp_path))
    assert _files(home) == ["registered/mine@1.zip"]
    assert (home / "registered" / "mine@1.zip").read_bytes() == before


def test_a_broken_registered_bundle_does_not_take_the_list_with_it(
    home: Path, tmp_path: Path, caplog: Any
) -> None:
    register(_meta(tmp_path))
    (home / "registered" / "mine@1.zip").write_bytes(b"junk")
    assert len(list_predictors()) == len(catalogue.PUBLISHED)
    assert "predictor left out" in caplog.text


def test_errors_are_of_the_tree(tmp_path: Path) -> None:
    for call in (lambda: register(tmp_path), lambda: find(""), lambda: registration.unregister("x")):
        with pytest.raises(NnMeterError):
            call()
    with pytest.raises(BundleError):
        bundles.load(tmp_path / "absent")
