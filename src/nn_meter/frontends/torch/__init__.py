"""PyTorch: modules, ``torch.export`` programs and ``.pt2`` files.

The module runs once, on tensors that have a shape and no storage, while its operators are written down; see
``docs/pytorch.md`` for why not ``torch.export``, ``torch.fx`` or the ONNX exporter.
"""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Number
from pathlib import Path
from typing import Any

from nn_meter.errors import ModelError, ModelFormatError, needed
from nn_meter.frontends._source import are_weights, shapes_wanted
from nn_meter.ir import Graph

name = "torch"
suffixes = (".pt2",)

DEFAULT_SHAPE = (1, 3, 224, 224)

InputSpec = Any
"""A shape; a pair of shape and dtype name (``((1, 128), "int64")``); an example tensor; a dictionary or a list of them;
by name also a plain value."""

_TOKEN_INPUTS = frozenset(
    (
        "input_ids",
        "decoder_input_ids",
        "token_type_ids",
        "position_ids",
        "attention_mask",
        "ids",
        "idx",
        "tokens",
        "src_tokens",
    )
)
"""Parameters of ``forward`` that hold integers by convention."""

_PLAIN = (bool, int, float, str, type(None))
"""What ``forward`` may get by name as it is."""

_NESTED = (Mapping, list, tuple)


def sniff(source: Any) -> bool:
    """Whether ``source`` is a module, its class or weights, an exported program or a file that PyTorch wrote; imports
    nothing."""
    if isinstance(source, str | Path):
        path = Path(source)
        return os.path.isfile(path) and (path.suffix == ".pt2" or _is_torch_zip(path))
    return are_weights(source) or any(
        (kind.__module__, kind.__qualname__)
        in (("torch.nn.modules.module", "Module"), ("torch.export.exported_program", "ExportedProgram"))
        for kind in (source if isinstance(source, type) else type(source)).__mro__
    )


def read(
    source: Any,
    *,
    input_shapes: InputSpec | Sequence[InputSpec] | Mapping[str, InputSpec] | None = None,
    name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph that ``source`` computes at inference.

    Args:
        source: A ``torch.nn.Module`` on any device, ``meta`` included; a ``torch.export.ExportedProgram``;
            or the path of a ``.pt2`` file. The module stays as it is; one in training mode is read as in
            evaluation, one of ``torch.compile`` as what it was made from.
        input_shapes: One shape, several, or one for each parameter of ``forward`` by name; ``(1, 3, 224,
            224)`` where left out. Instead of a shape, a pair of shape and dtype name or an example tensor
            may stand, a dictionary or a list of these where ``forward`` takes one, and by name a number, truth value,
            text or ``None``, which ``forward`` gets as it is.
            Inputs take the dtype of the module's weights, or int64 where the parameter's name says that it
            holds tokens.
        name: Name of the graph; the class of the module where left out.
        kwargs: Further arguments of ``forward`` as they are; tensors in them are inputs.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        ModelFormatError: a file that is no ``torch.export`` archive.
        ModelError: the inputs are not those of ``forward``; it fails for these shapes or branches on a
            tensor's value (names submodule and line); a lazy module that has not run yet.
        UnsupportedOperatorError: an operator without a row in the table.
    """
    torch = imported()
    if isinstance(source, str | Path):
        name = name or Path(source).stem
        source = _load(Path(source))
    if isinstance(source, torch.export.ExportedProgram):
        if input_shapes is None or isinstance(input_shapes, Mapping):
            input_shapes, kwargs = _program_inputs(source, input_shapes or {}, kwargs or {})
        source = source.module()
        name = name or "exported"
    if isinstance(source, torch.jit.ScriptModule):
        raise ModelFormatError(_SCRIPT.format(what="the module"))
    if are_weights(source):
        raise ModelFormatError(
            "the dictionary holds weights, not what is computed with them; build the torch.nn.Module and pass that"
        )
    if isinstance(source, type):
        raise ModelError(f"{source.__name__} is a class; pass a module that was made of it: {source.__name__}(...)")
    if not isinstance(source, torch.nn.Module):
        raise ModelError(f"cannot read a {type(source).__name__} as a PyTorch model; pass a torch.nn.Module")
    source = getattr(source, "_orig_mod", source)
    parts = dict(source.named_modules())
    weights = _weights(parts)
    _check_ready(source, weights)
    from nn_meter.frontends.torch.layers import tell
    from nn_meter.frontends.torch.record import Recorder
    from nn_meter.frontends.torch.run import record

    recorder = Recorder(name or type(source).__name__, {key: path for key, (path, _) in weights.items()})
    signature = inspect.signature(source.forward)
    positional, named, tensors = _inputs(source, signature, input_shapes, kwargs or {})
    _check_arguments(source, signature, positional, named)
    for key, tensor in tensors:
        recorder.input(tensor, key)
    paths = {id(part): f"/{path.replace('.', '/')}" if path else "" for path, part in parts.items()}
    with _evaluating(parts.values()):
        tell(recorder, parts.values())
        return record(source, recorder, positional, named, paths)


def _weights(parts: Mapping[str, Any]) -> dict[int, tuple[str, Any]]:
    """Parameters and buffers with their paths, by identity; one that several parts hold has the first path. Asking
    PyTorch for each of the two walks through all modules once more."""
    found: dict[int, tuple[str, Any]] = {}
    for table in ("_parameters", "_buffers"):
        for path, part in parts.items():
            for key, tensor in vars(part)[table].items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{path}.{key}" if path else key, tensor))
    return found


_SCRIPT = (
    "{what} is TorchScript, whose operators are no longer visible one by one; load the torch.nn.Module that "
    "it was made from, or save it with torch.export.save(torch.export.export(module, inputs), 'model.pt2')"
)


def imported() -> Any:
    """The package ``torch``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    needed("torch", "torch", "torch", "reading a PyTorch model")
    import torch.export

    return torch


def _load(path: Path) -> Any:
    """The exported program in a ``.pt2`` file."""
    import torch

    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ModelFormatError(
            f"{path}: not a torch.export archive (no zip file), or a damaged one; save it again"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
    if any("/code/" in entry for entry in entries):
        raise ModelFormatError(_SCRIPT.format(what=path))
    if any(entry.endswith("data.pkl") for entry in entries) and path.suffix != ".pt2":
        raise ModelFormatError(
            f"{path}: holds weights or a pickled object, not a program; build the torch.nn.Module and pass "
            "that, or save it with torch.export.save(torch.export.export(module, inputs), 'model.pt2')"
        )
    try:
        return torch.export.load(path)
    except Exception as error:
        raise ModelFormatError(
            f"{path}: torch {torch.__version__} cannot load it as a torch.export archive ({error}); "
            "save it again"
        ) from error


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(entry.endswith(("/data.pkl", "models/model.json")) for entry in archive.namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # no zip, or one that is damaged
        return False


def _program_inputs(
    program: Any, given: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], Mapping[str, Any]]:
    """What ``program`` takes by place and by name: as it was exported, or as ``given``.

    Raises:
        ModelError: a free dimension of an input that is not given, or one given that it does not have.
    """
    import torch

    wanted = set(program.graph_signature.user_inputs)
    nodes = (node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted)
    values = {node.name: node.meta["val"] for node in nodes}
    if lost := sorted(given.keys() - values.keys()):
        raise ModelError(f"there is no input {lost[0]!r}; the inputs are {', '.join(values)}")
    shapes = {name: [d if isinstance(d, int) else str(d) for d in value.shape] for name, value in values.items()}
    if free := [name for name in shapes if name not in given and any(isinstance(d, str) for d in shapes[name])]:
        raise ModelError(f"input {free[0]!r} has free dimensions; give the shapes of all: {shapes_wanted(shapes)}")
    specs = {name: given.get(name, tuple(shapes[name])) for name in values}
    typed = {
        name: (tuple(spec), str(values[name].dtype).removeprefix("torch.")) if _is_shape(spec) else spec
        for name, spec in specs.items()
    }
    spec = program.call_spec.in_spec
    by_place = (spec.child(0) if hasattr(spec, "child") else spec.children_specs[0]).num_leaves
    names = list(typed)
    rest = {name: torch.empty(typed[name][0], dtype=values[name].dtype, device="meta") for name in names[by_place:]}
    return [typed[name] for name in names[:by_place]], {**rest, **kwargs}


def _check_ready(module: Any, weights: Mapping[int, tuple[str, Any]]) -> None:
    """Refuse what has no forward, or weights without a shape.

    Raises:
        ModelError: says which and what to do.
    """
    import torch

    if getattr(module.forward, "__func__", None) is torch.nn.Module.forward:
        raise ModelError(f"{type(module).__name__} has no forward; pass a torch.nn.Module that can be called")
    lazy = [path for path, weight in weights.values() if torch.nn.parameter.is_lazy(weight)]
    if lazy:
        raise ModelError(
            f"{type(module).__name__}: {lazy[0]!r} of a lazy module has no shape yet; call the module once "
            "with an example input first"
        )


def _check_arguments(
    module: Any, signature: inspect.Signature, positional: Sequence[Any], named: Mapping[str, Any]
) -> None:
    """Refuse inputs that are not those of ``forward``.

    Raises:
        ModelError: says what ``forward`` takes.
    """
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        names = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        taken = signature.replace(parameters=names, return_annotation=signature.empty)
        wanted = [p.name for p in names if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        shapes = [tuple(each.shape) for each in positional if hasattr(each, "shape")] or [DEFAULT_SHAPE]
        several = len(wanted) == 1 < len(shapes)  # meant as the elements of a list
        shown = {wanted[0]: shapes} if several else {
            key: shapes[min(place, len(shapes) - 1)] for place, key in enumerate(wanted)
        }
        raise ModelError(
            f"{type(module).__name__}: {error}; it takes forward{taken}: give input_shapes for its inputs in "
            f"this order{f', or by name as in {shown}' if shown else ''}"
        ) from None


def _is_shape(spec: Any) -> bool:
    return isinstance(spec, list | tuple) and all(isinstance(dim, Integral) for dim in spec)


def _is_spec(spec: Any) -> bool:
    if _is_shape(spec) or hasattr(spec, "untyped_storage"):
        return True
    return (
        isinstance(spec, list | tuple) and len(spec) == 2 and _is_shape(spec[0]) and isinstance(spec[1], str)
    )


Named = list[tuple[str, Any]]


def _inputs(
    module: Any, signature: inspect.Signature, specs: Any, kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any], Named]:
    """Positional arguments, those by name, and the meta tensors that are in them, by their paths."""
    tensors: Named = []
    if specs is None:
        specs = (DEFAULT_SHAPE,)
    given = {key: _with_inputs(module, key, value, tensors) for key, value in kwargs.items()}
    if isinstance(specs, Mapping):
        named = {key: _argument(module, key, spec, tensors, named=True) for key, spec in specs.items()}
        return [], {**named, **given}, tensors
    if _is_spec(specs) or not isinstance(specs, list | tuple) or isinstance(specs[0], Number):
        specs = (specs,)
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in signature.parameters.values() if each.kind in plain]
    keys = [names[index] if index < len(names) else f"input_{index}" for index in range(len(specs))]
    return [_argument(module, *each, tensors) for each in zip(keys, specs, strict=True)], given, tensors


def _argument(module: Any, key: str, spec: Any, tensors: Named, named: bool = False) -> Any:
    """What ``spec`` describes: a meta tensor, or a dictionary or list of them; each goes to ``tensors`` by its path."""
    if named and isinstance(spec, _PLAIN):
        return spec
    if isinstance(spec, Mapping):
        return {name: _argument(module, f"{key}.{name}", each, tensors, named=True) for name, each in spec.items()}
    several = isinstance(spec, list | tuple) and not _is_spec(spec)
    if several and all(isinstance(each, _NESTED) or _is_spec(each) for each in spec):
        return [_argument(module, f"{key}.{place}", each, tensors) for place, each in enumerate(spec)]
    tensor = _tensor(module, key, spec)
    tensors.append((key, tensor))
    return tensor


def _with_inputs(module: Any, key: str, value: Any, tensors: Named) -> Any:
    """``value`` with meta tensors in the place of its tensors; each goes to ``tensors`` by its path."""
    if hasattr(value, "untyped_storage"):
        return _argument(module, key, value, tensors)
    if type(value) is dict:
        return {name: _with_inputs(module, f"{key}.{name}", each, tensors) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_inputs(module, f"{key}.{place}", each, tensors) for place, each in enumerate(value))
    return value


def _tensor(module: Any, key: str, spec: InputSpec) -> Any:
    import torch

    if not _is_spec(spec):
        raise ModelError(
            f"input {key!r}: {spec!r} is no shape; give whole numbers as in (1, 3, 224, 224), a pair of "
            "shape and dtype as in ((1, 128), 'int64'), or an example tensor"
        )
    if hasattr(spec, "untyped_storage"):
        return torch.empty(spec.shape, dtype=spec.dtype, device="meta")
    if _is_shape(spec):
        floating = (p.dtype for p in module.parameters() if p.is_floating_point())
        dtype = torch.int64 if key.rpartition(".")[2] in _TOKEN_INPUTS else next(floating, torch.float32)
    else:
        spec, dtype_name = spec
        dtype = getattr(torch, dtype_name, None)
        if not isinstance(dtype, torch.dtype):
            raise ModelError(f"input {key!r}: PyTorch has no dtype {dtype_name!r}")
    if any(dim < 1 for dim in spec):
        raise ModelError(f"input {key!r}: the shape {tuple(spec)} has a dimension below 1; give its size")
    return torch.empty(tuple(map(int, spec)), dtype=dtype, device="meta")


@contextmanager
def _evaluating(parts: Iterable[Any]) -> Iterator[None]:
    """Every submodule as in evaluation, without ``eval``, which modules override; afterwards as it was.

    What the forward stores in a module (a cache, a buffer) goes away again with the tensors of this reading.
    """
    tables = ("_parameters", "_buffers", "_modules")
    kept = [
        (part, dict(vars(part)), [dict(vars(part)[table]) for table in tables]) for part in parts
    ]
    for part, _, _ in kept:
        part.training = False
    try:
        yield
    finally:
        for part, attributes, contents in kept:
            vars(part).clear()
            vars(part).update(attributes)
            for table, content in zip(tables, contents, strict=True):
                attributes[table].clear()
                attributes[table].update(content)
