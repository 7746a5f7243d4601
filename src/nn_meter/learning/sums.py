"""From latencies of whole models, and of kernels where there are any, to the terms of bundles.

Bases and slopes of all terms (``kernels.terms``) are fitted through the sums: by Levenberg-Marquardt on the logarithm
of each model's latency, robustly (Huber), with a normal prior on every parameter. The prior is learned too, from all
environments that are fitted together (empirical Bayes): a parameter of an environment is what the environments that
share its device, its kind of cores, its number of threads and its maker have in common, plus a deviation whose
spread they show. So 70 models suffice for 60 parameters, and what an environment's models do not tell, others' do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BuildError, MissingDependencyError
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.terms import CALL, GROUPS, LAUNCH, NO_WORK, START, TERMS, rows
from nn_meter.predictors.parts import Interval
from nn_meter.predictors.sums import MARGIN

Floats = NDArray[np.float64]
TermRow = tuple[str, tuple[float, ...]]

NOISE = 0.02
"""Standard deviation that is taken for the logarithm of a whole model's latency."""

KERNEL_WEIGHT = 0.003
"""Weight of one kernel's latency beside one model's: kernels of a model err together. (With 0.01 the
families looked at on phones' GPUs were off by 3.4 % in the mean, left out, with this by 3.2 %.)"""

MIN_MODELS = 4
"""Fewer whole models than this give no predictor."""

_FREE = frozenset(
    {CALL, *NO_WORK, "dwconv", "depthwise", "grouped_loop", "wait", "conv_vector", "linear_vector", "pad_rows", *GROUPS}
)
"""Parameters that are scales: nothing is known of them before."""

PROFILED = "profiled"
"""How much less by itself than in a whole model a kernel takes, where both were measured: whole models on six phones'
GPUs take 0.98 to 1.07 times (one: 1.25) what their kernels do, and a call (0.8 to 5.5 ms)."""

_STEPS, _STEPS_ALONE = 12, 60
"""Steps of a fit. Environments that are fitted together are fitted in rounds, each from where the one before ended; one
by itself has a single round (after 12 steps a thousand models on an RTX 3090 were 0.9 % further off, left out)."""

_SPREAD_FREE, _SPREAD_BASE, _SPREAD_SLOPE = 3.0, 0.5, 0.15
_LEAST_SPREAD = 0.02
_START: Mapping[str, float] = MappingProxyType(
    {CALL: math.log(0.05), LAUNCH: math.log(1e-3), START: math.log(1e-3)}
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured, as terms: a whole model (with its call), or one kernel without launch and call."""

    terms: tuple[TermRow, ...]
    family: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Environment:
    """Latencies in one environment: ``latencies_ms`` float64 (subjects,), NaN where there is none.

    ``tags`` say what it shares with others: ``device:pixel4``, ``cores:pixel4:large``, ``threads:4`` ...
    """

    name: str
    tags: tuple[str, ...]
    latencies_ms: Floats


def model_subject(
    kernels: Sequence[tuple[str, KernelConfig]], family: str, *, staged: str = ""
) -> Subject:
    """A whole model of these kernels."""
    found = [row for kind, config in kernels for row in rows(kind, config, staged)]
    return Subject(((CALL, (0.0,)), *found), family)


def kernel_subject(kind: str, config: KernelConfig, family: str, *, staged: str = "") -> Subject:
    """One kernel that a profiler saw in a model of ``family``, without what a launch takes before it."""
    found = [row for row in rows(kind, config, staged) if row[0] != LAUNCH]
    return Subject(tuple(found), family, whole=False)


class Design:
    """Subjects as matrices: how often each has a row of terms, and the row's columns.

    Parameters are in order: the groups' bases, ``profiled`` where there are kernels beside whole models, then each
    term's base and slopes, for the terms that occur. ``noise``
    is the standard deviation that is taken for the logarithm of a whole model's latency.

    Where it is ``bounded``, what waits for memory is not slower for being larger. Else means over pictures took what
    other work the networks have that hold them: 26 ms for 32 channels of 96 x 96 on an RTX 4090.
    """

    def __init__(self, subjects: Sequence[Subject], noise: float = NOISE, bounded: bool = False) -> None:
        sparse = _sparse()
        self.noise = noise
        self.families = np.array([s.family for s in subjects])
        self.whole = np.array([s.whole for s in subjects])
        both = len(set(self.whole)) > 1
        index: dict[tuple[TermRow, bool], int] = {}
        places = [
            (m, index.setdefault((row, s.whole), len(index))) for m, s in enumerate(subjects) for row in s.terms
        ]
        ones = np.ones(len(places))
        self.counts = sparse.csr_array(
            (ones, tuple(np.array(places).T)), shape=(len(subjects), len(index))
        )
        occur = {name for (name, _), _ in index}
        self.terms = tuple(name for name in TERMS if name in occur)
        free = (PROFILED,) if both else ()
        self.parameters = (*GROUPS, *free, *(p for name in self.terms for p in parameters_of(name)))
        place = {name: i for i, name in enumerate(self.parameters)}
        self.columns = np.zeros((len(index), len(self.parameters)))
        self.work = np.zeros(len(index))
        self.term_of_row = np.array([self.terms.index(name) for (name, _), _ in index])
        for ((name, row), whole), j in index.items():
            at = place[name]
            self.columns[j, at] = 1.0
            self.columns[j, at + 1 : at + len(row)] = row[1:]
            if TERMS[name].group:
                self.columns[j, place[TERMS[name].group]] = 1.0
            if both and not whole:
                self.columns[j, place[PROFILED]] = 1.0
            self.work[j] = row[0]
        self._slopes = np.array(["." in p for p in self.parameters])
        memory = [bounded and "." in p and TERMS[p.partition(".")[0]].group == "memory" for p in self.parameters]
        self._most = np.where(memory, 0.0, np.inf)

    def ranges(self, used: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Lowest and highest of every column over the rows that subjects of ``used`` have; NaN where none has any."""
        rows_used = np.asarray(self.counts[used].sum(axis=0)).ravel() > 0
        low, high = np.full((2, len(self.parameters)), np.nan)
        for t, name in enumerate(self.terms):
            some = rows_used & (self.term_of_row == t)
            at = self.parameters.index(name)
            width = len(TERMS[name].columns)
            if some.any() and width:
                values = self.columns[some, at + 1 : at + 1 + width]
                low[at + 1 : at + 1 + width], high[at + 1 : at + 1 + width] = values.min(0), values.max(0)
        return low, high

    def predict(self, parameters: Floats, asked: NDArray[np.bool_], learned: NDArray[np.bool_]) -> Floats:
        """Latencies of subjects ``asked`` by parameters that were learned from subjects ``learned``."""
        low, high = self.ranges(learned)
        columns = self.columns.copy()
        known = self._slopes & ~np.isnan(low)
        some = columns[:, known]
        columns[:, known] = np.where(some == 0, 0, np.clip(some, low[known] - MARGIN, high[known] + MARGIN))
        answer: Floats = self.counts[asked] @ np.exp(np.clip(columns @ parameters + self.work, -50, 50))
        return answer

    def fit(
        self,
        latencies_ms: Floats,
        mean: Floats,
        precision: Floats,
        start: Floats,
        used: NDArray[np.bool_],
        steps: int = _STEPS,
    ) -> tuple[Floats, Floats]:
        """Parameters of one environment, and the matrix of second derivatives there.

        ``mean`` and ``precision`` (a matrix, or its diagonal) are the prior's.
        """
        used = used & ~np.isnan(latencies_ms)
        counts = self.counts[used]
        rows_used = np.asarray(counts.sum(axis=0)).ravel() > 0
        counts, columns, work = counts[:, rows_used], self.columns[rows_used], self.work[rows_used]
        logs = np.log(latencies_ms[used])
        weight = np.where(self.whole[used], 1.0, KERNEL_WEIGHT) / self.noise**2
        prior = np.diag(precision) if precision.ndim == 1 else precision
        edge = 2 * self.noise

        def cost(parameters: Floats) -> tuple[float, Floats, Floats, Floats]:
            times = np.exp(np.clip(columns @ parameters + work, -50, 50))
            sums = counts @ times
            error = np.log(sums) - logs
            size = np.abs(error)
            loss = np.where(size < edge, error**2, 2 * edge * size - edge**2)
            away = parameters - mean
            return float((weight * loss).sum() + away @ prior @ away), times, sums, error

        parameters = start.copy()
        value, times, sums, error = cost(parameters)
        damping = 1e-3
        hessian = prior
        for _ in range(steps):
            jacobian = (counts @ (times[:, None] * columns)) / sums[:, None]
            robust = weight * np.minimum(1, edge / np.maximum(np.abs(error), 1e-12))
            hessian = (jacobian * robust[:, None]).T @ jacobian + prior
            gradient = (jacobian * robust[:, None]).T @ error + prior @ (parameters - mean)
            for _ in range(8):
                step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
                tried = np.minimum(parameters - np.clip(step, -2, 2), self._most)
                found = cost(tried)
                if found[0] < value:
                    break
                damping *= 5
            else:
                break
            gained = value - found[0]
            parameters, (value, times, sums, error) = tried, found
            damping = max(damping / 5, 1e-6)
            if gained < 1e-6 * value:
                break
        return parameters, hessian

    def sensitivity(self, parameters: Floats) -> Floats:
        """How the logarithm of each subject's latency follows each parameter, float64 (subjects, parameters)."""
        times = np.exp(np.clip(self.columns @ parameters + self.work, -50, 50))
        found: Floats = (self.counts @ (times[:, None] * self.columns)) / (self.counts @ times)[:, None]
        return found

    def doubt(self, parameters: Floats, covariance: Floats) -> Floats:
        """Variance of the logarithm of each subject's predicted latency, float64 (subjects,)."""
        return doubt(self.sensitivity(parameters), covariance)

    def most_telling(
        self, parameters: Floats, covariance: Floats, asked: NDArray[np.intp], count: int
    ) -> list[int]:
        """Subjects of ``asked`` whose latencies would tell most, the first first."""
        along = self.sensitivity(parameters)
        return most_telling(along, covariance, asked, count)


def doubt(along: Floats, covariance: Floats) -> Floats:
    """Variance, float64 (subjects,), of what follows parameters by ``along`` (subjects, parameters), of which
    ``covariance`` is not known."""
    found: Floats = np.maximum(np.einsum("ij,jk,ik->i", along, covariance, along), 0.0)
    return found


def most_telling(
    along: Floats, covariance: Floats, asked: NDArray[np.intp], count: int, noise: float = NOISE
) -> list[int]:
    """Rows of ``along`` among ``asked`` whose measurement would tell most, the first first: each time the one that
    takes most of the doubt about all of them away.

    Args:
        along: float64 (subjects, parameters), how the logarithm of each latency follows each parameter.
        covariance: float64 (parameters, parameters), what is not known of these.
        noise: standard deviation of one measurement's logarithm.
    """
    covariance = covariance.copy()
    left = list(map(int, asked))
    taken: list[int] = []
    while left and len(taken) < count:
        spread = along[asked] @ covariance
        open_rows = along[left]
        gains = ((spread @ open_rows.T) ** 2).sum(0)
        gains /= ((open_rows @ covariance) * open_rows).sum(1) + noise**2
        best = left.pop(int(np.argmax(gains)))
        taken.append(best)
        step = covariance @ along[best]
        covariance -= np.outer(step, step) / (along[best] @ step + noise**2)
    return taken


@dataclass(frozen=True)
class Prior:
    """What is expected of a device that nobody measured: a normal distribution of the parameters."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, learned: Sequence[Mapping[str, Any]], parameters: Sequence[str]) -> Prior:
        """From terms of other devices (``terms_document``): their mean, how they vary together, and on top that all
        may be faster or slower, and each a little different."""
        vectors = np.array([_vector(each, parameters) for each in learned])
        bases = np.array([name in TERMS for name in parameters], np.float64)
        covariance = np.outer(bases, bases) * 1.0
        if len(vectors) > 2:
            covariance += np.atleast_2d(np.cov(vectors.T))
            own = 0.05
        else:
            own = 0.15
        covariance += np.diag(np.where(bases > 0, (2 * own) ** 2, own**2))
        return cls(vectors.mean(0), covariance)

    def fit(self, design: Design, latencies_ms: Floats) -> tuple[Floats, Floats]:
        """Most probable parameters after these latencies, and their covariance."""
        used = ~np.isnan(latencies_ms)
        precision = np.asarray(np.linalg.inv(self.covariance), np.float64)
        parameters, hessian = design.fit(latencies_ms, self.mean, precision, self.mean, used, steps=30)
        return parameters, np.asarray(np.linalg.inv(hessian), np.float64)


def _vector(learned: Mapping[str, Any], parameters: Sequence[str]) -> Floats:
    """Parameters of a stored predictor, groups at 0: their bases are inside those of their terms."""
    found = np.zeros(len(parameters))
    place = {name: i for i, name in enumerate(parameters)}
    for name, entry in learned.items():
        if name in place:
            at = place[name]
            found[at] = entry["base"]
            found[at + 1 : at + 1 + len(entry["slopes"])] = entry["slopes"]
    return found


def parameters_of(term: str) -> tuple[str, ...]:
    """Names of a term's parameters: its base, then ``term.column`` for each slope."""
    return (term, *(f"{term}.{column}" for column in TERMS[term].columns))


@dataclass(frozen=True)
class Fitted:
    """Parameters of environments fitted together, float64 (environments, parameters) each: the most probable ones,
    what was expected of them, and the spread around that."""

    parameters: Floats
    mean: Floats
    spread: Floats


def fit_together(
    design: Design,
    environments: Sequence[Environment],
    *,
    used: NDArray[np.bool_] | None = None,
    rounds: int = 3,
    start: Fitted | None = None,
) -> Fitted:
    """Parameters of every environment, and the prior that they show.

    Raises:
        BuildError: fewer than ``MIN_MODELS`` whole models in one.
    """
    used = np.ones(len(design.whole), bool) if used is None else used
    for each in environments:
        count = int((used & design.whole & ~np.isnan(each.latencies_ms)).sum())
        if count < MIN_MODELS:
            raise BuildError(
                f"{each.name}: {count} whole models are too few to fit, {MIN_MODELS} are needed; "
                "measure more, or adapt a predictor that ships: nn-meter adapt"
            )
    spread = _prior_spread(design.parameters)
    fitted = start or _first_guess(design, environments, spread)
    parameters, mean, spreads = fitted.parameters.copy(), fitted.mean.copy(), fitted.spread.copy()
    shared, reach = _shared(environments)
    free = np.array([p in _FREE for p in design.parameters])
    together = len(environments) > 2
    for _ in range(rounds):
        doubt = np.zeros_like(parameters)
        for k, each in enumerate(environments):
            parameters[k], hessian = design.fit(
                each.latencies_ms, mean[k], 1 / spreads[k] ** 2, parameters[k], used,
                _STEPS if together else _STEPS_ALONE,
            )
            doubt[k] = np.diag(np.linalg.inv(hessian))
        if not together:
            break  # one environment shows no spread
        for j in range(len(design.parameters)):
            certain = 1 / (doubt[:, j] + spreads[:, j].mean() ** 2)
            ridge = (0.05 if free[j] else 1.0) / (reach * spread[j]) ** 2
            effects = np.linalg.solve(
                shared.T @ (certain[:, None] * shared) + np.diag(ridge), shared.T @ (certain * parameters[:, j])
            )
            mean[:, j] = shared @ effects
            variance = float(np.mean((parameters[:, j] - mean[:, j]) ** 2 + doubt[:, j]))
            spreads[:, j] = np.sqrt(np.clip(variance, _LEAST_SPREAD**2, spread[j] ** 2))
    return Fitted(parameters, mean, spreads)


def leave_families_out(
    design: Design,
    environments: Sequence[Environment],
    *,
    rounds: int = 3,
    families: Sequence[str] | None = None,
    folds: int | None = None,
) -> Floats:
    """Latencies in ms, float64 (environments, subjects), each predicted without the subject's family; NaN for kernels
    and for families not asked for. With ``folds``, families are dealt into so many and left out fold by fold."""
    answers = np.full((len(environments), len(design.whole)), np.nan)
    asked = sorted(set(design.families[design.whole])) if families is None else families
    count = folds or len(asked)
    for fold in range(min(count, len(asked))):
        used = ~np.isin(design.families, asked[fold::count])
        some = ~used & design.whole
        fitted = fit_together(design, environments, used=used, rounds=rounds)
        for k, _ in enumerate(environments):
            answers[k, some] = design.predict(fitted.parameters[k], some, used)
    return answers


def terms_document(
    design: Design, parameters: Floats, used: NDArray[np.bool_], *, staged: str, batches: Sequence[int]
) -> dict[str, Any]:
    """What a bundle's ``terms`` hold: every term of the table, those that no subject had by their group's speed."""
    low, high = design.ranges(used)
    place = {name: i for i, name in enumerate(design.parameters)}
    rows_used = np.asarray(design.counts[used].sum(axis=0)).ravel() > 0
    group = {name: float(parameters[place[name]]) for name in GROUPS}
    launch = float(parameters[place[LAUNCH]]) if LAUNCH in place else _START[LAUNCH]
    learned: dict[str, Any] = {}
    for name, term in TERMS.items():
        shared = group.get(term.group, 0.0)
        if name not in place:
            base = shared if term.group else group["arithmetic"] if name != LAUNCH else launch
            learned[name] = {"base": round(base, 4), "slopes": [0.0] * len(term.columns)}
            continue
        at, width = place[name], len(term.columns)
        work = design.work[rows_used & (design.term_of_row == design.terms.index(name))]
        entry = {
            "base": round(float(parameters[at]) + shared, 4),
            "slopes": [round(float(v), 4) for v in parameters[at + 1 : at + 1 + width]],
        }
        if len(work):
            entry["work"] = [round(float(work.min()), 3), round(float(work.max()), 3)]
            entry["seen"] = [
                [round(float(a), 3), round(float(b), 3)]
                for a, b in zip(low[at + 1 : at + 1 + width], high[at + 1 : at + 1 + width], strict=True)
            ]
        learned[name] = entry
    return {"staged": staged, "batches": sorted(set(batches)), "learned": learned}


def interval_of(errors: Floats) -> Interval:
    """The central 90 % of the logarithms of measured over predicted."""
    low, high = np.quantile(errors, [0.05, 0.95])
    return Interval(round(float(low), 4), round(float(high), 4), models=len(errors))


def _prior_spread(parameters: Sequence[str]) -> Floats:
    return np.array(
        [_SPREAD_SLOPE if "." in p else _SPREAD_FREE if p in _FREE else _SPREAD_BASE for p in parameters]
    )


def _first_guess(design: Design, environments: Sequence[Environment], spread: Floats) -> Fitted:
    plain = design.counts @ np.exp(design.work)
    guess = np.zeros((len(environments), len(design.parameters)))
    for k, each in enumerate(environments):
        some = design.whole & ~np.isnan(each.latencies_ms)
        scale = math.log(float(np.median(each.latencies_ms[some]) / np.median(plain[design.whole])))
        for j, name in enumerate(design.parameters):
            guess[k, j] = _START.get(name, scale if name in _FREE else 0.0)
    return Fitted(guess, guess, np.tile(spread, (len(environments), 1)))


def _shared(environments: Sequence[Environment]) -> tuple[Floats, Floats]:
    """Which tags each environment has, and how far one of them may shift a parameter, in spreads."""
    tags = ["", *dict.fromkeys(tag for each in environments for tag in each.tags)]
    has = np.array([[tag == "" or tag in each.tags for tag in tags] for each in environments], np.float64)
    return has, np.array([1.0 if tag == "" else 0.5 for tag in tags])


def _sparse() -> Any:
    try:
        from scipy import sparse
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "build", "fitting a predictor") from error
    return sparse
