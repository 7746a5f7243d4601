"""Predicts with bundles of schema ``terms-1``: a kernel's latency is the sum of its terms (``kernels.terms``).

The bundle's ``terms`` hold per term a base and a slope for each of its columns, learned from whole models, and the
ranges in which the term's work and sizes lay. A term that no model of the training had is answered by the speed of its
group, and the kernel counts as estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nn_meter.errors import BundleError
from nn_meter.ir import Graph
from nn_meter.kernels.partition import Kernel, Partition
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.terms import CALL, NO_WORK, PROCESSOR, TERMS, rows
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.prediction import KernelPrediction, Prediction
from nn_meter.runtimes.fusion import fuse
from nn_meter.storage.reading import is_number, shown

MARGIN = math.log(2)
"""How far outside the sizes that were seen a slope is followed; beyond, the speed stays as it is."""

_LOG_MOST = 1e4
"""No logarithm and no slope of a real device is near (13.6 in what ships), and sums of their products stay finite."""


@dataclass(frozen=True, slots=True)
class LearnedTerm:
    """Base and slopes of a term. ``seen`` are the lowest and highest of its columns in training, empty where no
    model had it; ``work`` those of its work's logarithm."""

    base: float
    slopes: tuple[float, ...]
    seen: tuple[tuple[float, float], ...] = ()
    work: tuple[float, float] | None = None

    def latency_ms(self, row: tuple[float, ...]) -> float:
        """Milliseconds of one term, ``row`` as ``Term.row`` gives it."""
        sizes = row[1:]
        if self.seen:
            sizes = tuple(
                min(max(x, low - MARGIN), high + MARGIN)
                for x, (low, high) in zip(sizes, self.seen, strict=True)
            )
        exponent = self.base + row[0] + sum(w * x for w, x in zip(self.slopes, sizes, strict=True))
        return math.exp(min(exponent, 50.0))

    def notes(self, name: str, row: tuple[float, ...]) -> tuple[str, ...]:
        """What of a row lies outside of what was seen, in words."""
        if self.work is None:
            return (f"no model with {name!r} was measured: estimated by what else uses the same resource",)
        return tuple(
            f"{column} of {name!r} is {'below' if x < low else 'above'} what was measured"
            for column, x, (low, high) in zip(TERMS[name].columns, row[1:], self.seen, strict=True)
            if not column.endswith("^2") and not low - MARGIN <= x <= high + MARGIN
        )


def staging(document: Mapping[str, Any]) -> str:
    """``staged`` of ``kernels.terms`` in a bundle's ``terms``. Bundles of before said true for TFLite's processors."""
    told = document.get("staged", "")
    return told if isinstance(told, str) else PROCESSOR if told else ""


def read_terms(document: Mapping[str, Any], where: str) -> dict[str, LearnedTerm]:
    """Learned terms of a bundle's ``terms``.

    Raises:
        BundleError: a term that there is not, or other columns than it has.
    """
    learned: dict[str, LearnedTerm] = {}
    try:
        for name, entry in document["learned"].items():
            slopes = tuple(map(_logarithm, entry["slopes"]))
            if name not in TERMS or len(slopes) != len(TERMS[name].columns):
                raise BundleError(f"{where}: the term {name!r} is none of schema terms-1; upgrade nn-meter")
            seen, work = tuple(map(_range, entry.get("seen", ()))), None
            if "work" in entry:
                work = _range(entry["work"])
            if len(seen) != (0 if work is None else len(slopes)):
                raise ValueError(f"{len(seen)} ranges of {len(slopes)} columns in 'seen' of the term {name!r}")
            learned[name] = LearnedTerm(_logarithm(entry["base"]), slopes, seen, work)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{where}: 'terms' does not hold what docs/bundle.md says ({error!r})") from error
    return learned


def _logarithm(value: Any) -> float:
    if not is_number(value) or abs(value) > _LOG_MOST:
        raise ValueError(f"{shown(value)} is no number from {-_LOG_MOST:g} to {_LOG_MOST:g}")
    return float(value)


def _range(value: Any) -> tuple[float, float]:
    low, high = map(_logarithm, value)
    if low > high:
        raise ValueError(f"the range {low:g} to {high:g} ends before it begins")
    return low, high


class SumsEngine:
    """Answers for graphs.

    Args:
        bundle: of schema ``terms-1``.

    Raises:
        BundleError: its terms cannot be read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._rules = read_rules(bundle.rules, f"rules of {bundle.name}")
        self._staged = staging(bundle.terms)
        self._learned = read_terms(bundle.terms, f"bundle {bundle.name!r}")
        self._batches = bundle.terms.get("batches", [])
        if not isinstance(self._batches, list | tuple) or not all(map(is_number, self._batches)):
            raise BundleError(f"bundle {bundle.name!r}: 'batches' of 'terms' must be a list of numbers")

    def latency_ms(self, graph: Graph) -> float:
        """Milliseconds of one inference."""
        return self.latencies_ms((graph,))[0]

    def latencies_ms(self, graphs: Iterable[Graph]) -> list[float]:
        """Milliseconds of one inference of each."""
        return [self.explain(graph).latency_ms for graph in graphs]

    def explain(self, graph: Graph) -> Prediction:
        """The answer with all that it rests on."""
        partition = fuse(graph, self._rules, known=())
        batch = next((graph.tensors[name].shape[0] for name in graph.inputs if graph.tensors[name].shape), 1)
        return self.explain_partition(partition, self._limits(partition, batch))

    def explain_partition(self, partition: Partition, notes: tuple[str, ...] = ()) -> Prediction:
        """The answer for kernels that are known already."""
        kernels = [self._explain(kernel) for kernel in partition.kernels]
        call_ms = self._term(CALL).latency_ms((0.0,))
        notes = (*partition.notes, *notes)
        found = Prediction.of(self._bundle, partition.model, kernels, partition.unfused, notes, call_ms)
        return replace(found, interval_ms=self._interval(found))

    def _term(self, name: str) -> LearnedTerm:
        found = self._learned.get(name)
        if found is None:
            raise BundleError(f"bundle {self._bundle.name!r} lacks the term {name!r}; fit it again")
        return found

    def _explain(self, kernel: Kernel) -> KernelPrediction:
        terms = [] if kernel.free else rows(kernel.kind, kernel.config, self._staged)
        if not terms:
            return KernelPrediction(kernel, "free", 0.0)
        latency_ms = sum(self._term(name).latency_ms(row) for name, row in terms)
        notes = tuple(dict.fromkeys(note for name, row in terms for note in self._term(name).notes(name, row)))
        unseen = any(self._term(name).work is None for name, _ in terms)
        if all(name in NO_WORK for name, _ in terms):
            unseen, notes = True, (*notes, f"no term for kernels of kind {kernel.kind!r}: only the launch is counted")
        return KernelPrediction(kernel, "estimated" if unseen else "predicted", latency_ms, None, notes)

    def _limits(self, partition: Partition, batch: int) -> tuple[str, ...]:
        """What was asked that the training did not hold, in words."""
        known = self._batches
        notes = []
        if known and not min(known) / 2 <= batch <= max(known) * 2:
            span = f"{min(known)}" if len(set(known)) == 1 else f"{min(known)} to {max(known)}"
            notes.append(f"measured at batch {span}, asked about batch {batch}: extrapolated")
        mixing = any(k.kind == "attention" or (k.kind == "matmul" and k.label == "MatMul") for k in partition.kernels)
        unseen = all(self._learned[n].work is None for n in ("matmul", "attention") if n in self._learned)
        if mixing and unseen:
            notes.append("only convolutional networks were measured, this one multiplies activations: estimated")
        return tuple(notes)

    def _interval(self, prediction: Prediction) -> tuple[float, float] | None:
        interval, total_ms = self._bundle.interval, prediction.latency_ms
        if not interval or not total_ms:
            return None
        guessed = prediction.coverage["estimated"].share
        low, high = interval.low, interval.high
        # what is estimated may be off by a factor of two either way
        return total_ms * math.exp(low - guessed * math.log(2)), total_ms * math.exp(high + guessed * math.log(2))
