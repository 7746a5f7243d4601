"""``detect_rules``: which operators a runtime fuses, found by running small graphs on it.

Every case is drawn in several shapes. Where the runtime shows the graph that it executes, that decides and the timing
is the cross-check. A case's probes (``detection.probes``) take turns in a child process, some rounds of each shape in
one sweep over all cases; each result is committed to a journal. What ``detection.decision`` finds unclear then gets
more sweeps, what is near a verdict first, until the budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from nn_meter.backends import base
from nn_meter.detection.cases import find_cases, known_cases
from nn_meter.detection.rules import rules_json
from nn_meter.detection.survey import MOST_SWEEPS, DetectionPlan, Method, Survey
from nn_meter.devices.here import here
from nn_meter.devices.link import open_link
from nn_meter.errors import BuildError, NnMeterError
from nn_meter.measuring.asking import measurer
from nn_meter.measuring.isolation import Failure
from nn_meter.measuring.journal import Journal
from nn_meter.progress import Progress

__all__ = ["METHODS", "DetectionPlan", "detect_rules", "known_cases"]

METHODS: tuple[str, ...] = get_args(Method)
"""What ``DetectionPlan.method`` may be."""


def detect_rules(
    plan: DetectionPlan,
    *,
    journal: Path,
    backend: base.Backend | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure until every rule is clear or the budget is spent.

    Args:
        journal: file that holds every measurement; one that is there already is gone on with.
        backend: in the place of the one that the plan names, if not ``plan.isolated``.

    Returns:
        The rules as the JSON of a fusion-rule file, with evidence; ``rules_json`` says how.

    Raises:
        BackendError: an unknown backend or setting.
        MeasurementError, MissingDependencyError: the runtime does not answer, or is not installed.
        BuildError: no budget, an unknown case or method, or a journal that cannot be used.
        RegistrationError: a registered case or operator that cannot be loaded.
    """
    if not plan.budget_s > 0:
        raise BuildError(f"a budget of {plan.budget_s:g} s measures nothing; give some minutes")
    if plan.method not in METHODS:
        raise BuildError(f"no method {plan.method!r}; use one of {', '.join(METHODS)}")
    cases = find_cases(plan.cases) if plan.cases else known_cases()
    with Journal(journal) as book, ExitStack() as stack:
        if plan.isolated:
            chosen = base.Named(plan.backend, plan.settings)
            device = chosen.load()
            where, worker = measurer(chosen, open_link(plan.device), plan.timeout_s, book.lost)
            survey = Survey(plan, chosen, book, stack.enter_context(worker).call, cases, where.settings)
            facts = where.facts()
        else:
            device = backend or base.load(plan.backend, **plan.settings)
            survey = Survey(plan, base.Given(device), book, _here, cases, device.check())
            facts = {**here().facts(), **device.check()}
        if plan.method != "timing":
            survey.count(progress)
        for number in range(0 if plan.method == "graph" else MOST_SWEEPS):
            survey.sweep(number, progress)
        return rules_json(survey.rules(), plan.backend, base.runtime_of(device).name, plan.method, facts)


def _here(task: Callable[..., Any], *args: Any) -> Any:
    """The task in this process, errors as the isolated one gives them."""
    try:
        return task(*args)
    except NnMeterError as error:
        return Failure("refused", str(error))
