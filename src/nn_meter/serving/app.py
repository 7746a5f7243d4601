"""The HTTP application: routes, limits, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from nn_meter.errors import StorageError
from nn_meter.limits import DOWNLOAD_BYTES_PER_S, DOWNLOAD_START_S
from nn_meter.measuring.isolation import Failure
from nn_meter.predictors.catalogue import default_predictor, list_predictors, load_predictor, summary
from nn_meter.report import desk
from nn_meter.serving.history import Entry, History, now
from nn_meter.serving.openapi import description
from nn_meter.serving.pool import Full, Pool
from nn_meter.serving.tasks import answer, latencies_ms
from nn_meter.storage import legible

STATUS: Mapping[str, int] = {"refused": 422, "memory": 413, "timeout": 504, "crash": 500, "lost": 500}
"""Kind of a failure to the status that tells of it."""

PREDICTORS = 16
"""So many predictors may be asked at once."""

_IDLE_S = 30.0
"""An upload of which nothing comes for so long is broken off."""

_LEFT_S = 86_400.0
"""An upload this old is nobody's any more: its server was killed."""

_UPLOAD = "nn_meter_upload_"
_OTHERS = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request: bytes of the upload, seconds and bytes of memory of the process that predicts it; and how many
    may wait for one of ``workers`` processes."""

    upload_bytes: int = 2 << 30
    seconds: float = 60.0
    memory_bytes: int = 8 << 30
    workers: int = 2
    waiting: int = 100


def application(
    folder: Path, limits: Limits, hosts: frozenset[str], token: str = "", gallery: tuple[Path, ...] = ()
) -> Starlette:
    """The application.

    Args:
        folder: Where its history lies; uploads lie in it for as long as they are predicted.
        limits: Of each request.
        hosts: Names by which browsers may call it, so that no other site's page can ask in a visitor's name.
        token: What every request has to show, where it is not empty: as a bearer, or as ``?token=``, which sets a
            cookie.
        gallery: Models to be predicted by every predictor that is here.

    Raises:
        StorageError: the folder or the history in it cannot be used.
    """
    desk_of = _Desk(folder, limits, gallery)
    routes = [
        Route("/", desk_of.front),
        Route("/predict", desk_of.predict, methods=["POST"]),
        Route("/predictors", desk_of.predictors),
        Route("/history", desk_of.history),
        Route("/gallery", desk_of.gallery),
        Route("/results/{id}", desk_of.page),
        Route("/results/{id}/json", desk_of.document),
        Route("/openapi.json", desk_of.openapi),
    ]
    handlers: Any = {HTTPException: _told, StorageError: _full}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=desk_of.lifespan)
    app.add_middleware(_Guard, hosts=hosts, token=token)
    return app


class _Guard:
    """Lets through whom it may: by the name in ``Host``, by the token, and by ``Origin`` where something is changed."""

    def __init__(self, app: Any, hosts: frozenset[str], token: str) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refused(request)
        if refused is not None:
            await refused(scope, receive, send)
        elif self._token and request.query_params.get("token") and request.method == "GET":
            # of a path with two slashes the first part would be a host
            back = RedirectResponse("/" + scope["path"].lstrip("/"), 303)
            back.set_cookie("token", self._token, httponly=True, samesite="strict")
            await back(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return _error(403, f"this server is not called {legible(host)!r}; start it with --allow-host to let it be")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _error(403, "a page of another site may not ask")
        if not self._token:
            return None
        shown = (  # a browser may still show the cookie of a server that ran before
            request.headers.get("authorization", "").removeprefix("Bearer "),
            request.cookies.get("token", ""),
            request.query_params.get("token", ""),
        )
        if not any(hmac.compare_digest(each.encode(), self._token.encode()) for each in shown):
            return _error(401, "show the token that the server printed: ?token=..., or Authorization: Bearer ...")
        return None


class _Desk:
    """What answers each route."""

    def __init__(self, folder: Path, limits: Limits, gallery: tuple[Path, ...]) -> None:
        self._limits, self._folder, self._gallery = limits, folder, gallery
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be made: {error.strerror}; choose another --folder") from error
        for each in folder.glob(f"{_UPLOAD}*"):
            with suppress(OSError):
                if time() - each.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(each)
        self._history = History(folder / "history.sqlite")
        self._shown: dict[Path, dict[str, float]] = {}
        self._known = {each.name: each.summary for each in list_predictors() if each.origin != "published"}
        if (default := default_predictor()) not in self._known:  # a path, or one that is fetched before it is asked
            self._known[default] = summary(load_predictor())

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """The processes, for as long as the application runs."""
        self._pool = Pool(self._limits.workers, self._limits.seconds, self._limits.waiting)
        hanging = asyncio.create_task(self._hang())
        try:
            yield
        finally:
            hanging.cancel()
            with suppress(asyncio.CancelledError):
                await hanging
            self._pool.close()

    async def front(self, request: Request) -> Response:
        """The page to drop models on."""
        entries = await asyncio.to_thread(self._history.entries)
        return HTMLResponse(desk.front(self._known, default_predictor(), [_written(each) for each in entries]))

    async def predict(self, request: Request) -> Response:
        """Take a model as the request's body, and answer when it is predicted."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(422, "a form is no model; send the file as it is: curl --data-binary @FILE")
        predictors = tuple(dict.fromkeys(request.query_params.getlist("predictor"))) or (default_predictor(),)
        unknown = [name for name in predictors if name not in self._known]
        if unknown or len(predictors) > PREDICTORS:
            why = f"there is no predictor {legible(unknown[0])!r} here" if unknown else f"ask at most {PREDICTORS}"
            raise HTTPException(422, f"{why}; GET /predictors lists those that are")
        shape = _shape(request.query_params.get("input_shape", ""))
        name = _OTHERS.sub("_", request.query_params.get("name", "")).strip(".")[-100:] or "model"
        try:
            place = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._folder, prefix=_UPLOAD))
        except OSError as error:
            raise HTTPException(507, f"no room for an upload: {error.strerror}") from error
        try:
            await self._take(request, place / name)
            found = await self._ask(answer, place / name, predictors, shape, self._limits.memory_bytes)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        entry = Entry(secrets.token_urlsafe(9), now(), name, found.totals)
        told = json.loads(found.document)
        try:
            await asyncio.to_thread(self._history.add, entry, found.document, found.page)
        except StorageError as error:
            return JSONResponse({"id": None, "page": None, "not_kept": str(error), **told})
        return JSONResponse({"id": entry.id, "page": f"/results/{entry.id}", **told})

    async def predictors(self, request: Request) -> Response:
        """Names of the predictors that are here, and what is known of them."""
        default = default_predictor()
        found = [{"name": n, "summary": s, "default": n == default} for n, s in self._known.items()]
        return JSONResponse({"predictors": found})

    async def history(self, request: Request) -> Response:
        """The latest answers."""
        entries = await asyncio.to_thread(self._history.entries)
        return JSONResponse({"answers": [_written(each) for each in entries]})

    async def gallery(self, request: Request) -> Response:
        """The models of the gallery by every predictor."""
        found = [(path.name, latencies) for path, latencies in self._shown.items()]
        return HTMLResponse(desk.gallery(found, len(self._gallery)))

    async def page(self, request: Request) -> Response:
        """An answer's page."""
        return HTMLResponse(await self._kept(self._history.page, request.path_params["id"]))

    async def document(self, request: Request) -> Response:
        """An answer as JSON."""
        return Response(
            await self._kept(self._history.document, request.path_params["id"]), media_type="application/json"
        )

    async def openapi(self, request: Request) -> Response:
        """What can be asked, as OpenAPI."""
        return JSONResponse(description(self._limits.upload_bytes))

    async def _kept(self, stored: Callable[[str], str | None], id: str) -> str:
        found = await asyncio.to_thread(stored, id)
        if found is None:
            raise HTTPException(404, "no such answer is kept")
        return found

    async def _take(self, request: Request, path: Path) -> None:
        """Write the body as it comes, and no more of it than may be."""
        most = self._limits.upload_bytes
        taken, begin = 0, monotonic()
        chunks = request.stream()
        try:
            with path.open("wb") as file:
                while (chunk := await _next(chunks)) is not None:
                    taken += len(chunk)
                    if taken > most:
                        raise HTTPException(413, f"the model has more than {most:,} bytes")
                    if monotonic() - begin > DOWNLOAD_START_S + taken / DOWNLOAD_BYTES_PER_S:
                        raise HTTPException(408, f"after {monotonic() - begin:.0f} s there are {taken:,} bytes")
                    await asyncio.to_thread(file.write, chunk)
        except ClientDisconnect:
            raise HTTPException(400, "the upload broke off") from None
        except TimeoutError:
            raise HTTPException(408, f"nothing came for {_IDLE_S:g} s") from None
        except OSError as error:
            raise HTTPException(507, f"no room for the upload: {error.strerror}") from error
        if not taken:
            raise HTTPException(422, "the request has no body; it is the model's file")

    async def _ask(self, task: Callable[..., Any], model: Path, *args: Any) -> Any:
        try:
            found = await asyncio.wrap_future(self._pool.ask(task, model, *args))
        except Full:
            raise HTTPException(503, "too many requests wait; try again", {"retry-after": "5"}) from None
        if isinstance(found, Failure):
            raise HTTPException(STATUS[found.kind], found.reason.replace(f"{model.parent}{os.sep}", ""))
        return found

    async def _hang(self) -> None:
        """Put the gallery's models up one by one; what cannot be predicted is left out."""
        names = tuple(self._known)
        for path in self._gallery:
            with suppress(HTTPException):
                found = await self._ask(latencies_ms, path, names, self._limits.memory_bytes)
                self._shown[path] = dict(zip(names, found, strict=True))


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    async with asyncio.timeout(_IDLE_S):
        return await anext(chunks, None)


def _shape(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    if not re.fullmatch(r"\d{1,9}(,\d{1,9}){0,15}", text):
        raise HTTPException(422, "input_shape: write it as 1,3,224,224")
    return tuple(map(int, text.split(",")))


def _name(host: str) -> str:
    """Without the port."""
    return re.sub(r":\d+$", "", host).strip("[]").lower()


def _written(entry: Entry) -> dict[str, Any]:
    totals = [{"predictor": name, "latency_ms": latency_ms} for name, latency_ms in entry.totals]
    return {"id": entry.id, "at": entry.at, "model": entry.model, "page": f"/results/{entry.id}", "totals": totals}


def _error(status: int, why: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": legible(why, 2000)}, status, headers)


async def _told(request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail, error.headers)


async def _full(request: Request, error: StorageError) -> Response:
    return _error(507, str(error))
