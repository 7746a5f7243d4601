"""A predictor trained once more from the journals of its builds, at a stated speed of the machine.

    python scripts/retrained.py JOURNAL... --like BUNDLE --probe-ms 0.71 [--taught KIND,...=JOURNAL,...] -o OUT

A virtual machine's speed moves by 15 % from day to day. Whoever ships a predictor for others may let it answer at a
speed between those that were seen, as the fixed probe tells them.
Some kinds may be taught by other journals than all else: by those since a kind learnt to tell apart what it did not, or
by one besides whose networks were drawn for them. They answer at the speed of the whole.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nn_meter.building import measured, unmeasured
from nn_meter.learning.training import train
from nn_meter.measuring import Failure, Record
from nn_meter.measuring.journal import Journal
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.bundle import Bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journals", type=Path, nargs="+", metavar="JOURNAL")
    parser.add_argument("--like", type=Path, required=True, metavar="BUNDLE", help="whose name and rules to take")
    parser.add_argument("--probe-ms", type=float, help="by default the usual speed of the measurements")
    parser.add_argument("--taught", action="append", default=[], metavar="KIND,...=JOURNAL,...", help="by others")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a zip")
    args = parser.parse_args()
    like = bundles.load(args.like)
    records, failures = told(args.journals)
    made = train(records, name=like.name, version=like.version, rules=dict(like.rules), probe_ms=args.probe_ms)
    made = replace(made, notes=(*made.notes, *unmeasured(failures)))
    for each in args.taught:
        kinds, _, journals = each.partition("=")
        made = taught(made, kinds.split(","), [Path(journal) for journal in journals.split(",")])
    bundles.save(made, args.out)


def told(journals: Sequence[Path]) -> tuple[list[Record], list[Failure]]:
    """What journals hold, and why networks are not among it."""
    records: list[Record] = []
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, journal in enumerate(journals):
            copy = shutil.copy(journal, Path(folder) / f"{number}.sqlite")  # a journal that is opened is written to
            with Journal(Path(copy)) as book:
                found, failed = measured(book)
            records += found
            failures += failed
    return records, failures


def taught(made: Bundle, kinds: Sequence[str], journals: Sequence[Path]) -> Bundle:
    """``made``, with these kinds as these journals have them, at its speeds."""
    probe_ms, sheet = made.environment["probe_ms"], made.fallback.speeds
    alone = train(told(journals)[0], name=made.name, kinds=kinds, probe_ms=probe_ms, sheet=sheet)
    return replace(made, kinds={**made.kinds, **alone.kinds})


if __name__ == "__main__":
    main()
