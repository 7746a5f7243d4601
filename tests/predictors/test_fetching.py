"""First fetches through mirrors that cut, drip, lie about lengths and never end: each ends in time with an error or the
predictor, which is fetched once."""

from __future__ import annotations

import io
import pickle
import socket
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from waiting import LONG_S

from nn_meter import limits, storage
from nn_meter.errors import DownloadError, NnMeterError
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors import published
from nn_meter.storage import _http, downloads

CLIENTS = 50

Serve = Callable[[socket.socket, bytes], None]


def zipped() -> bytes:
    """One forest, as published predictors are packed."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    rows = np.random.default_rng(0).random((20, 2))
    forest = ensemble.RandomForestRegressor(2, random_state=0).fit(rows, rows.sum(1))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("k/relu.pkl", pickle.dumps(forest))
        archive.writestr("k/fusion_rules.json", "{}")
    return out.getvalue()


def head(length: int | None = None) -> bytes:
    stated = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\n{stated}\r\n".encode()


def good(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(len(content)) + content)


def cuts(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(len(content)) + content[: len(content) // 2])


def cuts_at_once(sock: socket.socket, content: bytes) -> None:
    sock.close()


def claims_less(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(len(content) // 3) + content)


def claims_more(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(len(content) + 1) + content)


def claims_absurdly(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(1 << 60) + content)


def never_ends(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head())
    while True:
        sock.sendall(bytes(1 << 16))


def drips(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head(1 << 19))
    _drip(sock)


def drips_its_head(sock: socket.socket, content: bytes) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    _drip(sock)


def goes_on_for_ever(sock: socket.socket, content: bytes) -> None:
    while True:
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def lies(sock: socket.socket, content: bytes) -> None:
    sock.sendall(b"HTTP/9.9 200 OK\r\n" * 200)


def says_nothing_of_length(sock: socket.socket, content: bytes) -> None:
    sock.sendall(head() + content[:-10])


def _drip(sock: socket.socket) -> None:
    while not _over.wait(0.005):
        sock.sendall(b"x")


_over = threading.Event()
BAD: tuple[Serve, ...] = (
    cuts, cuts_at_once, claims_less, claims_more, claims_absurdly, never_ends, drips, drips_its_head, goes_on_for_ever,
    lies, says_nothing_of_length,
)  # fmt: skip


class Mirror:
    """Serves each request by the next of ``bad``, and well once there are no more."""

    def __init__(self, bad: tuple[Serve, ...], content: bytes) -> None:
        self._left, self._content = list(bad), content
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/k.zip"
        self.asked: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            serve = self._left.pop(0) if self._left else good
            self.asked[serve.__name__] += 1
            self._threads.append(threading.Thread(target=self._serve, args=(sock, serve)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket, serve: Serve) -> None:
        with sock:
            try:
                sock.recv(1 << 16)
                serve(sock, self._content)
            except OSError:  # the client has had enough
                return

    def close(self) -> None:
        _over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for each in self._threads:
            each.join()
        _over.clear()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder, a limit that a test can wait for, and a clock on which it is a second later whenever somebody
    looks: what takes its time is looked at often, and nothing else takes long, however busy the machine is."""
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(limits, "DOWNLOAD_BYTES", limits.Limit(1 << 20, "bytes to fetch"))
    seconds = count().__next__
    for module in (downloads, _http):
        monkeypatch.setattr(module, "monotonic", seconds)
    monkeypatch.setattr(downloads, "_SILENCE_S", LONG_S)
    return tmp_path


@pytest.fixture
def mirror(request: pytest.FixtureRequest) -> Iterator[Mirror]:
    running = Mirror(request.param, zipped())
    yield running
    running.close()


@pytest.mark.parametrize("mirror", [(bad,) for bad in BAD], indirect=True, ids=[bad.__name__ for bad in BAD])
def test_a_mirror_that_does_not_behave_is_given_up_and_leaves_nothing(mirror: Mirror, home: Path) -> None:
    meta = {"name": "k", "version": "1.0"}
    with pytest.raises(NnMeterError):
        published.fetch(mirror.url, meta, home / "published" / "k.zip")
    assert [path.name for path in (home / "published").iterdir()] == [".lock"]
    published.fetch(mirror.url, meta, home / "published" / "k.zip")
    assert list(bundles.load(home / "published" / "k.zip").kinds) == ["relu"]


@pytest.mark.parametrize("mirror", [BAD], indirect=True)
def test_fifty_first_fetches_at_once_end_in_an_error_or_the_predictor(mirror: Mirror, home: Path) -> None:
    errors: list[NnMeterError] = []
    bundle = home / "published" / "k.zip"

    def fetch() -> None:
        try:
            published.fetch(mirror.url, {"name": "k", "version": "1.0"}, bundle)
            assert list(bundles.load(bundle).kinds) == ["relu"]
        except NnMeterError as error:
            errors.append(error)

    clients = [threading.Thread(target=fetch) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert mirror.asked == Counter([*(bad.__name__ for bad in BAD), "good"])
    assert len(errors) == len(BAD), "each but those that met a bad mirror has the predictor"
    assert sum(isinstance(error, DownloadError) for error in errors) >= len(BAD) - 2
    assert sorted(path.name for path in (home / "published").iterdir()) == [".lock", "k.zip", published.CHECKSUMS]


CLIENT = """
import sys
from itertools import count
from pathlib import Path
from nn_meter import limits
from nn_meter.errors import NnMeterError
from nn_meter.predictors import bundle, published
from nn_meter.storage import _http, downloads

limits.DOWNLOAD_BYTES = limits.Limit(1 << 20, "bytes to fetch")
_http.monotonic = downloads.monotonic = count().__next__
downloads._SILENCE_S = 600
url, path = sys.argv[1], Path(sys.argv[2])
try:
    published.fetch(url, {"name": "k", "version": "1.0"}, path)
except NnMeterError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(*bundle.load(path).kinds)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("mirror", [BAD], indirect=True)
def test_fifty_processes_that_fetch_first_at_once_end_in_an_error_or_the_predictor(mirror: Mirror, home: Path) -> None:
    command = [sys.executable, "-c", CLIENT, mirror.url, str(home / "published" / "k.zip")]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    ends = [(*each.communicate(), each.returncode) for each in clients]
    assert mirror.asked == Counter([*(bad.__name__ for bad in BAD), "good"])
    said = [error for _, error, code in ends if code]
    assert len(said) == len(BAD), "each but those that met a bad mirror has the predictor"
    assert all("Error: " in text and "Traceback" not in text for text in said), said
    assert [out for out, _, code in ends if not code] == ["relu\n"] * (CLIENTS - len(BAD))
    assert sorted(path.name for path in (home / "published").iterdir()) == [".lock", "k.zip", published.CHECKSUMS]


@pytest.mark.parametrize("mirror", [(good, drips)], indirect=True)
def test_who_fetches_hears_of_bytes(mirror: Mirror, tmp_path: Path) -> None:
    heard: list[tuple[float, float | None]] = []
    fetched = storage.download(mirror.url, tmp_path / "f", "", lambda *step: heard.append(step[:2]))
    assert heard[-1] == (fetched.size_bytes, fetched.size_bytes)
