"""Runs a PyTorch module once on tensors without storage, and says where and why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nn_meter.errors import ModelError, UnsupportedOperatorError
from nn_meter.frontends.torch.record import FOURIER, Recorder, ValueNeeded, modes
from nn_meter.ir import Graph

_ASKS_VALUES = ("meta tensor", "meta device type tensor")
"""What PyTorch's own errors say where code asks a tensor without storage for values."""


def record(
    module: Callable[..., Any],
    recorder: Recorder,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    paths: Mapping[int, str],
) -> Graph:
    """Run ``module`` on meta tensors under ``recorder``.

    Raises:
        ModelError: the forward fails, or asks for a value that depends on an input; names the submodule and
        the line.
        UnsupportedOperatorError: an operator that the table has no row for.
    """
    import torch

    dispatch, function = modes(recorder)
    try:
        with ExitStack() as stack:
            stack.enter_context(_paths(recorder, paths))
            stack.enter_context(_plain_attention())
            stack.enter_context(torch.no_grad())
            # as under inference_mode, but tensors stay ordinary ones
            stack.enter_context(torch._C._AutoDispatchBelowAutograd())
            stack.enter_context(function)
            stack.enter_context(dispatch)
            result = module(*args, **kwargs)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{_where(recorder, error)}: {error}") from error
    except Exception as error:
        raise ModelError(_explained(recorder, error)) from error
    return recorder.graph([leaf for leaf in _leaves(result) if isinstance(leaf, torch.Tensor)])


@contextmanager
def _paths(recorder: Recorder, paths: Mapping[int, str]) -> Iterator[None]:
    """Keep ``recorder.scope`` on the running submodule, through hooks that no module holds."""
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    def enter(module: Any, args: Any) -> None:
        recorder.scope.append(
            (id(module), paths.get(id(module), recorder.scope[-1][1] if recorder.scope else ""))
        )

    def leave(module: Any, args: Any, result: Any) -> None:
        while recorder.scope and recorder.scope.pop()[0] != id(module):
            pass

    before, after = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused encoder layer of ``torch.nn``, which is one operator and not exportable."""
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _is_users(filename: str) -> bool:
    import torch

    ours = str(Path(__file__).parents[1])
    return not filename.startswith((f"{Path(torch.__file__).parent}/", ours, "<"))


def _where(recorder: Recorder, error: Exception) -> str:
    """Module, submodule and the innermost line that is neither PyTorch's nor ours, where there is one."""
    line = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if _is_users(trace.tb_frame.f_code.co_filename):
            line = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    path = recorder.scope[-1][1].removeprefix("/").replace("/", ".") if recorder.scope else ""
    return f"{recorder.name}: in {path or 'forward'}{line}"


def _explained(recorder: Recorder, error: Exception) -> str:
    where = _where(recorder, error)
    text = " ".join(str(error).split())
    if "aten.nonzero" in text or "meta_nonzero" in text:
        return (
            f"{where}: the code selects elements by the value of a tensor, so their number is not known before "
            "running; make it depend on shapes only. A mixture of experts can be read where it computes with "
            "torch.nn.functional.grouped_mm"
        )
    if isinstance(error, ValueNeeded) or any(sign in text for sign in _ASKS_VALUES):
        return (
            f"{where}: the code asks for the value of a tensor ({text}), which is not known before running; "
            "make it depend on shapes only, or read an ONNX file of the model"
        )
    if "stft" in text:
        return f"{where}: {FOURIER}"
    if "indices" in text and "Long" in text:
        stated = _stated(recorder)
        by_name = ", ".join(f"{name!r}: {each}" for name, each in stated.items())
        return (
            f"{where}: the code looks something up by whole numbers and gets others; say so of that input: "
            f"input_shapes=[{', '.join(stated.values())}], or by name as in {{{by_name}}}"
        )
    inputs = ", ".join(f"{name} {recorder.dtype(name)}{recorder.shape(name)}" for name in recorder._inputs)
    return (
        f"{where}: {type(error).__name__}: {text}; the inputs were {inputs}: "
        "give input_shapes that fit the model"
    )


def _stated(recorder: Recorder) -> dict[str, str]:
    """Each input as ``input_shapes`` takes it; of floats what was asked last as whole numbers, else the first."""
    floats = [name for name in recorder._inputs if "float" in recorder.dtype(name)]
    asked = {recorder.value(tensor) for tensor in recorder.asked if recorder.flows(tensor)}
    wrong = next((name for name in floats if name in asked), next(iter(floats), ""))
    told = {name: "int64" if name == wrong else recorder.dtype(name) for name in recorder._inputs}
    return {
        name: f"({recorder.shape(name)}, {dtype!r})" if dtype != "float32" else str(recorder.shape(name))
        for name, dtype in told.items()
    }


def _leaves(value: Any) -> Iterator[Any]:
    """Every tensor in nested tuples, lists, mappings and objects that behave as one of them."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif is_dataclass(value):
        yield from _leaves(vars(value))
    elif hasattr(value, "untyped_storage"):
        yield value
