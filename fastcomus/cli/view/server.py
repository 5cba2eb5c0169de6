"""The server of `fastcomus view`: the report's pages, live, for a browser on this machine alone.

It listens on 127.0.0.1. Every address begins with a token that nobody else knows; requests under another host name, and
saves from another page, are refused. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastcomus.cli.view.desk import Desk, OutdatedError
from fastcomus.cli.view.pictures import Thumbnails
from fastcomus.cli.view.training import Training
from fastcomus.errors import InputError, explain_error
from fastcomus.run.run import Run

HOST = "127.0.0.1"
_MOST_BYTES = 8_000_000  # of what a page may send
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'unsafe-eval'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}


def open_socket(port: int) -> socket.socket:
    """Bind a port of this machine, a free one for 0.

    Raises:
        InputError: If it is taken or may not be used.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(
            f"port {port} of this machine cannot be used ({error}); leave --port out to take a free one."
        ) from error
    return listening


def make_token() -> str:
    """Return what addresses begin with: 192 random bits."""
    return secrets.token_urlsafe(24)


def create_app(run: Run, desk: Desk, token: str, port: int) -> ASGIApp:
    """Make the application of a run whose report lies in its folder.

    Args:
        run: The run.
        desk: What the page may do to it.
        token: What addresses begin with.
        port: Where it listens.
    """
    thumbnails, report = Thumbnails(run), run.folder.resolve_file("report")

    async def answer(work: Callable[[], Any]) -> Response:
        try:
            return JSONResponse(await run_in_threadpool(work))
        except OutdatedError as error:
            return JSONResponse({"error": str(error), "outdated": True}, 409)
        except Exception as error:
            told = explain_error(error)
            if told is None:
                raise
            return JSONResponse({"error": told.text}, 409)

    async def give_state(request: Request) -> Response:
        return await answer(desk.read_state)

    async def give_version(request: Request) -> Response:
        return await answer(desk.read_version)

    async def give_nearest(request: Request) -> Response:
        return await answer(lambda: desk.find_nearest(request.path_params["row"], 60))

    async def answer_page(request: Request, work: Callable[[dict[str, Any]], Any]) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                return JSONResponse({"error": "too much at once."}, 413)
        try:
            wanted = json.loads(body)
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict):
            return JSONResponse({"error": "no JSON object."}, 400)
        return await answer(lambda: work(wanted))

    async def save(request: Request) -> Response:
        return await answer_page(request, desk.save)

    async def give_alike(request: Request) -> Response:
        return await answer_page(request, lambda wanted: desk.find_alike(wanted.get("objects")))

    async def give_thumbnail(request: Request) -> Response:
        try:
            content = await run_in_threadpool(thumbnails.read, request.path_params["row"])
        except InputError as error:
            return PlainTextResponse(str(error), 404)
        return Response(content, media_type="image/jpeg")

    async def open_report(request: Request) -> Response:
        return RedirectResponse(f"/{token}/report/index.html", 307)

    async def give_first_page(request: Request) -> Response:
        try:
            await run_in_threadpool(desk.refresh_report)
        except InputError as error:
            return PlainTextResponse(str(error), 409)
        return FileResponse(report / "index.html")

    routes = [
        Route("/", open_report),
        Route("/report/index.html", give_first_page),
        Route("/api/state", give_state),
        Route("/api/version", give_version),
        Route("/api/nearest/{row:int}", give_nearest),
        Route("/api/alike", give_alike, methods=["POST"]),
        Route("/api/save", save, methods=["POST"]),
        Route("/thumbnail/{row:int}", give_thumbnail),
        Mount("/report", StaticFiles(directory=report, check_dir=False)),
    ]
    return Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, port)


class Guard:
    """Lets through what a browser on this machine asks of the page it was given, and nothing else."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._find_fault(scope["method"], scope["path"], headers)

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await (refusal or self._app)(scope, receive, send_safely)

    def _find_fault(self, method: str, path: str, headers: dict[str, str]) -> Response | None:
        if headers.get("host") not in self._hosts:
            return PlainTextResponse("Open the address that fastcomus view printed.", 421)
        given = path.split("/")[1] if path.startswith("/") else ""
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse("Open the whole address that fastcomus view printed.", 404)
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return PlainTextResponse("Another page may not do this.", 403)
        if method not in ("GET", "HEAD") and (
            origin is None or headers.get("content-type", "").partition(";")[0] != "application/json"
        ):
            return PlainTextResponse("Another page may not do this.", 403)
        return None


@dataclass(frozen=True)
class View:
    """A server that is ready to run.

    Attributes:
        address: What a browser opens.
        server: Serves until it is told to exit.
        listening: The socket it listens on.
        desk: What the page may do.
    """

    address: str
    server: uvicorn.Server
    listening: socket.socket
    desk: Desk

    def serve(self) -> None:
        """Serve until ctrl-C or `server.should_exit`; training that the page started ends at a safe point then."""
        try:
            self.server.run(sockets=[self.listening])
        finally:
            self.desk.training.close()
            self.listening.close()


def prepare_view(run: Run, port: int, training_arguments: Sequence[str]) -> View:
    """Write the report of a run where it is not up to date, and make a server that shows it.

    Args:
        run: The run.
        port: Where to listen; 0 for a free port.
        training_arguments: Of `fastcomus train`, when the page starts it.

    Raises:
        InputError: If the port cannot be used, or there is nothing to show.
    """
    listening, desk = open_socket(port), Desk(run, Training(training_arguments))
    try:
        desk.refresh_report()
    except BaseException:
        listening.close()
        raise
    token, port = make_token(), listening.getsockname()[1]
    config = uvicorn.Config(
        create_app(run, desk, token, port), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=2, lifespan="off",
    )  # fmt: skip
    listening.listen(128)
    return View(f"http://{HOST}:{port}/{token}/", uvicorn.Server(config), listening, desk)
