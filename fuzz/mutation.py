"""Damage: to bytes, to JSON, to lines of text, to zips; and the odd values that it takes."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import stat
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

NUMBERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 65536, 2**31 - 1, 2**31, 2**32, 10**9, 2**62, 2**63 - 1, -(2**63), 10**18, 10**30,
)  # fmt: skip
NAMES = (
    "", "\0", "a\0b", "\x1b[2J\x1b]0;x\x07", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' x='y",
    "x" * 100_000, "a\r\nb", "\u202e\u2066", "../../x", "/etc/passwd", "%s%n", "{0.__class__}", "\ud7ff", " ", "\n",
    "[red]x[/red]", "[/]", "9" * 5000, "1\u00b22", "x\n(nn-Meter) [RESULT] predict latency for y: 0.001 ms",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, 1e308, -1e308, float("nan"), float("inf"), -0.0, "", "x", [], {}, [[]], [None],
    {"a": 1}, [1, [2, [3]]], "\0", [-1], [0] * 4, [10**12] * 4, [1.5], "1" * 5000, [[1, 2, 3]], [["a"]], [{}], [1] * 70,
)  # fmt: skip
_BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x08, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32)
_FEW = (1, 1, 1, 2, 3, 6)


def damaged(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """``data`` with a few bytes changed, gone, doubled or taken from ``other``; now and then cut."""
    found = bytearray(data)
    for _ in range(draw.choice((*_FEW, 20))):
        if not found:
            break
        at, size = draw.randrange(len(found)), draw.choice((1, 2, 4, 8, 16, 64, 512))
        match draw.randrange(7):
            case 0:
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at] = draw.choice(_BYTES)
            case 2:
                del found[at : at + size]
            case 3:
                found[at:at] = found[at : at + size]
            case 4:
                start = draw.randrange(len(other) or 1)
                found[at : at + size] = other[start : start + size]
            case 5:
                number = draw.choice(NUMBERS) & (1 << 64) - 1
                found[at : at + 8] = number.to_bytes(8, "little")[: draw.choice((2, 4, 8))]
            case 6:
                found[at:at] = b"\xff" * draw.choice((1, 9, 10, 11))
    return bytes(found[: draw.randrange(len(found) + 1)] if draw.random() < 0.06 else found)


def odd(tree: Any, draw: random.Random) -> Any:
    """A copy of ``tree`` of JSON with another value, another name, or none at a few places."""
    tree = pickle.loads(pickle.dumps(tree))  # a tenth of what copy takes
    for _ in range(draw.choice(_FEW)):
        parent, key, here = None, None, tree
        for _ in range(draw.randrange(1, 8)):
            if isinstance(here, dict) and here:
                key = draw.choice(list(here))
            elif isinstance(here, list) and here:
                key = draw.randrange(len(here))
            else:
                break
            parent, here = here, here[key]
        if parent is None:
            continue
        match draw.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[draw.choice(NAMES)] = parent.pop(key)
            case 2 if isinstance(here, list) and len(here) < 1000:
                parent[key] = here * draw.choice((0, 2, 3))
            case 3 if isinstance(here, str):
                parent[key] = draw.choice(NAMES)
            case 4 if isinstance(here, int | float):
                parent[key] = draw.choice(NUMBERS)
            case _:
                parent[key] = copy.deepcopy(draw.choice(ODD))
    return tree


def as_json(tree: Any) -> bytes:
    """The text of a tree, lone surrogates and Python's own constants included."""
    return json.dumps(tree).encode("utf-8", "surrogatepass")


NESTED = (b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe", b"\xef\xbb\xbf{}", b"")
"""Texts that are hard on readers of JSON."""


def zipped(files: Mapping[str, bytes], modes: Mapping[str, int] = {}) -> bytes:
    """A zip of ``files``, stored; ``modes`` are what a name is, as in ``stat``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return out.getvalue()


SPECIAL = (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o666, stat.S_IFCHR | 0o666, stat.S_IFDIR | 0o755)
_PLACES = ("../x", "/etc/x", "a/../../x", "a//b", "C:\\x", "a\\b", "a/" * 60 + "x", "y" * 300, ".", "a\nb", "\0x")


def strange_members(files: dict[str, bytes], draw: random.Random) -> dict[str, int]:
    """Adds a member in an odd place or makes one a link, a pipe or a folder; returns their modes."""
    name = draw.choice((*_PLACES, *files))
    files[name] = draw.choice((b"", b"/etc/passwd", b"/dev/zero", bytes(1 << 20), files.get(name, b"x")))
    return {name: draw.choice(SPECIAL)} if draw.random() < 0.6 else {}


def relined(text: str, values: Sequence[str], draw: random.Random) -> str:
    """``text`` with what follows the colon in one line in exchange for one of ``values``."""
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    lines[at] = f"{lines[at].partition(':')[0]}: {draw.choice(values)}"
    return "\n".join(lines)
