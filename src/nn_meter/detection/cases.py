"""Which test cases there are: those of ``detection.testcases``, of other packages, and those that a user registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from types import MappingProxyType

from nn_meter import plugins
from nn_meter.detection.testcases import CASES, DRAWINGS, Case, Drawing, FusionCase, pair
from nn_meter.errors import BuildError, RegistrationError

ENTRY_POINTS = "nn_meter.testcases"
"""Entry-point group of cases in other packages: objects of the protocol ``Case``."""

IMPLEMENT = "onnx"
"""Registered operators of this ``implement`` take part: classes whose instances are called as ``Drawing`` is."""

_CASE = ("name", "labels", "requires", "block", "first", "between")


def drawings() -> Mapping[str, Drawing]:
    """How every operator is drawn that a case may name, registered ones included.

    Raises:
        RegistrationError: a registered operator that cannot be loaded.
    """
    own = {entry.name: entry.load()() for entry in plugins.registered("operator") if entry.implement == IMPLEMENT}
    return MappingProxyType({**DRAWINGS, **own})


def known_cases() -> Mapping[str, Case]:
    """Every case by the rule that it decides: the built-in ones, then those of other packages and registered ones.

    Raises:
        RegistrationError: a case that cannot be loaded.
    """
    found: dict[str, Case] = dict(CASES)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            case = point.load()
        except (ImportError, AttributeError) as error:
            raise RegistrationError(
                f"test case {point.name!r}: {point.value} cannot be loaded ({error}); repair or remove its package"
            ) from error
        found[case.name] = case
    for entry in plugins.registered("testcase"):
        registered = entry.load()
        if is_case(registered):
            case = registered()
            found[case.name] = case
    return MappingProxyType(found)


def is_case(found: object) -> bool:
    """Whether a class or an object has what ``Case`` asks for; classes written for nn-Meter's builder have not."""
    return all(hasattr(found, attribute) for attribute in _CASE)


def find_cases(names: Iterable[str]) -> Mapping[str, Case]:
    """The cases of that name; ``BF_a_b`` is one for any two operators that can be drawn, registered ones included.

    Raises:
        BuildError: a name without a case; says what it could be.
        RegistrationError: a registered case or operator that cannot be loaded.
    """
    known, drawn = known_cases(), drawings()
    found: dict[str, Case] = {}
    for name in names:
        prefix, *operators = name.split("_")
        if name in known:
            found[name] = known[name]
        elif prefix == "BF" and len(operators) > 1 and drawn.keys() >= set(operators):
            domain = pair(operators[0], operators[1]).domain
            found[name] = FusionCase(tuple(operators), domain, drawn)
        elif plugins.find("testcase", name) is not None:
            raise BuildError(
                f"test case {name!r} is written for nn-Meter's builder, whose detect_fusion_rule runs it; to be timed "
                f"here, its class needs {', '.join(_CASE)}"
            )
        else:
            near = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            unknown = [each for each in operators if each not in drawn]
            what = f"no operator {unknown[0]!r} among {', '.join(drawn)}" if unknown else "see --list-testcases"
            raise BuildError(f"no test case {name!r}; {hint}{what}")
    return MappingProxyType(found)
