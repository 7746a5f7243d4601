"""Predicts with bundles of the schemas ``onnx-1`` and ``onnx-2``: the kernels of a runtime, by regressors relative to a
roofline.

A kernel whose kind has no regressor is estimated by the roofline alone, at the speeds that the bundle's device
showed, times the median ratio of measured to roofline where the bundle knows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BundleError
from nn_meter.ir import Graph
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.partition import Kernel, KernelConfig, Partition
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.schema import ROOFLINE, SCHEMA, Encoder, Half, Row, Speeds, surroundings
from nn_meter.predictors import onnx_1
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.parts import Part, Roofline, spread
from nn_meter.predictors.prediction import KernelPrediction, Prediction, Status
from nn_meter.runtimes import find
from nn_meter.runtimes.fusion import charged, fuse
from nn_meter.runtimes.structures import Charged, Structures


class KindAnswers:
    """What one kernel kind's regressor answers, or without one ``factor`` times the roofline.

    Args:
        kind: a name of ``KINDS``.
        predictor: the regressor, if there is one.
        speeds: of the device.
        schema: of the columns; ``onnx-1`` counted some work otherwise.

    Raises:
        BundleError: the regressor asks for a column that the kind does not have, or for a category without codes.
    """

    __slots__ = ("_factor", "encoder", "predictor")

    def __init__(
        self, kind: str, predictor: KindPredictor | None, speeds: Speeds, factor: float = 1.0, schema: str = SCHEMA
    ) -> None:
        self.predictor = predictor
        self._factor = factor
        columns, codes = (predictor.columns, predictor.categories) if predictor else ((ROOFLINE,), {})
        try:
            work = onnx_1.WORK.get(kind) if schema == onnx_1.SCHEMA else None
            self.encoder = Encoder(KINDS[kind], columns, codes, speeds, work)
        except KeyError as error:
            raise BundleError(
                f"predictor of {kind!r}: it was trained on a column {error} that is not known here, or whose codes it "
                "lacks; upgrade with: pip install -U nn-meter, or build it again"
            ) from error

    def latencies_ms(self, rows: NDArray[np.float64], alike: Sequence[int] | None = None) -> list[float]:
        """Milliseconds of each row; ``alike`` says which are of one config, by a number from 0 on."""
        found = rows[:, 0] * self._factor if self.predictor is None else self.predictor.predict(rows, alike)
        answers: list[float] = found.tolist()
        return answers


class GraphEngine:
    """Answers for graphs.

    Args:
        bundle: of one of these schemas.

    Raises:
        BundleError: a kind's columns are not among those of the schema, or its fallback is no roofline.
        RuleError: its rules name a runtime that does not exist.
    """

    _REMEMBERED = 1_000_000

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._rules = read_rules(bundle.rules, f"rules of {bundle.name}")
        self._runtime = find(self._rules.runtime)
        if not isinstance(bundle.fallback, Roofline):
            raise BundleError(
                f"bundle {bundle.name!r}: its fallback is {bundle.fallback.policy!r}; schema {bundle.schema!r} needs "
                f"{Roofline.policy!r}"
            )
        self._fallback, self._speeds = bundle.fallback, bundle.fallback.speeds
        self._kinds: dict[str, KindAnswers] = {}
        self._known: dict[_Item, float] = {}
        self._structures = Structures(self._charged, self._half)

    def latency_ms(self, graph: Graph) -> float:
        """Milliseconds of one inference."""
        return self.latencies_ms((graph,))[0]

    def latencies_ms(self, graphs: Iterable[Graph]) -> list[float]:
        """Milliseconds of one inference of each; kernels that the models share are computed once."""
        models = self._surrounded([self._structures.items(graph) for graph in graphs])
        self._learn(chain.from_iterable(models))
        call_ms = self._bundle.call_ms
        return [sum([self._known[item] for item in model]) + call_ms for model in models]

    def explain(self, graph: Graph) -> Prediction:
        """The same answer with all that it rests on."""
        bundle = self._bundle
        return self.explain_partition(
            fuse(graph, self._rules, self._runtime, bundle.runtime_version, known=bundle.kinds)
        )

    def explain_partition(self, partition: Partition) -> Prediction:
        """The answer for kernels that are known already."""
        asked = [k for k in partition.kernels if not k.free]
        (model,) = self._surrounded([[self._half(k.kind, k.config) for k in asked]])
        self._learn(model)
        items = {id(k): item for k, item in zip(asked, model, strict=True)}
        rows: dict[_Item, Row] = {}
        for kind, own in _by_kind(dict.fromkeys(model)).items():
            rows.update(zip(own, self._rows(kind, own).tolist(), strict=True))
        told: dict[_Item, KernelPrediction] = {}
        kernels = [self._explain(k, items.get(id(k)), rows, told) for k in partition.kernels]
        found = Prediction.of(
            self._bundle, partition.model, kernels, partition.unfused, partition.notes, self._bundle.call_ms
        )
        return replace(found, interval_ms=self._interval(found))

    def _charged(self, graph: Graph) -> Charged:
        bundle = self._bundle
        return charged(graph, self._rules, self._runtime, bundle.runtime_version, bundle.kinds)

    def _half(self, kind: str, config: KernelConfig) -> Half:
        return self._kind(kind).encoder.half(config)

    def _kind(self, kind: str) -> KindAnswers:
        if kind not in self._kinds:
            predictor = self._bundle.kinds.get(kind)
            self._kinds[kind] = KindAnswers(
                kind, predictor, self._speeds, self._fallback.factor, self._bundle.schema
            )
        return self._kinds[kind]

    def _surrounded(self, models: Sequence[Sequence[Half]]) -> list[list[_Item]]:
        """Each kernel with what surrounds it in its model; models of as many kernels are taken at once."""
        alike: dict[int, list[int]] = {}
        for place, model in enumerate(models):
            alike.setdefault(len(model), []).append(place)
        found: list[list[_Item]] = [[] for _ in models]
        for count, places in alike.items():
            if count:
                around = surroundings([models[place] for place in places])
                for place, own in zip(places, around.tolist(), strict=True):
                    found[place] = [*zip(models[place], own, strict=True)]
        return found

    def _learn(self, items: Iterable[_Item]) -> None:
        if len(self._known) > self._REMEMBERED:
            self._known.clear()
        known = self._known
        for kind, own in _by_kind(dict.fromkeys([item for item in items if item not in known])).items():
            places: dict[Half, int] = {}
            alike = [places.setdefault(half, len(places)) for half, _ in own]
            self._known.update(zip(own, self._kind(kind).latencies_ms(self._rows(kind, own), alike), strict=True))

    def _rows(self, kind: str, items: Sequence[_Item]) -> NDArray[np.float64]:
        """Of items of this kind."""
        return self._kind(kind).encoder.rows([half for half, _ in items], [around for _, around in items])

    def _explain(
        self, kernel: Kernel, item: _Item | None, rows: Mapping[_Item, Row], told: dict[_Item, KernelPrediction]
    ) -> KernelPrediction:
        """``told`` is what was said of kernels before: of equal ones it is the same."""
        if item is None:
            return KernelPrediction(kernel, "free", 0.0)
        known = told.get(item)
        if known is None:
            known = told[item] = self._judged(kernel, self._known[item], rows[item])
        return KernelPrediction(
            kernel, known.status, known.latency_ms, known.interval_ms, known.notes, known.bound, known.beyond
        )

    def _judged(self, kernel: Kernel, latency_ms: float, row: Row) -> KernelPrediction:
        predictor = self._kind(kernel.kind).predictor
        bound = self._kind(kernel.kind).encoder.bound(kernel.config)
        if predictor is None or not self._fallback.measured:
            unknown = f"no regressor for kind {kernel.kind!r}: estimated from flops and bytes"
            note = _FROM_SHEET if predictor else unknown
            interval_ms = self._around(latency_ms, "estimated")
            return KernelPrediction(kernel, "estimated", latency_ms, interval_ms, (note,), bound)
        outside = predictor.outside(row, KINDS[kernel.kind].names(kernel.config), self._runtime.by_data)
        if outside:
            interval_ms = self._around(latency_ms, "extrapolated")
            notes, beyond = tuple(map(str, outside)), max(each.doublings for each in outside)
            return KernelPrediction(kernel, "extrapolated", latency_ms, interval_ms, notes, bound, beyond)
        low, high = (predictor.errors.get(key) for key in ("log_low", "log_high"))
        known = low is not None and high is not None
        interval_ms = _times(latency_ms, low, high) if known else None
        return KernelPrediction(kernel, "predicted", latency_ms, interval_ms, (), bound)

    def _around(self, latency_ms: float, status: Status) -> tuple[float, float] | None:
        """The interval of what rests on this: an estimate's is that of estimates; an extrapolation's lies between that
        and a prediction's, since a regressor that is asked beyond what it saw still knows the kind."""
        interval = self._bundle.interval
        return interval.around(latency_ms, _WEIGHT_OF_ESTIMATES[status]) if interval else None

    def _interval(self, prediction: Prediction) -> tuple[float, float] | None:
        """Around the sum, by what it is a sum of; without knowledge of that the parts' ends, added."""
        interval = self._bundle.interval
        if interval is None:
            return None
        if interval.sums is not None:
            parts = [Part(k.kernel.kind, k.kernel.config, k.latency_ms, self._off(k)) for k in prediction.charged]
            off = spread(parts, interval.share)
            return _times(prediction.latency_ms, off * interval.sums[0], off * interval.sums[1])
        by_status = dict.fromkeys(_WEIGHT_OF_ESTIMATES, 0.0)
        for each in prediction.charged:
            by_status[each.status] += each.latency_ms
        by_status["predicted"] += prediction.call_ms
        ends = [interval.around(part_ms, _WEIGHT_OF_ESTIMATES[status]) for status, part_ms in by_status.items()]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def _off(self, each: KernelPrediction) -> float:
        """How far a kernel is off, as a logarithm."""
        interval, predictor = self._bundle.interval, self._kind(each.kernel.kind).predictor
        unknown = interval.off_estimated if interval else 0.0
        known = predictor.errors.get("log_off", unknown) if predictor else unknown
        weight = _WEIGHT_OF_ESTIMATES[each.status]
        return (1 - weight) * known + weight * unknown


_Item = tuple[Half, int]
"""A kernel, and what surrounds it: what has the same row."""


def _by_kind(items: Iterable[_Item]) -> dict[str, list[_Item]]:
    found: dict[str, list[_Item]] = {}
    for item in items:
        found.setdefault(item[0].kind, []).append(item)
    return found


_FROM_SHEET = "no kernel was measured on this device: estimated from its data sheet, by what others make of theirs"

_WEIGHT_OF_ESTIMATES: Mapping[Status, float] = MappingProxyType(
    {"predicted": 0.0, "extrapolated": 0.5, "estimated": 1.0}
)
"""How far an interval goes from that of predictions to that of estimates. One half is a choice, not a measurement."""


def _times(latency_ms: float, low: float | None, high: float | None) -> tuple[float, float]:
    return latency_ms * math.exp(low or 0.0), latency_ms * math.exp(high or 0.0)
