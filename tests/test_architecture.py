"""Imports go down the room table of ARCHITECTURE.md, never up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "nn_meter"
FILES = sorted(PACKAGE.rglob("*.py"))

STRINGS_ROOMS_TOGETHER = "api"
ABOVE_ALL = frozenset({"testing", "__init__"})
NEVER = frozenset({("training", "backends")})
"""Room and a room above it that it has no business with."""


def rooms() -> list[str]:
    """The table's rooms, the calls that string them together before whoever uses those."""
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    if STRINGS_ROOMS_TOGETHER not in found:
        found.insert(found.index("report") + 1, STRINGS_ROOMS_TOGETHER)
    return found


def room_of(module: str) -> str:
    """``nn_meter.ir.graph`` is in the room ``ir``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import of this package, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "nn_meter":
            names = [f"nn_meter.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write imports in full"
            names = [node.module or ""]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "nn_meter")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_table(path: Path) -> None:
    order = rooms()
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here in ABOVE_ALL:
        return
    assert here in order, f"{here} is no room of ARCHITECTURE.md's table"
    for line, module in imported(path):
        there = room_of(module)
        assert there in order, f"{path.name}:{line}: {module} is in no room"
        assert order.index(there) <= order.index(here), (
            f"{path.name}:{line}: {here} imports {there}, which is below"
        )
        assert (here, there) not in NEVER, f"{path.name}:{line}: {here} has no business with {there}"


def test_every_room_of_the_table_is_there() -> None:
    missing = [
        room for room in rooms() if not (PACKAGE / room).is_dir() and not (PACKAGE / f"{room}.py").exists()
    ]
    assert missing == []
