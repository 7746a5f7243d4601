"""What fuses is found out once for graphs that differ in sizes alone, and no answer changes by that."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import nn_meter
from nn_meter import frontends, runtimes
from nn_meter.ir import Attr, Graph, GraphBuilder
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.fusion import charged
from nn_meter.runtimes.structures import FILLED, Charged, Structures

CORPUS = sorted((Path(__file__).parents[1] / "corpus" / "models").glob("*.onnx"))
OBEYED = ("BF_conv_bn", "BF_conv_relu", "BF_conv_add", "BF_conv_add_relu", "BF_add_relu", "BF_concat_concat")


def rules_of(runtime: str) -> RuleSet:
    if runtime == "onnxruntime":
        return read_rules(nn_meter.load_latency_predictor().bundle.rules)
    return read_rules({"runtime": runtime, **{name: {"obey": True} for name in OBEYED}})


class Fusing:
    """Runs the passes, and counts how often it was asked."""

    def __init__(self, runtime: str = "onnxruntime") -> None:
        self.rules, self.asked = rules_of(runtime), 0

    def __call__(self, graph: Graph) -> Charged:
        self.asked += 1
        return charged(graph, self.rules, runtimes.find(self.rules.runtime))


def pair(kind: str, config: KernelConfig) -> tuple[str, KernelConfig]:
    return kind, config


def residual(widths: tuple[int, ...], kernel: int = 3) -> Graph:
    b = GraphBuilder("variant")
    x, cin = b.input((1, 3, 32, 32)), 3
    pads = (kernel // 2,) * 4
    for width in widths:
        x = b.op("Relu", b.op("Conv", x, b.weight((width, cin, 3, 3)), pads=(1, 1, 1, 1), strides=(2, 2)))
        inner = b.weight((width, 1, kernel, kernel))
        y = b.op("Conv", x, inner, pads=pads, group=width, kernel_shape=(kernel, kernel))
        x = b.op("Add", x, b.op("Conv", b.op("Relu", y), b.weight((width, width, 1, 1))))
        cin = width
    return b.graph(b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)), b.weight((10, cin)), transB=1))


def outcome(call: Callable[[], Charged]) -> object:
    """Kernels with their plain numbers, or the kind of the error."""
    try:
        return [(kind, type(config), repr(config)) for kind, config in call()]
    except Exception as error:
        return type(error)


def resized(graph: Graph, to: Callable[[int], int]) -> Graph:
    """Every size mapped, equal ones alike; what comes out need not be sound, and is then refused alike."""

    def of(value: object, least: int) -> object:
        if isinstance(value, tuple):
            return tuple(of(each, least) for each in value)
        return to(value) if isinstance(value, int) and value >= least else value

    tensors = {n: t if t.value is not None else replace(t, shape=of(t.shape, 2)) for n, t in graph.tensors.items()}
    nodes = []
    for node in graph.nodes:
        attrs = {key: of(value, FILLED[key]) if key in FILLED else value for key, value in node.attrs.items()}
        nodes.append(replace(node, attrs=MappingProxyType(attrs)))
    return replace(graph, tensors=MappingProxyType(tensors), nodes=tuple(nodes))


def test_variants_of_one_structure_run_the_passes_twice() -> None:
    fusing = Fusing()
    structures = Structures(fusing, pair)
    for width in range(16, 1600, 16):
        structures.items(residual((width, 2 * width)))
    assert fusing.asked == 2


def test_sizes_that_the_passes_tell_apart_fuse_apart() -> None:
    plain, shared = Fusing(), Structures(Fusing(), pair)
    draw = random.Random(0)
    for _ in range(60):
        widths = tuple(draw.choice((3, 4, 6, 8, 12, 15, 16, 17, 32, 48)) for _ in range(2))
        graph = residual(widths, draw.choice((1, 3, 5, 7)))
        assert outcome(lambda graph=graph: shared.items(graph)) == outcome(lambda graph=graph: plain(graph))


def test_each_way_in_which_a_structure_fuses_is_found_out_once() -> None:
    fusing = Fusing()
    structures = Structures(fusing, pair)
    structures.items(residual((40, 40, 40)))  # the first of a structure is fused without more
    asked = []
    for _ in range(2):
        for widths in product((8, 16, 24, 32), repeat=3):
            structures.items(residual(widths))
        asked.append(fusing.asked - 1)
    assert 8 <= asked[0] <= 16, "whether channels come in whole blocks, at three places"
    assert asked[1] == asked[0]


def test_of_one_structure_so_many_ways_are_remembered() -> None:
    plain, fusing = Fusing(), Fusing()
    structures = Structures(fusing, pair)
    structures._WAYS = 2  # type: ignore[misc]
    for widths in [*product((8, 16), repeat=2)] * 2:
        graph = residual(widths)
        assert outcome(lambda graph=graph: structures.items(graph)) == outcome(lambda graph=graph: plain(graph))
    assert fusing.asked > 4, "the others are fused each time"


def test_windows_of_a_space_are_sizes_too() -> None:
    fusing = Fusing()
    structures = Structures(fusing, pair)
    for kernel in (3, 5, 7, 9):
        structures.items(residual((16, 32), kernel))
    assert fusing.asked == 2


@pytest.mark.parametrize("model", CORPUS, ids=lambda path: path.stem)
def test_no_kernel_of_the_corpus_changes_whatever_its_sizes_are(model: Path) -> None:
    graph = frontends.read(model)
    plain, shared = Fusing(), Structures(Fusing(), pair)
    maps: list[Callable[[int], int]] = [lambda n: n, lambda n: n, lambda n: n + 1, lambda n: 16 * n]
    for to in maps:
        other = resized(graph, to)
        assert outcome(lambda other=other: shared.items(other)) == outcome(lambda other=other: plain(other))


@pytest.mark.parametrize("runtime", runtimes.available())
def test_every_runtime_fuses_the_same_the_second_time(runtime: str) -> None:
    plain, shared = Fusing(runtime), Structures(Fusing(runtime), pair)
    for graph in map(frontends.read, CORPUS[:: len(CORPUS) // 3]):
        for _ in range(3):
            assert outcome(lambda graph=graph: shared.items(graph)) == outcome(lambda graph=graph: plain(graph))


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_networks_come_out_the_same_the_second_time(family: str) -> None:
    graph = FAMILIES[family](3)
    plain, fusing = Fusing(), Fusing()
    shared = Structures(fusing, pair)
    for _ in range(3):
        assert outcome(lambda: shared.items(graph)) == outcome(lambda: plain(graph))
    assert fusing.asked == 2, "the passes know what to do with sizes"


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.build and kind.space])
def test_kernels_of_every_kind_are_filled_in(kind: str) -> None:
    build, space = KINDS[kind].build, KINDS[kind].space
    rng = np.random.default_rng(0)
    for graph in [build(space(rng)) for _ in range(8)]:
        fusing = Fusing()
        shared = Structures(fusing, pair)
        assert shared.items(graph) == shared.items(graph) == shared.items(graph)
        assert fusing.asked == 2, "what reads the config knows what to do with sizes"


def test_numbers_of_another_type_are_another_structure() -> None:
    def graph(alpha: float) -> Graph:
        b = GraphBuilder("alpha")
        return b.graph(b.op("LeakyRelu", b.input((1, 8, 4, 4)), alpha=alpha))

    fusing = Fusing()
    structures = Structures(fusing, pair)
    for alpha in (1, 1.0):
        structures.items(graph(alpha))
    assert fusing.asked == 2, "each was seen once"


def test_which_constant_is_known_belongs_to_the_structure() -> None:
    b = GraphBuilder("bias")
    y = b.op("Add", b.op("Add", b.input((2, 2)), b.weight((2,), name="one")), b.weight((2,), name="other"))
    graph = b.graph(y)

    def knowing(name: str) -> Graph:
        tensors = {**graph.tensors, name: replace(graph.tensors[name], value=(0.0, 0.0))}
        return replace(graph, tensors=MappingProxyType(tensors))

    fusing = Fusing()
    structures = Structures(fusing, pair)
    for name in ("one", "other"):
        structures.items(knowing(name))
    assert fusing.asked == 2, "each was seen once"
    structures.items(knowing("one"))
    structures.items(knowing("one"))
    assert fusing.asked == 3


@pytest.mark.parametrize("group", ["two", (1.5, "x"), 2.0])
def test_an_attribute_that_is_no_size_leaves_the_answer_as_it_is(group: Attr) -> None:
    graph = residual((16,))
    nodes = [replace(n, attrs=MappingProxyType({**n.attrs, "pads": group})) for n in graph.nodes]
    hostile = replace(graph, nodes=tuple(nodes))
    plain, shared = Fusing(), Structures(Fusing(), pair)
    for _ in range(3):
        assert outcome(lambda: shared.items(hostile)) == outcome(lambda: plain(hostile))


def test_what_is_remembered_is_bounded() -> None:
    structures = Structures(Fusing("rules"), pair)
    structures._KNOWN = 4  # type: ignore[misc]
    for count in range(1, 20):
        b = GraphBuilder("chain")
        x = b.input((1, 8))
        for _ in range(count):
            x = b.op("Relu", x)
        for _ in range(2):
            structures.items(b.graph(x))
    assert len(structures._known) == 4
