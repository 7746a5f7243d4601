"""Whether a prediction keeps within a limit and near an earlier one, and which layers are to blame where not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nn_meter.errors import InputError
from nn_meter.predictors.documents import SCHEMA_VERSION
from nn_meter.predictors.prediction import Prediction, milliseconds
from nn_meter.predictors.summary import layer_name
from nn_meter.storage import Fields, shown

_ADVICE = "write it anew with: nn-meter check MODELS --save FILE"

_MOST_MS = 1e15
"""Thirty thousand years: sums of what a baseline holds are finite."""


@dataclass(frozen=True, slots=True)
class Part:
    """A kernel, as far as a comparison needs it."""

    nodes: tuple[str, ...]
    label: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Before:
    """An earlier prediction of a model, by a version of a predictor."""

    version: str
    latency_ms: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a layer: its kernels before and now, empty where there is none, and their milliseconds."""

    layer: str
    kernel_before: str
    kernel: str
    before_ms: float
    latency_ms: float

    @property
    def difference_ms(self) -> float:
        """More than nothing where it became slower."""
        return self.latency_ms - self.before_ms


@dataclass(frozen=True, slots=True)
class Limits:
    """What a prediction must keep: milliseconds at most, where given; the share that it may exceed an earlier one by;
    whether all of it has to be predicted."""

    most_ms: float | None = None
    tolerance: float = 0.05
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A model's prediction, or why there is none; what it breaks, nothing where all is kept; what became of its layers,
    the largest change first. ``new`` is one that a baseline was given for and does not hold."""

    model: str
    prediction: Prediction | None
    before: Before | None = None
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    new: bool = False

    @property
    def change(self) -> float | None:
        """How much longer than before, as a share of that; ``None`` where nothing was before."""
        if self.prediction is None or self.before is None or not self.before.latency_ms:
            return None
        return self.prediction.latency_ms / self.before.latency_ms - 1


def judge(model: str, prediction: Prediction, before: Before | None, limits: Limits) -> Verdict:
    """The verdict on ``prediction`` of what is called ``model``."""
    verdict = Verdict(model, prediction, before, changes=changes(before.parts, parts(prediction)) if before else ())
    problems = []
    if limits.most_ms is not None and prediction.latency_ms > limits.most_ms:
        found, most = milliseconds(prediction.latency_ms), milliseconds(limits.most_ms)
        problems.append(f"{found} ms is more than the limit of {most} ms")
    if verdict.change is not None and before is not None and verdict.change > limits.tolerance:
        by = "" if before.version == prediction.version else f", by version {before.version} of the predictor"
        problems.append(
            f"{verdict.change:.1%} slower than the baseline's {milliseconds(before.latency_ms)} ms{by}; "
            f"{limits.tolerance:.1%} is allowed"
        )
    if limits.strict and (doubts := prediction.strict_problems):
        more = f" and {len(doubts) - 1} more" if len(doubts) > 1 else ""
        problems.append(f"not all of it is predicted: {doubts[0]}{more}")
    return replace(verdict, problems=tuple(problems))


def parts(prediction: Prediction) -> tuple[Part, ...]:
    """The kernels of a prediction that cost something."""
    return tuple(Part(each.kernel.nodes, each.kernel.label, each.latency_ms) for each in prediction.charged)


def changes(before: Sequence[Part], now: Sequence[Part]) -> tuple[Change, ...]:
    """What became of each layer, the largest difference first; what stayed the same is left out.

    Kernels of both sides that share a node are compared together, so that one that fell apart is held against its
    pieces. What the runtime inserts has no nodes and goes by its label.
    """
    home: dict[str, str] = {}

    def root(name: str) -> str:
        while home[name] != name:
            home[name] = home[home[name]]  # halves the way for who comes next
            name = home[name]
        return name

    for part in (*before, *now):
        names = _names(part)
        for name in names:
            home.setdefault(name, name)
            home[root(name)] = root(names[0])
    groups: dict[str, tuple[list[Part], list[Part]]] = {}
    for side, found in enumerate((before, now)):
        for part in found:
            groups.setdefault(root(_names(part)[0]), ([], []))[side].append(part)
    changed = [
        Change(_layer((*new, *old)[0]), _label(old), _label(new), _sum_ms(old), _sum_ms(new))
        for old, new in groups.values()
        if _sum_ms(old) != _sum_ms(new)
    ]
    return tuple(sorted(changed, key=lambda each: -abs(each.difference_ms)))


def _names(part: Part) -> tuple[str, ...]:
    return part.nodes or (f"({part.label})",)


def _layer(part: Part) -> str:
    return layer_name(part.nodes[0]) if part.nodes else "(inserted by the runtime)"


def _label(found: Sequence[Part]) -> str:
    return " + ".join(dict.fromkeys(part.label for part in found))


def _sum_ms(found: Sequence[Part]) -> float:
    return sum(part.latency_ms for part in found)


def read_baseline(document: object, where: str) -> Mapping[tuple[str, str], Before]:
    """Model and predictor to what was predicted, of a document as ``nn-meter check --save`` writes it, or ``nn-meter
    predict --json``.

    Raises:
        InputError: it is none, one of another schema, or it holds two predictions of one name.
    """
    found: dict[tuple[str, str], Before] = {}
    top = Fields(document, where, InputError, _ADVICE)
    if top.values.get("schema_version") != SCHEMA_VERSION:
        top.refuse("schema_version", str(SCHEMA_VERSION))
    listed = top.take("predictions", list, "a list of predictions") if "predictions" in top.values else [document]
    for number, each in enumerate(listed):
        entry = Fields(each, where, InputError, _ADVICE, f"predictions[{number}].")
        key = entry.text("model"), entry.text("predictor")
        if key in found:
            raise InputError(f"{where}: there are two predictions of {shown(key[0])} by {shown(key[1])}; {_ADVICE}")
        latency_ms = entry.number("latency_ms", 0.0, _MOST_MS)
        found[key] = Before(entry.text("version"), latency_ms, tuple(_parts(entry, number)))
    return found


def _parts(entry: Fields, number: int) -> Iterator[Part]:
    for index, each in enumerate(entry.take("kernels", list, "a list of kernels")):
        kernel = Fields(each, entry.where, InputError, _ADVICE, f"predictions[{number}].kernels[{index}].")
        if kernel.text("status") != "free":
            yield Part(kernel.texts("nodes"), kernel.text("label"), kernel.number("latency_ms", 0.0, _MOST_MS))
