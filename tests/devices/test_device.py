"""A device states what it is, and two of them can be told apart."""

from __future__ import annotations

import json

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


def test_differences_are_said_in_words() -> None:
    first = Device("abacus", environment={"threads": 1, "date": "today"}).facts()
    second = Device("slide rule", environment={"threads": 1, "governor": "performance"}).facts()
    assert same_machine(first, second) == ["the processor differs: abacus and slide rule"]
