"""Each room imports only what this table allows it; one row per room, in the order that data passes through them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "nn_meter"
FILES = sorted(PACKAGE.rglob("*.py"))

GROUND = frozenset({"errors", "limits", "progress", "settings", "storage", "plugins"})
ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "limits": frozenset({"errors"}),
    "progress": frozenset(),
    "settings": frozenset({"errors"}),
    "storage": frozenset({"errors", "limits", "progress", "settings"}),
    "plugins": frozenset({"errors", "settings", "storage"}),
    "ir": frozenset({"errors", "limits"}),
    "frontends": GROUND | {"ir"},
    "kernels": GROUND | {"ir"},
    "runtimes": GROUND | {"ir", "kernels"},
    "predictors": GROUND | {"ir", "kernels", "runtimes"},
    "devices": GROUND,
    "backends": GROUND | {"ir", "frontends", "kernels", "runtimes", "devices"},
    "measuring": GROUND | {"ir", "kernels", "devices", "backends"},
    "networks": GROUND | {"ir", "kernels", "measuring", "devices"},
    "learning": GROUND | {"ir", "kernels", "runtimes", "predictors", "devices", "measuring"},
    "detection": GROUND | {"ir", "kernels", "runtimes", "devices", "backends", "measuring"},
    "evaluation": GROUND
    | {"ir", "frontends", "kernels", "runtimes", "predictors", "devices", "backends", "measuring", "learning"},
    "block_table": frozenset({"errors"}),
    "report": GROUND | frozenset({"ir", "kernels", "predictors", "learning", "detection", "evaluation"}),
}
"""Room to the rooms that it may import. Those of ``STRINGING`` string rooms together and may import any but ``cli``,
which only ``__main__`` imports."""

STRINGING = (
    "api", "building", "builder", "fitting", "fleets", "spreading", "serving", "testing", "cli", "__init__", "__main__",
)  # fmt: skip
"""They may import every room."""

LONGEST = 500
"""Lines of a file, unless its docstring states the reason for more in a line that begins with ``Long because``."""


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
def test_rooms_import_what_the_table_allows(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here in STRINGING:
        allowed = {*ALLOWED, *STRINGING} - ({"cli"} if here not in ("cli", "__main__") else set())
    else:
        assert here in ALLOWED, f"{here} is no room of the table"
        allowed = {here, *ALLOWED[here]}
    for line, module in imported(path):
        there = room_of(module)
        assert there in allowed, f"{path.name}:{line}: {here} may not import {there}"


def test_the_architecture_page_names_every_room() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| .*$", page, re.MULTILINE))))
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert there <= named, f"ARCHITECTURE.md's table lacks {', '.join(sorted(there - named))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_long_without_a_reason(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if len(text.splitlines()) > LONGEST:
        assert re.search(r"^Long because ", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE), (
            f"{path.name} has {len(text.splitlines())} lines; cut it, or say in its docstring why not"
        )
