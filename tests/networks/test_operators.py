"""Every operator that ONNX Runtime runs and the table of operators has a case of is in the networks of a build."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from nn_meter.backends.onnx_writer import to_onnx
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import FAMILIES
from nn_meter.networks._blocks_operators import NOT_DRAWN
from nn_meter.runtimes.fusion import fuse

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from operator_cases import CASES, WHY_NOT

RULES = read_rules({"runtime": "onnxruntime_cpu"})
SEEDS = 57
"""Networks of a family of single operators in a build of 25 minutes, half of them of one operator; it has no fewer of
the other families."""


def executed(family: str, seed: int) -> set[str]:
    """Operators of the nodes of a network and of the kernels that they become."""
    graph = FAMILIES[family](seed)
    labels = (kernel.label for kernel in fuse(graph, RULES).kernels)
    return {node.op_type for node in graph.nodes} | {label.split("-")[0].split(" ")[0] for label in labels}


def test_a_build_holds_every_operator_or_a_table_says_why_not() -> None:
    left = {name.rpartition(".")[2] for name in CASES} - NOT_DRAWN.keys()
    for seed, family in product(range(SEEDS), FAMILIES):
        if not left:
            break
        left -= executed(family, seed)
    assert not left


def test_what_is_not_drawn_has_a_case_and_a_reason() -> None:
    assert NOT_DRAWN.keys() <= {name.rpartition(".")[2] for name in CASES}
    assert not CASES.keys() & WHY_NOT.keys()
    assert all(NOT_DRAWN.values())


def test_a_build_holds_every_way_of_a_reduction() -> None:
    kernels = [k for seed in range(SEEDS) for k in fuse(FAMILIES["operators_reductions"](seed), RULES).kernels]
    found = {(k.config.op, k.config.way) for k in kernels if k.kind == "reduce"}  # type: ignore[attr-defined]
    vectors, others = ("Max", "Mean", "Min", "Sum"), ("L1", "L2", "LogSum", "LogSumExp", "Prod", "SumSquare")
    asked = (*product(vectors, ("KR", "RK", "KRK", "RKR", "")), *product(others, ("", "whole")))
    assert {(f"Reduce{name}", way) for name, way in asked} <= found


def test_a_build_holds_what_is_computed_in_ways_of_its_own() -> None:
    sorts = ("recurrences", "orders", "pools", "newest", "contributed", "types", "reductions", "softmaxes", "samplings")
    sorts += ("vectors", "attentions", "packed", "movements", "einsums")
    graphs = [FAMILIES[f"operators_{sort}"](seed) for seed, sort in product(range(SEEDS), sorts)]
    kernels = [k for graph in graphs for k in fuse(graph, RULES).kernels if not k.free]
    found = {(k.kind, *name) for k in kernels for name in KINDS[k.kind].names(k.config).items()}
    asked = {
        "recurrent": {"activations": ("", "relu", "sigmoid", "hardsigmoid tanh", "sigmoid relu relu")},
        "axis": {"way": ("", "one", "heap", "select"), "dtype": ("int32", "int64")},
        "pool": {"way": ("", "opset 18", "dilated", "places")},
        "attention": {
            "mask": ("", "bool", "bool of each head", "float32", "int32", "causal"),
            "ways": ("bounded", "turned", "turned local"),
        },
        "matmul": {"vector": ("row", "column", "row by a constant", "column by a constant", "both")},
        "matmul_nbits": {"way": ("4 bits at 4, one row", "8 bits at 0, one row", "8 bits at 0", "bnb4, one row")},
        "copy": {"way": ("pieces", "wrap")},
        "transpose": {"unit": ("1", "2", "8")},
        "einsum": {"shape": ("batch rows", "rows moved singly", "batch rows columns")},
        "reduce": {"way": ("last",)},
        "other": {
            "variant": ("linear zeros", "linear zeros corners", "interleaved"),
            "detail": ("3x3 by 1x1", "3x3 by 2x2"),
        },
        "unary": {"dtype": ("float64",), "constant": ("other",)},
        "softmax": {"dtype": ("float32", "float64"), "way": ("", "masked")},
        "conv_int8": {"dtype": ("int8", "uint8"), "weight_dtype": ("int8", "uint8")},
        "matmul_int8": {"dtype": ("int8", "uint8")},
    }
    assert {(kind, column, name) for kind, of in asked.items() for column in of for name in of[column]} <= found


def test_a_build_holds_what_real_models_have_beyond_the_usual_sizes_and_types() -> None:
    found: set[str] = set()
    for seed, sort in product(range(SEEDS), ("movements", "scatters", "resizes", "types", "einsums", "pools")):
        graph = FAMILIES[f"operators_{sort}"](seed)
        for node in graph.nodes:
            x, *more = graph.input_tensors(node)
            if node.op_type == "Slice" and len(more) > 3 and (more[3].value or (1,))[0] < 0:
                found.add("backwards")
            elif node.op_type == "ScatterND" and more[0].shape[0] > 3e5:
                found.add("many rows")
            elif node.op_type == "Resize" and x.shape[1] <= 4 and node.attrs["mode"] == "cubic":
                found.add("few maps")
            elif "antialias" in node.attrs:
                found.add("antialias")
            elif "opset" in node.attrs:
                assert to_onnx(graph).opset_import[0].version == node.attrs["opset"]
                found.add("older averages")
            elif "dilations" in node.attrs:
                found.add("dilated maxima")
            elif node.op_type == "MatMul" and x.dtype == "int64":
                found.add("whole numbers")
            elif node.attrs.get("equation") == "byhwc,wkc->byhwk":
                found.add("relative positions")
    assert found == {
        *("backwards", "many rows", "few maps", "whole numbers", "relative positions"),
        *("antialias", "older averages", "dilated maxima"),
    }


def test_half_of_the_networks_of_an_operator_are_of_it_alone_or_among_a_few() -> None:
    """What a model of a few operators touches stays in the nearest cache: of many it was measured alone three times."""
    for sort in ("elementwise", "gathers", "movements", "rare", "contributed", "softmaxes"):
        sizes = [len(FAMILIES[f"operators_{sort}"](seed).nodes) for seed in range(SEEDS)]
        assert 0.2 * SEEDS < sum(size <= 4 for size in sizes) < 0.7 * SEEDS


def test_a_single_result_is_that_of_the_model_or_read_by_another_operator() -> None:
    """Results have memory of their own: 200,000 elements of Abs take 24 microseconds there and 36 between others."""
    drawn = [FAMILIES["operators_softmaxes"](seed) for seed in range(SEEDS)]
    alone = [graph for graph in drawn if len(graph.outputs) == 1]
    read = [graph.nodes[-1].op_type == "Neg" for graph in alone]
    assert 0.2 * len(alone) < sum(read) < 0.8 * len(alone)
