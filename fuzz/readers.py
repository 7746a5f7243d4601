"""Damaged model files: whatever the bytes, a reader answers with a graph or an error of our tree.

    python fuzz/readers.py [--count 100000] [--seed 0]

Bytes of small models of every kind are flipped, cut, doubled and put together, their JSON given other values.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from nn_meter import frontends
from nn_meter.errors import NnMeterError
from nn_meter.frontends import nnmeter_ir
from nn_meter.frontends import onnx as onnx_reader

EXAMPLE = Path(__file__).parents[1] / "examples" / "small_net.onnx"

SLOW_S = 5.0

NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**62, -(2**63), 10**30)
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1e308, float("nan"), float("inf"), "", "x", [], {}, [[]], [None], {"a": 1},
    [1, [2]], "\0", [-1], [0] * 4, [10**12] * 4, [1.5], "1" * 5000, [[1, 2, 3]], [["a"]], [{}],
)  # fmt: skip


def with_bodies() -> bytes:
    """An ONNX model with a function, a branch and a loop's worth of attributes."""
    value, flag = helper.make_tensor_value_info, helper.make_tensor("c", TensorProto.BOOL, [], [True])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    function = helper.make_function("own", "twice", ["a"], ["b"], body, opsets)

    def branch(op_type: str) -> onnx.GraphProto:
        out = [value(f"o{op_type}", TensorProto.FLOAT, [1, 8])]
        return helper.make_graph([helper.make_node(op_type, ["u"], [f"o{op_type}"])], op_type, [], out)

    nodes = [
        helper.make_node("twice", ["x"], ["u"], domain="own"),
        helper.make_node("If", ["c"], ["v"], then_branch=branch("Relu"), else_branch=branch("Neg")),
        helper.make_node("ReduceMean", ["v"], ["y"], axes=[1], keepdims=1),
    ]
    ends = [value("x", TensorProto.FLOAT, [1, 8])], [value("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", *ends, [flag])
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=[function]).SerializeToString())


def damaged(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """``data`` with a few bytes changed, gone, doubled or taken from ``other``."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        if not found:
            break
        at, size = draw.randrange(len(found)), draw.choice((1, 2, 4, 8, 64))
        match draw.randrange(6):
            case 0:
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x2A))
            case 2:
                del found[at : at + size]
            case 3:
                found[at:at] = found[at : at + size]
            case 4:
                start = draw.randrange(len(other))
                found[at : at + size] = other[start : start + size]
            case 5:
                number = draw.choice(NUMBERS) & (1 << 8 * size) - 1
                found[at : at + size] = number.to_bytes(size, "little")
    return bytes(found[: draw.randrange(len(found) + 1)] if found and draw.random() < 0.05 else found)


def odd(tree: Any, draw: random.Random) -> Any:
    """``tree`` of JSON with another value at a few places."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 2, 4))):
        parent, key, here = None, None, tree
        for _ in range(draw.randrange(1, 7)):
            if isinstance(here, dict) and here:
                key = draw.choice(list(here))
            elif isinstance(here, list) and here:
                key = draw.randrange(len(here))
            else:
                break
            parent, here = here, here[key]
        if parent is not None:
            parent[key] = copy.deepcopy(draw.choice((*NUMBERS, *ODD)))
    return tree


def inputs(draw: random.Random, binary: Mapping[str, Sequence[bytes]]) -> Iterator[tuple[str, bytes]]:
    """Kind and bytes, without end."""
    tree = nnmeter_ir.write(onnx_reader.read(EXAMPLE))
    packed = gzip.compress(json.dumps(tree).encode())
    kinds = (*binary, "nnmeter-ir")
    while True:
        kind = draw.choice(kinds)
        if kind != "nnmeter-ir":
            yield kind, damaged(draw.choice(binary[kind]), draw.choice(binary[kind]), draw)
        elif draw.random() < 0.8:
            yield kind, json.dumps(odd(tree, draw)).encode()
        else:
            yield kind, damaged(packed, packed, draw)


def onnx_seeds() -> tuple[bytes, ...]:
    """Small ONNX models."""
    return EXAMPLE.read_bytes(), with_bodies()


def outcome(kind: str, data: bytes) -> str:
    """``read``, ``refused``, ``slow``, or what went wrong and where."""
    started = time.process_time()
    try:
        frontends.read(data, kind)
        answer = "read"
    except NnMeterError:
        answer = "refused"
    except Exception as error:  # what this looks for
        place = traceback.extract_tb(error.__traceback__)[-1]
        answer = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}"
    return "slow" if time.process_time() - started > SLOW_S else answer


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("files", nargs="*", type=Path, help="further seeds: *.onnx, *.pb, *.tflite")
    options = parser.parse_args()
    binary: dict[str, list[bytes]] = {"onnx": list(onnx_seeds())}
    for path in options.files:
        binary.setdefault({".pb": "pb"}.get(path.suffix, path.suffix[1:]), []).append(path.read_bytes())
    counts: Counter[tuple[str, str]] = Counter()
    for _, (kind, data) in zip(range(options.count), inputs(random.Random(options.seed), binary), strict=False):
        counts[kind, outcome(kind, data)] += 1
    for (kind, answer), number in sorted(counts.items()):
        print(f"{kind}: {number} {answer}")
    return any(answer not in ("read", "refused") for _, answer in counts)


if __name__ == "__main__":
    sys.exit(main())
