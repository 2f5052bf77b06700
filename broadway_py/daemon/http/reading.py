"""Answers the requests that change nothing: metrics, health checks and the data of the live page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.registry import Collector

from broadway_py.daemon.http.answers import json_answer, no_pipeline
from broadway_py.daemon.http.reloads import told_of
from broadway_py.daemon.http.view import View
from broadway_py.installed import package_version
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["Reading"]


class Reading:
    """The handlers of these requests.

    Args:
        view: gives the data.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    async def metrics(self, request: web.Request) -> web.Response:
        """Answers with all metrics, in the form that the client asks for."""
        await self._view.refresh()
        scrape = _Scrape(self._view)
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
            body = encode(scrape)
        except Exception:  # noqa: BLE001  # it stumbles over versions and escapings that it does not know
            body, content_type = generate_latest(scrape), CONTENT_TYPE_PLAIN_0_0_4
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def livez(self, _request: web.Request) -> web.Response:
        """Answers whether the process should be restarted."""
        problems = self._view.not_alive()
        return json_answer({"alive": not problems, "problems": list(problems)}, status=503 if problems else 200)

    async def readyz(self, request: web.Request) -> web.Response:
        """Answers whether the pipelines, or the one in the query, are ready."""
        reasons = {name: list(why) for name, why in self._view.not_ready().items()}
        wanted = request.query.get("pipeline")
        if wanted is not None:
            if wanted not in reasons:
                return no_pipeline(wanted, reasons)
            reasons = {wanted: reasons[wanted]}
        ready = not any(reasons.values())
        pipelines: dict[str, dict[str, Any]] = {
            name: {"ready": not why, "reasons": why} for name, why in reasons.items()
        }
        for name, owners in self._view.owners().items():
            if name in pipelines:
                pipelines[name]["owners"] = owners
        body: dict[str, Any] = {"ready": ready, "pipelines": pipelines}
        status = self._view.reload_status()
        if status.is_running or (status.last is not None and status.last.outcome != "done"):
            body["reload"] = told_of(status)
        return json_answer(body, status=200 if ready else 503)

    async def pipelines(self, _request: web.Request) -> web.Response:
        """Answers with everything about all pipelines."""
        await self._view.refresh()
        return json_answer(
            {
                "version": package_version(),
                "now": time.time(),
                "pipelines": self._described(),
                "reload": told_of(self._view.reload_status()),
            }
        )

    async def pipeline(self, request: web.Request) -> web.Response:
        """Answers with everything about one pipeline."""
        await self._view.refresh()
        name = request.match_info["name"]
        known = {one["name"]: one for one in self._described()}
        return json_answer(known[name]) if name in known else no_pipeline(name, known)

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
    told["processors_busy"] = [round(share, 4) for share in pipeline.processors_busy]
    told["breaker"] = _breaker(pipeline)
    del told["breaker_opened_at"], told["breaker_next_try_seconds"]
    return told


def _breaker(pipeline: PipelineStats) -> dict[str, Any]:
    reason = None
    if pipeline.breaker_open:
        at = f", at {pipeline.breaker_opened_at}" if pipeline.breaker_opened_at else ""
        reason = f"{pipeline.breaker_opened_by}{at}" or None
    return {"open": pipeline.breaker_open, "reason": reason, "next_try_seconds": pipeline.breaker_next_try_seconds}


class _Scrape(Collector):
    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        return self._view.metrics()
