"""Numbers too small to be normal are flushed where it is asked, in the thread that asks alone, and kept behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nn_meter.backends import load
from nn_meter.backends.denormals import FLUSH, KEEP, treated, usual
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.errors import BackendError
from nn_meter.ir import GraphBuilder

known = pytest.mark.skipif(usual() == KEEP, reason="how they are flushed is not known here")


def halved() -> float:
    """Half of a number that is too small."""
    return float((np.full(64, 1e-40, np.float32) * np.float32(0.5)).max())


@known
def test_they_are_zeros_meanwhile() -> None:
    with treated(FLUSH):
        assert halved() == 0
        with treated(FLUSH):
            assert halved() == 0
        assert halved() == 0
    assert halved() > 0


@known
def test_an_error_ends_it() -> None:
    with pytest.raises(ValueError, match="within"), treated(FLUSH):
        raise ValueError("within")
    assert halved() > 0


def test_they_are_kept_where_that_is_asked() -> None:
    with treated(KEEP):
        assert halved() > 0


@known
def test_other_threads_keep_them() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(halved).result() > 0
        with treated(FLUSH):
            assert pool.submit(halved).result() > 0


@known
@pytest.mark.heavy
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", [FLUSH, KEEP])
def test_a_session_of_mnn_computes_as_it_is_told(how: str, threads: int) -> None:
    pytest.importorskip("MNN")
    b = GraphBuilder("small")
    x = b.op("Sigmoid", b.input((64, 1024)))  # between 0.04 and 0.96
    small = b.op("Mul", x, b.const(1e-38, "float32"))
    graph = b.graph(b.op("Mul", small, b.op("Sigmoid", b.input((64, 1024)))))
    with load("mnn", threads=threads, denormals=how).prepare(as_bytes(graph)) as prepared:
        prepared.run(1)
        told = prepared._net.getSessionOutput(prepared._session).getNumpyData()
    assert np.count_nonzero(told) == (0 if how == FLUSH else told.size)


def test_other_treatments_are_refused_by_name() -> None:
    pytest.importorskip("MNN")
    with pytest.raises(BackendError, match="no treatment 'round'; use one of flush, keep"):
        load("mnn", denormals="round")
