"""Feed nn-Meter what is damaged, odd and hostile.

    python -m fuzz --seconds 3600 [--kinds onnx csv ...] [--count N] [--seed 0] [--out .fuzz]
    python -m fuzz --again .fuzz/onnx-123.bin

Kinds take turns in one process after another. An input may take five seconds of processor time and 1 GiB of memory; it
must end in an answer or in an error of ``nn_meter.errors``. What does not is a finding: told, made smaller, and kept in
``--out``. The same command goes on where the last one stopped. Exit code 1 where there are findings. Seconds in the
table are of processor time. ``--again`` feeds one kept input in this process, so that an exception shows where it came
from.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import tempfile
import warnings
from pathlib import Path

for _threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy starts any, which a fork would lose
    os.environ.setdefault(_threads, "1")


def main() -> int:
    from .campaign import KINDS, MEMORY, Campaign, table

    parser = argparse.ArgumentParser("python -m fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--count", type=int, default=sys.maxsize, help="inputs of each kind at most, in this run")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".fuzz"))
    parser.add_argument("--again", type=Path, metavar="FILE")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        os.environ["NN_METER_HOME"] = home
        if options.again:
            kind, _, index = options.again.stem.rpartition("-")
            KINDS[kind](Path(home)).run(options.again.read_bytes(), int(index))
            return 0
        campaign = Campaign(options.kinds, options.seed, options.out)
        for line in campaign.run(options.seconds, options.count):
            print(line, flush=True)
        print(table(campaign.scores))
    return 1 if any(each.findings for each in campaign.scores.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
