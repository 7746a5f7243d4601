"""Fits the predictors that ship from published measurements, and prints their errors on families left out.

    python scripts/devices.py ../shared/devices phones            # errors
    python scripts/devices.py ../shared/devices phones --ship     # errors, predictors and their pages
    python scripts/devices.py ../shared/devices gpus transfer      # kernels of GPUs, data sheets, adapting

Each family of networks is predicted by what was fitted without it. The families were split by a coin into two
halves; the method was made looking at the first alone, and both are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gpus
import measured
import numpy as np
import transfer
from published import PHONES, TIMM, Source

from nn_meter.fitting import Errors, Study
from nn_meter.learning.environments import default_name
from nn_meter.measuring.records import Circumstances
from nn_meter.networks.published_timm import predictor_name


def table(study: Study, blind: np.ndarray, seen: frozenset[str]) -> list[str]:
    """Lines of the errors of each environment: all families, those looked at, those not."""
    looked = np.array([family in seen for family in study.design.families])
    lines = []
    for k, each in enumerate(study.environments):
        cells = []
        for some in (looked | ~looked, looked, ~looked):
            of = np.where(some, each.latencies_ms, np.nan)
            found = Errors.of(blind[k], of)
            cells.append(f"{found.median:6.1%} {found.mean:6.1%} {found.within_10:5.0%}")
        lines.append(f"{each.name:44s} " + "  |  ".join(cells))
    return lines


SOURCES: Mapping[str, Source] = {"phones": PHONES, "timm": TIMM}
OTHERS: Mapping[str, Callable[[Path, bool, bool], None]] = {
    "gpus": gpus.run, "measured": measured.run, "transfer": transfer.run
}  # fmt: skip
"""What is not fitted through whole models: kernels of GPUs, and devices left out by tables of the same networks."""
NAMES: Mapping[str, Callable[[Circumstances], str]] = {"timm": predictor_name}
FOLDS: Mapping[str, int] = {"timm": 8}
"""Families are left out one by one, but where they are many fold by fold."""


def main() -> int:
    """Fit what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the measurements")
    parser.add_argument("sources", nargs="+", choices=(*SOURCES, *OTHERS))
    parser.add_argument("--ship", action="store_true", help="write predictors and pages")
    parser.add_argument("--no-errors", action="store_true", help="do not leave families out")
    args = parser.parse_args()
    if not args.folder.is_dir():
        print(f"{args.folder} is not there: nothing to fit")
        return 0
    for name in args.sources:
        if name in OTHERS:
            OTHERS[name](args.folder, args.ship, not args.no_errors)
            continue
        for study, seen in SOURCES[name](args.folder):
            start = time.monotonic()
            print(
                f"{name}: {len(study.environments)} environments, {study.design.whole.sum()} models, "
                f"{(~study.design.whole).sum()} kernels; left out: {len(study.left_out)}"
            )
            for text in study.left_out[:20]:
                print("  left out", text)
            blind = None if args.no_errors else study.blind(FOLDS.get(name))
            if blind is not None:
                print(f"{'median, mean, within 10 %':44s} all families         |  first half          |  second half")
                print("\n".join(table(study, blind, seen)))
            if args.ship:
                from ship import add

                add(study.bundles(blind, NAMES.get(name, default_name)))
            print(f"{time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
