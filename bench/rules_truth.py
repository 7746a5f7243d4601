"""What the timed detector says of a runtime, held against the graph that the runtime executes.

    nn-meter detect-rules --backend B --method graph -o truth.json
    nn-meter detect-rules --backend B --method timing -o run1.json      # as often as you like
    python bench/rules_truth.py truth.json run1.json ...  [--rules]

For each run: how many rules were timed, how many stayed undecided, and how many of the others are right; then the
rules that are wrong, and those that some runs fuse and others do not. ``--rules`` prints every rule as a row of
Markdown. A rule that waits for another which does not hold, or is undecided, is not timed. Rules that the executed
graph leaves open count as neither right nor wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIGNS = {True: "+", False: "-", None: "?"}

CORE = {
    f"BF_{first}_{second}" for first in ("conv", "dwconv", "fc") for second in ("bn", "relu", "add")
}  # fmt: skip
"""Rules of which none should be wrong."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rules", action="store_true", help="every rule as a row")
    args = parser.parse_args()
    truth = rules(args.truth)
    runs = {path.stem: rules(path) for path in args.runs}
    wrong: dict[str, list[str]] = {}
    for run, found in runs.items():
        timed = {name: rule for name, rule in found.items() if was_timed(rule)}
        open_ = [name for name, rule in timed.items() if rule["obey"] is None]
        told = [name for name in timed if name not in open_ and truth[name]["obey"] is not None]
        mistaken = [name for name in told if found[name]["obey"] is not truth[name]["obey"]]
        for name in mistaken:
            wrong.setdefault(name, []).append(run)
        print(
            f"{run}: {len(timed)} timed, {len(open_)} undecided ({len(open_) / len(timed):.1%}), "
            f"{len(told) - len(mistaken)} right, {len(mistaken)} wrong, "
            f"{1 - len(mistaken) / max(len(told), 1):.1%} of the decided right"
        )
    for name, where in wrong.items():
        core = " (conv, dwconv or fc with bn, relu or add)" if name in CORE else ""
        print(f"wrong: {name}{core}, executed {SIGNS[truth[name]['obey']]}, in {', '.join(where)}")
    for name in truth:
        verdicts = {found[name]["obey"] for found in runs.values() if name in found} - {None}
        if len(verdicts) > 1:
            print(f"flipped: {name}: {' '.join(SIGNS[found[name]['obey']] for found in runs.values())}")
    if args.rules:
        for name, rule in truth.items():
            signs = [sign(found[name], rule["obey"]) if name in found else "" for found in runs.values()]
            print(f"| {name} | {SIGNS[rule['obey']]} | {' | '.join(signs)} |")


def rules(path: Path) -> dict[str, Mapping[str, Any]]:
    """The rules of a file by name."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: rule for name, rule in found.items() if isinstance(rule, dict) and "obey" in rule}


def was_timed(rule: Mapping[str, Any]) -> bool:
    """Whether the rule was measured, or did not wait for another."""
    return not str(rule["evidence"]["reason"]).startswith("not measured")


def sign(rule: Mapping[str, Any], truth: bool | None) -> str:
    """The verdict of a timed rule, bold where the executed graph says otherwise."""
    if not was_timed(rule):
        return ""
    text = SIGNS[rule["obey"]]
    return f"**{text}**" if None not in (rule["obey"], truth) and rule["obey"] is not truth else text


if __name__ == "__main__":
    main()
