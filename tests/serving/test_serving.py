"""``nn-meter serve`` over real HTTP: answers, refusals, and what is left after the worst uploads."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import browser
import jsonschema
import pytest
from waiting import LONG_S, until

from nn_meter.predictors.bundle import save
from nn_meter.predictors.catalogue import load_predictor

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "small_net.onnx").read_bytes()
SCHEMA = json.loads((ROOT / "docs" / "schema.json").read_text())
XEON, ZEN = "xeoncpu_onnxruntime132", "zen4cpu_onnxruntime132"


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    token: str
    folder: Path

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def predict(self, model: bytes = EXAMPLE, query: str = "name=small.onnx") -> tuple[int, dict[str, Any]]:
        status, body, _ = self.ask("POST", f"/predict?{query}", model)
        return status, json.loads(body)

    def workers(self) -> list[int]:
        """Its processes."""
        found = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(each) for path in found for each in path.read_text().split()]

    def uploads(self) -> list[Path]:
        return [*self.folder.glob("nn_meter_upload_*")]


@contextmanager
def serving(folder: Path, *options: str, before: Callable[[], None] | None = None) -> Iterator[Server]:
    """A server of its own, ended at the end; requests may take their time, but where ``options`` say otherwise."""
    command = [sys.executable, "-m", "nn_meter", "serve", "--port", "0", "--folder", str(folder / "serve")]
    command += ["--max-seconds", f"{LONG_S:.0f}", *options]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "NN_METER_HOME": str(folder)},
            preexec_fn=before,
        )  # fmt: skip
    assert server.stdout is not None
    try:
        said = server.stdout.readline().decode()
        assert said.startswith("serving on "), (said, (folder / "server.log").read_text())
        address = said.split()[-1]
        token = address.partition("token=")[2]
        yield Server(int(address.split(":")[-1].partition("/")[0]), server.pid, token, folder / "serve")
        assert server.poll() is None, "the server has ended"
    finally:
        server.terminate()
        server.wait(LONG_S)
        server.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("home"), "--max-mb", "8") as found:
        yield found
        until(lambda: not found.uploads())


def test_a_model_is_answered_and_kept(server: Server) -> None:
    status, told = server.predict(query=f"name=small.onnx&predictor={ZEN}&predictor={XEON}")
    assert status == 200
    assert [each["predictor"] for each in told["predictions"]] == [ZEN, XEON]
    jsonschema.validate({key: told[key] for key in ("schema_version", "predictions", "failed")}, SCHEMA)
    status, page, _ = server.ask("GET", told["page"])
    assert (status, b'id="page"' in page) == (200, True)
    kept = json.loads(server.ask("GET", f"/results/{told['id']}/json")[1])
    assert kept["predictions"] == told["predictions"]
    latest = json.loads(server.ask("GET", "/history")[1])["answers"][0]
    assert (latest["id"], latest["model"]) == (told["id"], "small.onnx")
    assert b"small.onnx" in server.ask("GET", "/")[1]


def test_it_answers_what_the_command_line_does(server: Server) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "nn_meter", "predict", "-q", "--predictor", ZEN, "examples/small_net.onnx"],
        cwd=ROOT,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    told = server.predict(query=f"predictor={ZEN}")[1]
    assert f": {told['predictions'][0]['latency_ms']} ms" in said


def test_the_shape_is_the_askers(server: Server) -> None:
    told = server.predict(query="input_shape=1,3,64,64")[1]
    assert next(iter(told["predictions"][0]["inputs"].values()))["shape"] == [1, 3, 64, 64]


_CONV = {"type": "Conv", "attr": {"kernel_shape": [3], "strides": [1]}}
_SHAPES = {"input_shape": [[1, 8, 8, 4]], "output_shape": [[1, 8, 8, 4]]}
UNFITTING = json.dumps({"a": {"attr": _CONV | _SHAPES, "inbounds": [], "outbounds": []}}).encode()
"""nn-Meter's graph of a convolution over an axis less than its images have."""


@pytest.mark.parametrize(
    ("model", "query", "status", "why"),
    [
        (b"", "", 422, "no body"),
        (b"this is no model", "name=a.bin", 422, "a.bin: not recognised as a model"),
        (EXAMPLE[: len(EXAMPLE) // 2], "name=a.onnx", 422, "a.onnx"),
        (b"PK\x03\x04" + b"\0" * 100, "name=a.keras", 422, "reading a file of Keras or PyTorch runs it"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "name=a.h5", 422, "reading a file of Keras or PyTorch runs it"),
        (UNFITTING, "name=a.json", 422, "a node has not the inputs or dimensions that its operator works on"),
        (EXAMPLE, "predictor=nobody", 422, "there is no predictor 'nobody' here"),
        (EXAMPLE, "predictor=/etc/passwd", 422, "there is no predictor '/etc/passwd' here"),
        (EXAMPLE, "input_shape=1,x", 422, "write it as 1,3,224,224"),
        (b"\0" * (9 << 20), "", 413, "more than 8,388,608 bytes"),
    ],
)
def test_what_cannot_be_answered_says_why(server: Server, model: bytes, query: str, status: int, why: str) -> None:
    found, told = server.predict(model, query)
    assert (found, why in told["error"]) == (status, True), told
    assert "upload_" not in told["error"]


def test_who_sends_a_form_hears_how_to_send_a_file(server: Server) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body, _ = server.ask("POST", "/predict?name=small.onnx", b"--x\r\n\r\n" + EXAMPLE + b"\r\n--x--", form)
    assert (status, "send the file as it is: curl --data-binary @" in json.loads(body)["error"]) == (422, True)
    assert server.predict()[0] == 200


def test_a_name_leads_out_of_no_folder(server: Server) -> None:
    status, told = server.predict(query="name=..%2F..%2F..%2Fetc%2Fevil%3Cscript%3E")
    assert (status, told["predictions"][0]["model"]) == (200, "_.._.._etc_evil_script_")


def weighty(size: int) -> Iterator[bytes]:
    """An ONNX file of so many bytes, all but some hundred of them one weight that is multiplied by."""
    from onnx import ModelProto, TensorProto, helper

    def field(number: int, length: int) -> bytes:
        found = bytes([number << 3 | 2])
        while length > 127:
            found, length = found + bytes([length & 127 | 128]), length >> 7
        return found + bytes([length])

    columns = (size - 1024) // 4096 - 1
    ends = [helper.make_tensor_value_info(name, 1, [1, each]) for name, each in (("x", 1024), ("y", columns))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:])
    raw = 4096 * columns
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024, columns])
    weight_head = weight.SerializeToString() + field(9, raw)
    graph_head = graph.SerializeToString() + field(5, len(weight_head) + raw) + weight_head
    model = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString()
    yield model + field(7, len(graph_head) + raw) + graph_head
    block = bytes(1 << 20)
    for start in range(0, raw, len(block)):
        yield block[: raw - start]


def test_two_gigabytes_are_streamed_and_held_by_nobody(tmp_path: Path) -> None:
    def held_mb(pid: int) -> float:
        said = Path(f"/proc/{pid}/status").read_text()
        return int(said.partition("VmHWM:")[2].split()[0]) / 1024

    with serving(tmp_path) as server:
        assert server.predict()[0] == 200
        before_mb = max(map(held_mb, (server.pid, *server.workers())))
        status, body, _ = server.ask("POST", "/predict?name=heavy.onnx", weighty(2 << 30))
        told = json.loads(body)
        assert status == 200, told
        assert told["predictions"][0]["size"]["parameters"] == 1024 * ((2**31 - 1024) // 4096 - 1)
        assert max(map(held_mb, (server.pid, *server.workers()))) < before_mb + 64
        assert server.uploads() == []
        status, body, _ = server.ask("POST", "/predict", weighty((2 << 30) + (8 << 20)))
        assert (status, b"more than 2,147,483,648 bytes" in body) == (413, True)


def test_no_other_site_may_ask(server: Server) -> None:
    assert server.ask("GET", "/", headers={"host": "evil.example"})[0] == 403
    assert server.ask("POST", "/predict", EXAMPLE, {"origin": "https://evil.example"})[0] == 403
    own = f"127.0.0.1:{server.port}"
    assert server.ask("POST", "/predict", EXAMPLE, {"origin": f"http://{own}"})[0] == 200


def test_uploads_that_break_off_leave_nothing(server: Server) -> None:
    for part in (0, 1, len(EXAMPLE) // 2, len(EXAMPLE) - 1):
        with socket.create_connection(("127.0.0.1", server.port)) as cut:
            head = f"POST /predict?name=a.onnx HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(EXAMPLE)}\r\n\r\n"
            cut.sendall(head.encode() + EXAMPLE[:part])
    assert server.predict()[0] == 200  # by then it has heard of those before
    until(lambda: not server.uploads())


def test_a_killed_worker_costs_one_request_at_most(server: Server) -> None:
    server.predict()
    old = server.workers()
    with ThreadPoolExecutor(50) as clients:
        asked = [clients.submit(server.predict) for _ in range(100)]
        until(lambda: sum(each.done() for each in asked) >= 10)
        os.kill(old[0], signal.SIGKILL)
        found = [each.result() for each in asked]
    lost = [told["error"] for status, told in found if status != 200]
    assert len(lost) <= 1
    assert all("killed" in each for each in lost)
    until(lambda: server.predict()[0] == 200 and old[0] not in server.workers())  # once it gets another request


def test_more_than_may_wait_are_sent_away(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "1") as server, ThreadPoolExecutor(151) as clients:
        first = clients.submit(server.predict)
        until(server.workers)  # it waits no more
        found = [*clients.map(lambda _: server.predict(), range(150)), first.result()]
        assert {status for status, _ in found} <= {200, 503}
        assert sum(status == 200 for status, _ in found) >= 101
        assert server.predict()[0] == 200


def test_a_model_that_takes_too_long_or_too_much_takes_down_its_request_alone(tmp_path: Path) -> None:
    node = {"attr": {"type": "Relu", "attr": {}, "input_shape": [[1, 8]], "output_shape": [[1, 8]]}}
    long = json.dumps({str(n): {**node, "inbounds": [str(n - 1)] if n else []} for n in range(100_000)}).encode()
    with serving(tmp_path, "--max-seconds", "0.001", "--workers", "1") as server:
        status, told = server.predict(long, "name=long.json")  # which takes too long whoever else is slow
        assert (status, "the process was stopped" in told["error"]) == (504, True)
    (tmp_path / "small").mkdir()
    with serving(tmp_path / "small", "--max-memory-mb", "400", "--workers", "1") as server:
        wide = b"x" * (60 << 20) + "\N{GRINNING FACE}".encode()  # with it each letter takes four bytes
        status, told = server.predict(b'{"a": {"attr": {"type": "' + wide + b'"}}}')
        assert status == 413, told
        assert server.predict()[0] == 200


def test_where_the_system_gives_less_memory_than_a_request_may_take_it_is_answered(tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    with serving(tmp_path, before=small) as server:
        assert server.predict()[0] == 200


def test_what_a_killed_server_left_is_gone_after_a_day(tmp_path: Path) -> None:
    from nn_meter.serving.app import Limits, application

    for name in ("nn_meter_upload_old", "nn_meter_upload_new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_bytes(EXAMPLE)
    os.utime(tmp_path / "nn_meter_upload_old", times=(0, 0))
    application(tmp_path, Limits(), frozenset())
    assert [each.name for each in tmp_path.glob("nn_meter_upload_*")] == ["nn_meter_upload_new"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """No file may grow above a megabyte there."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    with serving(tmp_path, before=small) as server:
        status, told = server.predict(b"\0" * (4 << 20))
        assert (status, "no room for the upload" in told["error"]) == (507, True)
        assert server.predict()[0] == 200
        assert server.uploads() == []


def no_room() -> None:
    """No file may grow above what the model needs, which the history does after some answers."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(EXAMPLE) + 100, len(EXAMPLE) + 100))


def test_where_the_history_has_no_room_the_answer_is_given_all_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, before=no_room) as server:
        found = [server.predict() for _ in range(len(EXAMPLE) // 10_000 + 2)]
        assert {status for status, _ in found} == {200}
        told = found[-1][1]
        assert (told["id"], "the history cannot be used" in told["not_kept"]) == (None, True)
        assert told["predictions"][0]["latency_ms"] > 0


def test_elsewhere_a_token_is_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--allow-host", "models.example") as server:
        assert len(server.token) > 20
        assert server.ask("GET", "/")[0] == 401
        assert server.ask("POST", "/predict", EXAMPLE, {"authorization": "Bearer wrong"})[0] == 401
        assert server.ask("POST", "/predict", EXAMPLE, {"authorization": f"Bearer {server.token}"})[0] == 200
        status, _, headers = server.ask("GET", f"/?token={server.token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"].partition(";")[0]
        assert server.ask("GET", "/", headers={"cookie": cookie})[0] == 200
        status, _, headers = server.ask("GET", f"//evil.example/?token={server.token}", headers={"cookie": "token=old"})
        assert (status, headers["location"]) == (303, "/evil.example/")
        own = {"authorization": f"Bearer {server.token}", "cookie": "token=old"}
        assert server.ask("GET", "/", headers={**own, "host": "models.example"})[0] == 200
        assert server.ask("GET", "/", headers={**own, "host": "evil.example"})[0] == 403


def test_a_token_may_hold_any_sign(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--token", "a&b #c") as server:
        assert server.ask("GET", f"/?token={server.token}")[0] == 303


def test_the_gallery_shows_models_by_every_predictor(tmp_path: Path) -> None:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "one.onnx").write_bytes(EXAMPLE)
    (tmp_path / "models" / "sub" / "one.onnx").write_bytes(EXAMPLE)
    (tmp_path / "models" / "bad.onnx").write_bytes(b"no model")
    with serving(tmp_path, "--gallery", str(tmp_path / "models")) as server:
        names = [each["name"] for each in json.loads(server.ask("GET", "/predictors")[1])["predictors"]]
        assert len(names) > 50
        until(lambda: b"2 of 3 models" in server.ask("GET", "/gallery")[1])
        page = server.ask("GET", "/gallery")[1]
        assert page.count(b">one.onnx<") == 2
        assert all(name.encode() in page for name in names)
    with serving(tmp_path) as server:  # of what another showed nothing is left
        page = server.ask("GET", "/gallery")[1]
        assert (b"0 of 0 models" in page, b"one.onnx" in page) == (True, False)


def test_the_default_answers_here_too_where_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "mine.zip")
    save(load_predictor(ZEN), Path(file))
    monkeypatch.setenv("NN_METER_PREDICTOR", file)
    with serving(tmp_path) as server:
        listed = json.loads(server.ask("GET", "/predictors")[1])["predictors"]
        assert [each["name"] for each in listed if each["default"]] == [file]
        status, told = server.predict()
        assert (status, [each["predictor"] for each in told["predictions"]]) == (200, [ZEN])


def test_openapi_names_every_route_and_status(server: Server) -> None:
    told = json.loads(server.ask("GET", "/openapi.json")[1])
    assert set(told["paths"]) == {
        "/predict", "/predictors", "/history", "/results/{id}", "/results/{id}/json", "/gallery",
    }  # fmt: skip
    answer = told["components"]["schemas"]["answer"]
    jsonschema.Draft202012Validator(answer).validate(server.predict()[1])
    assert server.ask("GET", "/results/none")[0] == 404


def drop(page: browser.Page, server: Server) -> None:
    """Have the example predicted as a person does."""
    page.open(f"http://127.0.0.1:{server.port}/")
    found = page.ask("DOM.getDocument")["root"]["nodeId"]
    field = page.ask("DOM.querySelector", nodeId=found, selector="#file")["nodeId"]
    page.ask("DOM.setFileInputFiles", nodeId=field, files=[str(ROOT / "examples" / "small_net.onnx")])
    page.click("button[type=submit]")


def test_an_upload_that_drips_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nn_meter.serving import app

    monkeypatch.setattr(app, "DOWNLOAD_START_S", 0.0)
    monkeypatch.setattr(app, "DOWNLOAD_BYTES_PER_S", 1 << 40)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [(b"host", b"h")],
    }  # fmt: skip
    asyncio.run(app.application(tmp_path, app.Limits(), frozenset())(scope, receive, send))
    assert sent[0]["status"] == 408
    assert list(tmp_path.glob("nn_meter_upload_*")) == []


needs_chromium = pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed")


@needs_chromium
def test_where_the_history_has_no_room_the_page_tells_the_answer(tmp_path: Path) -> None:
    with serving(tmp_path, before=no_room) as server, browser.opened(tmp_path / "profile") as page:
        while server.predict()[1]["id"]:
            pass
        drop(page, server)
        page.wait("document.querySelector('#said').textContent.includes('the history cannot be used')")
        assert " ms by " in page.texts("#said")[0]


@needs_chromium
def test_a_person_drops_a_model_and_sees_its_page(server: Server, tmp_path: Path) -> None:
    with browser.opened(tmp_path / "profile") as page:
        drop(page, server)
        page.wait("document.querySelector('#answer h1') !== null")
        assert page.texts("#answer h1") == ["small_net.onnx"]
        page.open(f"http://127.0.0.1:{server.port}/")
        page.click("button[type=submit]")
        assert page.texts("#said") == ["Choose a model first."]
        assert page.errors == []
