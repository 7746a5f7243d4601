"""Reads nn-Meter's pickled scikit-learn forests without running anything, and converts them once.

A pickle is a program. Here each global that it names becomes an inert class that only keeps what it is given,
so that unpickling yields plain data; the node arrays are then decoded from their bytes, checked field by
field. Neither scikit-learn nor numpy's own unpickling takes part. The layouts read are those of scikit-learn
0.20 and later (``sklearn/tree/_tree.pyx``, ``Tree.__getstate__``) and of numpy 1 and 2
(``ndarray.__reduce__``), pickle protocols 0 to 5.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import pickletools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn_meter import limits
from nn_meter.errors import BundleError, PredictorError, UnsafePickleError
from nn_meter.predictors.bundle import RULES, Bundle, load, save
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.nnmeter_columns import NN_METER_1, SCHEMAS
from nn_meter.predictors.parts import LeftOut
from nn_meter.predictors.trees import TreeEnsemble
from nn_meter.storage import Fields, read_bytes, read_json

_log = logging.getLogger(__name__)

_FORESTS = {
    f"sklearn.ensemble.{module}.{name}"
    for module in ("forest", "_forest")
    for name in ("RandomForestRegressor", "ExtraTreesRegressor")
}
_TREES = {
    f"sklearn.tree.{module}.{name}"
    for module in ("tree", "_classes")
    for name in ("DecisionTreeRegressor", "ExtraTreeRegressor")
}
_TREE = "sklearn.tree._tree.Tree"
_NODE_FIELDS = ("left_child", "right_child", "feature", "threshold")
_RECONSTRUCT = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_FROM_BUFFER = {"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"}
_SCALAR = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
_INSTANCE = {"copyreg._reconstructor", "copy_reg._reconstructor"}  # how protocols 0 and 1 spell an object
_BYTES = {"_codecs.encode"}  # how protocols 0 to 2 spell bytes
_ADMITTED = {
    *_FORESTS, *_TREES, _TREE, *_RECONSTRUCT, *_FROM_BUFFER, *_SCALAR, *_INSTANCE, *_BYTES,
    "numpy.ndarray", "numpy.dtype", "builtins.object", "__builtin__.object",
}  # fmt: skip
_ADMITTED_PACKAGE = "numpy.random."  # a forest's random state; kept unread

_REFUSED_OPCODES = {
    "EXT1": "an extension registry entry",
    "EXT2": "an extension registry entry",
    "EXT4": "an extension registry entry",
    "PERSID": "a persistent object",
    "BINPERSID": "a persistent object",
    "NEXT_BUFFER": "a buffer from outside the file",
}
_FORM = re.compile(r"b1|[iu][1248]|f[48]")


class _Inert:
    """What a global of the pickle becomes: it keeps arguments and state, and does nothing."""

    asked = ""

    def __new__(cls, *args: Any) -> _Inert:
        made = super().__new__(cls)
        made.args = args
        made.state = None
        return made

    args: tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, stored: bytes, where: str) -> None:
        super().__init__(io.BytesIO(stored))
        self._where = where
        self._classes: dict[str, type[_Inert]] = {}

    def find_class(self, module: str, name: str) -> type[_Inert]:
        asked = f"{module}.{name}"
        if asked not in _ADMITTED and not f"{module}.".startswith(_ADMITTED_PACKAGE):
            raise _refusal(self._where, asked)
        return self._classes.setdefault(asked, type("_Asked", (_Inert,), {"asked": asked}))


def _refusal(where: str, asked: str) -> UnsafePickleError:
    return UnsafePickleError(
        f"{where}: the pickle asks for {asked}, which is no part of a scikit-learn random forest; "
        "nothing of it was run. Only RandomForestRegressor and ExtraTreesRegressor, saved with pickle.dump, "
        "are read; train such a forest or register a bundle"
    )


def _broken(where: str, why: object) -> PredictorError:
    return PredictorError(
        f"{where}: not a pickled scikit-learn forest ({why}); save it again with pickle.dump"
    )


def read_forest(stored: bytes, where: str) -> TreeEnsemble:
    """Decode a pickled forest; ``where`` names the file in errors. Answers equal scikit-learn's bit for bit.

    Raises:
        UnsafePickleError: the pickle asks for anything but the parts of a forest; nothing was run.
        PredictorError: damaged, or no forest of one output.
    """
    try:
        _scan(stored, where)
        forest = _Unpickler(stored, where).load()
        return _ensemble(forest, len(stored))
    except PredictorError as e:
        if isinstance(e, BundleError):
            raise _broken(where, e) from None
        raise
    except (RecursionError, MemoryError) as e:
        raise _broken(where, type(e).__name__) from e
    except Exception as e:  # a damaged pickle can raise almost anything, nothing of it from code of its own
        raise _broken(where, e) from e


def _scan(stored: bytes, where: str) -> None:
    """Refuse what would not reach ``find_class``, and sizes that the file does not hold."""
    for opcode, argument, _ in pickletools.genops(stored):
        if opcode.name in _REFUSED_OPCODES:
            raise _refusal(where, _REFUSED_OPCODES[opcode.name])
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(stored):
            raise ValueError(f"a memo index of {argument}")


def _ensemble(forest: Any, size_bytes: int) -> TreeEnsemble:
    _expect(forest, _FORESTS, "the pickle")
    trees = []
    for estimator in _state(forest)["estimators_"]:
        trees.append(_tree(_expect(estimator, _TREES, "an estimator")))
        size_bytes -= trees[-1][1].nbytes
        if size_bytes < 0:  # a name of three bytes would stand for a whole tree again
            raise ValueError("trees of more bytes than the file has")
    if not trees:
        raise ValueError("the forest has no trees")
    widths = {width for width, _, _ in trees}
    if len(widths) > 1:
        raise ValueError(f"its trees differ in the number of columns: {sorted(widths)}")
    sizes = [len(nodes) for _, nodes, _ in trees]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    nodes = {name: np.concatenate([each[name] for _, each, _ in trees]) for name in _NODE_FIELDS}
    offset = np.repeat(starts, sizes)
    left, right = (
        np.where(nodes[side] < 0, -1, nodes[side] + offset).astype(np.int32) for side in _NODE_FIELDS[:2]
    )
    return TreeEnsemble(
        feature=nodes["feature"].astype(np.int32),
        threshold=nodes["threshold"].astype(np.float64),
        left=left,
        right=right,
        value=np.concatenate([values for _, _, values in trees]),
        roots=starts.astype(np.int32),
        n_columns=widths.pop(),
        aggregate="mean",
    )


def _tree(estimator: _Inert) -> tuple[int, NDArray[Any], NDArray[np.float64]]:
    """A tree's number of columns, nodes and node values."""
    tree = _expect(_state(estimator)["tree_"], {_TREE}, "a tree")
    width, _, outputs = tree.args
    state = _state(tree)
    nodes, values = _array(state["nodes"]), _array(state["values"])
    if _number(outputs) != 1 or values.shape[1:] != (1, 1):
        raise ValueError(f"it has {_number(outputs)} outputs; one is needed")
    if nodes.ndim != 1 or len(nodes) != len(values) or len(nodes) != _number(state["node_count"]):
        raise ValueError(f"a tree holds nodes of shape {nodes.shape} and values of shape {values.shape}")
    for name in _NODE_FIELDS:
        if nodes[name].dtype.kind != ("f" if name == "threshold" else "i"):
            raise ValueError(f"the node field {name} holds {nodes[name].dtype}")
    sides = nodes["left_child"], nodes["right_child"]
    if any(side.min() < -1 or side.max() >= len(nodes) for side in sides):
        raise ValueError("a tree's child lies outside the tree")
    return _number(width), nodes, values.reshape(-1).astype(np.float64)


def _name(value: Any) -> str:
    """The global that ``value`` is an instance of, or its plain type."""
    if not isinstance(value, _Inert):
        return type(value).__name__
    if value.asked in _INSTANCE:
        made = value.args[0]
        return made.asked if isinstance(made, type) and issubclass(made, _Inert) else type(made).__name__
    return value.asked


def _expect(value: Any, names: set[str], what: str) -> _Inert:
    if _name(value) not in names:
        raise ValueError(f"{what} is of type {_name(value)}, not {' or '.join(sorted(names))}")
    return value  # type: ignore[no-any-return]


def _state(value: _Inert) -> dict[str, Any]:
    if not isinstance(value.state, dict):
        raise ValueError(f"a {_name(value)} without its state")
    return value.state


def _bytes(value: Any) -> bytes:
    if isinstance(value, _Inert):
        text, encoding = _expect(value, _BYTES, "bytes").args
        if encoding != "latin1":
            raise ValueError(f"bytes written as {encoding!r}")
        return str(text).encode("latin1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"a {type(value).__name__} in place of bytes")
    return bytes(value)


def _number(value: Any) -> int:
    if isinstance(value, _Inert):
        dtype, raw = _expect(value, _SCALAR, "a number").args
        value = np.frombuffer(_bytes(raw), _dtype(dtype))[0].item()
    if not isinstance(value, int):
        raise ValueError(f"a {type(value).__name__} in place of a whole number")
    return value


def _dtype(value: Any) -> np.dtype[Any]:
    """A number type or a flat record of them, nothing else: no objects, no nesting."""
    form = _expect(value, {"numpy.dtype"}, "an array's type").args[0]
    _, order, _, names, fields, size = value.state[:6]
    if names is None:
        if not _FORM.fullmatch(form) or order not in ("<", ">", "|"):
            raise ValueError(f"an array of {form!r}, which is no number")
        number: np.dtype[Any] = np.dtype(order + form)
        return number
    limits.RANK.check(len(names), "a record of an array", PredictorError)
    formats = [_dtype(fields[name][0]) for name in names]
    if any(each.names for each in formats):
        raise ValueError("records within records")
    offsets = [_number(fields[name][1]) for name in names]
    record: np.dtype[Any] = np.dtype(
        {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": _number(size)}
    )
    return record


def _array(value: Any) -> NDArray[Any]:
    """An array that numpy wrote as shape, type and bytes, or as a buffer with them."""
    if _name(value) in _FROM_BUFFER:
        raw, dtype, shape, order = value.args
    else:
        state: Sequence[Any] = _expect(value, _RECONSTRUCT, "an array").state
        shape, dtype, fortran, raw = state[-4:]
        order = "F" if fortran else "C"
    limits.RANK.check(len(shape), "an array", PredictorError)
    sizes = tuple(_number(size) for size in shape)
    if order not in ("C", "F") or any(size < 0 for size in sizes):
        raise ValueError(f"an array of shape {sizes} in the order {order!r}")
    stored, form = _bytes(raw), _dtype(dtype)
    if len(stored) != math.prod(sizes) * form.itemsize or not stored:
        raise ValueError(f"an array of shape {sizes} holds {len(stored)} bytes")
    return np.frombuffer(stored, form).reshape(sizes, order=order)


def convert_folder(
    meta: Mapping[str, Any], folder: Path, out: Path, environment: Mapping[str, Any] | None = None
) -> Bundle:
    """Convert nn-Meter's ``<kernel>.pkl`` files and ``fusion_rules.json`` into a bundle at ``out``.

    ``meta`` has ``name`` and ``version``, and may have ``category`` and ``kernel_predictors``. Pickles beside
    those listed are converted too, as nn-Meter used them. ``environment`` says where the files came from.

    Raises:
        PredictorError: a missing, broken or hostile file, or a forest of an unknown number of columns.
        StorageError: ``out`` cannot be written.
    """
    listed = tuple(meta.get("kernel_predictors") or ())
    beside = sorted(path.stem for path in folder.glob("*.pkl") if path.stem not in listed)
    kernels = [*dict.fromkeys(listed), *(kernel for kernel in beside if kernel in NN_METER_1)]
    for kernel in set(beside) - set(kernels):
        _log.warning("%s: left out, nn-Meter has no kernel %r", folder / f"{kernel}.pkl", kernel)
    if not kernels:
        raise PredictorError(
            f"{folder}: holds no <kernel>.pkl; point package_location to the folder that does"
        )
    rules = _read_rules(folder / RULES)
    bundle = Bundle(
        name=str(meta["name"]),
        version=str(meta["version"]),
        category=str(meta.get("category", "")),
        kinds={kernel: _convert(kernel, folder / f"{kernel}.pkl") for kernel in kernels},
        rules=rules,
        schema="nn-meter-1",
        fallback=LeftOut(),
        notes=("converted from nn-Meter's pickles; their trained ranges and errors are not known",),
        environment=environment or {},
    )
    save(bundle, out)
    return load(out)


def _convert(kernel: str, path: Path) -> KindPredictor:
    if kernel not in NN_METER_1:
        known = ", ".join(NN_METER_1)
        raise PredictorError(f"{path}: nn-Meter has no kernel {kernel!r}; known are {known}")
    advice = "restore the file or take the kernel out of kernel_predictors"
    stored = read_bytes(path, f"the predictor of {kernel!r}", PredictorError, advice)
    forest = read_forest(stored, str(path))
    for schema, table in SCHEMAS.items():
        if len(table[kernel]) == forest.n_columns:
            return KindPredictor(kernel, schema, table[kernel], forest)
    expected = " or ".join(str(n) for n in sorted({len(table[kernel]) for table in SCHEMAS.values()}))
    raise PredictorError(
        f"{path}: the forest of {kernel!r} takes {forest.n_columns} columns, {expected} are expected "
        f"({', '.join(NN_METER_1[kernel])}); it was trained for another kernel or version"
    )


def _read_rules(path: Path) -> Mapping[str, Any]:
    rules = read_json(path, "the fusion rules", PredictorError, "restore the file")
    return Fields(rules, f"{path}: the fusion rules", PredictorError).values
