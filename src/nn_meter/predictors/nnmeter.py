"""Predicts with bundles in nn-Meter's terms: its rules, its columns, its sum.

A kernel is answered by the regressor that nn-Meter would ask. What nn-Meter leaves out of its sum without a
word, for want of a regressor, counts 0 ms here too, so that published figures stay comparable; it is marked
*estimated*, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nn_meter.errors import PredictorError
from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig, Shape, as_shape
from nn_meter.kernels.rules import RuleSet
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.nnmeter_columns import ENCODERS, Facts, kernel_name
from nn_meter.predictors.prediction import KernelPrediction, Prediction, Status
from nn_meter.runtimes.nnmeter import Ir, Partitioner, Plan, PlannedKernel

Row = tuple[float, ...]
_ROW_ERRORS = (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError)
_SAME_SHAPES = frozenset({"add", "mul", "div", "sub"})


class _Kind:
    """One kernel name: its columns, its regressor, and the answers that it gave already."""

    __slots__ = ("encode", "known", "name", "predictor")
    _REMEMBERED = 1_000_000

    def __init__(self, name: str, predictor: KindPredictor) -> None:
        self.name = name
        self.predictor = predictor
        self.encode: Callable[[Facts], Row] = ENCODERS[predictor.schema][name]
        self.known: dict[Row, float] = {}

    def make_room(self) -> None:
        """Forget, where much is known. What a batch of models takes for known stays so until its sums are made."""
        if len(self.known) > self._REMEMBERED:
            self.known.clear()

    def learn(self, rows: Iterable[Row]) -> None:
        """Ask the regressor about the rows that are new."""
        new = [row for row in dict.fromkeys(rows) if row not in self.known]
        if not new:
            return
        try:
            array = np.array(new, dtype=np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise PredictorError(f"kernel {self.name!r}: a column is no number in {new[0]!r}") from error
        self.known.update(zip(new, self.predictor.predict(array).tolist(), strict=True))


class NnMeterEngine:
    """Answers for nn-Meter dictionaries.

    Args:
        bundle: kernel predictors whose schema is one of nn-Meter's.
        rules: the bundle's fusion rules.
    """

    def __init__(self, bundle: Bundle, rules: RuleSet) -> None:
        self._bundle = bundle
        self._partitioner = Partitioner(rules)
        self._kinds: dict[str, _Kind | None] = {}
        self._compiled: dict[int, tuple[Plan, list[tuple[str, _Kind]]]] = {}

    def latency_ms(self, ir: Ir) -> float:
        """Milliseconds of one inference."""
        return self.latencies_ms((ir,))[0]

    def latencies_ms(self, irs: Iterable[Ir]) -> list[float]:
        """Milliseconds of one inference of each; kernels that the models share are computed once."""
        for known in self._kinds.values():
            if known is not None:
                known.make_room()
        models: list[list[tuple[_Kind, Row]]] = []
        unknown: dict[_Kind, list[Row]] = {}
        for ir in irs:
            model: list[tuple[_Kind, Row]] = []
            for head, kind in self._asked(self._partitioner.plan(ir)):
                try:
                    row = kind.encode(ir[head]["attr"])
                    fresh = row not in kind.known
                except _ROW_ERRORS:
                    continue
                model.append((kind, row))
                if fresh:
                    unknown.setdefault(kind, []).append(row)
            models.append(model)
        for kind, rows in unknown.items():
            kind.learn(rows)
        return [sum([kind.known[row] for kind, row in model], 0.0) for model in models]

    def explain(
        self, ir: Ir, model: str, notes: tuple[str, ...] = (), free: Mapping[str, str] | None = None
    ) -> Prediction:
        """The same answer with all that it rests on.

        ``free`` adds nodes that are not in ``ir`` because they compute constants: name to operator.
        """
        plan = self._partitioner.plan(ir)
        kernels: list[KernelPrediction] = []
        for planned in plan.kernels:
            kernels.append(self._explain(planned, ir))
        for name in plan.free:
            operator = str(ir[name]["attr"]["type"])
            kernels.append(_free(name, operator, f"{operator} is not computed at inference"))
        for name, operator in (free or {}).items():
            kernels.append(_free(name, operator, "its result is known before inference"))
        return Prediction.of(self._bundle, model, kernels, plan.unfused, notes)

    def _asked(self, plan: Plan) -> list[tuple[str, _Kind]]:
        """The kernels of ``plan`` that have a regressor: head node and kind."""
        entry = self._compiled.get(id(plan))
        if entry is None or entry[0] is not plan:
            kinds = [(k.head, self._kind(kernel_name(k.ops))) for k in plan.kernels]
            entry = plan, [(head, kind) for head, kind in kinds if kind is not None]
            if len(self._compiled) > 1024:
                self._compiled.clear()
            self._compiled[id(plan)] = entry
        return entry[1]

    def _kind(self, name: str | None) -> _Kind | None:
        if name is None:
            return None
        if name not in self._kinds:
            self._kinds[name] = _Kind(name, self._bundle.kinds[name]) if name in self._bundle.kinds else None
        return self._kinds[name]

    def _explain(self, planned: PlannedKernel, ir: Ir) -> KernelPrediction:
        name = kernel_name(planned.ops)
        kind = self._kind(name)
        facts = ir[planned.head]["attr"]
        nodes = tuple(part for node in planned.nodes for part in ir[node].get("nodes", (node,)))
        row: Row = ()
        problem = ""
        if name is None:
            problem = f"nn-Meter has no kernel {planned.label!r}; its sums leave it out, so it counts 0 ms"
        elif kind is None:
            problem = (
                f"this predictor has no kernel {name!r}; nn-Meter's sums leave it out, so it counts 0 ms"
            )
        else:
            try:
                row = kind.encode(facts)
                kind.make_room()
                kind.learn((row,))
            except _ROW_ERRORS:
                problem = f"its shapes do not give the columns of {name!r}; it counts 0 ms"
        attr = facts["attr"]
        config = NnMeterConfig(
            _input_tensors(planned, facts),
            tuple(tuple(s) for s in facts.get("output_shape", ())),
            as_shape(attr.get("ksize", attr.get("kernel_shape"))),
            as_shape(attr.get("strides")),
            row,
            problem,
        )
        kernel = Kernel(name or planned.ops[0], config, nodes, planned.label)
        if kind is None or problem:
            return KernelPrediction(kernel, "estimated", 0.0, None, (problem,))
        outside = kind.predictor.outside(row)
        beyond = max((each.doublings for each in outside), default=0.0)
        status: Status = "extrapolated" if outside else "predicted"
        return KernelPrediction(kernel, status, kind.known[row], None, tuple(map(str, outside)), "", beyond)


def _free(name: str, operator: str, reason: str) -> KernelPrediction:
    return KernelPrediction(Kernel("free", FreeConfig(operator), (name,), operator, reason), "free", 0.0)


def _input_tensors(planned: PlannedKernel, facts: Mapping[str, Any]) -> tuple[Shape, ...]:
    """Shapes as nn-Meter lists them: elementwise operators get the first operand's throughout."""
    shapes = [tuple(s) for s in facts.get("input_shape", ())]
    first = planned.ops[0]
    if (first in _SAME_SHAPES or first == "hswish") and len(shapes) > 1:
        shapes = [shapes[0] or shapes[1]] * len(shapes)
    return tuple(shapes[:1] if first == "hswish" else shapes)
