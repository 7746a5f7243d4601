"""Seeded random networks whose blocks are those of real families, and whose sizes are anyone's.

Widths, depths, resolutions, kernels and groups are drawn from ranges; no published network and no list of
its layers is in here. The networks are small in cost and few in blocks, or put together of many such, and start at any
stage of a family, so that late stages (wide and small maps) are as frequent as early ones. What a
predictor learns from them has to carry over to real models that it never saw.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.graph import Graph
from nn_meter.networks import _blocks_language as language
from nn_meter.networks import _blocks_maps as maps
from nn_meter.networks import _blocks_mixers as mixers
from nn_meter.networks import _blocks_tokens as tokens
from nn_meter.networks._blocks import LARGEST, Pen, Step, log_uniform
from nn_meter.networks._blocks_micro import MICRO
from nn_meter.networks._blocks_operators import OPERATORS
from nn_meter.networks.one_memory import one_memory
from nn_meter.networks.quantised import PRECISIONS

MAX_FLOPS = 4.0e8 * LARGEST
"""No network, and no part of one, does more floating-point operations than this in its convolutions and products."""

MANY = 0.25
"""Share of the networks that are of many parts, as many as real ones: a kernel of a real model finds its weights as far
away as all others of the model push them, and in a small network they never leave the nearest cache."""

_PART, _NODES, _WEIGHTS = (0.03, LARGEST), (100.0, 1000.0), (2.0**19, 2.0**26)
"""Of such a network: how costly its parts are, relative to usual networks, as those of a small mobile model or of a
large one; how many nodes it has, or how many weights, 2 to 256 MB of floats, whichever comes first."""

_MOST_LEFT_OUT = 1000
"""So many parts that a runtime refuses are all that it is given."""

MOST_FLOPS = 6e9
"""No part is added once a network does so many operations."""


@dataclass(frozen=True, slots=True)
class Family:
    """One row of ``FAMILIES``: calling it draws a network.

    ``write`` draws with the pen it is given and returns the tensor that the network answers with; ``weight``
    is the family's share among all samples, relative to the others. The network is written in one of the
    ``precisions``, where there are any; ``needs`` is the element type that a runtime has to be known for
    (``Runtime.precisions``), so that what it executes is told for what it is.
    """

    name: str
    weight: float
    write: Callable[[Pen], str]
    precisions: tuple[str, ...] = ()
    needs: str = "float32"

    def __call__(
        self,
        seed: int,
        *,
        dtype: str = "float32",
        takes: Callable[[Graph], bool] = lambda part: True,
        most_nodes: float = math.inf,
    ) -> Graph:
        """The network of this family that ``seed`` stands for, of element type ``dtype``; verified. Of its parts those
        that a runtime ``takes`` not are left out, but the first: one of them, and the runtime would refuse all. None is
        added to ``most_nodes``."""
        for attempt in itertools.count():
            rng = np.random.default_rng((seed, zlib.crc32(self.name.encode()), attempt))
            b = GraphBuilder(f"{self.name}_{seed}")
            part, nodes, weights = (log_uniform(rng, *ends) for ends in (_PART, _NODES, _WEIGHTS))
            nodes = min(nodes, most_nodes)
            pens = [Pen(b, rng, dtype, part=part if rng.random() < MANY else 0.0)]
            outputs = [self.write(pens[0])]
            left_out = 0
            while pens[0].part and _room(pens, nodes, weights) and left_out < _MOST_LEFT_OUT:
                begun, pen = b.begun(), Pen(b, rng, dtype, part=part)
                output = (_LAYERS if self.precisions else _ANY)(pen)
                if takes(b.only(begun, output, *pen.others)):
                    pens.append(pen)
                    outputs.append(output)
                else:
                    b.back(begun)
                    left_out += 1
            most = 2 * MOST_FLOPS if pens[0].part else MAX_FLOPS * pens[0].scale / LARGEST
            if pens[0].nodes and 2 * sum(pen.macs for pen in pens) <= most:
                graph = b.graph(*outputs, *(other for pen in pens for other in pen.others))
                if self.precisions:  # as they are: ONNX Runtime 1.32 breaks views between integers of eight bits
                    return PRECISIONS[pens[0].pick(*self.precisions)](graph)
                return one_memory(graph) if pens[0].part else graph
        raise AssertionError("unreachable: attempts do not end")


def _room(pens: Sequence[Pen], nodes: float, weights: float) -> bool:
    """Whether another part may be added to a network that shall have so many nodes, or weights."""
    return (
        sum(pen.parameters for pen in pens) < weights
        and 2 * sum(pen.macs for pen in pens) < MOST_FLOPS
        and sum(pen.nodes for pen in pens) < nodes
    )


def _map_network(pen: Pen, make: maps.Maker, low: int, high: int, macs: float) -> str:
    """One to four blocks on a feature map, of two families in some networks, and a head in some."""
    x = maps.feature_map(pen, low, high, macs)
    step = make(pen)
    blocks = pen.integer(1, 4)
    change = pen.integer(1, blocks) if pen.chance(0.12) else blocks
    for index in range(blocks):
        if index == change:
            step = pen.pick(*GUESTS)(pen)
        x = step(x)
        if not pen.room():
            break
    return maps.head(pen, x) if pen.chance(0.3) and pen.macs < 1.5e8 else x


def _token_network(
    pen: Pen, make: Callable[[Pen], Step], low: int, high: int, macs: float, multiple: int
) -> str:
    """One to three blocks on tokens, with class token and position embedding in some, and a head in some."""
    x = tokens.token_input(pen, low, high, macs, multiple)
    if pen.chance(0.4):
        x = tokens.embed_positions(pen, x)
    step = make(pen)
    for _ in range(pen.integer(1, 3)):
        x = step(x)
        if not pen.room():
            break
    if pen.chance(0.3):
        return tokens.token_head(pen, x)
    return pen.layer_norm(x) if pen.chance(0.3) else x


def _window_network(pen: Pen) -> str:
    """One to three blocks of windowed attention."""
    x = tokens.window_input(pen)
    step = tokens.windowed(pen)
    for _ in range(pen.integer(1, 3)):
        x = step(x)
        if not pen.room():
            break
    return x


GUESTS: tuple[maps.Maker, ...] = (
    maps.residual_basic,
    maps.residual_bottleneck,
    maps.inverted,
    maps.dense,
    mixers.convnext,
    maps.cross_stage,
    tokens.map_attention,
)
"""The families that a network may change to half-way."""


def _on_map(make: maps.Maker, low: int, high: int, macs: float) -> Callable[[Pen], str]:
    return partial(_map_network, make=make, low=low, high=high, macs=macs)


def _on_tokens(
    make: Callable[[Pen], Step], low: int, high: int, macs: float, multiple: int = 8
) -> Callable[[Pen], str]:
    return partial(_token_network, make=make, low=low, high=high, macs=macs, multiple=multiple)


# The numbers of `_on_map` and `_on_tokens`: the widths to draw from, and the multiply-adds of one block in
# units of width**2 a position.
_ON_MAPS: tuple[Family, ...] = (
    Family("plain", 4, _on_map(maps.plain, 8, 768, 9)),
    Family("residual_basic", 5, _on_map(maps.residual_basic, 16, 640, 18)),
    Family("residual_bottleneck", 6, _on_map(maps.residual_bottleneck, 32, 2048, 2)),
    Family("regnet", 4, _on_map(maps.regnet, 16, 1024, 3)),
    Family("inverted", 10, _on_map(maps.inverted, 8, 384, 10)),
    Family("separable", 3, _on_map(maps.separable, 8, 1024, 1.2)),
    Family("mixed_kernels", 3, _on_map(maps.mixed_kernels, 16, 256, 8)),
    Family("ghost", 4, _on_map(maps.ghost, 8, 256, 5)),
    Family("dense", 5, _on_map(maps.dense, 16, 1024, 2)),
    Family("inception", 5, _on_map(maps.inception, 24, 1024, 3)),
    Family("shuffle", 4, _on_map(maps.shuffle, 16, 1024, 1)),
    Family("repvgg", 4, _on_map(maps.repvgg, 16, 768, 10)),
    Family("cross_stage", 5, _on_map(maps.cross_stage, 16, 512, 8)),
    Family("encoder_decoder", 3, _on_map(maps.encoder_decoder, 8, 256, 30)),
    Family("atrous", 2, _on_map(maps.atrous, 32, 512, 10)),
    Family("convnext", 6, _on_map(mixers.convnext, 16, 1024, 8)),
    Family("pool_mixer", 4, _on_map(mixers.pool_mixer, 32, 768, 8)),
    Family("map_attention", 6, _on_map(tokens.map_attention, 16, 512, 10)),
)
_ON_TOKENS: tuple[Family, ...] = (
    Family("vision_transformer", 9, _on_tokens(tokens.vision_transformer, 48, 1024, 12)),
    Family("windowed", 5, _window_network),
    Family("token_mixer", 4, _on_tokens(tokens.token_mixer, 48, 1024, 10)),
    Family("cross_covariance", 4, _on_tokens(tokens.cross_covariance, 48, 512, 10)),
    Family("linear_norm", 4, _on_tokens(tokens.linear_norm, 64, 512, 10)),
    Family("encoder", 4, language.encoder),
    Family("decoder", 5, language.decoder),
    Family("recurrent", 2, language.recurrent),
)


def _any_of(rows: tuple[Family, ...]) -> Callable[[Pen], str]:
    """What a family of ``rows`` writes, drawn by their weights."""
    share = np.array([row.weight for row in rows])
    return lambda pen: rows[int(pen.rng.choice(len(rows), p=share / share.sum()))].write(pen)


_QDQ = ("qdq_int8", "qdq_int8_tensor", "qdq_int8_signed", "qdq_int8_signed_tensor")
_PACKED = (
    *("int4_weights", "int4_weights_zeros", "int4_weights_int8", "int4_weights_int8_zeros", "int4_weights_wide"),
    "int8_weights",
)

_OPERATORS = 2.2
"""Two thirds of these networks are of a few operators, and measured in a tenth of the time: more of them take what 1.5
took."""

_SHARES = {
    "einsums": 6, "rare": 8, "newest": 3, "contributed": 10, "types": 6, "orders": 3, "recurrences": 3, "vectors": 4,
    "attentions": 4, "packed": 5, "movements": 5, "scatters": 3, "pools": 3, "elementwise": 4, "normalisations": 3,
    "views": 1,
}  # fmt: skip
"""Of what holds many kinds of operators, or many ways of one, so that each comes up in a build of minutes."""

_MICRO = tuple(Family(f"micro_{name}", 0.7, write) for name, write in MICRO.items())
_LAYERS, _ANY = _any_of((*_ON_MAPS, *_ON_TOKENS)), _any_of((*_ON_MAPS, *_ON_TOKENS, *_MICRO))

# A fifth of the networks is quantised: what a build measures of floats is what its accuracy on them rests on.
_ROWS: tuple[Family, ...] = (
    *_ON_MAPS,
    *_ON_TOKENS,
    Family("qdq_maps", 17, _any_of(_ON_MAPS), _QDQ, "int8"),
    Family("qdq_tokens", 9, _any_of(_ON_TOKENS), _QDQ, "int8"),
    Family("dynamic_maps", 6, _any_of(_ON_MAPS), ("dynamic_uint8",)),
    Family("dynamic_tokens", 7, _any_of(_ON_TOKENS), ("dynamic_int8", "dynamic_uint8")),
    Family("packed_tokens", 9, _any_of(_ON_TOKENS), _PACKED),
    *_MICRO,
    *(Family(f"operators_{name}", _SHARES.get(name, _OPERATORS), write) for name, write in OPERATORS.items()),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ROWS}
"""Family name to its row; ``FAMILIES["dense"](7)`` is the seventh network of that family."""


def weights_for(precisions: Collection[str]) -> dict[str, float]:
    """Family to its share, of those that need one of these element types."""
    return {name: row.weight for name, row in FAMILIES.items() if row.needs in precisions}


def draw(weights: Mapping[str, float], seed: int, start: int, count: int) -> list[tuple[str, int]]:
    """Family and seed of the next ``count`` networks; a function of ``seed`` and of how many were drawn before.

    Args:
        weights: Family to its share, relative to the others.
    """
    rng = np.random.default_rng([seed, start])
    families = sorted(weights)
    share = np.array([weights[family] for family in families])
    drawn = rng.choice(len(families), size=count, p=share / share.sum())
    return [(families[i], int(s)) for i, s in zip(drawn, rng.integers(2**40, size=count), strict=True)]
