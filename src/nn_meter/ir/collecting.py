"""A model becomes many objects that stay, and hardly a cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's collector of cycles rests: it looks through what stays again and again, a quarter of the time that a
    model of 100,000 nodes takes. It goes on afterwards, where it was at work before."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
