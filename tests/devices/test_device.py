"""A device states what it is, and two of them can be told apart."""

from __future__ import annotations

import json

import pytest

from nn_meter.devices import here as here_
from nn_meter.devices.device import Device, same_machine
from nn_meter.devices.here import here


def test_this_machine_is_plain_data() -> None:
    facts = here().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert isinstance(facts["cores"], int)
    read_where_possible = {"cpu", "affinity", "governor", "load_average", "memory_limit_bytes"}
    assert read_where_possible | {"kernel", "python", "date"} <= set(facts)


def test_a_machine_is_the_same_as_itself() -> None:
    assert same_machine(here().facts(), here().facts()) == []


@pytest.mark.parametrize(
    ("info", "model"),
    [
        ("vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nmodel name : AMD EPYC\n", "25/1"),
        ("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n", "25/17"),
        ("CPU implementer : 0x41\nCPU part : 0xd0c\n", "0xd0c"),
        ("", None),
    ],
)
def test_processors_of_one_name_are_told_apart(info: str, model: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here_, "_read", lambda path: info if path.name == "cpuinfo" else None)
    facts = here().facts()
    assert facts["cpu_model"] == model
    other = {**facts, "cpu_model": "25/99"}
    assert bool(same_machine(facts, other)) == (model is not None)


def test_differences_are_said_in_words() -> None:
    first = Device("abacus", environment={"threads": 1, "date": "today"}).facts()
    second = Device("slide rule", environment={"threads": 1, "governor": "performance"}).facts()
    assert same_machine(first, second) == ["the processor differs: abacus and slide rule"]
