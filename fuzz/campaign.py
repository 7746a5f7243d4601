"""Kinds by turns, stretch after stretch; what was found is kept, and a campaign that was stopped goes on."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

from . import beside, files, models
from .answers import warm
from .sandbox import Found, Target, drawn, serve, smaller

KINDS: Mapping[str, Callable[[Path], Target]] = {
    "onnx": models.Onnx,
    "operators": models.Operators,
    "ir": models.Ir,
    "tflite": models.TfLite,
    "tensorflow": models.TensorFlow,
    "keras": models.Keras,
    "bundle": files.Bundles,
    "bundle-folder": files.BundleFolders,
    "rules": files.Rules,
    "meta": files.Metas,
    "predictor-meta": files.PredictorMetas,
    "registry": files.Registry,
    "pickle": files.Pickles,
    "fetched": files.Fetched,
    "journal": files.Journals,
    "csv": files.Tables,
    "wide-csv": beside.Wide,
    "sheet": beside.Sheets,
    "baseline": beside.Baselines,
    "devices": beside.Devices,
    "printed": beside.Printed,
}
"""What is fed, by the name that the command line gives it. Each gets a folder for its files."""

STRETCH_S = 30.0
"""Of one kind, before the next has its turn: long beside what it takes to begin one."""

STATE = "state.json"

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where files of inputs lie, if there is such a place: on a disk that each has to reach it is ten a second."""


@dataclass
class Score:
    """Of one kind: the next input, what came of those before, the seconds of processor time that they took."""

    index: int = 0
    answered: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: dict[str, dict[str, str | int]] = field(default_factory=dict)


class Campaign:
    """A campaign of ``kinds`` by ``seed``, kept in the folder ``out``; one that is there is gone on with."""

    def __init__(self, kinds: Sequence[str], seed: int, out: Path) -> None:
        self._seed = seed
        self._out = out
        self._out.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self._state.read_text()) if self._state.exists() else {}
        self.scores = {kind: Score(**kept.get(kind, {})) for kind in dict.fromkeys((*kept, *kinds))}
        self._kinds = kinds

    @property
    def _state(self) -> Path:
        return self._out / f"{self._seed}.{STATE}"

    def run(self, seconds: float, count: int) -> Iterator[str]:
        """Feed all kinds until ``seconds`` are over, or each has had ``count`` inputs; tells what is found."""
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            places = {kind: Path(folder) / kind for kind in self._kinds}
            targets: dict[str, Target] = {}
            warm()  # here, once, and not in each process that is forked
            for kind, place in places.items():
                place.mkdir()
                targets[kind] = KINDS[kind](place)
                targets[kind].make(drawn(kind, self._seed, 0))
            gc.freeze()
            end = monotonic() + seconds
            stops = {kind: self.scores[kind].index + count for kind in self._kinds}
            while (left := [kind for kind in self._kinds if self.scores[kind].index < stops[kind]]) and (
                monotonic() < end
            ):
                for number, kind in enumerate(left):
                    share_s = min(STRETCH_S, max(end - monotonic(), 0.0) / (len(left) - number))
                    if share_s > 0:
                        yield from self._stretch(kind, targets[kind], stops[kind], share_s)

    def _stretch(self, kind: str, target: Target, stop: int, seconds: float) -> Iterator[str]:
        score = self.scores[kind]
        served = serve(target, kind, self._seed, score.index, stop, seconds)
        score.seconds += served.seconds
        score.index = served.index
        score.answered += served.answered
        score.refused += served.refused
        for found in served.found:
            yield from self._keep(kind, target, found)
        self._state.write_text(json.dumps({name: asdict(each) for name, each in self.scores.items()}, indent=1))

    def _keep(self, kind: str, target: Target, found: Found) -> Iterator[str]:
        score, what = self.scores[kind], found.outcome.what
        if what in score.findings:
            score.findings[what]["times"] = int(score.findings[what]["times"]) + 1
            return
        data = target.make(drawn(kind, self._seed, found.index))
        data = smaller(target, data, found.index, what)
        name = f"{kind}-{found.index}.bin"
        (self._out / name).write_bytes(data)
        score.findings[what] = {**asdict(found.outcome), "index": found.index, "file": name, "times": 1}
        yield f"{kind} {found.index}: {found.outcome.verdict}, {what}; {len(data)} bytes in {self._out / name}"


def table(scores: Mapping[str, Score]) -> str:
    """A line for each kind, and for all together."""
    total = Score()
    rows = [f"{'kind':16} {'inputs':>9} {'answered':>9} {'refused':>9} {'seconds':>8} {'per s':>7} {'findings':>8}"]
    for name, each in scores.items():
        rows.append(_row(name, each, len(each.findings)))
        total.index += each.index
        total.answered += each.answered
        total.refused += each.refused
        total.seconds += each.seconds
    return "\n".join((*rows, _row("all", total, sum(len(each.findings) for each in scores.values()))))


def _row(name: str, score: Score, findings: int) -> str:
    rate = score.index / score.seconds if score.seconds else 0.0
    return (
        f"{name:16} {score.index:9} {score.answered:9} {score.refused:9} {score.seconds:8.1f} {rate:7.0f} {findings:8}"
    )
