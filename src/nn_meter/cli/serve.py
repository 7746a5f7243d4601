"""``nn-meter serve``."""

from __future__ import annotations

import argparse
import ipaddress
import secrets
import socket
from pathlib import Path
from urllib.parse import quote

from nn_meter import settings
from nn_meter.cli.output import OK
from nn_meter.errors import InputError, MissingDependencyError

HOST, PORT = "127.0.0.1", 8642


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``serve``."""
    parser.description = (
        "Serve predictions: a page to drop models on, a JSON API (POST /predict, described at /openapi.json), a "
        "history. Elsewhere than on this machine it asks for a token, which it prints."
    )
    parser.add_argument("--host", default=HOST, help=f"address to listen on ({HOST})")
    parser.add_argument("--port", type=int, default=PORT, help=f"port ({PORT}); 0 for one that is free")
    parser.add_argument("--token", default="", help="ask for this token; elsewhere than on this machine one is made")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name by which browsers may call it"
    )
    parser.add_argument("--folder", metavar="FOLDER", help="where its history lies (in the data folder)")
    parser.add_argument("--gallery", nargs="+", default=[], metavar="PATH", help="models to show by every predictor")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="requests predicted at a time (2)")
    parser.add_argument("--max-mb", type=int, default=2048, metavar="N", help="megabytes of a model (2048)")
    parser.add_argument("--max-seconds", type=float, default=60.0, metavar="S", help="seconds of a request (60)")
    parser.add_argument(
        "--max-memory-mb", type=int, default=8192, metavar="N", help="address space of a request, on Linux (8192)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until it is stopped."""
    try:
        import uvicorn

        from nn_meter.serving.app import Limits, application
    except ImportError as error:
        raise MissingDependencyError(error.name or "starlette", "serve", "nn-meter serve") from error
    from nn_meter.frontends.sources import models

    if min(args.workers, args.max_mb, args.max_seconds, args.max_memory_mb) <= 0:
        raise InputError("--workers, --max-mb, --max-seconds and --max-memory-mb are more than 0")
    here = _is_here(args.host)
    token = args.token or ("" if here else secrets.token_urlsafe(24))
    limits = Limits(args.max_mb << 20, args.max_seconds, args.max_memory_mb << 20, args.workers)
    names = (args.host, HOST, "localhost", "::1", *args.allow_host) if here or args.allow_host else ()
    hosts = frozenset(each.lower() for each in names)
    folder = Path(args.folder) if args.folder else settings.data_folder() / "serve"
    shown = tuple(map(Path, models(args.gallery))) if args.gallery else ()
    app = application(folder, limits, hosts, token, shown)
    with _listening(args.host, args.port) as listening:
        port = listening.getsockname()[1]
        name = f"[{args.host}]" if ":" in args.host else args.host
        print(f"serving on http://{name}:{port}/{f'?token={quote(token)}' if token else ''}", flush=True)
        config = uvicorn.Config(app, log_level="warning", limit_concurrency=1000, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])
    return OK


def _is_here(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
