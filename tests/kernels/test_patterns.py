"""Patterns find every spelling, in either order of operands, and only what stays inside."""

from __future__ import annotations

import pytest

from nn_meter.ir import parse
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.spellings import (
    BIAS,
    GELU,
    HARD_SWISH,
    LAYER_NORM,
    RMS_NORM,
    SCALED_SWISH,
    SWISH,
    TANH_GELU,
)
from nn_meter.runtimes.onnxruntime.spellings import BIAS_GELU, SKIP_LAYER_NORM

HEAD = """
    input x: float32[1,4,8]
    const one: float32[](1.0)
    const half: float32[](0.5)
    const two: float32[](2.0)
    const three: float32[](3.0)
    const six: float32[](6.0)
    const zero: float32[](0.0)
    const root2: float32[](1.4142135)
    const unroot2: float32[](0.7071068)
    const tenth: float32[](0.044715)
    const rootpi: float32[](0.7978846)
    const eps: float32[](1e-05)
    const w: float32[8]
    const b: float32[8]
    const m: float32[8,8]
"""

LAYERS = "a = ReduceMean(x) {axes=(-1,)}; d = Sub(x, a); q = Pow(d, two); v = ReduceMean(q) {axes=(-1,)}; "

RMS = (
    "q = Pow(x, two); v = ReduceMean(q) {{axes=({axis},)}}; k = Add(v, eps); r = Sqrt(k); n = Div(x, r); "
    "y = Mul(n, {w})"
)

WRITTEN: dict[str, tuple[Pattern, str]] = {
    "gelu": (GELU, "s = Div(x, root2); e = Erf(s); g = Add(e, one); h = Mul(x, g); y = Mul(h, half)"),
    "gelu turned": (GELU, "s = Mul(unroot2, x); e = Erf(s); g = Add(one, e); h = Mul(half, x); y = Mul(g, h)"),
    "gelu with its half inside": (
        GELU,
        "s = Div(x, root2); e = Erf(s); g = Add(e, one); h = Mul(g, half); y = Mul(x, h)",
    ),
    "gelu by tanh": (
        TANH_GELU,
        "p = Pow(x, three); c = Mul(tenth, p); i = Add(x, c); s = Mul(rootpi, i); t = Tanh(s); g = Add(one, t); "
        "h = Mul(half, x); y = Mul(h, g)",
    ),
    "gelu by tanh with products": (
        TANH_GELU,
        "s2 = Mul(x, x); p = Mul(s2, x); c = Mul(p, tenth); i = Add(c, x); s = Mul(i, rootpi); t = Tanh(s); "
        "g = Add(t, one); h = Mul(x, g); y = Mul(h, half)",
    ),
    "swish": (SWISH, "s = Sigmoid(x); y = Mul(x, s)"),
    "swish with a factor": (SCALED_SWISH, "f = Mul(x, two); s = Sigmoid(f); y = Mul(s, x)"),
    "hard swish": (HARD_SWISH, "p = Add(x, three); c = Clip(p, zero, six); d = Div(c, six); y = Mul(x, d)"),
    "hard swish divided last": (
        HARD_SWISH,
        "p = Add(x, three); c = Clip(p, zero, six); d = Mul(c, x); y = Div(d, six)",
    ),
    "layer norm": (
        LAYER_NORM,
        LAYERS + "k = Add(v, eps); r = Sqrt(k); n = Div(d, r); s = Mul(w, n); y = Add(s, b)",
    ),
    "rms norm": (
        RMS_NORM,
        "q = Mul(x, x); v = ReduceMean(q) {axes=(-1,)}; k = Add(eps, v); r = Sqrt(k); i = Div(one, r); "
        "n = Mul(x, i); y = Mul(w, n)",
    ),
    "bias of a product": (BIAS, "p = MatMul(x, m); y = Add(b, p)"),
    "bias before a gelu": (BIAS_GELU, "p = Add(b, x); y = Gelu(p)"),
    "sum before a layer norm": (SKIP_LAYER_NORM, "p = Add(x, x); y = LayerNormalization(p, w, b) {axis=-1}"),
}


def work_of(statements: str, *outputs: str) -> Work:
    lines = [HEAD, *statements.split("; "), *(f"output {name}" for name in outputs or ("y",))]
    return Work(parse("\n".join(lines)))


@pytest.mark.parametrize(("pattern", "statements"), WRITTEN.values(), ids=WRITTEN)
def test_each_spelling_is_one_operator(pattern: Pattern, statements: str) -> None:
    work = work_of(statements)
    nodes = {member for op in work.ops() for member in op.members}
    pattern.rewrite(work)
    (op,) = work.ops()
    assert (op.op_type, set(op.members), op.outputs) == (pattern.op_type, nodes, ("y",))


@pytest.mark.parametrize(("pattern", "statements"), WRITTEN.values(), ids=WRITTEN)
def test_what_others_read_stays_outside(pattern: Pattern, statements: str) -> None:
    inner = statements.split(" = ")[0]
    work = work_of(statements, "y", inner)
    before = list(work.ops())
    pattern.rewrite(work)
    assert list(work.ops()) == before


def test_another_constant_is_another_operator() -> None:
    work = work_of("s = Div(x, two); e = Erf(s); g = Add(e, one); h = Mul(x, g); y = Mul(h, half)")
    GELU.rewrite(work)
    assert len(list(work.ops())) == 5


@pytest.mark.parametrize(
    ("pattern", "statements", "reason"),
    [
        (SKIP_LAYER_NORM, "p = Add(x, w); y = LayerNormalization(p, w, b)", "different shapes"),
        (BIAS, "p = MatMul(x, m); y = Add(p, m2)", "more than one axis"),
        (BIAS_GELU, "p = Add(x, one); y = Gelu(p)", "no value per channel"),
        (RMS_NORM, RMS.format(axis=1, w="w"), "over other axes than the last"),
        (RMS_NORM, RMS.format(axis=-1, w="two"), "not one value for each place"),
    ],
)
def test_a_failed_check_gives_its_reason(pattern: Pattern, statements: str, reason: str) -> None:
    work = work_of("const m2: float32[1,4,8]; " + statements)
    pattern.rewrite(work)
    (refusal,) = work.refusals
    assert reason in refusal.reason
    assert refusal.nodes == {member for op in work.ops() for member in op.members}


def test_a_pattern_starts_at_its_rarest_operator_and_goes_on_from_there() -> None:
    for pattern, _ in WRITTEN.values():
        for spelling in pattern._spellings:
            plan = spelling.plan
            for step, (call, known) in enumerate(plan[1:], 1):
                before = {name for earlier, _ in plan[:step] for name in (earlier.name, *earlier.args)}
                assert (known or call.name) in before
    assert GELU._spellings[0].plan[0][0].op_type == "Erf"


def test_operators_are_put_before_and_behind_others_in_the_order_they_came() -> None:
    work = work_of("a = Relu(x); y = Relu(a)")
    first, second = work.ops()
    late = work.add(Op("B1", ["a"], ["b1"], {}), behind=first)
    work.add(Op("B2", ["a"], ["b2"], {}), behind=first)
    work.add(Op("A", ["x"], ["a0"], {}), before=first)
    work.add(Op("B1'", ["b1"], ["b11"], {}), behind=late)
    assert [op.op_type for op in work.ops()] == ["A", "Relu", "B1", "B1'", "B2", "Relu"]
    assert second.place > first.place
