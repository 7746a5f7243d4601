"""nn-Meter's kernels as its builder knows them: a table of configurations, ranges to sample, graphs, columns.

Ranges stand in for nn-Meter's lists of layers from known networks. Columns are those of the schema
``nn-meter-builder-1``; flops and parameters are computed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.detection.drawings import Shape, Sizes, draw
from nn_meter.errors import BuildError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.networks.sampling import Channels, Config, Space, Values, sample, sample_near
from nn_meter.predictors.nnmeter_columns import ENCODERS

SCHEMA = "nn-meter-builder-1"

_HW: Values = (1, 3, 7, 8, 13, 14, 27, 28, 32, 56, 112, 224)
_CONCAT_HW: Values = (7, 14, 28, 56)
_POOL_HW: Values = (14, 28, 56, 112, 224)
_WINDOWS: Values = (1, 3, 5, 7)


@dataclass(frozen=True, slots=True)
class BuilderKernel:
    """One kernel: the operators that it is drawn of, and for each key of its config what to draw from.

    ``encoded_as`` is the kernel whose columns it has; ``init_samples`` is nn-Meter's number of first samples.
    """

    operators: tuple[str, ...]
    space: Space
    encoded_as: str
    init_samples: int = 3000


_C = Channels(3, 1280)
_EVEN = Channels(4, 1280, step=2)
_CONV: Space = MappingProxyType(
    {"HW": _HW, "CIN": _C, "COUT": Channels(8, 1280), "KERNEL_SIZE": _WINDOWS, "STRIDES": (1, 2, 4)}
)
_DWCONV: Space = MappingProxyType({"HW": _HW, "CIN": _C, "KERNEL_SIZE": _WINDOWS, "STRIDES": (1, 2)})
_POOL: Space = MappingProxyType({"HW": _POOL_HW, "CIN": _C, "KERNEL_SIZE": (2, 3), "STRIDES": (1, 2)})
_MAP: Space = MappingProxyType({"HW": _HW, "CIN": _C})
_EVEN_MAP: Space = MappingProxyType({"HW": _HW, "CIN": _EVEN})
_CONCAT: Space = MappingProxyType({"HW": _CONCAT_HW, **{f"CIN{i}": _C for i in range(1, 5)}})
_BRANCHES = ("CIN1", "CIN2", "CIN3", "CIN4")


def _convolutions(first: str, space: Space, count: int) -> dict[str, BuilderKernel]:
    """The kernels that begin with a convolution; all have the columns of ``conv-bn-relu``."""
    followers = ("bn-relu", "bn-relu6", "bn", "relu", "relu6", "hswish", "bn-hswish")
    return {
        f"{first}-{rest}": BuilderKernel((first, *rest.split("-")), space, f"{first}-bn-relu", count)
        for rest in followers
    }


KERNELS: Mapping[str, BuilderKernel] = MappingProxyType(
    {
        "conv-bn-relu": BuilderKernel(("conv", "bn", "relu"), _CONV, "conv-bn-relu", 10000),
        "dwconv-bn-relu": BuilderKernel(("dwconv", "bn", "relu"), _DWCONV, "dwconv-bn-relu", 5000),
        "maxpool": BuilderKernel(("maxpool",), _POOL, "maxpool"),
        "avgpool": BuilderKernel(("avgpool",), _POOL, "avgpool"),
        "fc": BuilderKernel(("fc",), {"CIN": Channels(16, 4096), "COUT": Channels(10, 4096)}, "fc"),
        "concat": BuilderKernel(("concat",), _CONCAT, "concat"),
        "split": BuilderKernel(("split",), _EVEN_MAP, "split"),
        "channelshuffle": BuilderKernel(("channelshuffle",), _EVEN_MAP, "channelshuffle"),
        "se": BuilderKernel(("se",), _EVEN_MAP, "se"),
        "global-avgpool": BuilderKernel(("gap",), {"HW": (3, 7), "CIN": _C}, "global-avgpool"),
        "bnrelu": BuilderKernel(("bn", "relu"), _MAP, "bnrelu"),
        "bn": BuilderKernel(("bn",), _MAP, "bn"),
        "hswish": BuilderKernel(("hswish",), _MAP, "hswish"),
        "relu": BuilderKernel(("relu",), _MAP, "relu"),
        "addrelu": BuilderKernel(("add", "relu"), _MAP, "addrelu"),
        "add": BuilderKernel(("add",), _MAP, "add"),
    }
)
"""nn-Meter's sixteen predictors: what is built by default."""

_ALL_CONVOLUTIONS = _convolutions("conv", _CONV, 10000) | _convolutions("dwconv", _DWCONV, 5000)
OTHER_KERNELS: Mapping[str, BuilderKernel] = MappingProxyType(
    {name: kernel for name, kernel in _ALL_CONVOLUTIONS.items() if name not in KERNELS}
)
"""Kernels that nn-Meter builds on request."""


def builder_kernel(name: str) -> BuilderKernel:
    """The row of ``name``.

    Raises:
        BuildError: there is none; names those that exist.
    """
    found = KERNELS.get(name) or OTHER_KERNELS.get(name)
    if found is None:
        known = ", ".join((*KERNELS, *OTHER_KERNELS))
        raise BuildError(f"no kernel {name!r}; register it, or use one of {known}")
    return found


def sample_prior(name: str, count: int, rng: np.random.Generator) -> list[dict[str, int]]:
    """``count`` configs from the kernel's ranges; half of the dense layers have 1000 outputs, and a
    concatenation has two to four branches, as in nn-Meter."""
    space = builder_kernel(name).space
    configs = []
    for index in range(count):
        config = sample(space, rng)
        if name == "fc" and index < count // 2:
            config["COUT"] = 1000
        if name == "concat":
            for key in _BRANCHES[int(rng.choice((2, 3, 4), p=(0.4, 0.2, 0.4))) :]:
                config[key] = 0
        configs.append(config)
    return configs


def sample_finegrained(
    name: str, configs: Sequence[Config], count: int, rng: np.random.Generator
) -> list[dict[str, int]]:
    """``count`` configs around each of ``configs``: other channels, all else the same."""
    space = builder_kernel(name).space
    return [sample_near(space, config, rng) for config in configs for _ in range(count)]


def kernel_graph(name: str, config: Config, batch_size: int = 1) -> Graph:
    """The kernel as a graph of its own.

    Raises:
        BuildError: an unknown kernel, or a key that its config lacks.
        ModelError: the shapes do not admit it.
    """
    kernel = builder_kernel(name)
    missing = [key for key in kernel.space if key not in config]
    if missing:
        needed = ", ".join(kernel.space)
        raise BuildError(f"kernel {name!r}: the config lacks {missing[0]!r}; it needs {needed}")
    if name == "concat":
        b = GraphBuilder(name)
        shapes = [(batch_size, config[key], config["HW"], config["HW"]) for key in _BRANCHES if config[key]]
        return b.graph(b.op("Concat", *(b.input(shape) for shape in shapes), axis=1))
    strides = config.get("STRIDES", 1)
    sizes = Sizes(
        cout=config.get("COUT", config["CIN"]),
        kernel_size=config.get("KERNEL_SIZE", 1),
        strides=strides,
        pool_strides=strides,
    )
    hw = (config["HW"], config["HW"]) if "HW" in config else ()
    return draw(kernel.operators, (batch_size, config["CIN"], *hw), sizes, name)


def nhwc(shape: Shape) -> list[int]:
    """nn-Meter's order of a logical NCHW shape."""
    return [shape[0], *shape[2:], shape[1]] if len(shape) > 2 else list(shape)


def row(name: str, config: Config) -> tuple[float, ...]:
    """The columns of schema ``nn-meter-builder-1`` that stand for a config.

    Raises:
        BuildError: the config lacks a key of its kernel.
    """
    graph = kernel_graph(name, config)
    facts: dict[str, Any] = {
        "attr": {"ks": [config.get("KERNEL_SIZE", 1)] * 2, "strides": [config.get("STRIDES", 1)] * 2},
        "input_shape": [nhwc(graph.tensors[tensor].shape) for tensor in graph.inputs],
        "output_shape": [nhwc(graph.tensors[tensor].shape) for tensor in graph.outputs],
    }
    return ENCODERS[SCHEMA][builder_kernel(name).encoded_as](facts)
