"""Backends under nn-Meter's interface: those of this package, and those that a user registered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nn_meter import plugins
from nn_meter.backends import base
from nn_meter.builder.config import builder_config
from nn_meter.builder.latency import ProfiledResults
from nn_meter.errors import BackendError
from nn_meter.frontends import read
from nn_meter.measuring import Plan, measure
from nn_meter.measuring.latency import Latency

_log = logging.getLogger(__name__)

PLAN = Plan(rounds=4, turn_s=0.05)
"""How one kernel is measured."""


class BaseBackend:
    """What a registered backend derives from: ``configs`` is what ``backend_config.yaml`` says.

    Either set ``profiler_class`` and ``parser_class``, with their arguments from ``update_configs``, or
    override ``profile``.
    """

    profiler_class: type[BaseProfiler] | None = None
    parser_class: type[BaseParser] | None = None

    def __init__(self, configs: Mapping[str, Any]) -> None:
        self.configs = configs
        self.profiler_kwargs: dict[str, Any] = {}
        self.parser_kwargs: dict[str, Any] = {}
        self.update_configs()
        self.profiler = self.profiler_class(**self.profiler_kwargs) if self.profiler_class else None
        self.parser = self.parser_class(**self.parser_kwargs) if self.parser_class else None

    def update_configs(self) -> None:
        """Set ``profiler_kwargs`` and ``parser_kwargs`` from ``configs``."""

    def convert_model(self, model_path: str, save_path: str, input_shape: Any = None) -> str:
        """Convert to what the runtime takes; returns the converted model's path."""
        return model_path

    def profile(
        self,
        converted_model: str,
        metrics: Sequence[str] = ("latency",),
        input_shape: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run a converted model; the metrics asked for, ``latency`` as ``Latency`` in ms.

        Raises:
            BackendError: the class has no profiler or no parser.
        """
        if self.profiler is None or self.parser is None:
            raise BackendError(f"{type(self).__name__} needs profiler_class and parser_class, or profile()")
        return self.parser.parse(self.profiler.profile(converted_model, **kwargs)).results.get(metrics)

    def profile_model_file(
        self,
        model_path: str,
        save_path: str,
        input_shape: Any = None,
        metrics: Sequence[str] = ("latency",),
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Convert and run."""
        converted = self.convert_model(model_path, save_path, input_shape)
        return self.profile(converted, metrics, input_shape, **kwargs)

    def test_connection(self) -> None:
        """Raise where the device does not answer."""


class BaseProfiler:
    """Runs a model on the device."""

    def profile(self, converted_model: str, **kwargs: Any) -> str:
        """What the device printed."""
        raise NotImplementedError


class BaseParser:
    """Finds the metrics in what a device printed."""

    def parse(self, content: str) -> BaseParser:
        """Read ``content``; returns itself."""
        raise NotImplementedError

    @property
    def results(self) -> ProfiledResults:
        """What was found."""
        raise NotImplementedError


class RuntimeBackend(BaseBackend):
    """A backend of ``nn_meter.backends``. Keys of the configuration are its settings in capitals."""

    def __init__(self, name: str, configs: Mapping[str, Any], plan: Plan = PLAN) -> None:
        super().__init__(configs)
        self.name = name
        self.plan = plan
        default = base.load(name)
        known = {item.name for item in fields(default.config_type)}
        given = {key.lower(): value for key, value in configs.items() if value is not None}
        ignored = sorted(given.keys() - known)
        if ignored:
            _log.info("backend %s has no setting %s; ignored", name, ", ".join(ignored))
        self.runtime = base.load(name, **{key: value for key, value in given.items() if key in known})

    def profile(
        self,
        converted_model: str,
        metrics: Sequence[str] = ("latency",),
        input_shape: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Measure a model file of any format that ``nn_meter.frontends`` reads, with random weights.

        Raises:
            ModelError: the file cannot be read.
            BackendError: the runtime refuses the model.
        """
        with self.runtime.prepare(read(Path(converted_model))) as prepared:
            (taken,) = measure([prepared], self.plan)
        return ProfiledResults({"latency": Latency.of(taken)}).get(metrics)

    def test_connection(self) -> None:
        """Check runtime and device.

        Raises:
            MissingDependencyError: the runtime is not installed.
            BackendError: the device does not answer.
        """
        self.runtime.check()


def connect_backend(backend_name: str) -> BaseBackend:
    """The backend of that name, with the settings of the workspace at hand; registered ones come first.

    Raises:
        BackendError: there is none of that name, or a setting is refused.
        RegistrationError: a registered one cannot be loaded.
        BuildError: no workspace was read.
    """
    configs = builder_config.get_module("backend")
    entry = plugins.find("backend", backend_name)
    found = entry.load() if entry else None
    if found is None or hasattr(found, "config_type"):
        return RuntimeBackend(backend_name, configs)
    backend: BaseBackend = found(configs)
    return backend


def list_backends() -> list[str]:
    """Names of all backends; a star marks those that were registered."""
    ours = sorted(each.name for each in plugins.listed("backend") if each.origin != "registered")
    return ours + [f"* {each.name}" for each in plugins.registered("backend")]
