"""How far a prediction can be trusted: what its predictor was found to miss by, and how far it was asked beyond what it
was trained on; and what a runtime's fusion left undone, in time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nn_meter.predictors.bundle import ERRORS, EVALUATED, Bundle
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.prediction import DOUBTFUL, KernelPrediction, Prediction

Level = Literal["good", "careful", "bad"]

BAD_SHARE, CAREFUL_SHARE, BAD_SPREAD = 0.2, 0.005, 4.0
"""An answer is not to be trusted where so much of it is not predicted, and taken with care from the second share on; or
where its interval ends at so many times where it begins (off by a factor of two either way). Choices, not
measurements."""

_WORD = re.compile(r"[a-z]+")

_NAMED = 3
"""So many models of a family are named: a name alone may mislead, as that of a hybrid may begin like a plain one's."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far off a predictor was found, on ``models`` whole models; relative to what was measured, 0.1 is 10 %.
    ``bias`` is positive where predictions are too high. ``names`` are of some of a family's models."""

    models: int
    median: float
    bias: float | None = None
    family: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KindTrust:
    """What the kernels of one kind rest on.

    ``rows`` measurements were learned from, 0 where unknown; ``median_error`` is that of measurements held out.
    ``doubtful`` kernels are not predicted; ``beyond`` is the farthest of them, in doublings of a trained range.
    """

    kind: str
    kernels: int
    latency_ms: float
    share: float
    rows: int
    median_error: float | None
    doubtful: int
    beyond: float


@dataclass(frozen=True, slots=True)
class Trust:
    """``level`` with its ``reasons`` in words; ``errors`` over all models, ``family`` on models like this one."""

    level: Level
    reasons: tuple[str, ...]
    errors: Errors | None
    family: Errors | None
    kinds: tuple[KindTrust, ...]


def trust(prediction: Prediction, bundle: Bundle | None = None) -> Trust:
    """What ``prediction`` rests on; without its ``bundle`` nothing is known of the predictor's errors."""
    errors, family = (None, None) if bundle is None else _errors(bundle.environment, prediction.model)
    level, reasons = _judged(prediction)
    groups: dict[str, list[KernelPrediction]] = {}
    for each in prediction.charged:
        groups.setdefault(each.kernel.kind, []).append(each)
    kinds = [_kind(kind, group, prediction, bundle) for kind, group in groups.items()]
    return Trust(level, reasons, errors, family, tuple(sorted(kinds, key=lambda each: -each.latency_ms)))


def family_of(model: str, families: Mapping[str, Iterable[str]]) -> str:
    """The family that a model's name puts it in: that of the model whose name begins like it for longest, by its first
    word at least; empty where none does.

    Args:
        model: ``resnet50.onnx``, ``resnet50``.
        families: family to the names of its models.
    """
    name = _plain(model)
    word = _WORD.match(name)
    if word is None:
        return ""
    likeness = {
        family: max((_common(name, _plain(each)) for each in models if _first_word(each) == word[0]), default=0)
        for family, models in families.items()
    }
    best = max(likeness, key=lambda family: likeness[family], default="")
    return best if likeness.get(best) else ""


def seam_ms(bundle: Bundle, moved_bytes: float) -> float | None:
    """The least that it costs to pass a value from one kernel to the next: the bytes at the best speed of the device's
    memory, and one call. ``None`` where the bundle does not know its device's speeds."""
    if not isinstance(bundle.fallback, Roofline) or not moved_bytes:
        return None
    speeds = bundle.fallback.speeds
    return 1e3 * moved_bytes / speeds.bytes_per_s + speeds.overhead_ms


def missed_ms(prediction: Prediction, bundle: Bundle | None) -> tuple[float | None, ...]:
    """For each of ``prediction.unfused`` what it costs at least that the two are not one kernel, and no more than the
    second of them takes; ``None`` where unknown."""
    found: list[float | None] = []
    for each in prediction.unfused:
        least = None if bundle is None or each.kernels is None else seam_ms(bundle, each.moved_bytes)
        if least is not None and each.kernels is not None:
            least = min(least, prediction.kernels[each.kernels[1]].latency_ms)
        found.append(least)
    return tuple(found)


def _judged(prediction: Prediction) -> tuple[Level, tuple[str, ...]]:
    level: Level = "good"
    reasons: list[str] = []
    unsure = 0.0
    for status in DOUBTFUL:
        part = prediction.coverage[status]
        if not part.kernels:
            continue
        nothing = status == "estimated" and any(
            not each.latency_ms for each in prediction.kernels if each.status == status
        )
        unsure += part.share
        if nothing or unsure >= BAD_SHARE:
            level = "bad"
        elif unsure >= CAREFUL_SHARE and level == "good":
            level = "careful"
        said = f"{part.share:.1%} of the time is {status}, not predicted ({part.kernels} of "
        said += f"{len(prediction.kernels)} kernels)"
        reasons.append(f"{said}; some of them count 0 ms, so the total is too low" if nothing else said)
    if prediction.interval_ms is None:
        level = "careful" if level == "good" else level
        reasons.append("this predictor knows no interval")
    elif prediction.interval_ms[1] > BAD_SPREAD * prediction.interval_ms[0]:
        level = "bad"
        reasons.append(f"the upper end of the interval is more than {BAD_SPREAD:g} times the lower one")
    return level, tuple(reasons)


def _errors(facts: Mapping[str, Any], model: str) -> tuple[Errors | None, Errors | None]:
    """Over all models and on the family of ``model``, as far as ``facts``, a bundle's environment, hold them."""
    found = facts.get(EVALUATED) or facts.get(ERRORS)
    if not found:
        return None, None
    families = found.get("families", {})
    name = family_of(model, {family: each["models"] for family, each in families.items()})
    own = families.get(name)
    overall = Errors(found["models"], found["median"], found.get("bias"))
    if not own:
        return overall, None
    return overall, Errors(len(own["models"]), own["median"], own.get("bias"), name, tuple(own["models"][:_NAMED]))


def _kind(
    kind: str, group: list[KernelPrediction], prediction: Prediction, bundle: Bundle | None
) -> KindTrust:
    predictor = bundle.kinds.get(kind) if bundle is not None else None
    latency_ms = sum(each.latency_ms for each in group)
    percent = predictor.errors.get("median_ape") if predictor else None
    return KindTrust(
        kind,
        len(group),
        latency_ms,
        prediction.share(latency_ms),
        predictor.rows if predictor else 0,
        None if percent is None else percent / 100,
        sum(each.status in DOUBTFUL for each in group),
        max(each.beyond for each in group),
    )


def _plain(model: str) -> str:
    return model.rpartition("/")[2].removesuffix(".onnx").lower()


def _first_word(model: str) -> str:
    found = _WORD.match(_plain(model))
    return found[0] if found else ""


def _common(one: str, other: str) -> int:
    """How many letters two names begin with alike."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
