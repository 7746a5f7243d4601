"""Every operator that ONNX Runtime runs on the CPU: shape, work, executed kernels, predicted against measured.

    python scripts/operators.py --predictor zen4cpu_onnxruntime132 --budget 420

Operators are those of ONNX's opset and of com.microsoft that the installed onnxruntime has a kernel for on its CPU
provider. Each is measured alone, as a model of one node, and in context, between two elementwise operators in a traced
run, and written into a page with what was predicted for both.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parent))
from operator_cases import CASES, MODELS, WHY_NOT, Case, model_of

from nn_meter import frontends
from nn_meter.api import Predictor, load_latency_predictor
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeConfig, OnnxRuntimeCpu
from nn_meter.errors import NnMeterError
from nn_meter.ir import Graph
from nn_meter.ir.shapes import FOUND
from nn_meter.kernels.kinds import KIND_OF
from nn_meter.kernels.work import FLOPS, GENERATING
from nn_meter.measuring import Plan, measure
from nn_meter.predictors.prediction import DOUBTFUL, KernelPrediction
from nn_meter.runtimes.trace import ExecutedKernel

OPSET = 25
PAGE = Path("docs/operators_onnxruntime.md")
PROFILER_MS = 0.0018
"""What the profiler adds to each traced kernel (``nn_meter.backends.onnxruntime_cpu``)."""

TRACED_RUNS = 12


@dataclass(frozen=True)
class Pair:
    """Milliseconds predicted and measured; ``status`` is the least sure of the kernels that were predicted."""

    predicted_ms: float
    measured_ms: float
    status: str

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted_ms / self.measured_ms if self.measured_ms > 0 else float("inf")


@dataclass(frozen=True)
class Row:
    """What was found of one operator; ``failed`` says why there is nothing, or what is missing."""

    operator: str
    work: str
    executed: tuple[str, ...] = ()
    shape: str = ""
    alone: Pair | None = None
    context: Pair | None = None
    failed: str = ""


@dataclass
class Found:
    """All rows, and what they were measured with."""

    rows: list[Row] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)


def operators() -> list[str]:
    """Names of the operators that onnxruntime runs on its CPU provider, com.microsoft's with their domain.

    Operators that ONNX defines by others run as those, and need no kernel.
    """
    from onnx import defs
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = {s.name for s in defs.get_all_schemas_with_history() if not s.domain and s.since_version <= OPSET}
    deprecated = {
        name for name in known if defs.has(name, OPSET) and defs.get_schema(name, OPSET).deprecated
    } | {name for name in known if not defs.has(name, OPSET)}
    found = {name for name in known - deprecated if _is_function(defs.get_schema(name, OPSET))}
    for each in state.get_all_opkernel_def():
        if each.provider != "CPUExecutionProvider":
            continue
        if each.domain == "" and each.op_name in known - deprecated:
            found.add(each.op_name)
        elif each.domain == "com.microsoft":
            found.add(f"com.microsoft.{each.op_name}")
    return sorted(found)


def _is_function(schema: Any) -> bool:
    return bool(schema.has_function or schema.has_context_dependent_function)


def work_of(operator: str) -> str:
    """Where the work of an operator is counted."""
    name = operator.rpartition(".")[2]
    if name in KIND_OF:
        return f"kind {KIND_OF[name]}"
    if name in FLOPS:
        return "row"
    return f"none: {GENERATING[name]}" if name in GENERATING else "one an output element"


def examined(operator: str, predictor: Predictor, backend: OnnxRuntimeCpu, budget_s: float) -> Row:
    """Everything about one operator within about ``budget_s``."""
    row = Row(operator, work_of(operator))
    case = CASES.get(operator)
    if case is None and operator not in MODELS:
        return Row(operator, row.work, failed=WHY_NOT.get(operator, "no case"))
    try:
        model = case.graph(operator) if case else model_of(MODELS[operator])
        graph = model if isinstance(model, Graph) else frontends.read(model)
        kernels = backend.fused(model)
        answer = predictor.explain(graph)
        alone = Pair(answer.latency_ms, _quiet_ms(backend, model, budget_s / 2), _status(answer.charged, graph))
        return Row(
            operator,
            row.work,
            tuple(_name(each) for each in kernels),
            _shapes(graph, kernels),
            alone,
            _in_context(operator, case, predictor, backend) if case else None,
        )
    except NnMeterError as error:
        return Row(operator, row.work, failed=" ".join(str(error).split())[:160])


def _quiet_ms(backend: OnnxRuntimeCpu, model: Graph | bytes, budget_s: float) -> float:
    with backend.prepare(model) as prepared:
        prepared.run(2)
        (taken,) = measure([prepared], Plan(rounds=4, budget_s=budget_s))
    return taken.quiet_ms  # type: ignore[no-any-return, union-attr]


def _in_context(operator: str, case: Case, predictor: Predictor, backend: OnnxRuntimeCpu) -> Pair | None:
    """The operator's own kernels between two others; ``None`` where nothing can stand around it."""
    around = "Abs" if operator == "Neg" else "Neg"
    graph = case.graph(operator, around)
    if sum(node.op_type == around for node in graph.nodes) == 0:
        return None
    with backend.prepare(graph) as prepared:
        traces = prepared.trace(TRACED_RUNS)
    own = [trace for trace in traces if trace.executed.op_type != around]
    measured_ms = sum(max(0.0, median(trace.latencies_ms[2:]) - PROFILER_MS) for trace in own)
    charged = [each for each in predictor.explain(graph).charged if each.kernel.label != around]
    predicted_ms = sum(each.latency_ms for each in charged)
    # a profiler that tells whole microseconds says nothing of less than a few of them
    return Pair(predicted_ms, measured_ms, _status(charged, graph)) if measured_ms > 2 * PROFILER_MS else None


def _name(kernel: ExecutedKernel) -> str:
    return kernel.op_type


def _shapes(graph: Graph, kernels: Sequence[ExecutedKernel]) -> str:
    executed = {
        name: operand.shape
        for kernel in kernels
        for name, operand in zip(kernel.output_names, kernel.outputs, strict=False)
        if operand is not None
    }
    if _data_decides(graph):
        return "the most that the data may have"
    wrong = [
        f"{graph.tensors[name].shape}, executed {executed[name]}"
        for name in graph.outputs
        if name in executed and executed[name] != graph.tensors[name].shape
    ]
    return wrong[0] if wrong else "as executed" if any(name in executed for name in graph.outputs) else "not told"


def _data_decides(graph: Graph) -> bool:
    return any(node.op_type in FOUND for node in graph.nodes)


def _status(charged: Sequence[KernelPrediction], graph: Graph) -> str:
    """The least sure of its kernels'; where the data decides how much there is to do, *assumed*: the most is."""
    found = {each.status for each in charged}
    if found == {"predicted"} and _data_decides(graph):
        return "assumed"
    return next((status for status in reversed(DOUBTFUL) if status in found), "predicted" if found else "free")


def page(found: Found, predictor: str, command: str) -> str:
    """The page: what the rows sum up to, then a line for each operator."""
    told = [row for row in found.rows if row.alone is not None]
    lines = [
        "# Operators of ONNX Runtime on the CPU",
        "",
        f"Every operator of ONNX opset {OPSET} and of com.microsoft that onnxruntime "
        f"{found.facts.get('runtime_version', '')} has a CPU kernel for, as `{predictor}` predicts it and as it was "
        "measured on this machine: alone (quiet time of a model of one node, the call included; for sequences and "
        "loops of a small model), and in context (its kernels between two elementwise operators, traced). Written by:",
        "",
        f"    {command}",
        "",
        f"{len(found.rows)} operators, {len(told)} measured.",
        "",
        "| judged | status | operators | beyond 2 times | beyond 4 times | median of the ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for where in ("alone", "context"):
        for status in ("predicted", "assumed", *DOUBTFUL):
            pairs = [pair for row in told if (pair := getattr(row, where)) is not None]
            ratios = [pair.ratio for pair in pairs if pair.status == status]
            if ratios:
                off = [sum(not 1 / times <= ratio <= times for ratio in ratios) for times in (2, 4)]
                shares = [f"{count} ({count / len(ratios):.1%})" for count in off]
                lines.append(f"| {where} | {status} | {len(ratios)} | {' | '.join(shares)} | {median(ratios):.2f} |")
    lines += [
        "",
        "| operator | shape | work | executed as | alone, ms: predicted, measured, ratio, status "
        "| in context, ms: predicted, measured, ratio, status |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in found.rows),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    if row.failed:
        return f"| {row.operator} | | {row.work} | | not measured: {row.failed.replace('|', '/')} | |"
    executed = " + ".join(row.executed) or "nothing"
    pairs = (_pair(row.alone), _pair(row.context))
    return f"| {row.operator} | {row.shape} | {row.work} | {executed} | {' | '.join(pairs)} |"


def _pair(pair: Pair | None) -> str:
    if pair is None:
        return "-"
    return f"{pair.predicted_ms:.4g}, {pair.measured_ms:.4g}, {pair.ratio:.2f}, {pair.status}"


def rows(names: Iterable[str], predictor: Predictor, budget_s: float) -> Iterator[Row]:
    """A row for each operator; the time left is shared out among those that are left."""
    backend = OnnxRuntimeCpu(OnnxRuntimeConfig())
    left = list(names)
    end = time.monotonic() + budget_s
    while left:
        share_s = max(0.02, (end - time.monotonic()) / len(left))
        yield examined(left.pop(0), predictor, backend, min(1.0, 0.6 * share_s))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predictor", help="name or path; the default one where left out")
    parser.add_argument("--budget", type=float, default=420.0, metavar="SECONDS", help="time for all of them (420)")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help=f"the page ({PAGE})")
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="only these")
    options = parser.parse_args(arguments)
    names = operators()
    unknown = [name for name in options.operators if name not in names]
    if unknown:
        parser.error(f"onnxruntime has no CPU kernel for {', '.join(unknown)}")
    predictor = load_latency_predictor(options.predictor)
    found = Found(facts=OnnxRuntimeCpu().check())
    for row in rows(options.operators or names, predictor, options.budget):
        found.rows.append(row)
        print(_line(row), flush=True)
    title = f"{predictor.bundle.name} {predictor.bundle.version}"
    shown = ["python scripts/operators.py"]
    if options.predictor:
        shown.append(f"--predictor {Path(options.predictor).name}")
    shown += [f"--budget {options.budget:g}", *options.operators]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(found, title, " ".join(shown)), encoding="utf-8")
    print(f"{options.out}: {len(found.rows)} operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
