"""Runs a PyTorch module once without computing it, and writes down the ATen operators as ONNX nodes.

The forward runs on tensors of the device ``meta``, which have a shape and no storage. A dispatch mode sees
every
operator; under ``inference_mode`` it sees the composite ones whole (``linear``,
``scaled_dot_product_attention``), as the ONNX
exporters do. What depends on no input is folded: small constants are computed, so that Python code may
branch on them; large ones and weights stay shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from nn_meter.errors import GraphError, ModelError, UnsupportedOperatorError
from nn_meter.frontends._torch_ops import OPERATORS, SHAPE_ONLY, SHAPED, Call
from nn_meter.ir import Attr, Graph, Node, Tensor, verify
from nn_meter.ir.shapes import infer

MAX_COMPUTED = 1 << 18
"""Elements up to which a constant is computed, so that code may ask for its values."""

MAX_HELD = 64
"""Elements up to which a constant's values go into the graph."""

_READS_VALUES = frozenset(
    ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "unique2", "masked_select")
)


_ASKS_VALUES = ("meta tensor", "meta device type tensor")
"""What PyTorch's own errors say where code asks a tensor without storage for values."""


class ValueNeeded(Exception):
    """The forward asks for the value of a tensor that has none."""


@dataclass(frozen=True, slots=True)
class _Signature:
    """What the recorder needs to know of an ATen operator, asked once each."""

    name: str
    label: str
    arguments: tuple[str, ...]
    defaults: Mapping[str, Any]
    device: int
    mutates: str
    views: str


class Recorder:
    """Collects nodes while a module runs; ``value`` and ``op`` are what the operator table writes with."""

    def __init__(self, name: str, weights: Mapping[int, str]) -> None:
        self.name = name
        self.scope: list[tuple[int, str]] = []
        self.notes: dict[str, None] = {}
        self._weights = weights
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._inputs: list[str] = []
        self._count: dict[str, int] = {}
        self._flow: dict[int, tuple[Any, str]] = {}
        self._made: dict[int, Any] = {}
        self._base: dict[int, Any] = {}
        self._alias: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._meta: dict[int, tuple[Any, Any]] = {}
        self._real: dict[int, tuple[Any, Any]] = {}
        self._consts: dict[int, tuple[Any, str]] = {}
        self._unwritten: dict[int, tuple[Any, str]] = {}
        self._signatures: dict[Any, _Signature] = {}
        self._origin = ""

    # What the operator table writes with

    def fresh(self, stem: str) -> str:
        """A name that starts with ``stem`` and is not taken yet."""
        count = self._count.get(stem, 0)
        self._count[stem] = count + 1
        return f"{stem}_{count}" if count else stem

    def op(self, op_type: str, *inputs: str, **attrs: Attr) -> str:
        """Write an operator of one output; returns the output's name."""
        return self.multi(op_type, inputs, 1, **attrs)[0]

    def multi(self, op_type: str, inputs: Sequence[str], outputs: int, **attrs: Attr) -> tuple[str, ...]:
        """Write an operator of several outputs, or only fold it where it reads nothing but constants."""
        name = self.fresh(f"{self.scope[-1][1]}/{op_type}" if self.scope else f"/{op_type}")
        names = tuple(f"{name}:{index}" for index in range(outputs))
        node = Node(name, op_type, tuple(inputs), names, MappingProxyType(attrs), origin=self._origin)
        results = infer(node, [self._tensors[i] if i else None for i in inputs])
        for tensor in results:
            self._tensors[tensor.name] = tensor
        if not all(tensor.const for tensor in results):
            self._nodes.append(node)
        return names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor ``name``."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Element type of the tensor ``name``."""
        return self._tensors[name].dtype

    def const(self, value: Sequence[int | float] | int | float, dtype: str = "int64") -> str:
        """A constant with known values; a bare number gives a scalar."""
        values: tuple[int | float, ...] = (value,) if isinstance(value, int | float) else tuple(value)
        shape = () if isinstance(value, int | float) else (len(values),)
        name = self.fresh("const")
        self._tensors[name] = Tensor(name, shape, dtype, const=True, value=values)
        return name

    def weight(self, shape: Sequence[int], dtype: str) -> str:
        """A constant whose values do not matter."""
        name = self.fresh("weight")
        self._tensors[name] = Tensor(name, tuple(shape), dtype, const=True)
        return name

    def value(self, tensor: Any) -> str:
        """Name of the graph's tensor that stands for a ``torch.Tensor``."""
        flowing = self._flow.get(self._key(tensor))
        if flowing is not None:
            return flowing[1]
        known = self._consts.get(id(tensor))
        if known is None:
            name = self.fresh(self._weights.get(id(tensor), "const"))
            real = self._known(tensor) if tensor.numel() <= MAX_HELD else None
            value = None if real is None or real.is_complex() else tuple(real.flatten().tolist())
            self._tensors[name] = Tensor(
                name, tuple(tensor.shape), dtype_name(tensor.dtype), const=True, value=value
            )
            known = self._consts[id(tensor)] = (tensor, name)
        return known[1]

    def note(self, text: str) -> None:
        """Say what reading had to assume."""
        self.notes[text] = None

    # What the modes report

    def input(self, tensor: Any, name: str) -> None:
        """Bind an input of the model."""
        name = self.fresh(name)
        self._tensors[name] = Tensor(name, tuple(tensor.shape), dtype_name(tensor.dtype))
        self._inputs.append(name)
        self._flow[id(tensor)] = (tensor, name)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one ATen call, and write it down unless it is constant."""
        import torch

        signature = self._signatures.get(func)
        if signature is None:
            signature = self._signatures[func] = _signature(func)
        if signature.name not in SHAPE_ONLY and signature.name not in OPERATORS and self._flows(args, kwargs):
            return self._decomposed(func, signature, args, kwargs)
        # ordinary tensors, which a view of the module's own may answer, and no gradients
        with torch.inference_mode(False), torch.no_grad():
            return self._answered(func, signature, args, kwargs)

    def _answered(
        self, func: Any, signature: _Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tensors = tuple(_tensors(args, kwargs))
        if signature.name in SHAPE_ONLY:
            return self._made_of_shapes(func, signature, args, kwargs)
        if not self._flows(args, kwargs):
            return self._constant(func, signature, args, kwargs, tensors)
        for tensor in tensors:
            if id(tensor) in self._unwritten:
                raise UnsupportedOperatorError(
                    f"{signature.label} reads {self._unwritten[id(tensor)][1]}, which the graph does not hold; "
                    "replace the operator in the model"
                )
        if signature.name in SHAPED:
            import torch

            result = torch.empty(SHAPED[signature.name](*args[:2]), dtype=args[0].dtype, device="meta")
        else:
            result = self._run_meta(func, signature, args, kwargs)
        outs = result if isinstance(result, tuple | list) else (result,)
        bound = dict(signature.defaults)
        bound.update(zip(signature.arguments, args, strict=False))
        bound.update(kwargs)
        self._origin = signature.label
        written = OPERATORS[signature.name](self, Call(signature.name, bound, tuple(outs)))
        names = (written,) if isinstance(written, str) else written
        if signature.mutates:
            target = bound[signature.mutates]
            self._bind(target, names[0])
            self._write_back(target, names[0])
            return target
        for index, (out, name) in enumerate(zip(outs, names, strict=False)):
            if name:
                self._bind(out, name)
            elif out is not None:
                self._unwritten[id(out)] = (out, f"result {index} of {signature.label}")
        if signature.views:
            base = bound[signature.views]
            self._derive(outs, base, self._twin(base))
        return result

    def graph(self, outputs: Sequence[Any]) -> Graph:
        """The graph that computes ``outputs``, without what none of them needs."""
        names = tuple(
            dict.fromkeys(self._flow[self._key(out)][1] for out in outputs if self._key(out) in self._flow)
        )
        if not names:
            raise ModelError(
                f"{self.name}: no output depends on an input; return the tensors that forward computes"
            )
        needed = set(names)
        nodes: list[Node] = []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs)
                needed.update(node.outputs)
                nodes.append(node)
        needed.update(self._inputs)
        tensors = {name: tensor for name, tensor in self._tensors.items() if name in needed}
        return verify(
            Graph(
                self.name,
                tuple(reversed(nodes)),
                MappingProxyType(tensors),
                tuple(self._inputs),
                names,
                tuple(self.notes),
            )
        )

    def _bind(self, tensor: Any, name: str) -> None:
        entry = self._tensors[name]
        shape, dtype = tuple(tensor.shape), dtype_name(tensor.dtype)
        if entry.shape != shape:
            raise GraphError(f"{self.name}: {self._origin} gives {shape}, its node {name!r} {entry.shape}")
        if entry.const:
            self._tensors[name] = replace(entry, const=True, dtype=dtype)
        elif entry.dtype != dtype:
            self._tensors[name] = replace(entry, dtype=dtype)
        self._flow[self._key(tensor)] = (tensor, name)
        self._kept.append(tensor)

    def _flows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether an argument depends on an input."""
        return any(
            self._key(tensor) in self._flow or id(tensor) in self._unwritten
            for tensor in _tensors(args, kwargs)
        )

    def _key(self, tensor: Any) -> int:
        """What a tensor's value is filed under, one for all that ``detach`` and its like give."""
        return id(self._alias.get(id(tensor), tensor))

    def _derive(self, views: Sequence[Any], base: Any, actual: Any) -> None:
        """Note which of ``views`` share the storage of ``base``, whose storage ``actual`` has."""
        base = self._alias.get(id(base), base)
        base = self._base.get(id(base), base)
        storage = actual.untyped_storage()._cdata
        for view in views:
            if view is not base and view.untyped_storage()._cdata == storage:
                if view.shape == base.shape and view.stride() == base.stride():
                    self._alias[id(view)] = base
                else:
                    self._base[id(view)] = base

    def _write_back(self, view: Any, name: str) -> None:
        """An operator that changes a view changes the tensor behind it."""
        base = self._base.get(id(view))
        if base is None:
            return
        whole = self.value(base)
        if view.numel() == base.numel():
            merged = self.op("Reshape", name, self.const(tuple(base.shape)))
        else:
            indices = self.weight((*view.shape, base.dim()), "int64")
            merged = self.op("ScatterND", whole, indices, name)
        self._flow[id(base)] = (base, merged)

    def _decomposed(
        self, func: Any, signature: _Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Write a composite operator as its parts."""
        if signature.name in _READS_VALUES:
            raise ValueNeeded(signature.label)
        with modes(self)[0]:
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            decomposition = _decompositions().get(func)
            if decomposition is None and "quantize" in signature.label:
                raise UnsupportedOperatorError(
                    f"{signature.label} of a quantised module has no counterpart; read the module before it was "
                    "quantised, or an ONNX or TFLite file of the quantised model"
                )
            if decomposition is None:
                raise UnsupportedOperatorError(
                    f"no row for the PyTorch operator {signature.label}; add one to OPERATORS in "
                    "nn_meter/frontends/_torch_ops.py, or replace the operator in the model"
                )
            return decomposition(*args, **kwargs)

    def _constant(
        self,
        func: Any,
        signature: _Signature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: tuple[Any, ...],
    ) -> Any:
        """Compute what depends on no input, or keep only its shape where it is large or made of weights."""
        known = {id(tensor): self._known(tensor) for tensor in tensors}
        computable = all(value is not None for value in known.values())
        if computable and not tensors:
            shaped = self._run_meta(func, signature, args, kwargs)
            computable = not hasattr(shaped, "numel") or shaped.numel() <= MAX_COMPUTED
        if computable:
            result = func(*_swapped(args, known, signature.device, "cpu"), **_moved(kwargs, known, "cpu"))
        elif signature.name in _READS_VALUES:
            raise ValueNeeded(signature.label)
        else:
            result = self._run_meta(func, signature, args, kwargs)
        if signature.mutates and tensors:
            target = tensors[0]
            self._consts.pop(id(target), None)
            if not computable:
                self._made.pop(id(target), None)
                self._real[id(target)] = (target, None)
            return target
        self._keep(result)
        if signature.views and tensors:
            actual = known[id(tensors[0])] if computable else self._twin(tensors[0])
            self._derive(result if isinstance(result, tuple | list) else (result,), tensors[0], actual)
        return result

    def _made_of_shapes(
        self, func: Any, signature: _Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        import torch

        blank = {
            id(tensor): torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            for tensor in _tensors(args, kwargs)
            if tensor.numel() <= MAX_COMPUTED
        }
        device = "cpu" if blank else "meta"
        for tensor in _tensors(args, kwargs):
            blank.setdefault(id(tensor), self._twin(tensor))
        result = func(*_swapped(args, blank, signature.device, device), **_moved(kwargs, blank, device))
        self._keep(result)
        return result

    def _keep(self, result: Any) -> None:
        """Remember what a constant operator made; it may be computed with, and nobody else's."""
        for out in result if isinstance(result, tuple | list) else (result,):
            if hasattr(out, "untyped_storage"):
                self._made[id(out)] = out
                self._kept.append(out)

    def _run_meta(
        self, func: Any, signature: _Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        twins = {id(tensor): self._twin(tensor) for tensor in _tensors(args, kwargs)}
        return func(*_swapped(args, twins, signature.device, "meta"), **_moved(kwargs, twins, "meta"))

    def _twin(self, tensor: Any) -> Any:
        """The same shape without storage."""
        if tensor.device.type == "meta":
            return tensor
        entry = self._meta.get(id(tensor))
        if entry is None:
            import torch

            twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            base = self._base.get(id(tensor))
            if base is not None:
                twin = self._twin(base).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            entry = self._meta[id(tensor)] = (tensor, twin)
        return entry[1]

    def _known(self, tensor: Any) -> Any:
        """The tensor with its values, a copy where it is the module's own; ``None`` where there are none."""
        if tensor.device.type != "cpu" or tensor.numel() > MAX_COMPUTED:
            return None
        if id(tensor) in self._made:
            return tensor
        entry = self._real.get(id(tensor))
        if entry is None:
            import torch

            copy = None if isinstance(tensor, torch.nn.Parameter) else tensor.clone()
            entry = self._real[id(tensor)] = (tensor, copy)
        return entry[1]


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
            stack.enter_context(torch.inference_mode())
            stack.enter_context(function)
            stack.enter_context(dispatch)
            result = module(*args, **kwargs)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(f"{_where(recorder, error)}: {error}") from error
    except Exception as error:
        raise ModelError(_explained(recorder, error)) from error
    return recorder.graph([leaf for leaf in _leaves(result) if isinstance(leaf, torch.Tensor)])


def modes(recorder: Recorder) -> tuple[Any, Any]:
    """The dispatch mode that reports to ``recorder``, and the function mode that hides ``meta``."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    device_of = torch.Tensor.device.__get__
    cpu, to_cuda = torch.device("cpu"), torch.Tensor.cuda

    class Dispatch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return recorder.call(func, args, kwargs or {})

    class Function(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func == device_of:
                return cpu
            if func is to_cuda:
                return args[0]
            return func(*args, **(kwargs or {}))

    return Dispatch(), Function()


def dtype_name(dtype: Any) -> str:
    """``torch.float32`` as ``float32``, and so on for every type."""
    name = str(dtype).removeprefix("torch.")
    return name.replace("float8_", "float8")


def _is_users(filename: str) -> bool:
    import torch

    ours = str(Path(__file__).parent)
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
    inputs = ", ".join(f"{name} {recorder.dtype(name)}{recorder.shape(name)}" for name in recorder._inputs)
    return (
        f"{where}: {type(error).__name__}: {text}; the inputs were {inputs}: "
        "give input_shapes that fit the model"
    )


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


def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions

    table: Mapping[Any, Callable[..., Any]] = core_aten_decompositions()
    return table


def _signature(func: Any) -> _Signature:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    written = [
        argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write
    ]
    shared = bool(schema.returns) and any(r.alias_info is not None for r in schema.returns)
    return _Signature(
        name=name[:-1] if written and name.endswith("_") else name,
        label=str(func).removesuffix(".default"),
        arguments=tuple(argument.name for argument in schema.arguments),
        defaults={a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        device=next((i for i, a in enumerate(schema.arguments) if "Device" in str(a.type)), -1),
        mutates=written[0] if written else "",
        views=schema.arguments[0].name if shared and not written and schema.arguments else "",
    )


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for value in (*args, *kwargs.values()):
        if hasattr(value, "untyped_storage"):
            yield value
        elif isinstance(value, list | tuple):
            for item in value:
                if hasattr(item, "untyped_storage"):
                    yield item


def _swap(value: Any, table: Mapping[int, Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_swap(item, table) for item in value]
    return table.get(id(value), value) if hasattr(value, "untyped_storage") else value


def _swapped(args: tuple[Any, ...], table: Mapping[int, Any], device_at: int, device: str) -> list[Any]:
    import torch

    return [
        torch.device(device) if index == device_at and value is not None else _swap(value, table)
        for index, value in enumerate(args)
    ]


def _moved(kwargs: Mapping[str, Any], table: Mapping[int, Any], device: str) -> dict[str, Any]:
    import torch

    moved = {key: _swap(value, table) for key, value in kwargs.items() if key != "pin_memory"}
    if moved.get("device") is not None or (not table and "device" in moved):
        moved["device"] = torch.device(device)
    return moved


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
