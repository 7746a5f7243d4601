"""A process that crashes, hangs or refuses costs its own task and no other, here or across a link."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from waiting import LONG_S, running, until

from nn_meter.errors import BackendError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.measuring import Failure, Worker
from nn_meter.measuring.worker import measuring_cpus
from nn_meter.progress import Progress


def add(a: int, b: int) -> int:
    return a + b


def child_id() -> int:
    return os.getpid()


def affinity() -> set[int]:
    return os.sched_getaffinity(0)


def refuse() -> None:
    raise BackendError("no such kernel")


def break_down() -> None:
    raise ValueError("broken")


def exhaust() -> None:
    raise RuntimeError("std::bad_alloc")


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os.write(2, b"the last words\n")
    os._exit(3)


def hang() -> None:
    time.sleep(1000)


def chatter() -> str:
    print("from Python")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    os.write(1, b"from a descriptor\n")
    return "heard"


def nothing_to_read() -> str:
    return sys.stdin.read()


def count(number: int, *, progress: Progress | None = None) -> int:
    assert progress is not None
    for each in range(number):
        progress(each + 1, number, None, "steps")
    return number


def echo(graph: Graph, models: Mapping[str, bytes]) -> tuple[Graph, bytes]:
    return graph, models["a"]


def test_one_process_works_off_many_tasks() -> None:
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.call(add, 1, b=2) == 3
        first, second = worker.call(child_id), worker.call(child_id)
    assert first == second != os.getpid()


def test_failures_come_back_as_values_and_the_next_task_goes_on() -> None:
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.call(refuse) == Failure("refused", "no such kernel")
        assert worker.call(break_down) == Failure("crash", "ValueError: broken")
        assert worker.call(exhaust) == Failure("memory", "RuntimeError: std::bad_alloc")
        crashed = worker.call(die, signal.SIGSEGV)
        assert isinstance(crashed, Failure)
        assert (crashed.kind, crashed.reason[:27]) == ("crash", "the process died of SIGSEGV")
        killed = worker.call(die, signal.SIGKILL)
        assert isinstance(killed, Failure)
        assert killed.kind == "memory"
        assert worker.call(leave) == Failure("crash", "the process ended with exit status 3; it said: the last words")
        assert worker.call(add, 2, 2) == 4


def test_a_hanging_process_is_stopped_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(timeout_s=1) as worker:
        assert worker.call(hang) == Failure("timeout", "no result within 1 s; the process was stopped")
        monkeypatch.setattr(worker, "_timeout_s", LONG_S)  # to be begun and to add may take longer than a second
        assert worker.call(add, 2, 2) == 4


def test_what_a_runtime_prints_is_no_answer_and_what_it_reads_is_no_request() -> None:
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.call(chatter) == "heard"
        assert worker.call(nothing_to_read) == ""
        assert worker.call(add, 2, 2) == 4


def test_progress_is_heard_here() -> None:
    heard: list[tuple[object, ...]] = []
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.call(count, 2, progress=lambda *told: heard.append(told)) == 2
    assert heard == [(1, 2, None, "steps"), (2, 2, None, "steps")]


def test_graphs_and_models_cross() -> None:
    b = GraphBuilder("g")
    graph = b.graph(b.op("Relu", b.input((1, 3))))
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.call(echo, graph, {"a": b"\x00\xff"}) == (graph, b"\x00\xff")


def test_a_function_that_cannot_be_imported_elsewhere_is_refused() -> None:
    with Worker(timeout_s=LONG_S) as worker, pytest.raises(TypeError, match="put the task into a module"):
        worker.call(lambda: None)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_a_measuring_process_stays_on_as_many_processors_as_the_runtime_has_threads() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    cpus = measuring_cpus(1)
    assert cpus == {allowed[-1]}
    with Worker(timeout_s=LONG_S, processors=1) as worker:
        assert worker.call(affinity) == cpus
    assert measuring_cpus(len(allowed)) == set(allowed)
    assert measuring_cpus(len(allowed) + 1) is None
    assert measuring_cpus(0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_process_dies_with_a_killed_parent_whose_script_has_no_guard(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    (tmp_path / "task.py").write_text(
        "import os, pathlib, time\n"
        "def hang(note: str) -> None:\n"
        "    pathlib.Path(note).with_suffix('.part').write_text(str(os.getpid()))\n"
        "    os.rename(pathlib.Path(note).with_suffix('.part'), note)\n"
        "    time.sleep(1000)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(
        "from nn_meter.measuring import Worker\n"
        "from task import hang\n"
        f"Worker(timeout_s=1000).call(hang, {str(note)!r})\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": source}) as parent:
        until(note.exists)
        child = int(note.read_text())
        parent.kill()
    until(lambda: not running(child))
