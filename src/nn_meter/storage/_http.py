"""HTTP whose answers begin in time: a server may drip a status line and its headers for ever."""

from __future__ import annotations

import http.client
import io
import math
import urllib.request
from time import monotonic
from typing import Any

from nn_meter import limits


class _Timely(io.RawIOBase):
    """What a server sends, up to ``end`` on the clock."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.end = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        if monotonic() > self.end:
            raise TimeoutError(f"no answer has begun within {limits.DOWNLOAD_START_S:g} s")
        return self._raw.readinto(into)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        sent = _Timely(self.fp.detach())
        self.fp = io.BufferedReader(sent)
        sent.end = monotonic() + limits.DOWNLOAD_START_S
        super().begin()
        sent.end = math.inf


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


def opened(url: str, timeout_s: float) -> Any:
    """The answer to a request for ``url``, as of ``urllib.request.urlopen``; silence ends after ``timeout_s``.

    Raises:
        OSError, http.client.HTTPException, ValueError: as of ``urlopen``; ``OSError`` too where the answer does not
            begin within ``limits.DOWNLOAD_START_S``.
    """
    return urllib.request.build_opener(_Handler, _SecureHandler).open(url, timeout=timeout_s)
