"""``nn-meter create`` and ``nn-meter connect``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from nn_meter.cli.output import OK, say
from nn_meter.errors import InputError


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``create`` or ``connect``, as nn-Meter has them."""
    if command == "connect":
        parser.description = "Check that a backend answers, with the settings of a workspace."
        parser.add_argument("--backend", required=True, metavar="NAME", help="name of the backend")
        parser.add_argument("--workspace", required=True, metavar="PATH", help="folder of the workspace")
        parser.set_defaults(run=connect)
        return
    parser.description = "Create a workspace folder for the builder; files that are there already are kept."
    platforms = ("tflite", "openvino", "onnxruntime", "customized")
    parser.usage = f"%(prog)s --{{{','.join(platforms)}}}-workspace PATH"
    platform = parser.add_mutually_exclusive_group(required=True)
    for each in platforms:
        platform.add_argument(f"--{each}-workspace", metavar="PATH", help=f"where to create one for {each}")
    parser.add_argument("--backend", metavar="NAME", help="the registered backend of a customized workspace")
    parser.set_defaults(run=create)


def create(args: argparse.Namespace) -> int:
    """Write the configuration, and print nn-Meter's line."""
    from nn_meter.builder.config import PLATFORMS, create_workspace

    given = {each: getattr(args, f"{each}_workspace") for each in (*PLATFORMS, "customized")}
    platform, path = next((each, place) for each, place in given.items() if place is not None)
    if not path:
        raise InputError(f"--{platform}-workspace: the path is empty; name a folder")
    config = PLATFORMS[platform] if platform in PLATFORMS else _registered_config(args.backend)
    workspace = create_workspace(path, config)
    say(
        f"Workspace {workspace} for {platform} platform has been created. "
        f"Users could edit experiment config in {workspace / 'configs'}/."
    )
    return OK


def connect(args: argparse.Namespace) -> int:
    """Ask the backend, and print nn-Meter's line."""
    from nn_meter.builder.backends import connect_backend
    from nn_meter.builder.config import builder_config

    builder_config.init(args.workspace)
    connect_backend(args.backend).test_connection()
    say("hello backend !")
    return OK


def _registered_config(name: str | None) -> Mapping[str, Any] | None:
    """What the registered backend's default configuration file says, if it has one."""
    from nn_meter import plugins
    from nn_meter.storage import read_yaml

    entry = plugins.find("backend", name) if name else None
    if entry is None:
        known = ", ".join(each.name for each in plugins.registered("backend")) or "none"
        raise InputError(f"--customized-workspace needs --backend NAME of a registered backend; registered: {known}")
    file = entry.facts.get("defaultConfigFile")
    if file is None:
        return None
    values = read_yaml(file, "the backend's default configuration", InputError)
    return values if isinstance(values, dict) else {}
