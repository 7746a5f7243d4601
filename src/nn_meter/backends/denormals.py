"""Numbers so small that a processor computes with them in microcode, a hundred times as slowly.

Weights are random where we measure: what they make of a gate or of a softmax is far from what trained ones do, and
leaves such numbers where a trained network has none. A runtime that does not flush them itself is measured with them
flushed, as the C library says it of a thread (``fesetenv``); threads that it starts begin with the same.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

FLUSH, KEEP = "flush", "keep"
"""What may become of them: zeros, or nothing."""

_ENVIRONMENT_BYTES = 64
"""More than any C library's ``fenv_t`` takes: 32 bytes on x86-64, 8 on 64-bit Arm."""
_FLAGS: Mapping[tuple[str, str], tuple[int, int]] = MappingProxyType(
    {("Linux", "x86_64"): (28, 0x8040), ("Linux", "aarch64"): (0, 1 << 24)}
)
"""System and processor to where the control word lies in ``fenv_t``, and its bits: of MXCSR *flush to zero* and
*denormals are zeros*, of FPCR *FZ*."""


def usual() -> str:
    """What is measured with here: flushed where it is known how."""
    return FLUSH if _place() is not None else KEEP


@contextmanager
def treated(how: str) -> Iterator[None]:
    """Meanwhile they are flushed in this thread, or left as the thread has them."""
    place = _place()
    if how != FLUSH or place is None:
        yield
        return
    at, bits = place
    before = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    _library().fegetenv(before)
    flushing = ctypes.create_string_buffer(before.raw, _ENVIRONMENT_BYTES)
    word = ctypes.c_uint32.from_buffer(flushing, at)
    word.value |= bits
    _library().fesetenv(flushing)
    try:
        yield
    finally:
        _library().fesetenv(before)


def _place() -> tuple[int, int] | None:
    return _FLAGS.get((platform.system(), platform.machine()))


@cache
def _library() -> Any:
    return ctypes.CDLL("libm.so.6")
