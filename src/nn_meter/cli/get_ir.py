"""``nn-meter get_ir``."""

from __future__ import annotations

import argparse
import json
import os

from nn_meter.cli.output import OK, say
from nn_meter.errors import InputError
from nn_meter.storage import write

_SUFFIXES = (("tensorflow", "pb", ".pb", "_pb_ir.json"), ("onnx", "onnx", ".onnx", "_onnx_ir.json"))


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``get_ir``."""
    parser.description = "Convert a model to an nn-Meter IR graph."
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--tensorflow", metavar="PATH", help="frozen TensorFlow graph (*.pb)")
    source.add_argument("--onnx", metavar="PATH", help="ONNX file (*.onnx)")
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write it; beside the model if left out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the graph, and say where."""
    from nn_meter.api import model_file_to_graph

    found = next((row for row in _SUFFIXES if getattr(args, row[0])), None)
    if found is None:
        raise InputError('no model is named; please run "nn-meter get_ir --help" to see guidance')
    option, model_type, suffix, ending = found
    source = getattr(args, option)
    # nn-Meter replaces the suffix wherever it stands in the path; here only at its end
    target = args.output or source.removesuffix(suffix) + ending
    if not target.endswith(".json"):
        target += ".json"
    graph = model_file_to_graph(source, model_type)
    write(target, json.dumps(graph, indent=4, sort_keys=True))
    say(f"The nn-meter ir graph has been saved. Saved path: {os.path.abspath(target)}")
    return OK
