"""The graph that every front end gives and every other room reads.

The vocabulary is ONNX: operator names, attribute names and input order of the newest opset. Shapes are
logical NCHW. There are no weights: a tensor has a shape and a dtype, and a value only where it is a small
constant, since those decide shapes.
"""

from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.collecting import uncollected
from nn_meter.ir.graph import Attr, Graph, Node, Tensor, execution_order, verify
from nn_meter.ir.shapes import ShapeError, infer
from nn_meter.ir.text import parse, to_text

__all__ = [
    "Attr",
    "Graph",
    "GraphBuilder",
    "Node",
    "ShapeError",
    "Tensor",
    "execution_order",
    "infer",
    "parse",
    "to_text",
    "uncollected",
    "verify",
]
