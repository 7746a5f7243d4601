"""Lines of plain text; nn-Meter's, which scripts read, stay byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nn_meter.storage import legible

LINE_LETTERS = 1000
"""Of a longer line the beginning is shown."""

PREFIX = "(nn-Meter)"


def result_line(model: str, latency_ms: float) -> str:
    """Of a model's latency."""
    return f"{PREFIX} [RESULT] predict latency for {legible(model)}: {latency_ms} ms"


def predictor_line(name: str, version: str) -> str:
    """Of a predictor."""
    return f"{PREFIX} [Predictor] {legible(name)}: version={legible(version)}"


def lines(texts: Iterable[str]) -> str:
    """Each text on a line of its own, whatever names in it hold."""
    return "\n".join(legible(text, LINE_LETTERS) for text in texts)


def columns(rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of equal length as aligned lines, two spaces between; the columns in ``right`` end flush."""
    table = [tuple(legible(cell, LINE_LETTERS) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
