"""Models of every format: seeds, those put together at random from operators' names, and their damage."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import random
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from nn_meter.frontends import nnmeter_ir
from nn_meter.frontends import onnx as reader
from nn_meter.frontends.tensorflow.operators import OPERATORS
from nn_meter.frontends.tflite.operators import CODES
from nn_meter.ir.shapes import RULES

from . import mutation
from .answers import EXAMPLE, ask
from .mutation import NAMES, NUMBERS, damaged

ROOT = Path(__file__).parents[1]


sys.path.append(str(ROOT / "tests" / "frontends"))  # their writers of files that no framework is needed for
import test_tensorflow as tf  # noqa: E402
import test_tflite as lite  # noqa: E402

INT64S = tuple(number for number in NUMBERS if -(2**63) <= number < 2**63)
INT32S = tuple(number for number in NUMBERS if -(2**31) <= number < 2**31)
SIZES = (0, 1, 1, 1, 2, 3, 4, 8, 8, 16, 32)
SHAPES = ((1, 3, 8, 8), (1, 8, 8, 3), (1, 8), (2, 4, 8), (8,), (), (1, 1, 1, 1), (0, 4), (1, 3, 8, 8, 8))


class Model:
    """What all formats share: bytes for a reader, now and then in a file."""

    kind = ""
    suffix = ""
    weights: Sequence[float] = (0.45, 0.05, 0.5)
    """Shares of damaged bytes, of two files in one, and of what ``grown`` gives."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"model{self.suffix}"

    @cached_property
    def seeds(self) -> tuple[bytes, ...]:
        """Whole files."""
        return tuple(self.grown(random.Random(number)) for number in range(50))

    def grown(self, draw: random.Random) -> bytes:
        """A file that was never there before."""
        raise NotImplementedError

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        (how,) = draw.choices(("damaged", "joined", "grown"), self.weights)
        if how == "grown":
            return self.grown(draw)
        data, other = draw.choice(self.seeds), draw.choice(self.seeds)
        if how == "joined":
            return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]
        return damaged(data, other, draw)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says; every eighth comes as a file whose kind is to be found out."""
        if turn % 8 == 7:
            self._file.write_bytes(data)
            ask(self._file, None, turn // 8)
        else:
            ask(data, self.kind, turn)


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


_ONNX_OPERATORS = (
    *((domain, op) for domain, rules in RULES.items() for op in rules),
    ("", "If"), ("", "Loop"), ("", "Scan"), ("", ""), ("", "SequenceConstruct"), ("own", "Foo"), ("", "x" * 10_000),
)  # fmt: skip
_ONNX_ATTRIBUTES = (
    "axis", "axes", "perm", "kernel_shape", "pads", "strides", "group", "dilations", "to", "keepdims", "split",
    "num_outputs", "equation", "starts", "ends", "mode", "auto_pad", "blocksize", "epsilon", "transB", "shape", "value",
    "value_ints", "alpha", "hidden_size", "num_heads", "direction", "output_shape", "sizes", "k", "largest",
    "block_size",
)  # fmt: skip
_TEXTS = (b"SAME_UPPER", b"VALID", b"bij,bjk->bik", b"...i->i", b"nearest", b"\xff", b"DCR", b"constant", b"")


class Onnx(Model):
    """ONNX files, structure and bytes."""

    kind, suffix = "onnx", ".onnx"
    weights = (0.3, 0.03, 0.67)

    @cached_property
    def seeds(self) -> tuple[bytes, ...]:
        """Small files first; of the twelve of the corpus each once."""
        files = sorted((ROOT / "tests" / "corpus" / "models").glob("*.onnx"))
        built = [self._put_together(random.Random(number)) for number in range(60)]
        return (*[with_bodies()] * 10, *built, *(path.read_bytes() for path in files))

    def grown(self, draw: random.Random) -> bytes:
        """One put together, or one of the seeds with parts of it exchanged."""
        return self._put_together(draw) if draw.random() < 0.5 else self._exchanged(draw)

    def _put_together(self, draw: random.Random) -> bytes:
        names = ["x", "w", "s", ""]
        shape = draw.choice(SHAPES)
        count = draw.randrange(1, 5)
        held = [
            helper.make_tensor("w", TensorProto.FLOAT, size := draw.choice(SHAPES[:8]), [0.0] * _product(size)),
            helper.make_tensor("s", TensorProto.INT64, [count], [draw.choice((-1, *SIZES)) for _ in range(count)]),
        ]
        nodes = []
        for number in range(draw.choice((1, 1, 2, 3, 5))):
            domain, op_type = draw.choice(_ONNX_OPERATORS)
            if draw.random() < 0.4:
                op_type = draw.choice(("Relu", "Sigmoid", "Add", "Softmax", "Transpose", "Neg", "Identity", "Flatten"))
                nodes.append(helper.make_node(op_type, [names[-1] or "x"] * (1 + (op_type == "Add")), [f"t{number}"]))
                names.append(f"t{number}")
                continue
            inputs = [draw.choice(names) for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4, 8)))]
            outputs = [f"t{number}_{i}" for i in range(draw.choice((1, 1, 1, 2, 3)))]
            node = helper.make_node(op_type, inputs, outputs, name=draw.choice(("n", f"n{number}", "")), domain=domain)
            for name in draw.sample(_ONNX_ATTRIBUTES, draw.choice((0, 0, 1, 2, 4))):
                self._attribute(node.attribute.add(), name, draw)
            nodes.append(node)
            names += outputs
        ends = [helper.make_tensor_value_info("x", draw.choice((1, 1, 1, 7, 9, 10)), shape)]
        outs = [onnx.ValueInfoProto(name=draw.choice(names[4:]))]
        graph = helper.make_graph(nodes, "g", ends, outs, held)
        version = draw.choice((7, 9, 11, 13, 17, 18, 21, 23))
        domains = dict.fromkeys(("", *(node.domain for node in nodes)))
        opsets = [helper.make_opsetid(domain, 1 if domain else version) for domain in domains]
        return bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())

    def _exchanged(self, draw: random.Random) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(draw.choice(self.seeds[:70] if draw.random() < 0.9 else self.seeds))
        except Exception:  # a seed put together may be none
            return self._put_together(draw)
        for _ in range(draw.choice((1, 1, 2, 4))):
            try:
                draw.choice(_EXCHANGES)(model, draw)
            except (IndexError, ValueError, TypeError):  # nothing there to exchange, or not by this
                continue
        return bytes(model.SerializeToString())

    @staticmethod
    def _attribute(attribute: onnx.AttributeProto, name: str, draw: random.Random) -> None:
        attribute.name = name
        match draw.randrange(6):
            case 0 | 1:
                attribute.type, attribute.i = onnx.AttributeProto.INT, draw.choice((*INT64S, 0, 1, 2))
            case 2 | 3:
                attribute.type = onnx.AttributeProto.INTS
                attribute.ints.extend(draw.choice((*INT64S, 1, 1, 2)) for _ in range(draw.randrange(6)))
            case 4:
                attribute.type, attribute.s = onnx.AttributeProto.STRING, draw.choice(_TEXTS)
            case 5:
                attribute.type, attribute.f = onnx.AttributeProto.FLOAT, draw.choice((0.0, -1.0, 1e38, float("nan")))


def _product(shape: Sequence[int]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def _dimension(model: onnx.ModelProto, draw: random.Random) -> None:
    graph = model.graph
    value = draw.choice([*graph.input, *graph.output, *graph.value_info])
    draw.choice(value.type.tensor_type.shape.dim).dim_value = draw.choice(INT64S)


def _weight(model: onnx.ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(INT64S)


def _content(model: onnx.ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    tensor.data_type = draw.choice((0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 23, 99))
    if draw.random() < 0.5:
        tensor.raw_data = struct.pack("<q", draw.choice(INT64S)) * draw.randrange(5)


def _value(model: onnx.ModelProto, draw: random.Random) -> None:
    attribute = draw.choice(draw.choice(model.graph.node).attribute)
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(INT64S)
    else:
        attribute.i = draw.choice(INT64S)


def _more(model: onnx.ModelProto, draw: random.Random) -> None:
    Onnx._attribute(draw.choice(model.graph.node).attribute.add(), draw.choice(_ONNX_ATTRIBUTES), draw)


def _edge(model: onnx.ModelProto, draw: random.Random) -> None:
    ends = draw.choice((lambda node: node.input, lambda node: node.output))(draw.choice(model.graph.node))
    ends[draw.randrange(len(ends))] = draw.choice([*draw.choice(model.graph.node).output, "", draw.choice(NAMES)])


def _operator(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    node.domain, node.op_type = draw.choice(_ONNX_OPERATORS)


def _named(model: onnx.ModelProto, draw: random.Random) -> None:
    draw.choice(model.graph.node).name = draw.choice(NAMES)


def _fewer(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    del draw.choice((node.input, node.attribute))[draw.randrange(3) :]


def _again(model: onnx.ModelProto, draw: random.Random) -> None:
    model.graph.node.add().CopyFrom(draw.choice(model.graph.node))


def _inputs(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    node.input.extend([*node.input, ""] * draw.randrange(1, 3))


def _gone(model: onnx.ModelProto, draw: random.Random) -> None:
    model.graph.node.remove(draw.choice(model.graph.node))


def _opset(model: onnx.ModelProto, draw: random.Random) -> None:
    model.opset_import[0].version = draw.choice((-1, 0, 1, 6, 7, 9, 11, 13, 18, 21, 99))


_EXCHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _dimension, _weight, _content, _value, _more, _edge, _operator, _named, _fewer, _again, _inputs, _gone, _opset,
)  # fmt: skip


class Operators(Model):
    """ONNX's own tests of single operators, their shapes and attributes changed as in ``shapes``."""

    kind, suffix = "onnx", ".onnx"
    weights = (0.2, 0.0, 0.8)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from . import shapes  # with what it imports some seconds

        self._shapes = shapes

    def grown(self, draw: random.Random) -> bytes:
        """One operator, changed or not."""
        shapes = self._shapes
        try:
            return bytes(shapes.model(shapes.mutated(draw.choice(shapes.seeds()), draw)).SerializeToString())
        except (ValueError, OverflowError, MemoryError):  # numpy cannot have such an input
            return bytes(shapes.model(draw.choice(shapes.seeds())).SerializeToString())


class Ir(Model):
    """nn-Meter's JSON: as a dictionary, as text, as a file, packed or not."""

    kind, suffix = "nnmeter-ir", ".json"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        paths = [EXAMPLE, *sorted((ROOT / "tests" / "corpus" / "models").glob("*.onnx"))]
        whole = [nnmeter_ir.write(reader.read(path)) for path in paths]
        self._trees = [dict(list(tree.items())[:count]) for tree in whole for count in (3, 8, 20)]

    @cached_property
    def seeds(self) -> tuple[bytes, ...]:
        """Texts, some packed."""
        texts = [json.dumps(tree).encode() for tree in self._trees]
        return (*texts, *(gzip.compress(text) for text in texts[::3]), *mutation.NESTED)

    def grown(self, draw: random.Random) -> bytes:
        """Other values in a tree."""
        return mutation.as_json(mutation.odd(draw.choice(self._trees), draw))

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        if turn % 8 == 7:
            path = self._file.with_suffix(".json.gz" if data[:2] == b"\x1f\x8b" else ".json")
            path.write_bytes(data)
            ask(path, None, turn // 8)
            return
        if turn % 2 and data[:2] != b"\x1f\x8b":
            try:
                tree = json.loads(data)
            except (ValueError, RecursionError):
                tree = None
            if isinstance(tree, dict):
                ask(tree, self.kind, turn // 2)
                return
        ask(data, self.kind, turn // 2)


class TfLite(Model):
    """TFLite's flatbuffers."""

    kind, suffix = "tflite", ".tflite"

    def grown(self, draw: random.Random) -> bytes:
        """Up to five operators, each of some tensors, constants among them, with some options; or many that share."""
        if draw.random() < 0.005:
            return lite.sharing(*(draw.choice((1, 4, 100, 1000)) for _ in range(3)))
        file = lite.File()
        shape = draw.choice(SHAPES)
        tensors = [file.tensor("x", *shape, signature=draw.choice(((), (), (-1, *shape[1:]))))]
        tensors.insert(0, file.ints("c", *(draw.choice((-1, *SIZES)) for _ in range(draw.randrange(5)))))
        tensors.insert(0, file.tensor("w", *(draw.choice(SIZES) for _ in range(draw.randrange(5)))))
        for number in range(draw.choice((1, 1, 2, 3, 5))):
            if draw.random() < 0.5:
                kind = draw.choice(("RELU", "LOGISTIC", "TANH", "SOFTMAX", "ADD", "MUL", "ABS"))
                made = file.tensor(f"e{number}", *file.tensors[tensors[-1]][0][1])
                file.op(kind, [tensors[-1]] * (1 + (kind in ("ADD", "MUL"))), [made])
                tensors.append(made)
                continue
            sizes = (*SIZES, *INT32S[-3:]) if draw.random() < 0.1 else SIZES
            made = file.tensor(
                draw.choice(("y", f"y{number}", *NAMES[:3])),
                *(draw.choice(sizes) for _ in range(draw.randrange(5))),
                dtype=draw.choice((0, 0, 0, 2, 3, 4, 9, 20, 99)),
            )
            inputs = [draw.choice((*tensors, -1)) for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 4)))]
            options = {
                slot: (kind, draw.choice((0, 1, 1, 2, 3, 127, -1)))
                for slot, kind in ((slot, draw.choice("bi")) for slot in draw.sample(range(9), draw.randrange(6)))
            }
            outputs = [made] * draw.choice((1, 1, 1, 1, 2, 0))
            file.op(draw.choice(CODES), inputs, outputs, draw.choice((options, options, None)))
            tensors.append(made)
        return bytes(file.write([tensors[2]], [draw.choice((tensors[-1], *tensors))]))


_TF_ATTRIBUTES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("strides", ([1, 1, 1, 1], [1, 2, 2, 1], [0] * 4, [1], [1, 2**31, 1, 1], [1] * 5)),
    ("ksize", ([1, 2, 2, 1], [1, 1, 1, 1], [], [0] * 4)),
    ("dilations", ([1, 1, 1, 1], [1, 2, 2, 1], [1, -1, 1, 1])),
    ("padding", ("SAME", "VALID", "EXPLICIT", "x")), ("data_format", ("NHWC", "NCHW", "NDHWC", "")),
    ("explicit_paddings", ([0] * 8, [1, 2], [-1] * 8)), ("keep_dims", (True, False)), ("axis", (0, 1, -1, 99, -99)),
    ("N", (0, 1, 2, 2**40)), ("T", tuple(map(tf.Type, (0, 1, 3, 9, 99)))), ("transpose_a", (True,)),
    ("transpose_b", (True,)), ("adj_y", (True,)), ("shape", (tf.Dims((1, 8)), tf.Dims((-1, 2**62)), tf.Dims(()))),
    ("squeeze_dims", ([0], [1, 2], [-1], [9])), ("begin_mask", (0, 1, 255)), ("shrink_axis_mask", (0, 1, 7)),
    ("ellipsis_mask", (0, 1, 3)), ("new_axis_mask", (0, 2)),
    ("block_size", (0, 1, 2, 3, -1)), ("num_split", (0, 1, 3)),
    ("equation", ("ab,bc->ac", "...", "a->b", "->")),
    ("num", (0, 1, 3)), ("epsilon", (0.001,)), ("value", (b"\xff",)),
    ("is_training", (True, False)), ("half_pixel_centers", (True,)), ("exclusive", (True,)), ("DstT", (tf.Type(1),)),
)  # fmt: skip


class TensorFlow(Model):
    """Frozen graphs, those with functions, and SavedModels."""

    kind, suffix = "pb", ".pb"

    def grown(self, draw: random.Random) -> bytes:
        """Up to six operators."""
        parts = [tf.placeholder("x", draw.choice((*SHAPES, (-1, 8, 8, 3)))), tf.weight("w", *draw.choice(SHAPES[:7]))]
        parts.append(tf.const("c", tuple(draw.choice((-1, *SIZES)) for _ in range(draw.randrange(5)))))
        parts.append(tf.const("k", draw.choice((0, 1, -1, 2.5))))
        names = ["x", "w", "c", "k"]
        for number in range(draw.choice((1, 2, 3, 6))):
            inputs = [
                draw.choice(("", "", "", "^")) + draw.choice((*names[-3:], *names)) + draw.choice(("", "", "", ":1"))
                for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 5)))
            ]
            kind = draw.choice(_TF_KINDS)
            if draw.random() < 0.4:
                kind = draw.choice(("Relu", "Sigmoid", "Tanh", "Softmax", "Add", "Mul", "Identity"))
                last = names[-1] if number else "x"
                inputs = [last] * (1 + (kind in ("Add", "Mul")))
            attrs = {name: draw.choice(values) for name, values in draw.sample(_TF_ATTRIBUTES, draw.randrange(6))}
            if kind == "Const":
                attrs.setdefault("value", tf.field(8, tf.field(1, draw.randrange(20)) + tf.field(4, b"\0" * 8)))
            parts.append(tf.node(f"n{number}", kind, *inputs, **attrs))
            names.append(f"n{number}")
        graph = b"".join(parts)
        return graph if draw.random() < 0.7 else self._saved(graph, names[-1], draw)

    @staticmethod
    def _saved(graph: bytes, out: str, draw: random.Random) -> bytes:
        if draw.random() < 0.5:  # a function that the graph calls
            signature = tf.field(1, "f") + tf.field(2, tf.field(1, "a")) + tf.field(3, tf.field(1, "r"))
            kind = draw.choice(_TF_KINDS)
            body = tf.field(3, tf.field(1, "i") + tf.field(2, kind) + tf.field(3, "a"))
            back = tf.entry(4, "r", draw.choice((b"i:y:0", b"a", b"i", b"f")))
            graph += tf.field(2, tf.field(1, tf.field(1, signature) + body + back))
            graph += tf.node("call", "PartitionedCall", out, f=tf.field(10, tf.field(1, draw.choice(("f", "g")))))
            out = "call"
        ends = tf.entry(1, "x", tf.field(1, "x:0")) + tf.entry(2, "y", tf.field(1, f"{out}:0"))
        tags = tf.field(1, tf.field(4, draw.choice(("serve", "train"))))
        name = draw.choice(("serving_default", "other", "__saved_model_init_op"))
        return bytes(tf.field(1, 1) + tf.field(2, tags + tf.field(2, graph) + tf.entry(5, name, ends)))


_TF_KINDS = (*OPERATORS, "Const", "Placeholder", "Switch", "Merge", "If", "While", "Frobnicate", "VarHandleOp")


class Keras(Model):
    """Keras' zips and HDF5 files: to where TensorFlow takes over, and by it where it is installed."""

    kind, suffix = "pb", ".keras"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._written: tuple[bytes, ...] = ()
        if find_spec("tensorflow"):
            importlib.import_module("tensorflow")  # once: each process that feeds would take seconds for it
            child = os.fork()  # what has run anything there cannot be forked
            if not child:
                try:
                    _write_models(folder)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            self._written = tuple(path.read_bytes() for path in sorted(folder.iterdir()))

    @cached_property
    def seeds(self) -> tuple[bytes, ...]:
        """Whole files, those of Keras itself among them."""
        return (*self._written, *(self.grown(random.Random(number)) for number in range(50 - len(self._written))))

    @cached_property
    def _parts(self) -> tuple[tuple[Any, bytes], ...]:
        """Configs and weights."""
        config = {
            "class_name": "Sequential", "registered_name": None, "module": "keras",
            "config": {"name": "s", "trainable": True, "layers": [
                {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 8]}},
                {"module": "keras.layers", "class_name": "Dense", "config": {"units": 4, "activation": "relu"}},
            ]},
        }  # fmt: skip
        found = [(config, b"\x89HDF\r\n\x1a\n" + bytes(64))]
        for data in self._written:
            if data[:2] == b"PK":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    found.append((json.loads(archive.read("config.json")), archive.read("model.weights.h5")))
        return tuple(found)

    def grown(self, draw: random.Random) -> bytes:
        """Another config, other weights; or the start of an HDF5 file."""
        if draw.random() < 0.1:
            return b"\x89HDF\r\n\x1a\n" + draw.randbytes(draw.randrange(200))
        config, weights = draw.choice(self._parts)
        files = {
            "metadata.json": mutation.as_json({"keras_version": "3.5.0"}),
            "config.json": mutation.as_json(mutation.odd(config, draw)),
            "model.weights.h5": damaged(weights, weights, draw) if draw.random() < 0.3 else weights,
        }
        modes = mutation.strange_members(files, draw) if draw.random() < 0.3 else {}
        return mutation.zipped(files, modes)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says; always a file."""
        self._file.write_bytes(data)
        ask(self._file, (None, self.kind)[turn % 2], turn // 2)


def _write_models(folder: Path) -> None:
    """A few of Keras' models, in both of its formats."""
    keras = importlib.import_module("tensorflow").keras
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    one, two = layers.Conv2D(4, 3, padding="same")(image), layers.SeparableConv2D(4, 3, padding="same")(image)
    joined = layers.GlobalAveragePooling2D()(layers.Add()([layers.BatchNormalization()(one), two]))
    models = [
        keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dropout(0.5)]),
        keras.Model(image, layers.Dense(3, activation="softmax")(joined)),
        keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, return_sequences=True), layers.GRU(2)]),
        keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(10, 4), layers.LayerNormalization()]),
    ]
    for number, model in enumerate(models):
        model.save(folder / f"{number}.keras")
        model.save(folder / f"{number}.h5")
