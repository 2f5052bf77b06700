"""Listens on the HTTP port, and leads each request to its handler."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from broadway_py.daemon.http.access import Access, as_dns, is_loopback, same_site
from broadway_py.daemon.http.answers import SAFE_HEADERS, Handler, json_answer
from broadway_py.daemon.http.control import Control
from broadway_py.daemon.http.history import History, record
from broadway_py.daemon.http.listener import Port, Visit, bind, most_connections
from broadway_py.daemon.http.page_data import PageData
from broadway_py.daemon.http.page_files import PAGE_FILES, page_file
from broadway_py.daemon.http.reading import Reading
from broadway_py.daemon.http.reloads import Reloads
from broadway_py.daemon.http.view import Replaying, View
from broadway_py.daemon.settings.settings import Http
from broadway_py.daemon.settings.token_file import is_readable_by_others, read_token
from broadway_py.errors import OptionsError
from broadway_py.log import logger
from broadway_py.producers.hosts import wire_name

__all__ = ["serve"]

log = logger("broadway_py.daemon")


@asynccontextmanager
async def serve(settings: Http, view: View, replaying: Replaying | None = None) -> AsyncIterator[int]:
    """Listens while the block runs. Yields the port, which the system has chosen if *settings* have 0.

    Args:
        settings: where to listen, and who may control.
        view: the data and the commands.
        replaying: puts dead letters back. None: no settings say where they are.

    Raises:
        OptionsError: it cannot listen at this address, or the token cannot be read. The error's path names the setting
            to change.
    """
    if settings.token_file is not None:
        try:
            read_token(settings.token_file)
        except OptionsError as refused:
            raise refused.under("http", "token_file") from None
    try:
        sockets = await bind(as_dns(settings.host, wire_name), settings.port)
    except (OSError, ValueError) as failed:
        raise _cannot_listen(settings, failed) from None
    addresses = [each.getsockname() for each in sockets]
    is_local = all(is_loopback(address[0]) for address in addresses)
    access = Access(settings.token_file, is_local=is_local)
    known = as_dns(settings.host) if is_local else None
    history = History()
    application = _application(view, history, access, known, replaying)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101  # it has been set up
    port = Port(sockets, lambda port: Visit(port, server, SAFE_HEADERS), most_connections())
    recording = asyncio.create_task(record(history, view), name="history of the live page")
    try:
        port.open()
        log.info("listening", url=f"http://{_in_url(settings.host)}:{addresses[0][1]}/")
        _warn(settings, addresses[0][1], is_local=is_local)
        yield int(addresses[0][1])
    finally:
        recording.cancel()
        await port.close()
        await runner.cleanup()
        access.close()
        await asyncio.wait({recording})


def _warn(settings: Http, port: int, *, is_local: bool) -> None:
    """Logs who can do what, if that may be more than the user wants."""
    file = settings.token_file
    if not is_local:
        log.warning(_SEEN_BY_ALL if file is None else _CONTROLLED_BY_SOME, host=settings.host, port=port)
    if file is not None and is_readable_by_others(file):
        log.warning("every user of this machine can read the token for control; change the file's mode", file=file)


_SEEN_BY_ALL: Final = (
    "everybody who can reach the HTTP port can see the pipelines, and nobody can control them, because "
    "http.token_file is not set; allow only a trusted network, or set http.host to 127.0.0.1"
)
_CONTROLLED_BY_SOME: Final = (
    "everybody who can reach the HTTP port can see the pipelines, and whoever has the token can control them; nothing "
    "is encrypted, so allow only a trusted network, or set http.host to 127.0.0.1"
)


def _cannot_listen(settings: Http, failed: OSError | ValueError) -> OptionsError:
    place = f"{_in_url(settings.host)}:{settings.port}"
    # Since 3.13 asyncio has its own text, without a number, for the case that this machine has none of the addresses.
    unknown = (errno.EADDRNOTAVAIL, None)
    if not isinstance(failed, OSError) or isinstance(failed, socket.gaierror) or failed.errno in unknown:
        return OptionsError(
            ("http", "host"), f"{settings.host!r} is not an address of this machine; use 127.0.0.1 or 0.0.0.0"
        )
    if failed.errno == errno.EADDRINUSE:
        problem = f"{place} is in use by another program; choose another port, or 0 for a free one"
        return OptionsError(("http", "port"), problem)
    if failed.errno in (errno.EACCES, errno.EPERM):
        return OptionsError(("http", "port"), f"{place} is not allowed for this user; choose a port above 1023")
    return OptionsError(("http", "host"), f"cannot listen on {place}: {failed.strerror or failed}")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _application(
    view: View, history: History, access: Access, known: str | None, replaying: Replaying | None
) -> web.Application:
    middlewares = [_timed, _answered, same_site(known), access.check]
    application = web.Application(middlewares=middlewares, client_max_size=64 * 1024)
    application.on_response_prepare.append(_make_safe)
    reading, control = Reading(view), Control(view, replaying)
    application.router.add_get("/metrics", reading.metrics)
    application.router.add_get("/livez", reading.livez)
    application.router.add_get("/readyz", reading.readyz)
    application.router.add_get("/api/access", access.tell)
    application.router.add_get("/api/pipelines", reading.pipelines)
    application.router.add_get("/api/pipelines/{name}", reading.pipeline)
    application.router.add_post("/api/pipelines/{name}/pause", control.pause)
    application.router.add_post("/api/pipelines/{name}/resume", control.resume)
    application.router.add_post("/api/pipelines/{name}/rate_limit", control.rate_limit)
    application.router.add_post("/api/pipelines/{name}/concurrency", control.concurrency)
    application.router.add_post("/api/pipelines/{name}/replay", control.replay)
    reloads = Reloads(view)
    application.router.add_get("/api/reload", reloads.tell)
    application.router.add_post("/api/reload", reloads.ask)
    page_data = PageData(view, history)
    application.router.add_get("/api/workers", page_data.workers)
    application.router.add_get("/api/settings", page_data.settings)
    application.router.add_get("/api/history", page_data.history)
    for path, (name, content_type) in PAGE_FILES.items():
        application.router.add_get(path, page_file(name, content_type))
    return application


async def _make_safe(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SAFE_HEADERS)


@web.middleware
async def _timed(request: web.Request, handler: Handler) -> web.StreamResponse:
    visit = request.protocol
    assert isinstance(visit, Visit)  # noqa: S101  # the port makes only these
    visit.begin()
    try:
        # Since Python 3.12, aiohttp answers requests that a client sends without waiting for the answers in one go, and
        # nothing else runs meanwhile.
        await asyncio.sleep(0)
        return await handler(request)
    finally:
        visit.end()


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refused:
        response = json_answer({"error": refused.reason}, status=refused.status)
        if isinstance(refused, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(refused.allowed_methods))
        return response
