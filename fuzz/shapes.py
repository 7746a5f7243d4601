"""Shapes of single operators against ONNX Runtime, under random shapes, attributes and opsets.

    python fuzz/shapes.py [--count 10000] [--seed 0] [--operator NAME]

The seeds are the single-node models of ONNX's own backend tests, and a node of each operator of com.microsoft
(``scripts/operator_cases.py``). A mutated model that ONNX Runtime runs must be read with the shapes that it gave; one
that it refuses may be read or refused, by an error of our tree. What the values of an input decide (``NonZero``) may be
refused too, or be the most that there can be where the graph says that it assumes so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from nn_meter.errors import NnMeterError
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph
from nn_meter.ir.shapes import FOUND

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from operator_cases import CASES, MS, C, Case, Operand

CONSTANT_ELEMENTS = 16
"""Integers and small inputs of at most so many elements become constants, as files have them."""

LIMIT_S = 10.0
"""For one model in ONNX Runtime."""

OPSETS = tuple(range(7, onnx.defs.onnx_opset_version() + 1))

SKIPPED = frozenset(("Loop", "Scan", "If", "SequenceMap", "ImageDecoder", "Gradient", "Adagrad", "Adam", "Momentum"))
"""Operators that hold graphs, or train."""


Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Seed:
    """One node, its inputs by position (``None`` for one left out) and its opset."""

    node: onnx.NodeProto
    inputs: tuple[Any, ...]
    opset: int


@cache
def seeds() -> tuple[Seed, ...]:
    """The backend tests of one node over plain tensors, sorted by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = sorted(collect_testcases(None), key=lambda case: case.name)
    found = []
    for case in cases:
        graph = case.model.graph
        if len(graph.node) != 1 or case.model.functions or graph.node[0].op_type in SKIPPED:
            continue
        data = iter(case.data_sets[0][0])
        given = {value.name: next(data, None) for value in graph.input}
        given |= {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        inputs = tuple(given.get(name) if name else None for name in graph.node[0].input)
        if all(value is None or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf") for value in inputs):
            opset = next((each.version for each in case.model.opset_import if each.domain in ("", "ai.onnx")), 0)
            if opset and graph.node[0].domain in ("", "ai.onnx", "ai.onnx.ml"):
                found.append(Seed(graph.node[0], inputs, opset))
    return (*found, *(_seed_of(name, case) for name, case in CASES.items() if name.startswith(f"{MS}.")))


def _seed_of(name: str, case: Case) -> Seed:
    """A case of com.microsoft with its dimensions no larger than they need be to be told apart."""
    names = [f"i{place}" if each is not None else "" for place, each in enumerate(case.operands)]
    outputs = [f"o{place}" for place in range(case.outputs)]
    node = helper.make_node(name.removeprefix(f"{MS}."), names, outputs, domain=MS)
    for key, value in case.attrs.items():
        node.attribute.append(helper.make_attribute(key, list(value) if isinstance(value, tuple) else value))
    return Seed(node, tuple(map(_array, case.operands)), 21)


def _array(operand: Operand) -> Any:
    if operand is None:
        return None
    if isinstance(operand, C):
        values = np.asarray(operand.value, operand.dtype)
        return values.reshape(operand.shape) if operand.shape is not None else values
    size = prod(operand.shape)
    return (np.arange(size) % 7 / 7 if operand.dtype == "float32" else np.zeros(size)).astype(operand.dtype).reshape(
        operand.shape
    )


def mutated(seed: Seed, draw: random.Random) -> Seed:
    """``seed`` with other dimensions, attributes or opset."""
    node = onnx.NodeProto()
    node.CopyFrom(seed.node)
    inputs = list(seed.inputs)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        _mutate_inputs(inputs, draw)
    for attribute in node.attribute:
        if draw.random() < 0.3:
            _mutate_attribute(attribute, draw)
    if node.attribute and draw.random() < 0.1:
        del node.attribute[draw.randrange(len(node.attribute))]
    opset = draw.choice(OPSETS) if draw.random() < 0.3 else seed.opset
    if draw.random() < 0.2:
        _add_attribute(node, opset, draw)
    if draw.random() < 0.1:
        _change_rank(inputs, draw)
    if inputs and draw.random() < 0.05:
        inputs[draw.randrange(len(inputs))] = None
    return Seed(node, tuple(inputs), opset)


def _mutate_inputs(inputs: list[Any], draw: random.Random) -> None:
    """One dimension of one input becomes another, in all inputs of that size half of the time."""
    chosen = [value for value in inputs if value is not None and value.ndim]
    if not chosen:
        return
    dim = draw.choice(draw.choice(chosen).shape)
    size = draw.choice((0, 1, 1, 2, 3, 5, dim + 1, 2 * dim))
    together = draw.random() < 0.7
    for index, value in enumerate(inputs):
        if value is None or dim not in value.shape or (not together and draw.random() < 0.5):
            continue
        if value.dtype.kind == "i" and value.size <= CONSTANT_ELEMENTS and value.ndim == 1 and draw.random() < 0.8:
            inputs[index] = np.where(value == dim, size, value).astype(value.dtype)
            continue
        shape = tuple(size if each == dim else each for each in value.shape)
        inputs[index] = np.resize(value, shape).astype(value.dtype) if value.size else np.zeros(shape, value.dtype)


def _mutate_attribute(attribute: onnx.AttributeProto, draw: random.Random) -> None:
    kind = attribute.type
    if kind == onnx.AttributeProto.INT:
        attribute.i = draw.choice((0, 1, 2, -1, attribute.i + 1, attribute.i - 1))
    elif kind == onnx.AttributeProto.INTS and attribute.ints:
        at = draw.randrange(len(attribute.ints))
        attribute.ints[at] = draw.choice((0, 1, 2, 3, attribute.ints[at] + 1))
    elif kind == onnx.AttributeProto.STRING:
        attribute.s = draw.choice((b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"NOTSET", attribute.s, attribute.s))


def _add_attribute(node: onnx.NodeProto, opset: int, draw: random.Random) -> None:
    """One of the operator's whole numbers that the node leaves out."""
    if node.domain or not onnx.defs.has(node.op_type, opset):
        return
    known = onnx.defs.get_schema(node.op_type, opset).attributes
    stated = {attribute.name for attribute in node.attribute}
    left = sorted(name for name, each in known.items() if each.type.name == "INT" and name not in stated)
    if left:
        node.attribute.append(helper.make_attribute(draw.choice(left), draw.choice((-2, -1, 0, 1, 2))))


def _change_rank(inputs: list[Any], draw: random.Random) -> None:
    """An axis of size 1 more or less in front, of one input or of all."""
    together, more = draw.random() < 0.5, draw.random() < 0.6
    for index, value in enumerate(inputs):
        if value is None or not value.ndim or (not together and draw.random() < 0.5):
            continue
        if more:
            inputs[index] = value[None]
        elif value.shape[0] == 1:
            inputs[index] = value[0]


def constants(seed: Seed) -> tuple[bool, ...]:
    """Which inputs become constants: the small ones that may decide a shape."""
    return tuple(
        value is not None
        and (
            (index > 0 and value.size <= CONSTANT_ELEMENTS and value.dtype.kind in "iub")
            or (seed.node.op_type in ("Resize", "Upsample", "Range") and value.size <= 8)
            or (seed.node.op_type in ("ConstantOfShape", "Expand", "AffineGrid") and value.dtype.kind == "i")
            or seed.node.op_type.endswith(("Window", "WeightMatrix"))
            or (seed.node.domain == MS and index > 0 and value.dtype != np.float32 and value.size <= 256)
        )
        for index, value in enumerate(seed.inputs)
    )


def model(seed: Seed) -> onnx.ModelProto:
    """The seed as a file has it: shapes of inputs stated, those of outputs not."""
    node = onnx.NodeProto()
    node.CopyFrom(seed.node)
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(seed.inputs)]
    del node.input[:], node.output[:]
    node.input.extend(names)
    node.output.extend(f"o{index}" if name else "" for index, name in enumerate(seed.node.output))
    fixed = constants(seed)
    inputs, held = [], []
    for name, value, constant in zip(names, seed.inputs, fixed, strict=True):
        if constant:
            held.append(numpy_helper.from_array(np.asarray(value), name))
        elif value is not None:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    imports = [helper.make_opsetid("", seed.opset)]
    if node.domain:
        imports.append(helper.make_opsetid(node.domain, 1 if node.domain == MS else 3))
    graph = helper.make_graph([node], "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _run(pipe: Connection) -> None:
    """Run what comes through ``pipe`` until it closes."""
    while True:
        proto, feeds = pipe.recv()
        pipe.send(_shapes(proto, feeds))


def _shapes(proto: bytes, feeds: dict[str, Any]) -> Shapes | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(proto, options, ["CPUExecutionProvider"])
        results = session.run(None, feeds)
    except Exception:  # a runtime refuses in many ways
        return None
    if not all(isinstance(result, np.ndarray) for result in results):
        return None
    return tuple(result.shape for result in results)


class Runtime:
    """ONNX Runtime in a process of its own, which a mutated model may end."""

    def __init__(self) -> None:
        self._process: Any = None

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def executed(self, seed: Seed, proto: bytes) -> Shapes | None:
        """The shapes that the runtime gives, ``None`` where it refuses, ends, hangs, or gives no tensors."""
        if self._process is None:
            self._pipe, far = multiprocessing.Pipe()
            self._process = multiprocessing.get_context("spawn").Process(target=_run, args=(far,), daemon=True)
            self._process.start()
            far.close()
        feeds = {
            f"i{index}": value
            for index, (value, constant) in enumerate(zip(seed.inputs, constants(seed), strict=True))
            if value is not None and not constant
        }
        try:
            self._pipe.send((proto, feeds))
            if self._pipe.poll(LIMIT_S):
                found: Shapes | None = self._pipe.recv()
                return found
        except (EOFError, OSError):
            pass
        self._stop()
        return None

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


@dataclass(frozen=True)
class Answer:
    """What came of one model: ``agrees``, ``at most`` (as many as there can be, and said so), ``refused`` by us alone,
    ``differs``, ``not run``."""

    operator: str
    verdict: str
    text: str = ""


def compared(seed: Seed, runtime: Runtime) -> Answer:
    """Our shapes beside ONNX Runtime's. What is no error of our tree propagates."""
    proto = model(seed).SerializeToString()
    wanted = runtime.executed(seed, proto)
    name = seed.node.op_type
    shapes = {
        f"i{index}": value.shape
        for index, (value, constant) in enumerate(zip(seed.inputs, constants(seed), strict=True))
        if value is not None and not constant
    }
    try:
        graph = reader.read(proto, input_shapes=shapes)
    except NnMeterError as error:
        return Answer(name, "refused" if wanted is not None else "not run", f"{error}; executed {wanted}")
    if wanted is None:
        return Answer(name, "not run")
    found = tuple(graph.tensors[out].shape for out in graph.outputs)
    verdict = "agrees" if found == wanted else "at most" if _bounds(graph, found, wanted) else "differs"
    return Answer(name, verdict, f"{found}, executed {wanted}")


def _bounds(graph: Graph, found: Shapes, wanted: Shapes) -> bool:
    """Whether the graph says what it assumes, and no dimension is smaller than executed."""
    return (
        bool(graph.assumed)
        and graph.nodes[0].op_type in FOUND
        and [len(shape) for shape in found] == [len(shape) for shape in wanted]
        and all(a >= b for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True))
    )


def answers(draw: random.Random, count: int, pool: Sequence[Seed]) -> Iterator[tuple[Seed, Answer]]:
    """``count`` mutated models and what came of them; each operator comes as often as the others."""
    seeds_of: dict[tuple[str, str], list[Seed]] = {}
    for seed in pool:
        seeds_of.setdefault((seed.node.domain, seed.node.op_type), []).append(seed)
    operators = list(seeds_of.values())
    with Runtime() as runtime:
        for _ in range(count):
            seed = mutated(draw.choice(draw.choice(operators)), draw)
            yield seed, compared(seed, runtime)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operator", help="only this one")
    options = parser.parse_args()
    pool = [seed for seed in seeds() if options.operator in (None, seed.node.op_type)]
    counts: Counter[str] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    for seed, answer in answers(random.Random(options.seed), options.count, pool):
        counts[answer.verdict] += 1
        key = answer.operator, answer.verdict
        if answer.verdict in ("differs", "refused"):
            shown[key] += 1
            if shown[key] <= 3:
                attrs = {a.name: helper.get_attribute_value(a) for a in seed.node.attribute if a.type < 9}
                shapes = [None if value is None else value.shape for value in seed.inputs]
                print(f"{answer.operator} {answer.verdict}, opset {seed.opset}, {shapes} {attrs}: {answer.text}")
    run = sum(counts[verdict] for verdict in ("agrees", "at most", "differs", "refused"))
    print(f"{len(pool)} seeds, {options.count} models, {run} that ONNX Runtime runs: {dict(counts)}")
    for (operator, verdict), number in shown.most_common():
        print(f"  {operator} {verdict}: {number}")
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
