"""Builds, evaluations, detections and fits that are killed and gone on with: nothing is lost, twice, or left running.

    python -m fuzz.kills [--build 100] [--evaluate 50] [--detect 50] [--fit 20] [--ssh 10] [--fleet 10]

They run on the pretended runtime ``replay``. Each kill comes after a random time; then the rows of the journals are
held against those before. ``ssh`` is a build across a link to a server of our own on loopback: before every other kill
its end of the link is killed, and the build goes on; ``fleet`` is one that two links share. The last session of each is
let end. After that each but these two runs into files that may not grow, as on a full disk, and beside another of its
name. Exit code 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

import loopback  # noqa: E402  of the tests
from journals import Rows, done, rows  # noqa: E402
from loopback import Loopback  # noqa: E402

_TAG = "NN_METER_KILLS"
_LONG_S = 3600.0
"""What has not come to its end by then never does, however busy the machine is."""

_REFUSED = 2
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Threads that wait for each other on processors that others use took ten times as long to train."""

_WAITS = (0.5, 8.0)
"""A kill comes after so many times what a command takes that does next to nothing, on the machine as it is then."""

_TRIES = 5
"""So many sessions for each kill at most, where they end before it comes."""

_TRAINED = 40
"""In so many times what a command takes that does next to nothing a build has enough networks to train on, or is given
more time, as it asks."""

_TOO_FEW = "give the build a larger budget, with --resume"

_LINKED = 30
"""In so many times what a command takes that does next to nothing a session that has a device asks for it."""

_GRACE_S = 600.0
"""What a session started has ended by then after it was killed, or never does, however busy the machine is."""

_FAR = ("ssh", "fleet")
"""Jobs across links."""

_FULL_BYTES = (0, 8 << 10, 32 << 10, 128 << 10)
"""Files may grow to so much on the pretended full disks: to nothing, and to more and less than an empty journal."""


@dataclass(frozen=True)
class Job:
    """One command to kill. ``command`` says it by whether something is there to go on with; ``journals`` are what it
    keeps; ``made`` is there in the end. A budget of ``last_s`` seconds ends it where ``command`` alone would not."""

    name: str
    command: Callable[[bool], list[str]]
    journals: tuple[Path, ...]
    made: Path
    last_s: float = 0.0
    cut: Callable[[float], int] | None = None
    """Kills the other end of a link so many seconds after it is there; how many processes that were."""

    def words(self, last_s: float = 0.0) -> list[str]:
        """Its command as things are, with a budget of ``last_s`` if that is any."""
        budget = ["--budget", f"{last_s:.0f}s"] if last_s else []
        return [*self.command(any(journal.exists() for journal in self.journals)), *budget]


@dataclass
class Tally:
    """What was seen of one job."""

    kills: int = 0
    cuts: int = 0
    done: int = 0
    refused: int = 0
    held: int = 0
    wrong: list[str] = field(default_factory=list)


def running(tag: str) -> list[int]:
    """Processes that ``tag`` was handed to."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_TAG}={tag}".encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


class Sessions:
    """Runs commands of ``nn-meter`` with a data folder of their own."""

    def __init__(self, folder: Path, path: str = "", tag: str = "") -> None:
        self.folder = folder
        self.home = folder / "home"
        self.tag = tag or f"{os.getpid()}-{time.time_ns()}"
        self._paced, self._pace_s = -math.inf, 0.0
        self._env = {
            **os.environ, "NN_METER_HOME": str(self.home), _TAG: self.tag, **_ONE_THREAD,
            "PYTHONPATH": str(ROOT / "src"), "PATH": f"{path}{os.environ['PATH']}",
        }  # fmt: skip

    @property
    def pace_s(self) -> float:
        """Seconds of a command that does next to nothing, asked anew every minute."""
        now = time.monotonic()
        if now - self._paced > 60:
            self.start(["--list-backends"]).communicate()
            self._paced, self._pace_s = time.monotonic(), time.monotonic() - now
        return self._pace_s

    def start(self, command: Sequence[str], limit: int | None = None) -> subprocess.Popen[str]:
        """Start a session; files of more than ``limit`` bytes cannot be written."""
        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            [sys.executable, "-m", "nn_meter", *command], env=self._env, cwd=self.folder, preexec_fn=limited,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def left(self) -> list[int]:
        """What still runs after some grace."""
        end = time.monotonic() + _GRACE_S
        while (found := running(self.tag)) and time.monotonic() < end:
            time.sleep(0.02)
        return found


def jobs(sessions: Sessions) -> dict[str, Job]:
    """The four."""
    folder, home = sessions.folder, sessions.home
    models = sorted((ROOT / "tests" / "corpus" / "models").glob("[mrt]*.onnx"))
    table = folder / "measured.csv"
    every = sorted((ROOT / "tests" / "corpus" / "models").glob("*.onnx"))
    lines = [f"{path},{number + 1},phone,tflite" for number, path in enumerate(every)]
    table.write_text("model,latency_ms,device,runtime\n" + "\n".join(lines))
    build, detect = home / "builds" / "k@1.0.sqlite", home / "detections" / "replay.sqlite"
    resume = {True: ["--resume"], False: []}
    return {
        "build": Job(
            "build",
            lambda there: ["build", "--backend", "replay", "--name", "k", "--budget", "1h", *resume[there]],
            (build, build.with_suffix(".rules.sqlite"), build.with_suffix(".fits.sqlite")),
            home / "registered" / "k@1.zip",
            max(12.0, _TRAINED * sessions.pace_s),
        ),
        "evaluate": Job(
            "evaluate",
            lambda there: ["evaluate", "--backend", "replay", "--rounds", "4", "--resume", "e.sqlite",
                           "--json", "e.json", *map(str, models)],
            (folder / "e.sqlite",),
            folder / "e.json",
        ),
        "detect": Job(
            "detect",
            lambda there: ["detect-rules", "--backend", "replay", "--budget", "1h", "-o", "r.json", *resume[there]],
            (detect,),
            folder / "r.json",
            1.0,
        ),
        "fit": Job("fit", lambda there: ["fit", str(table), "--name", "f"], (), home / "registered" / "f@1.zip"),
    }  # fmt: skip


def far_job(sessions: Sessions, server: Loopback, name: str) -> Job:
    """A build on the device at the other end of ``server``, or on two that share it."""
    build = sessions.home / "builds" / f"{name}@1.0.sqlite"
    addresses = [server.address, *([server.address.replace("127.0.0.1", "localhost")] if name == "fleet" else ())]
    where = [word for address in addresses for word in ("--device", address)]
    resume = {True: ["--resume"], False: []}

    rules = sessions.folder / "rules.json"
    rules.write_text("{}")  # detecting them could take all of the time that the last sessions have

    def cut(after_s: float) -> int:
        end = time.monotonic() + _LINKED * sessions.pace_s
        while not server.sessions() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(after_s)
        found = server.sessions()
        for each in found:
            os.kill(each, signal.SIGKILL)
        return len(found)

    return Job(
        name,
        lambda there: ["build", "--backend", "replay", "--name", name, "--budget", "1h", *where, "--rules", str(rules),
                       *resume[there]],
        (build, build.with_suffix(".fits.sqlite")),
        sessions.home / "registered" / f"{name}@1.zip",
        max(40.0, _TRAINED * sessions.pace_s),
        cut,
    )  # fmt: skip


def killed(job: Job, sessions: Sessions, kills: int, draw: random.Random, tally: Tally) -> None:
    """Kill ``job`` so often, and let it end; a session that ends before its kill is none of them. Where there is a link
    it goes on until one was cut: a slow machine may take longer to connect than a cut waits."""
    before: dict[Path, Rows] = {}
    last_s = job.last_s
    for number in range(_TRIES * kills):
        if tally.kills >= kills and (job.cut is None or tally.cuts):
            break
        # of a build the last kills meet its training
        session, cuts = sessions.start(job.words(last_s if tally.kills > 0.7 * kills else 0.0)), 0
        if job.cut is not None and number % 2:
            cuts = job.cut(sessions.pace_s * draw.uniform(*_WAITS))
            tally.cuts += bool(cuts)
        if not _ended(session, sessions.pace_s * draw.uniform(*_WAITS)):
            session.kill()
        _, said = session.communicate()
        tally.kills += session.returncode == -signal.SIGKILL
        if _TOO_FEW in said:
            last_s *= 2
        elif not (cuts and session.returncode == 1 and "was cut" in said):  # as it may, where nobody answered yet
            _judge(session.returncode, said, (0, -signal.SIGKILL), tally)
        if left := sessions.left():
            tally.wrong.append(f"left running: {left}")
        before = _compared(job, before, tally)
        if session.returncode == 0 and job.made.exists():
            _forget(job)
            before = {}
    _let_end(job, sessions, tally)
    before = _compared(job, before, tally)
    tally.done = sum(state != "pending" for found in before.values() for _, state, _ in found.values())
    if not job.made.exists():
        tally.wrong.append(f"{job.made.name} is not there in the end")


def _let_end(job: Job, sessions: Sessions, tally: Tally) -> None:
    """Go on with it to its end, with a larger budget where it asks for one."""
    last_s, said = job.last_s, _TOO_FEW
    while _TOO_FEW in said and last_s < _LONG_S:
        session = sessions.start(job.words(last_s))
        _, said = session.communicate(timeout=_LONG_S)
        last_s *= 2
    _judge(session.returncode, said, (0,), tally)
    if left := sessions.left():
        tally.wrong.append(f"left running: {left}")


def _ended(session: subprocess.Popen[str], timeout_s: float) -> bool:
    try:
        session.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _judge(code: int, said: str, wanted: tuple[int, ...], tally: Tally) -> None:
    if code not in wanted or "Traceback" in said or "the fault is nn-meter's" in said:
        tally.wrong.append(f"ended with {code}: {said[-500:]}")


def _compared(job: Job, before: dict[Path, Rows], tally: Tally) -> dict[Path, Rows]:
    now = {journal: rows(journal) for journal in job.journals}
    for journal, found in before.items():
        for key, row in found.items():
            if key not in now[journal]:
                tally.wrong.append(f"{journal.name} lost the row {key[:12]}")
            elif row[1] != "pending" and now[journal][key] != row:
                tally.wrong.append(f"{journal.name} has another result for the row {key[:12]}")
    return now


def _forget(job: Job) -> None:
    for path in (job.made, *(Path(f"{journal}{end}") for journal in job.journals for end in ("", "-wal", "-shm"))):
        path.unlink(missing_ok=True)


def on_a_full_disk(job: Job, sessions: Sessions, tally: Tally) -> None:
    """Where files may not grow a session ends with an error that says so, or, where all have room, well; without the
    limit what is there already is gone on with."""
    for limit in _FULL_BYTES:
        _forget(job)
        session = sessions.start(job.words(job.last_s), limit=limit)
        _, said = session.communicate(timeout=_LONG_S)
        _judge(session.returncode, said, (0, _REFUSED), tally)
        tally.refused += session.returncode == _REFUSED and _TOO_FEW not in said
        if job.made.exists() != (session.returncode == 0):
            tally.wrong.append(f"with {limit} bytes ended with {session.returncode}, {job.made.name} says otherwise")
        before = _compared(job, {}, tally)
        if session.returncode:
            _let_end(job, sessions, tally)
            _compared(job, before, tally)
    if not tally.refused:
        tally.wrong.append("no full disk was noticed")


def beside_another(job: Job, sessions: Sessions, tally: Tally) -> None:
    """A second session of the name is refused while the first goes on; where no journal is held, both end well."""
    _forget(job)
    first = sessions.start(job.words())
    end = time.monotonic() + _LONG_S
    while job.journals and not done(job.journals[0]) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    second = sessions.start(job.words())
    _, said = second.communicate(timeout=_LONG_S)
    held = bool(job.journals) and second.returncode == _REFUSED and "locked" in said
    tally.held += held
    if not held:  # as it must be but where nothing is to hold, or the first ended meanwhile
        _judge(second.returncode, said, () if job.journals and first.poll() is None else (0,), tally)
    if job.last_s:
        first.kill()
        first.communicate()
    else:
        _, said = first.communicate(timeout=_LONG_S)
        _judge(first.returncode, said, (0,), tally)
    if left := sessions.left():
        tally.wrong.append(f"left running: {left}")


def leftovers(sessions: Sessions) -> Iterator[str]:
    """Half-written things that sessions left."""
    for path in sessions.folder.rglob(".nn-meter-stage-*"):
        yield str(path.relative_to(sessions.folder))


def campaign(counts: dict[str, int], folder: Path, seed: int = 0) -> dict[str, Tally]:
    """Each job, killed as often as ``counts`` says."""
    sessions, draw = Sessions(folder), random.Random(seed)
    tallies = {}
    for name, job in jobs(sessions).items():
        if counts.get(name):
            tally = tallies[name] = Tally()
            killed(job, sessions, counts[name], draw, tally)
            on_a_full_disk(job, sessions, tally)
            beside_another(job, sessions, tally)
    for name in _FAR:
        if not counts.get(name):
            continue
        tally = tallies[name] = Tally()
        far = {"PYTHONPATH": str(ROOT / "src"), _TAG: sessions.tag, **_ONE_THREAD}
        with loopback.sshd(folder / f"sshd_{name}", far) as server:
            sessions = Sessions(folder, f"{server.bin}:", sessions.tag)
            killed(far_job(sessions, server, name), sessions, counts[name], draw, tally)
        if not tally.cuts:
            tally.wrong.append("no link was cut")
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser("python -m fuzz.kills", description=(__doc__ or "").splitlines()[0])
    far = 0 if loopback.MISSING else 10
    for name, count in (("build", 100), ("evaluate", 50), ("detect", 50), ("fit", 20), *((name, far) for name in _FAR)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tallies = campaign(vars(options), Path(folder), options.seed)
        stages = list(leftovers(Sessions(Path(folder))))
    for name, tally in tallies.items():
        beside = "a second one refused" if tally.held else "a second one ended well"
        near = f"{tally.refused} of {len(_FULL_BYTES)} full disks told, {beside}"
        more = f"{tally.cuts} cuts" if name in _FAR else near
        print(f"{name}: {tally.kills} kills, {tally.done} rows done in the end, {more}, {len(tally.wrong)} wrong")
        for text in dict.fromkeys(tally.wrong):
            print(f"  {text}")
    print(f"{len(stages)} half-written things left: {', '.join(stages[:3])}")
    return 1 if any(tally.wrong for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
