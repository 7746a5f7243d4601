"""What is damaged, odd and hostile ends in an answer or an error of the tree; builds that are killed go on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import loopback
import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("sklearn")


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_nothing_that_is_fed_to_it_breaks_it(tmp_path: Path) -> None:
    kinds = ("onnx", "ir", "tflite", "tensorflow", "keras", "bundle", "bundle-folder", "rules", "meta",
             "predictor-meta", "registry", "pickle", "fetched", "journal", "csv", "wide-csv", "sheet",
             "baseline", "devices", "printed")  # fmt: skip
    once = fuzz("-m", "fuzz", "--count", 100, "--out", tmp_path, "--kinds", *kinds)
    assert once.returncode == 0, once.stdout + once.stderr
    told = {line.split()[0]: line.split() for line in once.stdout.splitlines()}
    for kind in kinds:
        assert int(told[kind][1]) == 100
    answered, refused = int(told["all"][2]), int(told["all"][3])
    assert answered + refused == 100 * len(kinds)
    assert min(answered, refused) > 10 * len(kinds), "inputs are all alike"
    again = fuzz("-m", "fuzz", "--count", 10, "--out", tmp_path, "--kinds", "csv")
    assert re.search(r"^csv +110 ", again.stdout, re.MULTILINE), "a campaign does not go on where it stopped"


BROKEN = """
import sys, os, signal
from functools import partial
from pathlib import Path
from fuzz import campaign
import fuzz.sandbox as sandbox

sandbox.SLOW_S = 0.2
sandbox.STILL_S = 1.0
campaign.smaller = partial(sandbox.smaller, seconds=3600.0)  # of what keeps still each try takes seconds
KINDS = {
    "fault": lambda data: {}[data],
    "crash": lambda data: os.abort(),
    "slow": lambda data: [None for _ in iter(int, 1)],
    "memory": lambda data: bytearray(1 << 31),
    "still": lambda data: signal.pause(),
}

class Broken:
    def __init__(self, kind):
        self.kind = kind
    def make(self, draw):
        return b"harmless " * 3 + (b"!" if draw.random() < 0.3 else b".") + b"harmless " * 3
    def run(self, data, turn):
        if b"!" in data:
            KINDS[self.kind](data)

campaign.KINDS = {kind: lambda place, kind=kind: Broken(kind) for kind in KINDS}
found = campaign.Campaign(list(KINDS), 0, Path(sys.argv[1]))
for line in found.run(3600.0, 10):
    print(line)
"""


def test_findings_are_told_apart_made_smaller_and_kept(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+) \d+: (\w+), ", done.stdout, re.MULTILINE))
    assert found == {each: each for each in ("fault", "crash", "slow", "memory", "still")}
    kept = sorted((tmp_path / "out").glob("*.bin"))
    assert len(kept) == 5
    assert {path.read_bytes() for path in kept} == {b"!"}


@pytest.mark.heavy
@pytest.mark.skipif(bool(loopback.MISSING), reason=loopback.MISSING)
def test_what_is_killed_at_either_end_of_a_link_goes_on() -> None:
    once = fuzz("-m", "fuzz.kills", "--build", 0, "--evaluate", 0, "--detect", 0, "--fit", 0, "--ssh", 2, "--fleet", 2)
    assert once.returncode == 0, once.stdout + once.stderr


@pytest.mark.heavy
def test_what_is_killed_goes_on(tmp_path: Path) -> None:
    once = fuzz("-m", "fuzz.kills", "--build", 6, "--evaluate", 3, "--detect", 3, "--fit", 2, "--ssh", 0, "--fleet", 0)
    assert once.returncode == 0, once.stdout + once.stderr
