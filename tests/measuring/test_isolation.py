"""A child that crashes, hangs or refuses costs its own task and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nn_meter.errors import BackendError
from nn_meter.measuring import Failure, Worker, measuring_cpus


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
    os._exit(3)


def hang() -> None:
    time.sleep(1000)


def test_one_child_works_off_many_tasks() -> None:
    with Worker(timeout_s=30) as worker:
        assert worker.call(add, 1, b=2) == 3
        first, second = worker.call(child_id), worker.call(child_id)
    assert first == second != os.getpid()


def test_failures_come_back_as_values_and_the_next_task_goes_on() -> None:
    with Worker(timeout_s=30) as worker:
        assert worker.call(refuse) == Failure("refused", "no such kernel")
        assert worker.call(break_down) == Failure("crash", "ValueError: broken")
        assert worker.call(exhaust) == Failure("memory", "RuntimeError: std::bad_alloc")
        assert worker.call(die, signal.SIGSEGV) == Failure("crash", "the process died of SIGSEGV")
        killed = worker.call(die, signal.SIGKILL)
        assert isinstance(killed, Failure)
        assert killed.kind == "memory"
        assert worker.call(leave) == Failure("crash", "the process ended with exit status 3")
        assert worker.call(add, 2, 2) == 4


def test_a_hanging_child_is_stopped_and_replaced() -> None:
    with Worker(timeout_s=2) as worker:
        assert worker.call(hang) == Failure("timeout", "no result within 2 s; the process was stopped")
        assert worker.call(add, 2, 2) == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_the_child_runs_where_it_is_told_to() -> None:
    core = min(os.sched_getaffinity(0))
    with Worker(timeout_s=30, affinity=[core]) as worker:
        assert worker.call(affinity) == {core}


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from nn_meter.measuring import Worker\n"
        "def hang(note):\n"
        "    pathlib.Path(note).with_suffix('.part').write_text(str(os.getpid()))\n"
        "    os.rename(pathlib.Path(note).with_suffix('.part'), note)\n"
        "    time.sleep(1000)\n"
        "if __name__ == '__main__':\n"
        f"    Worker(timeout_s=1000).call(hang, {str(note)!r})\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": source}) as parent:
        until(note.exists)
        child = int(note.read_text())
        parent.kill()
    until(lambda: not running(child))


def until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.02)


def running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_a_measuring_child_stays_on_as_many_processors_as_the_runtime_has_threads() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    cpus = measuring_cpus(1)
    assert cpus == {allowed[-1]}
    with Worker(timeout_s=30, affinity=cpus) as worker:
        assert worker.call(affinity) == cpus
    assert measuring_cpus(len(allowed)) == set(allowed)
    assert measuring_cpus(len(allowed) + 1) is None
    assert measuring_cpus(0) is None
