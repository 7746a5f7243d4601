"""The record of circumstances, and what it says about two of them."""

from __future__ import annotations

import json

from nn_meter.devices.environment import environment, same_machine


def test_the_record_is_plain_data() -> None:
    facts = environment({"runtime": "replay"})
    assert json.loads(json.dumps(facts)) == facts
    assert facts["runtime"] == "replay"
    assert isinstance(facts["cores"], int)
    read_where_possible = {"cpu", "affinity", "governor", "load_average", "memory_limit_bytes"}
    assert read_where_possible | {"kernel", "python", "date"} <= set(facts)


def test_a_machine_is_the_same_as_itself() -> None:
    assert same_machine(environment(), environment()) == []


def test_differences_are_said_in_words() -> None:
    first = {"cpu": "abacus", "threads": 1, "date": "today"}
    second = {"cpu": "slide rule", "threads": 1, "date": "tomorrow", "governor": "performance"}
    assert same_machine(first, second) == ["the processor differs: abacus and slide rule"]
