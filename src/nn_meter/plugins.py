"""What can be called by a name: parts of this package, of other packages, and what a user registered.

Each group is a row of ``GROUPS``. A name is looked for among its built-in parts, among entry points that other
packages declare, and in ``registry.yaml`` in the data folder, where ``nn-meter register`` puts what a meta file (YAML,
nn-Meter's keys) says. Nothing is imported before it is asked for.

>>> load("backend", "replay").__name__
'ReplayBackend'
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from nn_meter import storage
from nn_meter.errors import (
    BackendError,
    DeviceError,
    InputError,
    ModelError,
    RegistrationError,
    RuleError,
    did_you_mean,
)
from nn_meter.settings import data_folder

_log = logging.getLogger(__name__)

_CLASS = ("package_location", "class_module", "class_name")

_KIND_FAMILIES = (
    "convolutions", "products", "elementwise", "rows", "windows", "movement", "places", "sequences", "einsums",
    "quantised", "quantised_products", "other",
)  # fmt: skip

Origin = Literal["built-in", "installed", "registered"]


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of thing that has a name.

    ``entry_points`` is the group of other packages' entry points, ``built_in`` name to ``module`` or
    ``module:attribute``, in the order in which they are asked. What can be registered has a ``section`` of the registry
    and the ``keys`` of its meta file beside ``builtin_name``, ``optional`` and ``files`` among them; where the group is
    ``per_implement``, one name may be registered once for each ``implement``. ``error`` is what is raised where a name
    is unknown or does not load.
    """

    noun: str
    entry_points: str = ""
    built_in: Mapping[str, str] = field(default_factory=dict)
    section: str = ""
    keys: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    files: tuple[str, ...] = ("package_location",)
    per_implement: bool = False
    error: type[InputError] = RegistrationError


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "frontend": Group(
            "front end",
            "nn_meter.frontends",
            {
                "onnx": "nn_meter.frontends.onnx",
                "nnmeter_ir": "nn_meter.frontends.nnmeter_ir",
                "tflite": "nn_meter.frontends.tflite",
                "tensorflow": "nn_meter.frontends.tensorflow",
                "torch": "nn_meter.frontends.torch",
                "torchvision": "nn_meter.frontends.zoo.torchvision:ZOO",
                "timm": "nn_meter.frontends.zoo.timm:ZOO",
                "hf": "nn_meter.frontends.zoo.hf:ZOO",
            },
            error=ModelError,
        ),
        "backend": Group(
            "backend",
            "nn_meter.backends",
            {
                "onnxruntime_cpu": "nn_meter.backends.onnxruntime_cpu:OnnxRuntimeCpu",
                "openvino_cpu": "nn_meter.backends.openvino_cpu:OpenVinoCpu",
                "mnn": "nn_meter.backends.mnn:Mnn",
                "litert": "nn_meter.backends.litert:LiteRt",
                "ncnn": "nn_meter.backends.ncnn:Ncnn",
                "executorch": "nn_meter.backends.executorch:ExecuTorch",
                "tflite_cpu": "nn_meter.backends.benchmark_model:BenchmarkModel",
                "tflite_gpu": "nn_meter.backends.benchmark_model:BenchmarkModelOnGpu",
                "pytorch_eager": "nn_meter.backends.pytorch:PyTorchEager",
                "pytorch_compiled": "nn_meter.backends.pytorch.compiled:PyTorchCompiled",
                "replay": "nn_meter.backends.replay:ReplayBackend",
            },
            section="backends",
            keys=(*_CLASS, "defaultConfigFile"),
            optional=("defaultConfigFile",),
            files=("package_location", "defaultConfigFile"),
            error=BackendError,
        ),
        "runtime": Group(
            "runtime",
            "nn_meter.runtimes",
            {
                "onnxruntime": "nn_meter.runtimes.onnxruntime:RUNTIME",
                "openvino": "nn_meter.runtimes.openvino:RUNTIME",
                "mnn": "nn_meter.runtimes.mnn:RUNTIME",
                "litert": "nn_meter.runtimes.litert:RUNTIME",
                "ncnn": "nn_meter.runtimes.ncnn:RUNTIME",
                "executorch": "nn_meter.runtimes.executorch:RUNTIME",
                "pytorch": "nn_meter.runtimes.pytorch:RUNTIME",
                "pytorch_eager": "nn_meter.runtimes.pytorch:EAGER",
                "pytorch_autocast": "nn_meter.runtimes.pytorch:AUTOCAST",
                "tflite_cpu": "nn_meter.runtimes.tflite:CPU",
                "tflite_gpu": "nn_meter.runtimes.tflite:GPU",
                "rules": "nn_meter.runtimes.by_rules:RUNTIME",
                "nn-meter": "nn_meter.runtimes.nnmeter:RUNTIME",
            },
            error=RuleError,
        ),
        "kinds": Group(
            "family of kernel kinds",
            "nn_meter.kernels",
            {family: f"nn_meter.kernels.kinds.{family}:KINDS" for family in _KIND_FAMILIES},
        ),
        "link": Group(
            "link",
            "nn_meter.links",
            {
                "local": "nn_meter.devices.link:LocalLink.at",
                "ssh": "nn_meter.devices.ssh:SshLink.at",
                "adb": "nn_meter.devices.adb:AdbLink.at",
            },
            error=DeviceError,
        ),
        "predictor": Group("predictor", "nn_meter.predictors"),
        "testcase": Group("test case", "nn_meter.testcases", section="testcases", keys=_CLASS, per_implement=True),
        "operator": Group("operator", section="operators", keys=_CLASS, per_implement=True),
        "kernel": Group(
            "kernel",
            section="kernels",
            keys=(*_CLASS, "implement", "sampler_module", "sampler_name", "parser_module", "parser_name"),
        ),
    }
)
"""Every group. Test cases and operators of this package are rows of ``detection``, predictors lie in folders: their
rows here are what others bring."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Something of ``group`` that has a name. ``facts`` say where it lies: a meta file's keys, or ``class`` alone, the
    ``module:attribute``. ``implement`` is empty where the group has none."""

    group: str
    name: str
    origin: Origin
    facts: Mapping[str, str]
    implement: str = ""

    def load(self, role: str = "class") -> Any:
        """What the name stands for; of what is registered the class, its ``"sampler"`` or its ``"parser"``.

        Runs code of the package that brings it; a registered one's folder is put on the import path.

        Raises:
            InputError: it cannot be loaded; the group's ``error``, which says why.
        """
        row = GROUPS[self.group]
        if self.origin == "registered":
            module = self.facts[f"{role}_module"]
            attribute = self.facts["class_name" if role == "class" else f"{role}_name"]
            folder = self.facts["package_location"]
            where = f"{module}.{attribute} cannot be loaded from {folder}"
            advice = "repair the package, or unregister it"
            if folder not in sys.path:
                sys.path.append(folder)
        else:
            place = self.facts["class"]
            module, _, attribute = place.partition(":")
            where = f"{place} cannot be loaded"
            advice = "repair or remove its package" if self.origin == "installed" else "install nn-meter again"
        try:
            found = import_module(module)
            for each in filter(None, attribute.split(".")):
                found = getattr(found, each)
            return found
        except Exception as error:  # somebody else's code may fail in any way
            text = storage.legible(f"{type(error).__name__}: {error}")
            raise row.error(f"{row.noun} {self.name!r}: {where} ({text}); {advice}") from error


def listed(group: str) -> Iterator[Plugin]:
    """All of a group: built-in, then installed, then registered; each source is looked into only when reached.

    Raises:
        RegistrationError: the registry is damaged.
    """
    row = GROUPS[group]
    for name, place in row.built_in.items():
        yield Plugin(group, name, "built-in", {"class": place})
    if row.entry_points:
        for name, place in _installed(row.entry_points).items():
            if name not in row.built_in:
                yield Plugin(group, name, "installed", {"class": place})
    if row.section:
        yield from registered(group)


def names(group: str) -> tuple[str, ...]:
    """Names of all of a group, each once."""
    return tuple(dict.fromkeys(each.name for each in listed(group)))


def load(group: str, name: str) -> Any:
    """What ``name`` stands for in ``group``.

    Raises:
        InputError: nothing of that name, or it does not load; the group's ``error``, with near names and those that
            there are.
    """
    found = next((each for each in listed(group) if each.name == name), None)
    if found is None:
        raise unknown(group, name)
    return found.load()


def unknown(group: str, name: str, advice: str = "") -> InputError:
    """The error that says what there is in place of ``name``; ``advice`` follows."""
    row, there = GROUPS[group], names(group)
    hint = did_you_mean(name, there)
    text = f"there is no {row.noun} {storage.shown(name)}; {hint}there are: {', '.join(there) or 'none'}"
    return row.error(f"{text}. {advice}" if advice else text)


def _installed(entry_points: str) -> Mapping[str, str]:
    """Names and places of other packages' entry points."""
    if not _may_be_declared():
        return {}
    return {point.name: point.value for point in _all_installed().select(group=entry_points)}


@cache
def _all_installed() -> Any:
    """Asked once, since it reads every package's metadata."""
    from importlib.metadata import entry_points

    return entry_points()


@cache
def _may_be_declared() -> bool:
    """Whether a package may have entry points of ours: a look into the files takes a tenth of the time that
    ``importlib.metadata`` takes to be imported and to read them."""
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                found = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info", ".egg"))]
        except NotADirectoryError:
            return True  # packages in an archive
        except OSError:
            continue
        for path in found:
            try:
                with open(os.path.join(path, "entry_points.txt"), "rb") as file:
                    if b"[nn_meter." in file.read():
                        return True
            except OSError:
                if path.endswith(".egg"):
                    return True
    return any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path)


def registered(group: str) -> tuple[Plugin, ...]:
    """What the user registered of ``group``: ``backend``, ``operator``, ``testcase`` or ``kernel``.

    Raises:
        RegistrationError: the registry is damaged.
    """
    row = GROUPS[group]
    section = _read().get(row.section) or {}
    if not row.per_implement:
        return tuple(Plugin(group, name, "registered", facts) for name, facts in section.items())
    return tuple(
        Plugin(group, name, "registered", facts, implement)
        for name, variants in section.items()
        for implement, facts in variants.items()
    )


def find(group: str, name: str, implement: str = "") -> Plugin | None:
    """What is registered under that name, for that ``implement`` where one is given; ``None`` where nothing is."""
    return next((each for each in registered(group) if each.name == name and implement in ("", each.implement)), None)


def register(group: str, meta_path: Path | str) -> Plugin:
    """Register what the meta file describes; an entry of the same name is replaced.

    Relative paths in it count from the meta file's folder. The class is loaded once, as a check.

    Raises:
        InputError: the meta file cannot be used, a path does not exist, or the class cannot be loaded.
        StorageError: the data folder cannot be written.
    """
    entry = _read_meta(group, Path(meta_path))
    for role in ("class", "sampler", "parser"):
        if f"{role}_module" in entry.facts:
            entry.load(role)
    with _changing() as sections:
        section = sections.setdefault(GROUPS[group].section, {})
        if entry.implement:
            section.setdefault(entry.name, {})[entry.implement] = dict(entry.facts)
        else:
            section[entry.name] = dict(entry.facts)
    _log.info("registered the %s %s", group, entry.name)
    return entry


def unregister(group: str, name: str, implement: str = "") -> None:
    """Forget the entry; of an operator or test case, the one for ``implement``, or all where none is given.

    Raises:
        RegistrationError: nothing of that name is registered; names those that are.
        StorageError: the data folder cannot be written.
    """
    with _changing() as sections:
        section = sections.get(GROUPS[group].section) or {}
        if name not in section or (implement and implement not in section[name]):
            asked = f"{name!r} for {implement}" if implement else repr(name)
            known = ", ".join(section) or "none"
            raise RegistrationError(f"no {group} {asked} is registered; registered {group}s: {known}")
        if implement:
            del section[name][implement]
        if not implement or not section[name]:
            del section[name]
    _log.info("unregistered the %s %s", group, name)


def _read_meta(group: str, path: Path) -> Plugin:
    row = GROUPS[group]
    needed = ("builtin_name", *(("implement",) if row.per_implement else ()), *row.keys)
    advice = f"each {row.noun} needs {', '.join(key for key in needed if key not in row.optional)}"
    values = storage.Fields(
        storage.read_yaml(path, "the meta file", RegistrationError), str(path), RegistrationError, advice
    )
    told: dict[str, str] = {}
    for key in needed:
        if key in row.optional and values.values.get(key) is None:
            continue
        told[key] = values.text(key)
        if not told[key]:
            values.refuse(key, "a text")
        if key in row.files:
            place = path.parent.absolute() / storage.expanded(told[key], str(path), RegistrationError)
            if not storage.exists(place):
                values.refuse(key, f"a path that exists, and {storage.legible(str(place))} does not")
            told[key] = str(place)
    if told["builtin_name"] in row.built_in:
        values.refuse("builtin_name", "a name that nn-Meter does not have itself")
    facts = MappingProxyType({key: told[key] for key in row.keys if key in told})
    return Plugin(group, told["builtin_name"], "registered", facts, told["implement"] if row.per_implement else "")


def _file() -> Path:
    return data_folder() / "registry.yaml"


def _read() -> dict[str, Any]:
    """The registry; every entry in it is an object of texts with the keys that its group needs."""
    path = _file()
    if not storage.exists(path):
        return {}
    advice = "repair the file, or delete it and register anew"
    sections = storage.Fields(
        storage.read_yaml(path, "the registry", RegistrationError, advice), str(path), RegistrationError, advice
    )
    for row in filter(lambda each: each.section, GROUPS.values()):
        if sections.values.get(row.section) is None:
            continue
        section = sections.inner(row.section)
        for name in section.values:
            entry = section.inner(name)
            for each in [entry.inner(key) for key in entry.values] if row.per_implement else [entry]:
                for key in row.keys:
                    if key not in row.optional or key in each.values:
                        each.text(key)
    return sections.values


@contextmanager
def _changing() -> Iterator[dict[str, Any]]:
    """The registry, to be changed in place; written whole at the end, one process at a time."""
    import yaml

    path = _file()
    with storage.locked(path.parent / ".registry.lock"):
        sections = _read()
        yield sections
        storage.write(path, yaml.safe_dump(sections))
