"""Writes down the ATen operators of a module that runs without being computed, as ONNX nodes.

The forward runs on tensors of the device ``meta``, which have a shape and no storage. A dispatch mode sees every
operator; below autograd it sees the composite ones whole (``linear``, ``scaled_dot_product_attention``), as the ONNX
exporters do. What depends on no input is folded: small constants are computed, so that Python code may
branch on them; large ones and weights stay shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from nn_meter.errors import GraphError, ModelError, UnsupportedOperatorError
from nn_meter.frontends.torch.aten import (
    Remembered,
    Signature,
    decompositions,
    dtype_name,
    moved,
    signature_of,
    swapped,
    tensors_in,
)
from nn_meter.frontends.torch.call import Call
from nn_meter.frontends.torch.operators import OPERATORS, SHAPE_ONLY
from nn_meter.frontends.torch.shaped import RULES
from nn_meter.ir import Attr, Graph, Node, Tensor, verify
from nn_meter.ir.shapes import infer

MAX_COMPUTED = 1 << 18
"""Elements up to which a constant is computed, so that code may ask for its values."""

MAX_HELD = 64
"""Elements up to which a constant's values go into the graph."""

FOURIER = (
    "Fourier transforms compute with complex numbers, which the graphs here do not hold; export the module to ONNX, "
    "which writes them as DFT and STFT, and read that file: torch.onnx.export(module, inputs, 'model.onnx', "
    "dynamo=True, opset_version=18)"
)

_READS_VALUES = frozenset(
    ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "unique2", "masked_select")
)


_REMEMBERED = Remembered()


class ValueNeeded(Exception):
    """The forward asks for the value of a tensor that has none."""


class Recorder:
    """Collects nodes while a module runs; ``value`` and ``op`` are what the operator table writes with."""

    def __init__(self, name: str, weights: Mapping[int, str]) -> None:
        self.name = name
        self.scope: list[tuple[int, str]] = []
        self.notes: dict[str, None] = {}
        self.asked: Sequence[Any] = ()  # what the last operator reads, which one that fails may be told by
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
        signature = signature_of(func)
        unknown = signature.name not in SHAPE_ONLY and signature.name not in OPERATORS
        if unknown and self._flows(tensors_in(args, kwargs)):
            return self._decomposed(func, signature, args, kwargs)
        return self._answered(func, signature, args, kwargs)

    def _answered(
        self, func: Any, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.asked = tensors = tuple(tensors_in(args, kwargs))
        if signature.name in SHAPE_ONLY:
            return self._made_of_shapes(func, signature, args, kwargs)
        if not self._flows(tensors):
            return self._constant(func, signature, args, kwargs, tensors)
        for tensor in tensors:
            if id(tensor) in self._unwritten:
                raise UnsupportedOperatorError(
                    f"{signature.label} reads {self._unwritten[id(tensor)][1]}, which the graph does not hold; "
                    "replace the operator in the model"
                )
        rule = RULES.get(signature.name)
        shape = rule(*args) if rule else None
        if shape is not None:
            import torch

            result = torch.empty(shape, dtype=args[0].dtype, device="meta")
        elif signature.mutates or signature.views:
            result = self._run_meta(func, signature, args, kwargs)
        else:
            result = _REMEMBERED.run(func, args, kwargs, lambda: self._run_meta(func, signature, args, kwargs))
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

    def flows(self, tensor: Any) -> bool:
        """Whether the tensor, if it is one, is known to depend on an input."""
        return self._key(tensor) in self._flow

    def _flows(self, tensors: Iterable[Any]) -> bool:
        """Whether one of them depends on an input."""
        return any(self._key(tensor) in self._flow or id(tensor) in self._unwritten for tensor in tensors)

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
        self, func: Any, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Write a composite operator as its parts."""
        if signature.name in _READS_VALUES:
            raise ValueNeeded(signature.label)
        with modes(self)[0]:
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            decomposition = decompositions().get(func)
            if decomposition is None and "quantize" in signature.label:
                raise UnsupportedOperatorError(
                    f"{signature.label} of a quantised module has no counterpart; read the module before it was "
                    "quantised, or an ONNX or TFLite file of the quantised model"
                )
            if decomposition is None and signature.name.startswith("_fft"):
                raise UnsupportedOperatorError(FOURIER)
            if decomposition is None:
                raise UnsupportedOperatorError(
                    f"no row for the PyTorch operator {signature.label}; add one to OPERATORS in "
                    "nn_meter/frontends/torch, or replace the operator in the model"
                )
            return decomposition(*args, **kwargs)

    def _constant(
        self,
        func: Any,
        signature: Signature,
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
            result = func(*swapped(args, known, signature.device, "cpu"), **moved(kwargs, known, "cpu"))
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
        self, func: Any, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        import torch

        blank = {
            id(tensor): torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            for tensor in tensors_in(args, kwargs)
            if tensor.numel() <= MAX_COMPUTED
        }
        device = "cpu" if blank else "meta"
        for tensor in tensors_in(args, kwargs):
            blank.setdefault(id(tensor), self._twin(tensor))
        result = func(*swapped(args, blank, signature.device, device), **moved(kwargs, blank, device))
        self._keep(result)
        return result

    def _keep(self, result: Any) -> None:
        """Remember what a constant operator made; it may be computed with, and nobody else's."""
        for out in result if isinstance(result, tuple | list) else (result,):
            if hasattr(out, "untyped_storage"):
                self._made[id(out)] = out
                self._kept.append(out)

    def _run_meta(
        self, func: Any, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        twins = {id(tensor): self._twin(tensor) for tensor in tensors_in(args, kwargs)}
        return func(*swapped(args, twins, signature.device, "meta"), **moved(kwargs, twins, "meta"))

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


def modes(recorder: Recorder) -> tuple[Any, Any]:
    """The dispatch mode that reports to ``recorder``, and the function mode that hides ``meta``."""
    dispatch, function = _modes()
    return dispatch(recorder), function()


@lru_cache(1)
def _modes() -> tuple[Any, Any]:
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    device_of = torch.Tensor.device.__get__
    cpu, to_cuda = torch.device("cpu"), torch.Tensor.cuda

    class Dispatch(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self, recorder: Recorder) -> None:
            super().__init__()
            self._recorder = recorder

    def dispatched(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._recorder.call(func, args, kwargs or {})

    # one that stands in the class is wrapped by PyTorch, which imports its compiler for that: two seconds
    Dispatch.__torch_dispatch__ = dispatched

    class Function(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func == device_of:
                return cpu
            if func is to_cuda:
                return args[0]
            return func(*args, **(kwargs or {}))

    return Dispatch, Function
