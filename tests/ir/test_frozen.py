"""Values that are made quickly are as frozen as others."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from types import MappingProxyType

import pytest

from nn_meter.ir import Node, Tensor
from nn_meter.ir.frozen import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True)
class Part:
    name: str
    sizes: tuple[int, ...] = ()
    facts: Mapping[str, int] = field(default_factory=dict)


def test_it_is_a_frozen_dataclass_with_slots() -> None:
    part = Part("a", sizes=(1,))
    assert type(part) is Part
    assert (part.name, part.sizes, part.facts) == ("a", (1,), {})
    assert repr(part) == "Part(name='a', sizes=(1,), facts={})"
    assert part == Part("a", (1,))
    assert part != Part("b", (1,))
    with pytest.raises(FrozenInstanceError):
        part.name = "b"  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        part.other = 1  # type: ignore[attr-defined]


def test_each_has_defaults_of_its_own_and_needs_what_has_none() -> None:
    assert Part("a").facts is not Part("a").facts
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        Part()  # type: ignore[call-arg]
    assert [*inspect.signature(Part).parameters] == ["name", "sizes", "facts"]


@pytest.mark.parametrize("whole", [Part("a", (1, 2), {"b": 1}), Tensor("x", (1, 3), const=True, value=(1, 2, 3))])
def test_copies_and_pickles_are_equal(whole: Part | Tensor) -> None:
    for other in (pickle.loads(pickle.dumps(whole)), copy.copy(whole), copy.deepcopy(whole), replace(whole)):
        assert type(other) is type(whole)
        assert other == whole
    assert replace(whole, name="z").name == "z"


def test_a_node_travels_with_its_attributes() -> None:
    node = Node("n", "Conv", ("x",), ("y",), MappingProxyType({"group": 2}))
    assert pickle.loads(pickle.dumps(node)) == node
    assert hash(Tensor("x", (1,))) == hash(Tensor("x", (1,)))
