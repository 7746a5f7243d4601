"""Keras models, traced by TensorFlow into a graph whose weights stay where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nn_meter.errors import GraphError, ModelError, ModelFormatError, needed
from nn_meter.frontends._source import Shapes, by_name, shapes_wanted

_PURPOSE = "reading a Keras model"


@dataclass(frozen=True, slots=True)
class Traced:
    """A serialised ``GraphDef`` with its functions, placeholders that stand for weights, and outputs."""

    graph: bytes
    weights: Mapping[str, tuple[tuple[int, ...], str]]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def is_model(source: Any) -> bool:
    """Whether ``source`` is a Keras model, judged by the names of its classes."""
    return any(
        kind.__name__ == "Model" and kind.__module__.partition(".")[0] in ("keras", "tf_keras", "tensorflow")
        for kind in type(source).__mro__
    )


def _tensorflow() -> Any:
    return needed("tensorflow", "tensorflow", "tensorflow", _PURPOSE)


def load(path: Path) -> Any:
    """The model in a ``.keras`` or ``.h5`` file, not compiled.

    Raises:
        ModelFormatError: Keras cannot load the file; holds its reason.
        MissingDependencyError: TensorFlow is not installed.
    """
    tensorflow = _tensorflow()
    try:
        return tensorflow.keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the layer at fault raises
        raise ModelFormatError(f"{path}: Keras cannot load it: {error}") from error


def trace(model: Any, where: str, shapes: Shapes | None) -> Traced:
    """The graph of a call for inference, shapes fixed.

    Args:
        model: A built Keras model.
        where: The model, for error texts.
        shapes: Shapes of inputs as the model takes them, by name or one for the only input; an image's may
            also be given channels first.

    Raises:
        GraphError: the model is not built, or a dimension is unset.
        ModelError: a given shape fits no input, or the call fails; holds TensorFlow's reason.
    """
    tensorflow = _tensorflow()
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise GraphError(f"{where}: the Keras model is not built, so its inputs are unknown; call it once, or build it")
    names = [str(tensor.name).partition(":")[0] for tensor in inputs]
    given = by_name({name: tuple(each.shape) for name, each in zip(names, inputs, strict=True)}, shapes, where)
    notes: list[str] = []
    specs = [
        tensorflow.TensorSpec(
            _fixed(tuple(tensor.shape), given.get(name), name, where, notes),
            tensor.dtype,
            name=name.replace("/", "_"),
        )
        for name, tensor in zip(names, inputs, strict=True)
    ]

    def call(*tensors: Any) -> Any:
        return model(_arranged(model, tensors, tensorflow.nest), training=False)

    try:
        concrete = tensorflow.function(call, autograph=False).get_concrete_function(*specs)
    except Exception as error:  # a layer may fail in any way
        raise ModelError(f"{where}: TensorFlow cannot trace the model: {error}") from error
    graph = concrete.graph
    weights = {
        inner.op.name: (_shape(outer), tensorflow.as_dtype(_dtype(outer)).name) for outer, inner in graph.captures
    }
    outputs = tuple(tensor.name for tensor in tensorflow.nest.flatten(concrete.structured_outputs))
    return Traced(graph.as_graph_def().SerializeToString(), weights, outputs, tuple(notes))


def _arranged(model: Any, tensors: Sequence[Any], nest: Any) -> Any:
    """The arguments as the model was built to take them: one, a list, or by name."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return nest.pack_sequence_as(structure, tensors)
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _shape(captured: Any) -> tuple[int, ...]:
    """Shape of a captured variable, which its handle carries, or of a captured constant."""
    data = getattr(captured, "_handle_data", None)
    if data is not None and data.shape_and_type:
        return tuple(dim.size for dim in data.shape_and_type[0].shape.dim)
    return tuple(captured.shape)


def _dtype(captured: Any) -> Any:
    data = getattr(captured, "_handle_data", None)
    return data.shape_and_type[0].dtype if data is not None and data.shape_and_type else captured.dtype


def _fixed(
    stated: Sequence[int | None], given: tuple[int, ...] | None, name: str, where: str, notes: list[str]
) -> tuple[int, ...]:
    if given is not None:
        for shape in (given, (*given[:1], *given[2:], *given[1:2])):
            if len(shape) == len(stated) and all(want in (None, dim) for dim, want in zip(shape, stated, strict=True)):
                return shape
        raise ModelError(f"{where}: the shape {given} given for the input {name!r} does not fit {tuple(stated)}")
    if any(dim is None for dim in stated[1:]):
        raise GraphError(
            f"{where}: the input {name!r} has the shape {tuple(stated)}; "
            f"give its shape: {shapes_wanted({name: stated})}"
        )
    if stated and stated[0] is None:
        notes.append(f"the unset batch of the input {name!r} became 1")
    return tuple(1 if dim is None else dim for dim in stated)
