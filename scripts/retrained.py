"""A predictor trained once more from the journals of its builds, at a stated speed of the machine.

    python scripts/retrained.py JOURNAL... --like BUNDLE --probe-ms 0.71 [--newest KIND... [--since N]] -o OUT

A virtual machine's speed moves by 15 % from day to day. Whoever ships a predictor for others may let it answer at a
speed between those that were seen, as the fixed probe tells them.
Where a kind has learnt to tell apart what journals from before do not, those since then alone teach it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

from nn_meter.building import measured
from nn_meter.learning.training import train
from nn_meter.measuring.journal import Journal
from nn_meter.predictors import bundle as bundles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journals", type=Path, nargs="+", metavar="JOURNAL")
    parser.add_argument("--like", type=Path, required=True, metavar="BUNDLE", help="whose name and rules to take")
    parser.add_argument("--probe-ms", type=float, help="by default the usual speed of the measurements")
    parser.add_argument("--newest", nargs="+", default=[], metavar="KIND", help="that not all journals teach")
    parser.add_argument("--since", type=int, default=-1, metavar="N", help="but the N-th and those after it (the last)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a zip")
    args = parser.parse_args()
    like = bundles.load(args.like)
    known, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, journal in enumerate(args.journals):
            copy = shutil.copy(journal, Path(folder) / f"{number}.sqlite")  # a journal that is opened is written to
            with Journal(Path(copy)) as book:
                records, failures = measured(book)
            known.append(records)
            failed += len(failures)
    since = args.since - 1 if args.since > 0 else args.since
    made = train([*chain(*known)], name=like.name, version=like.version, rules=dict(like.rules), probe_ms=args.probe_ms)
    if args.newest:
        speed = made.environment["probe_ms"]
        alone = train([*chain(*known[since:])], name=like.name, kinds=args.newest, probe_ms=speed)
        made = replace(made, kinds={**made.kinds, **alone.kinds})
    bundles.save(replace(made, notes=(*made.notes, f"{failed} networks failed")), args.out)


if __name__ == "__main__":
    main()
