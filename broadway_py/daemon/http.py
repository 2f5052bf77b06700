"""The HTTP port: metrics, health, the live page and its data."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from broadway_py.daemon.logs import mask_credentials
from broadway_py.daemon.settings import Http
from broadway_py.daemon.view import View
from broadway_py.errors import OptionsError
from broadway_py.log import logger
from broadway_py.metrics import package_version

__all__ = ["serve"]

log = logger("broadway_py.daemon")

_PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}

_SAFE: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(settings: Http, view: View) -> AsyncIterator[int]:
    """Listen while the block runs; gives the port, which *settings* may have left to the system.

    Raises:
        OptionsError: it cannot listen there; the path names the setting to change.
    """
    runner = web.AppRunner(_application(settings, view), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        try:
            await site.start()
        except OSError as failed:
            raise _cannot_listen(settings, failed) from None
        port = int(runner.addresses[0][1])
        log.info("listening", url=f"http://{_in_url(settings.host)}:{port}/")
        yield port
    finally:
        await runner.cleanup()


def _cannot_listen(settings: Http, failed: OSError) -> OptionsError:
    place = f"{_in_url(settings.host)}:{settings.port}"
    if failed.errno == errno.EADDRINUSE:
        problem = f"{place} is in use by another program; choose another port, or 0 for a free one"
        return OptionsError(("http", "port"), problem)
    if failed.errno in (errno.EACCES, errno.EPERM):
        return OptionsError(("http", "port"), f"{place} is not allowed for this user; choose a port above 1023")
    # Since 3.13 asyncio says in words of its own, without a number, that none of the addresses is ours.
    if isinstance(failed, socket.gaierror) or failed.errno in (errno.EADDRNOTAVAIL, None):
        return OptionsError(
            ("http", "host"), f"{settings.host!r} is no address of this machine; use 127.0.0.1 or 0.0.0.0"
        )
    return OptionsError(("http", "host"), f"cannot listen on {place}: {failed.strerror or failed}")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _application(settings: Http, view: View) -> web.Application:
    application = web.Application(middlewares=[_headers, _same_site(settings)], client_max_size=64 * 1024)
    handlers = _Handlers(view)
    application.router.add_get("/metrics", handlers.metrics)
    application.router.add_get("/livez", handlers.livez)
    application.router.add_get("/readyz", handlers.readyz)
    application.router.add_get("/api/pipelines", handlers.pipelines)
    application.router.add_get("/api/pipelines/{name}", handlers.pipeline)
    application.router.add_post("/api/pipelines/{name}/{act:pause|resume}", handlers.act)
    for path in _PAGE:
        application.router.add_get(path, _page)
    return application


@web.middleware
async def _headers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as refused:
        response = _json({"error": refused.reason}, status=refused.status)
        if isinstance(refused, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(refused.allowed_methods))
    response.headers.update(_SAFE)
    return response


def _same_site(settings: Http) -> Any:
    """Pages of other sites may not change anything here.

    A browser sends them JSON only after asking us first, which we never allow. A site that points its own name at
    this machine would pass that, so on a loopback address only names of this machine are served.
    """

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            if request.content_type != "application/json":
                return _json({"error": "send this with the header Content-Type: application/json"}, status=415)
            if _is_loopback(settings.host) and not _is_loopback(_host_of(request)):
                return _json({"error": "send this to an address of this machine, such as 127.0.0.1"}, status=403)
        return await handler(request)

    return check


def _host_of(request: web.Request) -> str:
    host = request.headers.get("Host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Scrape(Collector):
    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        return self._view.metrics()


class _Handlers:
    def __init__(self, view: View) -> None:
        self._view = view

    async def metrics(self, request: web.Request) -> web.Response:
        await self._view.refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(_Scrape(self._view)), headers={"Content-Type": content_type})

    async def livez(self, _request: web.Request) -> web.Response:
        problems = self._view.not_alive()
        return _json({"alive": not problems, "problems": list(problems)}, status=503 if problems else 200)

    async def readyz(self, request: web.Request) -> web.Response:
        reasons = {name: list(why) for name, why in self._view.not_ready().items()}
        wanted = request.query.get("pipeline")
        if wanted is not None:
            if wanted not in reasons:
                return _no_pipeline(wanted, reasons)
            reasons = {wanted: reasons[wanted]}
        ready = not any(reasons.values())
        pipelines = {name: {"ready": not why, "reasons": why} for name, why in reasons.items()}
        return _json({"ready": ready, "pipelines": pipelines}, status=200 if ready else 503)

    async def pipelines(self, _request: web.Request) -> web.Response:
        await self._view.refresh()
        return _json({"version": package_version(), "pipelines": self._described()})

    async def pipeline(self, request: web.Request) -> web.Response:
        await self._view.refresh()
        name = request.match_info["name"]
        known = {one["name"]: one for one in self._described()}
        return _json(known[name]) if name in known else _no_pipeline(name, known)

    async def act(self, request: web.Request) -> web.Response:
        name, act = request.match_info["name"], request.match_info["act"]
        known = [one.name for one in self._view.stats()]
        if name not in known:
            return _no_pipeline(name, dict.fromkeys(known))
        log.info("asked for by HTTP", action=act, pipeline=name)
        await (self._view.pause(name) if act == "pause" else self._view.resume(name))
        return _json({"pipeline": name, "done": act})

    def _described(self) -> list[dict[str, Any]]:
        topologies, reasons = self._view.topologies(), self._view.not_ready()
        return [
            {**asdict(one), "reasons": list(reasons.get(one.name, ())), "topology": topologies.get(one.name)}
            for one in self._view.stats()
        ]


def _no_pipeline(name: str, known: Mapping[str, object]) -> web.Response:
    return _json({"error": f"no pipeline {name!r}; known here: {', '.join(known)}"}, status=404)


def _json(body: object, *, status: int = 200) -> web.Response:
    # Reasons come from producers; ours hold no credentials, a plug-in's might.
    return web.json_response(text=mask_credentials(json.dumps(body, default=repr)), status=status)


async def _page(request: web.Request) -> web.Response:
    name, content_type = _PAGE[request.path]
    text = files("broadway_py.daemon").joinpath("page", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=content_type)
