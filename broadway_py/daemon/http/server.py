"""Answers the requests of the HTTP port: metrics, health checks, the live page and its data."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.registry import Collector

from broadway_py.daemon.http.listener import Port, Visit, bind, most_connections
from broadway_py.daemon.http.view import View
from broadway_py.daemon.logs.logs import mask_credentials
from broadway_py.daemon.settings.settings import Http
from broadway_py.errors import OptionsError
from broadway_py.log import logger
from broadway_py.metrics import package_version
from broadway_py.pipeline.stats import PipelineStats
from broadway_py.producers.hosts import certificate_name, wire_name

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
    """Listens while the block runs. Yields the port, which the system has chosen if *settings* have 0.

    Raises:
        OptionsError: it cannot listen at this address. The error's path names the setting to change.
    """
    try:
        sockets = await bind(_as_dns(settings.host, wire_name), settings.port)
    except (OSError, ValueError) as failed:
        raise _cannot_listen(settings, failed) from None
    addresses = [each.getsockname() for each in sockets]
    is_local = all(_is_loopback(address[0]) for address in addresses)
    runner = web.AppRunner(_application(settings, view, is_local=is_local), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101  # it has been set up
    port = Port(sockets, lambda port: Visit(port, server, _SAFE), most_connections())
    try:
        port.open()
        log.info("listening", url=f"http://{_in_url(settings.host)}:{addresses[0][1]}/")
        if not is_local:
            log.warning(
                "the HTTP port has no password: everybody who can reach it can see and pause the pipelines; "
                "allow only a trusted network, or set http.host to 127.0.0.1",
                host=settings.host,
                port=addresses[0][1],
            )
        yield int(addresses[0][1])
    finally:
        await port.close()
        await runner.cleanup()


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


def _application(settings: Http, view: View, *, is_local: bool) -> web.Application:
    known = _as_dns(settings.host) if is_local else None
    application = web.Application(middlewares=[_timed, _answered, _same_site(known)], client_max_size=64 * 1024)
    application.on_response_prepare.append(_make_safe)
    handlers = _Handlers(view)
    application.router.add_get("/metrics", handlers.metrics)
    application.router.add_get("/livez", handlers.livez)
    application.router.add_get("/readyz", handlers.readyz)
    application.router.add_get("/api/pipelines", handlers.pipelines)
    application.router.add_get("/api/pipelines/{name}", handlers.pipeline)
    application.router.add_post("/api/pipelines/{name}/{act:pause|resume}", handlers.act)
    for path, (name, content_type) in _PAGE.items():
        application.router.add_get(path, _page(name, content_type))
    return application


async def _make_safe(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SAFE)


@web.middleware
async def _timed(request: web.Request, handler: _Handler) -> web.StreamResponse:
    visit = request.protocol
    assert isinstance(visit, Visit)  # noqa: S101  # the port makes only these
    visit.begin()
    try:
        return await handler(request)
    finally:
        visit.end()


@web.middleware
async def _answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refused:
        response = _json({"error": refused.reason}, status=refused.status)
        if isinstance(refused, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(refused.allowed_methods))
        return response


def _same_site(known: str | None) -> Any:
    """Returns a middleware that keeps pages of other sites from reading or changing anything here.

    A browser sends JSON from another site only after it has asked this server, which never allows it. A site whose own
    name leads to this machine would pass that check. So on a loopback address only names of this machine are served.

    Args:
        known: the loopback address's name in the settings, in the form of DNS. None: the whole network may send
            requests.
    """

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if known is not None and not all(_is_loopback(host) or host == known for host in _hosts_of(request)):
            return _json({"error": "send this to an address of this machine, such as 127.0.0.1"}, status=403)
        if request.method not in ("GET", "HEAD") and request.content_type != "application/json":
            return _json({"error": "send this with the header Content-Type: application/json"}, status=415)
        return await handler(request)

    return check


def _hosts_of(request: web.Request) -> Iterator[str]:
    """Yields the names by which the client calls this server: from the header, and from the request line.

    Proxies get the name in the request line. Without any name (HTTP/1.0) it is the address to which the client has
    connected.
    """
    for host in (request.headers.get("Host", request.host), request.host):
        yield _as_dns(host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host)


def _as_dns(host: str, form: Callable[[str], str] = certificate_name) -> str:
    """Returns *host* in the *form* that DNS uses, or unchanged if it is no valid host name."""
    try:
        return form(host)
    except ValueError:
        return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
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
        scrape = _Scrape(self._view)
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
            body = encode(scrape)
        except Exception:  # noqa: BLE001  # it stumbles over versions and escapings that it does not know
            body, content_type = generate_latest(scrape), CONTENT_TYPE_PLAIN_0_0_4
        return web.Response(body=body, headers={"Content-Type": content_type})

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
        pipelines: dict[str, dict[str, Any]] = {
            name: {"ready": not why, "reasons": why} for name, why in reasons.items()
        }
        for name, owners in self._view.owners().items():
            if name in pipelines:
                pipelines[name]["owners"] = owners
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
        log.info("a command came over HTTP", action=act, pipeline=name)
        told = await (self._view.pause(name) if act == "pause" else self._view.resume(name))
        heard, not_heard = list(told.heard), {str(index): why for index, why in told.not_heard.items()}
        if not not_heard:
            return _json({"pipeline": name, "done": act, "heard": heard, "not_heard": {}})
        others = "; ".join(f"worker {index}: {why}" for index, why in not_heard.items())
        log.warning(
            "not every worker has carried out a command that came over HTTP", action=act, pipeline=name, reason=others
        )
        error = f"not every worker has carried out {act} of {name!r}: {others}"
        return _json({"pipeline": name, "error": error, "heard": heard, "not_heard": not_heard}, status=503)

    def _described(self) -> list[dict[str, Any]]:
        topologies, reasons, owners = self._view.topologies(), self._view.not_ready(), self._view.owners()
        return [
            {
                **_told(one),
                "reasons": list(reasons.get(one.name, ())),
                "owners": owners.get(one.name),
                "topology": topologies.get(one.name),
            }
            for one in self._view.stats()
        ]


def _told(pipeline: PipelineStats) -> dict[str, Any]:
    # The counts of requests are for the metrics. They are not plain values, so JSON cannot represent them.
    producers = tuple(replace(producer, requests=None) for producer in pipeline.producers)
    told = asdict(replace(pipeline, producers=producers))
    for producer in told["producers"]:
        del producer["requests"]
    return told


def _no_pipeline(name: str, known: Mapping[str, object]) -> web.Response:
    return _json({"error": f"no pipeline {name!r}; known here: {', '.join(known)}"}, status=404)


def _json(body: object, *, status: int = 200) -> web.Response:
    # Reasons come from producers. Those of ours hold no credentials, but those of a plug-in may.
    return web.json_response(text=mask_credentials(json.dumps(body, default=repr)), status=status)


def _page(name: str, content_type: str) -> _Handler:
    # The file is read once, so that the page is served even when no descriptor is free.
    text = files("broadway_py.daemon.http").joinpath("page", name).read_text(encoding="utf-8")

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=content_type)

    return page
