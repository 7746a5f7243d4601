"""Writes predictors into the archive that ships, and a page for each device."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nn_meter.learning.sheets import IN_MODELS, LEFT_OUT
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.bundle import Bundle, load
from nn_meter.predictors.catalogue import INDEX, SHIPPED, summary

ROOT = Path(__file__).parents[1]
ARCHIVE = SHIPPED / "published.zip"
PAGES = ROOT / "docs" / "devices"
DATE = "2026-11-30"


def add(made: Sequence[Bundle]) -> None:
    """Put predictors into the archive, in place of those of their names, and write the pages anew."""
    kept = {} if not ARCHIVE.exists() else {name: load(ARCHIVE / name) for name in _names()}
    kept |= {each.name: replace(each, created=DATE) for each in made}
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, bytes] = {}
        for name, each in sorted(kept.items()):
            bundles.save(each, Path(folder) / name)
            for path in sorted((Path(folder) / name).rglob("*")):
                if path.is_file():
                    files[f"{name}/{path.relative_to(Path(folder) / name).as_posix()}"] = path.read_bytes()
    index = [
        {"name": e.name, "version": e.version, "category": e.category, "summary": summary(e)}
        for _, e in sorted(kept.items())
    ]
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(_entry(INDEX), json.dumps(index, indent=1))
        for name, stored in files.items():
            archive.writestr(_entry(name), stored)
    pages(kept.values())
    print(f"{ARCHIVE.name}: {len(kept)} predictors, {ARCHIVE.stat().st_size / 1e6:.2f} MB")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _names() -> list[str]:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return [each["name"] for each in json.loads(archive.read(INDEX))]


def pages(known: Iterable[Bundle]) -> None:
    """A page per device, and one that lists them."""
    devices: dict[str, list[Bundle]] = {}
    for each in known:
        devices.setdefault(each.device, []).append(each)
    PAGES.mkdir(parents=True, exist_ok=True)
    for old in PAGES.glob("*.md"):
        old.unlink()
    lines = ["# Devices that others measured", "",
             "Written by `scripts/devices.py`. How they are fitted: [terms](../measurements.md#from-whole-models).", "",
             "| device | predictors | median error, models that they did not see |", "|---|---|---|"]  # fmt: skip
    for device, some in sorted(devices.items()):
        page = device.lower().replace(" ", "-") + ".md"
        errors = [e.environment["errors"]["median"] for e in some if "errors" in e.environment]
        ends = dict.fromkeys(f"{each:.1%}" for each in (min(errors), max(errors))) if errors else ("unknown",)
        lines.append(f"| [{device}]({page}) | {len(some)} | {' to '.join(ends)} |")
        (PAGES / page).write_text(_page(device, some), encoding="utf-8")
    (PAGES / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _page(device: str, some: Sequence[Bundle]) -> str:
    first = some[0]
    facts = first.environment
    lines = [f"# {device}", "", "Written by `scripts/devices.py`.", "",
             f"Processor: {facts.get('cpu', 'unknown')}. Measured by: {facts['source']}, "
             f"licence {facts['licence']}. Latencies are the {first.statistic} of the repeated runs, in milliseconds.",
             "",
             "Errors are of families of networks left out, each predicted by what was fitted without it; the interval "
             "holds the central 90 % of them.", "",
             "| predictor | runtime | threads | batch | models | median | mean | within 10 % | interval |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for each in some:
        e: Any = each.environment.get("errors")
        cells = ["–"] * 4
        if e:
            cells = [str(e["models"]), f"{e['median']:.1%}", f"{e['mean']:.1%}", f"{e['within_10']:.0%}"]
        span = "–"
        if each.interval:
            low, high = (math.exp(end) - 1 for end in (each.interval.low, each.interval.high))
            span = f"{low:+.0%} to {high:+.0%}"
        runtime = f"{each.runtime} {each.runtime_version} {each.dtype}".replace("  ", " ")
        batch = each.environment.get("batch", 1)
        lines.append(f"| `{each.name}` | {runtime} | {each.threads} | {batch} | {' | '.join(cells)} | {span} |")
    lines += _of_kernels(some)
    lines += ["", "What not to ask:", ""]
    lines += [f"- {text}" for text in dict.fromkeys(text for each in some for text in _limits(each))]
    return "\n".join(lines) + "\n"


def _of_kernels(some: Sequence[Bundle]) -> list[str]:
    """Errors of single kernels held out, where such were measured, and of this GPU left out."""
    lines: list[str] = []
    for each in some:
        held: Any = each.environment.get("held_out", {})
        if not held:
            continue
        seen = "" if IN_MODELS in each.environment else " that it never saw"
        lines += ["", f"`{each.name}` was fitted to single kernels ({each.environment['sheet']}); the models above are "
                  f"language models{seen}. Kernels held out, no size of which was trained on:", "",
                  "| operator | kernels | mean | median |", "|---|---|---|---|"]  # fmt: skip
        lines += [f"| {o} | {e['kernels']} | {e['mean']:.1%} | {e['median']:.1%} |" for o, e in held.items()]
        if slower := each.environment.get(IN_MODELS):
            lines += ["", f"In whole models products and convolutions take {slower:.0%} of what they did by "
                      "themselves, and the answers are those of models: the card slows down under load, and ran single "
                      "kernels over and over. The share is that of the language models above, one network at several "
                      "batches, each of which is answered for by the others. The errors of kernels are those before "
                      "it."]  # fmt: skip
        if left_out := each.environment.get(LEFT_OUT):
            lines += ["", "Answered for by the other GPUs, from its data sheet alone: kernels "
                      f"{left_out['mean']:.1%} in the mean, {left_out['median']:.1%} in the median."]  # fmt: skip
    return lines


def _limits(each: Bundle) -> list[str]:
    if not each.terms:
        return [
            f"kernels of other kinds than {', '.join(each.kinds)}: they count as estimated, and the answer says so",
            "sizes and operators outside of what was measured: the answer says that it extrapolates",
        ]
    learned = each.terms["learned"]
    unseen = [name for name, entry in learned.items() if "work" not in entry]
    batches = ", ".join(map(str, each.terms["batches"]))
    texts = [f"another batch than {batches}: the answer says that it is extrapolated"]
    if {"matmul", "attention"} <= set(unseen):
        texts.append("transformers: only convolutional networks were measured, and the answer says so")
    texts.append(f"kernels that no measured model had, which count as estimated: {', '.join(unseen)}")
    return texts
