"""Values of which a model makes thousands."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


def quickly_made(cls: type[T]) -> type[T]:
    """``cls``, a frozen dataclass with slots that no other inherits, whose objects are made in half the time.

    They are filled while they are of a class that is not frozen, of the same slots, and then are of this one.
    """
    draft = type(f"_{cls.__name__}", (), {"__slots__": cls.__slots__})  # type: ignore[attr-defined]
    known: dict[str, Any] = {"new": object.__new__, "draft": draft, "MISSING": MISSING}
    takes, lines = [], ["self = new(draft)"]
    names = [each.name for each in fields(cls)]  # type: ignore[arg-type]
    for each in fields(cls):  # type: ignore[arg-type]
        default = f"default_{each.name}"
        known[default], known[f"make_{each.name}"] = each.default, each.default_factory
        if each.default_factory is not MISSING:
            lines.append(f"if {each.name} is MISSING: {each.name} = make_{each.name}()")
        given = each.default is not MISSING or each.default_factory is not MISSING
        takes.append(f"{each.name}={default}" if given else each.name)
        lines.append(f"self.{each.name} = {each.name}")
    text = "\n    ".join([f"def __new__(cls, {', '.join(takes)}):", *lines, "self.__class__ = cls", "return self"])
    exec(text, known)  # as dataclasses make theirs
    made: Any = cls
    del made.__init__
    made.__new__ = known["__new__"]
    if made.__reduce__ is object.__reduce__:
        made.__reduce__ = lambda self: (cls, tuple([getattr(self, name) for name in names]))
    return cls
