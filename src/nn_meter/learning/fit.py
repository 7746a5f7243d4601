"""From measured kernels to the regressors of a bundle.

A regressor learns the logarithm of the ratio of measured latency to the roofline, so that outside the shapes it
saw the answer stays a plausible multiple of what the hardware can do at best. Gradient boosting over histograms
(scikit-learn) fits it; the bundle holds its arrays.
"""

from __future__ import annotations

import hashlib
import io
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from time import monotonic
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BuildError, MissingDependencyError
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.schema import AROUND, ROOFLINE, SCHEMA, Codes, Encoder, Row, Speeds, Work, encode
from nn_meter.measuring.journal import Journal
from nn_meter.measuring.records import MeasuredKernel
from nn_meter.predictors.kind import KindPredictor, leaf_rows
from nn_meter.predictors.parts import Part
from nn_meter.predictors.runtime import KindAnswers
from nn_meter.predictors.trees import TreeEnsemble
from nn_meter.progress import Progress

MIN_ROWS = 20
"""Fewer measurements of a kind than this give no regressor: the fallback answers."""

MOST_ROWS = 100_000
"""Of more measurements of a kind so many are taken, evenly: what training costs stays bounded."""

FEWEST_SEEN = 5
"""A name of a category that fewer rows have does not count as seen: one or two of them say nothing of other sizes."""

HELD_SHARE = 0.1
"""Of the networks, held out for the errors that are reported and for intervals."""

OFF_UNKNOWN = 1.0
"""How far a kernel of a kind with too few measurements is off, as a logarithm, for want of anything to tell."""

LEVEL = 0.9
"""Share of kernels, and of networks, that intervals are to hold."""


@dataclass(frozen=True, slots=True)
class Network:
    """Kernels that were measured in one network, or one that was measured by itself. ``family`` groups those that
    resemble each other."""

    samples: tuple[MeasuredKernel, ...]
    family: str = ""

    def rows(self, encoders: Mapping[str, Encoder]) -> list[Row]:
        """A row for each sample, by the encoder of its kind."""
        return encode([(encoders[s.kind], s.config) for s in self.samples])

    def predict_ms(self, kinds: Mapping[str, KindPredictor], speeds: Speeds) -> float:
        """What regressors answer for all samples together, with the roofline of kinds that have none."""
        answers = {kind: KindAnswers(kind, kinds.get(kind), speeds) for kind in {s.kind for s in self.samples}}
        rows = self.rows({kind: each.encoder for kind, each in answers.items()})
        return sum(answers[s.kind].latencies_ms(np.array([row]))[0] for s, row in zip(self.samples, rows, strict=True))


def fit_speeds(networks: Sequence[Network]) -> Speeds:
    """What the device showed at best: the 95th percentiles of flops and bytes a second over kernels of some size,
    and the 5th percentile of all latencies as the cost of a call. Of floats alone: integers are computed faster.

    Raises:
        BuildError: too few samples.
    """
    samples = [s for network in networks for s in network.samples if not KINDS[s.kind].quantised]
    if len(samples) < MIN_ROWS:
        raise BuildError(
            f"{len(samples)} measured kernels are too few to train on; give the build a larger budget, with --resume "
            "to go on with these"
        )
    flops, moved = [], []
    for sample in samples:
        work = work_of(sample)
        if work.flops > 1e6 and work.flops > 8 * work.bytes:
            flops.append(work.flops / sample.latency_ms)
        elif work.bytes > 1e5:
            moved.append(work.bytes / sample.latency_ms)
    per_s = [
        1e3 * float(np.quantile(v, 0.95)) if v else fallback for v, fallback in ((flops, 1e10), (moved, 1e9))
    ]
    overhead_ms = float(np.quantile([s.latency_ms for s in samples], 0.05))
    return Speeds(per_s[0], per_s[1], overhead_ms)


@dataclass(frozen=True, slots=True)
class FittedKind:
    """A regressor, and what one that was fitted without them answered for the rows held out, in milliseconds; empty
    where too few were."""

    predictor: KindPredictor
    held_ms: NDArray[np.float64]


def fit_kind(
    kind: str,
    rows: NDArray[np.float64],
    latencies_ms: NDArray[np.float64],
    *,
    names: Sequence[str],
    categories: Codes = MappingProxyType({}),
    seen: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    schema: str = SCHEMA,
    seed: int = 0,
    held: NDArray[np.bool_] | None = None,
    kept: Journal | None = None,
) -> FittedKind:
    """The regressor of one kind.

    Args:
        rows: float64 (n, len(names)); the column ``roofline_ms`` is what latencies are relative to.
        latencies_ms: float64 (n,), positive.
        categories: of the columns that are categories, the code of each name; ``seen``: how many rows have it.
        held: bool (n,), what is held out for the errors that are reported; by default every tenth row.
        kept: holds what was fitted before, and gets what is fitted now.

    Raises:
        BuildError: fewer than ``MIN_ROWS`` rows.
        MissingDependencyError: scikit-learn is not installed.
    """
    if len(rows) < MIN_ROWS:
        raise BuildError(
            f"kernel kind {kind!r}: {len(rows)} measurements are too few to train on, {MIN_ROWS} are needed"
        )
    roofline_ms = rows[:, list(names).index(ROOFLINE)]
    target = np.log(latencies_ms / roofline_ms)
    weight = np.clip(latencies_ms, 1e-3, 1.0) ** 0.3
    held = np.arange(len(rows)) % 10 == 0 if held is None else held
    errors: dict[str, float] = {}
    held_ms = np.empty(0)
    if 3 <= held.sum() < len(rows) - MIN_ROWS:
        answers = _kept(kept, rows[~held], target[~held], weight[~held], seed).predict(rows[held])
        held_ms = np.exp(answers) * roofline_ms[held]
        off = np.abs(held_ms / latencies_ms[held] - 1)
        low, high = np.quantile(target[held] - answers, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        errors = {
            "mape": 100 * float(off.mean()),
            "median_ape": 100 * float(np.median(off)),
            "rows": int(held.sum()),
            "log_low": float(low),
            "log_high": float(high),
            "log_off": _weighted_quantile(np.abs(target[held] - answers), latencies_ms[held], LEVEL),
        }
    trees = _kept(kept, rows, target, weight, seed)
    span = {
        name: (float(low), float(high))
        for name, low, high in zip(names, rows.min(0), rows.max(0), strict=True)
        if name not in (ROOFLINE, *AROUND) and name not in categories
    }
    narrow = _range_of(rows, names, span, {c: {n: code[n] for n in seen.get(c, ())} for c, code in categories.items()})
    predictor = KindPredictor(
        kind, schema, tuple(names), trees, "log_roofline_ratio", span, len(rows), errors, categories, seen, narrow
    )
    return FittedKind(predictor, held_ms)


_FUSED = ("activation",)
"""What is fused behind a kernel does not change how its sizes act: a first convolution is known with any."""


def _range_of(
    rows: NDArray[np.float64], names: Sequence[str], span: Mapping[str, tuple[float, float]], codes: Codes
) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    """By category column and name the ranges of columns that are narrower there than in all rows."""
    found: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for category, code_of in codes.items():
        if category in _FUSED:
            continue
        held = rows[:, list(names).index(category)]
        for name, code in code_of.items():
            own = rows[held == code]
            if not len(own):
                continue
            ends = dict(zip(names, zip(own.min(0).tolist(), own.max(0).tolist(), strict=True), strict=True))
            if narrow := {each: ends[each] for each, whole in span.items() if ends[each] != whole}:
                found.setdefault(category, {})[name] = narrow
    return found


def _kept(
    kept: Journal | None, rows: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64], seed: int
) -> TreeEnsemble:
    """What ``_boost`` makes of these numbers: as ``kept`` has it, else now."""
    if len(rows) > MOST_ROWS:
        some = np.linspace(0, len(rows) - 1, MOST_ROWS).astype(int)
        rows, target, weight = rows[some], target[some], weight[some]
    if kept is None:
        return _boost(rows, target, weight, seed)
    try:
        version = metadata.version("scikit-learn")
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError("scikit-learn", "build", "training a predictor") from error
    digest = hashlib.sha256(repr((rows.shape, seed, version)).encode())
    for each in (rows, target, weight):
        digest.update(np.ascontiguousarray(each).tobytes())
    (key,) = kept.add([{"fit": digest.hexdigest()}])
    known = kept.find(key)
    if known is not None and known.result is not None:
        return kept.understood(known, lambda told: TreeEnsemble.load(io.BytesIO(b64decode(told["trees"])), "a fit"))
    begin = monotonic()
    trees = _boost(rows, target, weight, seed)
    kept.record(key, {"trees": b64encode(trees.to_bytes()).decode(), "elapsed_s": monotonic() - begin})
    return trees


def spent_on_fits(kept: Journal) -> float:
    """Seconds that the fits took that ``kept`` holds."""
    return sum(kept.understood(entry, lambda told: float(told["elapsed_s"])) for entry in kept.results())


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], q: float) -> float:
    """The least value that a share ``q`` of all weight does not exceed: kernels count by the time that they take."""
    order = np.argsort(values)
    whole = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(whole, q * whole[-1])])


def _boost(
    rows: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64], seed: int
) -> TreeEnsemble:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "build", "training a predictor") from error
    iterations = int(np.clip(60 * np.log2(len(rows) / 10), 100, 600))
    model = HistGradientBoostingRegressor(
        max_iter=iterations,
        learning_rate=0.06,
        max_leaf_nodes=int(np.clip(len(rows) // 40, 4, 24)),
        min_samples_leaf=leaf_rows(len(rows)),
        l2_regularization=0.5,
        max_bins=255,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(rows, target, sample_weight=weight)
    return boosting_to_trees(model, rows.shape[1])


def boosting_to_trees(model: Any, n_columns: int) -> TreeEnsemble:
    """The arrays of a fitted ``HistGradientBoostingRegressor`` without categorical columns."""
    nodes = [predictor.nodes for stage in model._predictors for predictor in stage]
    roots = np.cumsum([0, *(len(n) for n in nodes)])[:-1]
    joined = np.concatenate(nodes)
    shift = np.repeat(roots, [len(n) for n in nodes])
    leaf = joined["is_leaf"].astype(bool)
    return TreeEnsemble(
        feature=np.where(leaf, -1, joined["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, 0.0, joined["num_threshold"]).astype(np.float64),
        left=np.where(leaf, -1, joined["left"] + shift).astype(np.int32),
        right=np.where(leaf, -1, joined["right"] + shift).astype(np.int32),
        value=joined["value"].astype(np.float64),
        roots=roots.astype(np.int32),
        n_columns=n_columns,
        aggregate="sum",
        init=float(np.ravel(model._baseline_prediction)[0]),
    )


@dataclass(frozen=True, slots=True)
class FittedKinds:
    """Regressors by kind; and of networks held out, by number, what regressors fitted without them answer for each of
    their kernels, and how far such answers are off."""

    kinds: Mapping[str, KindPredictor]
    held: Mapping[int, Sequence[Part]]


def fit_kinds(
    networks: Sequence[Network],
    speeds: Speeds,
    *,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    codes: Mapping[str, Codes] = MappingProxyType({}),
    kept: Journal | None = None,
    progress: Progress | None = None,
) -> FittedKinds:
    """A regressor for every kind with enough samples; ``kinds`` limits them, ``kept`` holds what was
    fitted before, ``progress`` hears after each.

    The names of a category get codes in the order of what they cost, relative to the roofline: then a threshold between
    codes parts cheap names from dear ones (Fisher, 1958); ``codes`` of kinds that have them already are taken instead.

    Where every network is one kernel, what surrounds it is not known and no column, and whole families are held out.
    """
    samples: dict[str, list[tuple[int, MeasuredKernel]]] = {}
    for number, network in enumerate(networks):
        for sample in network.samples:
            samples.setdefault(sample.kind, []).append((number, sample))
    seen = {kind: KINDS[kind].counted(s.config for _, s in some) for kind, some in samples.items()}
    known = {
        kind: codes[kind] if kind in codes else _codes(kind, [s for _, s in some], speeds)
        for kind, some in samples.items()
    }
    alone = all(len(network.samples) == 1 for network in networks)
    columns = {
        kind: tuple(name for name in KINDS[kind].schema_on(speeds) if not (alone and name in AROUND))
        for kind in samples
    }
    encoders = {kind: Encoder(KINDS[kind], columns[kind], known[kind], speeds) for kind in samples}
    rows_of: dict[str, list[Row]] = {kind: [] for kind in samples}
    for network in networks:
        for sample, row in zip(network.samples, network.rows(encoders), strict=True):
            rows_of[sample.kind].append(row)
    held = _held(networks, alone, seed)
    parts: dict[int, list[Part]] = {number: [] for number in np.flatnonzero(held).tolist()}
    fitted: dict[str, KindPredictor] = {}
    begin, done, total = monotonic(), 0, sum(map(len, samples.values()))
    for kind, taken in sorted(samples.items()):
        done += len(taken)
        numbers = np.array([number for number, _ in taken])
        out = held[numbers]
        answers, off = np.array([speeds.roofline_ms(work_of(s)) for _, s in taken])[out], OFF_UNKNOWN
        if len(taken) >= MIN_ROWS and (kinds is None or kind in kinds):
            one = fit_kind(
                kind,
                np.array(rows_of[kind], np.float64),
                np.array([s.latency_ms for _, s in taken]),
                names=columns[kind],
                categories=known[kind],
                seen={column: _often(count) for column, count in seen[kind].items()},
                seed=seed,
                held=out,
                kept=kept,
            )
            fitted[kind] = one.predictor
            if len(one.held_ms):
                answers, off = one.held_ms, one.predictor.errors["log_off"]
        without = [(number, sample.config) for (number, sample), left in zip(taken, out, strict=True) if left]
        for (number, config), answer in zip(without, answers.tolist(), strict=True):
            parts[number].append(Part(kind, config, answer, off))
        if progress is not None:
            progress(done, total, (monotonic() - begin) / done * (total - done), f"training, {kind}")
    return FittedKinds(fitted, parts)


def _held(networks: Sequence[Network], alone: bool, seed: int) -> NDArray[np.bool_]:
    """Which networks are held out; of kernels that were measured by themselves all of a family or none."""
    rng = np.random.default_rng(seed)
    if not alone:
        return rng.random(len(networks)) < HELD_SHARE
    families = [network.family or str(number) for number, network in enumerate(networks)]
    drawn = {family: bool(rng.random() < HELD_SHARE) for family in dict.fromkeys(families)}
    return np.array([drawn[family] for family in families])


def _often(count: Mapping[str, int]) -> dict[str, int]:
    return {name: rows for name, rows in count.items() if rows >= FEWEST_SEEN}


def _codes(kind: str, samples: Sequence[MeasuredKernel], speeds: Speeds) -> Codes:
    """Of each category column, names by the mean logarithm of latency over roofline."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        ratio = float(np.log(sample.latency_ms / speeds.roofline_ms(work_of(sample))))
        for column, name in KINDS[kind].names(sample.config).items():
            ratios.setdefault(column, {}).setdefault(name, []).append(ratio)
    return {
        column: {name: code for code, name in enumerate(sorted(some, key=lambda n: (np.mean(some[n]), n)))}
        for column, some in ratios.items()
    }


def fallback_spread(networks: Sequence[Network], speeds: Speeds) -> tuple[float, float]:
    """The central share ``LEVEL`` of log(measured / estimated): how far an estimate from flops and bytes is off."""
    ratios = np.log([s.latency_ms / speeds.roofline_ms(work_of(s)) for n in networks for s in n.samples])
    low, high = np.quantile(ratios - np.median(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def fallback_factor(networks: Sequence[Network], speeds: Speeds) -> float:
    """Median ratio of measured to roofline: what an estimate from flops and bytes is multiplied by. Of floats alone, as
    the speeds are."""
    samples = [s for network in networks for s in network.samples if not KINDS[s.kind].quantised]
    return float(np.median([s.latency_ms / speeds.roofline_ms(work_of(s)) for s in samples]))


def work_of(sample: MeasuredKernel) -> Work:
    """What the kernel does."""
    return KINDS[sample.kind].work(sample.config)
