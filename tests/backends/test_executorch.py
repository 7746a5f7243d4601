"""ExecuTorch keeps the contract of backends, computes what ONNX Runtime does, and shows what becomes of each call."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from agreement import Agreement, agreement
from waiting import running, until

from nn_meter.backends import executorch, load
from nn_meter.backends.executorch import conversion, tracing
from nn_meter.backends.executorch.conversion import Converted, Step, converted
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError
from nn_meter.ir import Graph, parse
from nn_meter.kernels.rules import read_rules
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes import find
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.trace import ExecutedKernel
from nn_meter.testing import sample_graph


@pytest.fixture
def there() -> None:
    pytest.importorskip("executorch")


def ran(graph: Graph) -> Agreement:
    """Holds what is computed against ONNX Runtime; the kernels that are predicted against those that were executed."""
    runtime = pytest.importorskip("onnxruntime")
    data = as_bytes(graph)
    wanted = runtime.InferenceSession(data).run(list(graph.outputs), random_inputs(data))
    with load("executorch").prepare(graph) as prepared:
        assert len(prepared.run(2)) == 2
        found = prepared.outputs()  # type: ignore[attr-defined]
        executed = [trace.executed for trace in prepared.trace(1)]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4 * max(1e-3, float(np.abs(theirs).max())))
    kernels = fuse(graph, read_rules({"runtime": "executorch"})).kernels
    return agreement(kernels, executed, "executorch", graph)


ALIKE = ("convnext", "dense", "inception", "inverted", "micro_pools", "pool_mixer", "micro_positions",
         "micro_selects", "residual_bottleneck", "separable", "shuffle", "windowed")  # fmt: skip
"""Of several kinds, and small: converting takes a second for thirty operators."""


@pytest.mark.heavy
def test_networks_compute_what_onnxruntime_does_by_the_kernels_that_are_predicted(there: None) -> None:
    whole = sum((ran(FAMILIES[name](1)) for name in ALIKE), Agreement(0, 0, 0))
    assert whole.precision >= 0.98
    assert whole.recall >= 0.98


LAYERS = """
input x: float32[1,6,9,12]
const v: float32[6,6,1,1]
const w: float32[6,6,3,3]
const n: float32[6]
const low: float32[](0.0)
const high: float32[](6.0)
c = Conv(x, w) {pads=(1, 1, 1, 1)}
b = BatchNormalization(c, n, n, n, n)
r = Relu(b)
a = BatchNormalization(r, n, n, n, n)
d = Relu(a)
e = Conv(d, v)
k = Clip(e, low, high)
j = Concat(k, r, x) {axis=1}
m = MaxPool(j) {kernel_shape=(2, 2), strides=(2, 2)}
q = Relu(m)
g = GlobalAveragePool(q)
s = Sigmoid(g)
y = Mul(q, s)
z = Relu(y)
output z
output j
"""
TOKENS = """
input x: float32[1,4,12]
const w: float32[12,8]
const b: float32[8]
const two: float32[](2.0)
p = MatMul(x, w)
a = Add(p, b)
r = Relu(a)
t = Transpose(r) {perm=(0, 2, 1)}
m = MatMul(r, t)
s = Softmax(m) {axis=-1}
u, v = Split(s) {axis=1, num_outputs=2}
d = Div(u, v)
q = Pow(d, two)
o = Tanh(q)
output o
"""


@pytest.mark.heavy
@pytest.mark.parametrize("text", [LAYERS, TOKENS], ids=["layers", "tokens"])
def test_what_is_joined_is_told_and_the_rest_runs_by_itself(text: str, there: None) -> None:
    found = ran(parse(text))
    assert found.precision == found.recall == 1


CONVERTED = """
import pickle, sys
from nn_meter.backends.executorch import converting
if {short}:
    converting.shorten()
models = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps([converting._answer(each) for each in models]))
"""


@pytest.mark.heavy
def test_what_is_left_out_of_the_conversion_changes_no_byte_of_a_program(there: None) -> None:
    models = pickle.dumps([as_bytes(each) for each in (parse(LAYERS), parse(TOKENS))])
    whole, short = (
        pickle.loads(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", CONVERTED.format(short=short)],
                input=models,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            ).stdout
        )
        for short in (False, True)
    )
    assert all(isinstance(each, Converted) for each in whole)
    assert whole == short


@pytest.mark.heavy
def test_threads_are_those_of_the_model_that_runs(there: None) -> None:
    one, two = load("executorch").prepare(sample_graph()), load("executorch", threads=2).prepare(sample_graph())
    bindings = executorch.ExecuTorch.imported()
    for prepared, threads in ((one, 1), (two, 2), (one, 1)):
        assert len(prepared.run(2)) == 2
        assert bindings._threadpool_get_thread_count() == threads
    one.close()
    two.close()


@pytest.mark.heavy
def test_nothing_is_printed(there: None, capfd: pytest.CaptureFixture[str]) -> None:
    with load("executorch", threads=2).prepare(sample_graph()) as prepared:
        prepared.run(2)
        prepared.trace(2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_what_it_cannot_take_is_named(there: None) -> None:
    graph = parse("input x: float32[1,8,4,1]\ny = DFT(x) {axis=1}\noutput y")
    with pytest.raises(BackendError, match="no one call for the operator DFT"):
        load("executorch").prepare(graph)


@pytest.mark.heavy
def test_a_converter_that_died_is_started_again(there: None) -> None:
    converted(as_bytes(parse("input x: float32[1,8]\ny = Relu(x)\noutput y")))
    process = conversion._Converter._there
    assert process is not None
    process.kill()
    process.wait()
    assert converted(as_bytes(parse("input x: float32[1,8]\ny = Tanh(x)\noutput y"))).program


@pytest.mark.heavy
def test_a_model_is_converted_once_unless_its_program_takes_too_much_room(
    there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (as_bytes(parse(f"input x: float32[1,8]\ny = {each}(x)\noutput y")) for each in ("Abs", "Neg"))
    asked: list[bytes] = []
    ask = conversion._Converter.asked
    monkeypatch.setattr(conversion, "_KEPT", {})
    monkeypatch.setattr(conversion._Converter, "asked", lambda model: asked.append(model) or ask(model))
    first = converted(one)
    assert [converted(other), converted(one), converted(other)] == [converted(other), first, converted(other)]
    assert asked == [one, other]
    monkeypatch.setattr(conversion, "_MOST_KEPT", 1)
    third = as_bytes(parse("input x: float32[1,8]\ny = Exp(x)\noutput y"))
    assert converted(third) == converted(third)
    assert converted(one) == first
    assert asked == [one, other, third, one]
    monkeypatch.setattr(conversion, "_KEPT_SHARE", 0.0)
    converted(other), converted(other)
    assert asked[4:] == [other, other]


def call(name: str, op_type: str, reads: str, writes: str) -> ExecutedKernel:
    return ExecutedKernel(name, op_type, "pytorch", (), (), (reads,), (writes,), nodes=(name,))


@pytest.mark.heavy
def test_a_converter_ends_with_who_asked_even_by_sigkill(there: None) -> None:
    script = (
        "import subprocess, sys\n"
        "from nn_meter.backends.executorch.conversion import _Converter\n"
        "process = _Converter._start()\n"
        "other = subprocess.Popen(['sleep', '1800'], pass_fds=[process.stdin.fileno()])\n"
        "print(process.pid, other.pid, flush=True)\n"
        "other.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        process, other = map(int, asking.stdout.readline().split())
        asking.kill()
    try:  # its standard input stays open at the other's end, so that it cannot end by that
        until(lambda: not running(process))
        assert running(other)
    finally:
        os.kill(other, signal.SIGKILL)


CALLS = (call("conv", "Conv", "x", "a"), call("relu", "Relu", "a", "b"), call("gather", "Gather", "b", "c"))


def told(name: str, instruction: int, inside: bool = True) -> tracing.Event:
    return tracing.Event(name, inside, instruction, 0.005)


def test_what_xnnpack_tells_is_found_by_order_part_by_part() -> None:
    parts = ((Step(5, -1), Step(7, 0), Step(6, 1), Step(5, -1)), (Step(0, 2),))
    events = [
        told("Transpose (ND, X32)", 0),
        told("Convolution (NHWC, F32) IGEMM", 0),
        told("Transpose (ND, X32)", 0),
        told("OPERATOR_CALL", 1, inside=False),
    ]
    found = tracing.kernels(events, Converted(b"", parts, CALLS, ()))
    assert [kernel.nodes for kernel, _ in found] == [(), ("conv", "relu"), (), ("gather",)]
    assert [places for _, places in found] == [(0,), (1,), (2,), (3,)]
    assert found[0][0].op_type in find("executorch").layout_kernels
    assert [kernel.domain for kernel, _ in found] == ["xnnpack", "xnnpack", "xnnpack", "executorch"]


def test_a_kernel_that_no_step_becomes_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"tells of Bessel \(NC\), which belongs to no step of its program"):
        tracing.kernels([told("Bessel (NC)", 0)], Converted(b"", ((Step(7, 0),),), CALLS, ()))
