"""Layers: convolutions, products, pools, normalisations, recurrent ones: a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.backends.pytorch.site import Function, Row, Site, edges
from nn_meter.backends.site import Window


def _conv(site: Site) -> Function:
    kernel = site.shape_of(1)[2:]
    function, pad = getattr(site.torch, f"conv{len(kernel)}d"), site.torch.nn.functional.pad
    window, group = Window(site, kernel), int(site.number("group", 1))
    strides, dilations, before, behind = window.strides, window.dilations, window.before, window.behind
    if before == behind:
        return lambda x, w, b=None: function(x, w, b, strides, before, dilations, group)
    sides = edges(before, behind)
    return lambda x, w, b=None: function(pad(x, sides), w, b, strides, 0, dilations, group)


def _conv_transpose(site: Site) -> Function:
    kernel = site.shape_of(1)[2:]
    function = getattr(site.torch, f"conv_transpose{len(kernel)}d")
    window, group = Window(site, kernel), int(site.number("group", 1))
    strides, dilations, before = window.strides, window.dilations, window.before
    least = [
        (size - 1) * s - 2 * p + d * (k - 1) + 1
        for size, s, p, d, k in zip(site.shape_of(0)[2:], strides, before, dilations, kernel, strict=True)
    ]
    extra = [out - size for out, size in zip(site.shape[2:], least, strict=True)]
    if min(extra) >= 0:
        return lambda x, w, b=None: function(x, w, b, strides, before, extra, group, dilations)
    cut = (..., *(slice(p, p + out) for p, out in zip(before, site.shape[2:], strict=True)))
    return lambda x, w, b=None: function(x, w, b, strides, 0, 0, group, dilations)[cut]


def _pool(name: str, fill: float, **more: Any) -> Row:
    def made(site: Site) -> Function:
        functional, kernel = site.torch.nn.functional, site.numbers("kernel_shape", ())
        function = getattr(functional, f"{name}_pool{len(kernel)}d")
        window = Window(site, kernel)
        before, behind = window.before, window.behind
        given = {"stride": window.strides, "ceil_mode": site.flag("ceil_mode"), **more}
        if name == "avg":
            given["count_include_pad"] = site.flag("count_include_pad")
        else:
            given["dilation"] = window.dilations
            given["return_indices"] = len(site.outputs) > 1  # counted within each plane, ONNX's within the tensor
        if before == behind and all(2 * pad <= k for pad, k in zip(before, kernel, strict=True)):
            return lambda x: function(x, kernel, padding=before, **given)
        sides = edges(before, behind)
        return lambda x: function(functional.pad(x, sides, value=fill), kernel, **given)

    return made


def _lp_pool(site: Site) -> Function:
    functional, kernel = site.torch.nn.functional, site.numbers("kernel_shape", ())
    window = Window(site, kernel)
    function, p = getattr(functional, f"lp_pool{len(kernel)}d"), site.number("p", 2)
    sides = edges(window.before, window.behind)
    return lambda x: function(functional.pad(x, sides) if any(sides) else x, p, kernel, window.strides)


def _over_space(function: Callable[[Any, Any, tuple[int, ...]], Any]) -> Row:
    def made(site: Site) -> Function:
        torch, axes = site.torch, tuple(range(2, len(site.shape_of(0))))
        return lambda x: function(torch, x, axes)

    return made


def _linear(site: Site) -> Function:
    """A product with constant weights is a linear layer, which keeps them the other way round."""
    torch, weight = site.torch, site.constants[1]
    if weight is None or weight.dim() != 2 or site.flag("transA"):
        return _matrix_product(site)
    weight = weight.contiguous() if site.flag("transB") else weight.t().contiguous()
    linear = torch.nn.functional.linear
    return lambda x, w, b=None: linear(x, weight, b)


def _matrix_product(site: Site) -> Function:
    torch, turn_a, turn_b = site.torch, site.flag("transA"), site.flag("transB")

    def run(a: Any, b: Any, c: Any = None) -> Any:
        made = torch.matmul(a.t() if turn_a else a, b.t() if turn_b else b)
        return made if c is None else made + c

    return run


def _batch_norm(site: Site) -> Function:
    function, epsilon = site.torch.nn.functional.batch_norm, site.number("epsilon", 1e-5)
    return lambda x, w, b, mean, variance: function(x, mean, variance, w, b, False, 0.0, epsilon)


def _layer_norm(site: Site) -> Function:
    function, epsilon = site.torch.layer_norm, site.number("epsilon", 1e-5)
    shape = site.shape_of(0)[int(site.number("axis", -1)) :]
    return lambda x, w=None, b=None: function(x, shape, w, b, epsilon)


def _rms_norm(site: Site) -> Function:
    function, epsilon = site.torch.rms_norm, site.number("epsilon", 1e-5)
    shape = site.shape_of(0)[int(site.number("axis", -1)) :]
    return lambda x, w=None: function(x, shape, w, epsilon)


def _instance_norm(site: Site) -> Function:
    function, epsilon = site.torch.nn.functional.instance_norm, site.number("epsilon", 1e-5)
    return lambda x, w, b: function(x, weight=w, bias=b, eps=epsilon)


def _group_norm(site: Site) -> Function:
    function, groups, epsilon = site.torch.group_norm, site.number("num_groups", 1), site.number("epsilon", 1e-5)
    return lambda x, w, b: function(x, int(groups), w, b, epsilon)


def _mean_variance_norm(site: Site) -> Function:
    torch, axes = site.torch, site.numbers("axes", (0, 2, 3))

    def run(x: Any) -> Any:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(variance)

    return run


def _lrn(site: Site) -> Function:
    function, size = site.torch.nn.functional.local_response_norm, int(site.number("size", 1))
    alpha, beta, bias = site.number("alpha", 1e-4), site.number("beta", 0.75), site.number("bias", 1.0)
    return lambda x: function(x, size, alpha, beta, bias)


def _lp_norm(site: Site) -> Function:
    function, p, axis = site.torch.nn.functional.normalize, site.number("p", 2), int(site.number("axis", -1))
    return lambda x: function(x, p, axis)


_GATES: Mapping[str, tuple[int, ...]] = MappingProxyType({"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)})
"""torch's gates among those of ONNX, in torch's order."""


def _recurrent(op_type: str) -> Row:
    def made(site: Site) -> Function:
        torch, gates = site.torch, _GATES[op_type]
        weights, recurrent = site.constants[1], site.constants[2]
        biases = site.constants[3] if len(site.constants) > 3 else None
        if weights is None or recurrent is None:
            raise NotImplementedError("weights that are computed")
        steps, batch, _ = site.shape_of(0)
        ways, width = weights.shape[0], recurrent.shape[2]

        def ordered(part: Any) -> Any:
            chunks = part.chunk(len(gates))
            return torch.cat([chunks[gate] for gate in gates]).contiguous()

        flat = []
        for way in range(ways):
            flat += [ordered(weights[way]), ordered(recurrent[way])]
            if biases is not None:
                flat += map(ordered, biases[way].chunk(2))
        both = (biases is not None, 1, 0.0, False, ways == 2, False)
        nothing = torch.zeros(ways, batch, width)
        function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[op_type]

        def run(x: Any, *others: Any) -> Any:
            _, _, _, _, h, c, *_ = (*others, *6 * (None,))  # weights, biases and lengths come before
            first = nothing if h is None else h
            state = (first, nothing if c is None else c) if op_type == "LSTM" else first
            y, *last = function(x, state, flat, *both)
            return (y.view(steps, batch, ways, width).transpose(1, 2), *last)

        return run

    return made


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "AveragePool": _pool("avg", 0.0),
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Einsum": lambda site: lambda *parts: site.torch.einsum(str(site.attrs["equation"]), *parts),
        "GRU": _recurrent("GRU"),
        "Gemm": _linear,
        "GlobalAveragePool": _over_space(lambda torch, x, axes: x.mean(axes, True)),
        "GlobalLpPool": _over_space(lambda torch, x, axes: torch.norm(x, 2, axes, True)),
        "GlobalMaxPool": _over_space(lambda torch, x, axes: x.amax(axes, True)),
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LRN": _lrn,
        "LSTM": _recurrent("LSTM"),
        "LayerNormalization": _layer_norm,
        "LpNormalization": _lp_norm,
        "LpPool": _lp_pool,
        "MatMul": _linear,
        "MaxPool": _pool("max", float("-inf")),
        "MeanVarianceNormalization": _mean_variance_norm,
        "RNN": _recurrent("RNN"),
        "SimplifiedLayerNormalization": _rms_norm,
    }
)
"""Operator to its row."""
