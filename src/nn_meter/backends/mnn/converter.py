"""From ONNX to MNN's format, by the function behind MNN's command ``mnnconvert`` instead of that command, which
installs packages and asks an address on the network for credentials (MNN 3.6.1). The function answers ``True`` whatever
happened: what counts is the file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from threading import Lock

import onnx

from nn_meter.errors import BackendError
from nn_meter.storage import Closing

_CONVERT = """
if not os.path.exists("model.onnx"):
    _tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--OP"])
    sys.exit()
_tools.mnnconvert(
    ["MNNConvert", "-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", "model.mnn", "--bizCode", "nn-meter",
     "--useOriginRNNImpl"]
)
if not os.path.exists("model.mnn"):
    sys.exit(1)
net = _mnncengine.Interpreter("model.mnn")
session = net.createSession({"backend": "CPU"})
resized = net.getSessionInfo(session, 3) == 0
if not resized:
    print("a session of it is not resized")
sys.stdout.flush()
os._exit(not resized)
"""
"""Converts, and sees whether a session finds kernels for all: one that does not breaks the memory of its process.

Recurrent layers are to be one operator: as loops, which is the converter's default, a session does not run them.
Without a model it lists the operators that it knows.
"""

_CONVERTER = """
import os, sys

def tied():
    if sys.platform == "linux":
        import ctypes
        ctypes.CDLL(None).prctl(1, 9)

def convert(folder):
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    exec(sys.argv[1], globals())

tied()
answers = os.dup(1)
os.dup2(2, 1)
import _tools, _mnncengine
for folder in sys.stdin:
    child = os.fork() if hasattr(os, "fork") else 0
    if child == 0:
        tied()
        convert(folder[:-1])
        os._exit(0)
    os.write(answers, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""A process that has loaded MNN, which takes longer than most conversions, and converts what lies in the folders that
it is told, each in a process of its own; where a process cannot be copied it is one for a single conversion. All end
with the process that asked (``PR_SET_PDEATHSIG``, SIGKILL), which is killed where a model takes too long: a converter
that hangs would slow down whatever is measured next."""

_UNKNOWN = re.compile(r"These Op Not Support: (.+)")
_LAST_LINES = 3

_KEPT_MODELS, _KEPT_BYTES = 2048, 1 << 18
"""How many converted models are kept at most, and how large a model may be for that."""


class Converter(Closing):
    """The process that converts, started where there is none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, folder: Path) -> int:
        """Convert ``model.onnx`` in a folder; gives the exit code of the process that did."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CONVERTER, _CONVERT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            asked, told = self._process.stdin, self._process.stdout
            assert asked is not None
            assert told is not None
            asked.write(os.fsencode(folder) + b"\n")
            asked.flush()
            answer = told.readline()
            return int(answer) if answer else self._process.wait()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with self._process:  # which closes both streams, by which it ends, and waits
                self._process = None


_converter = Converter()


@lru_cache(1)
def known() -> frozenset[str]:
    """ONNX's operators that the converter lists; empty where it fails."""
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        log = Path(folder, "said")
        return frozenset(log.read_text().split()) if _converter(Path(folder)) == 0 and log.exists() else frozenset()


def _convert(data: bytes) -> bytes:
    """An ONNX model in MNN's format."""
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        Path(folder, "model.onnx").write_bytes(data)
        code = _converter(Path(folder))
        made, log = Path(folder, "model.mnn"), Path(folder, "said")
        if code == 0 and made.exists():
            return made.read_bytes()
        said = log.read_text(errors="replace") if log.exists() else ""
    unknown = _UNKNOWN.search(said)
    if unknown:
        raise BackendError(f"MNN refuses the model: it has no operator {unknown[1].strip(' |')}")
    words = [line for line in said.splitlines() if line.strip()][-_LAST_LINES:]
    there = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    why = f"its converter ended with {code} and said {' / '.join(words)}"
    raise BackendError(f"MNN refuses the model, which is of {', '.join(sorted(there))}: {why}")


_convert_once = lru_cache(_KEPT_MODELS)(_convert)


def converted(data: bytes) -> bytes:
    """``_convert``; a small model is converted once, since detection prepares the same ones over and over."""
    return _convert_once(data) if len(data) <= _KEPT_BYTES else _convert(data)
