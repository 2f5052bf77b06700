"""Answers the requests about reloads: to read the settings again, and what the last reload has done."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from broadway_py.daemon.http.answers import json_answer
from broadway_py.daemon.http.bodies import BodyRefused, NoBody, body_of
from broadway_py.daemon.http.view import View
from broadway_py.daemon.reload.outcome import Reloaded, ReloadStatus
from broadway_py.log import logger

__all__ = ["Reloads", "told_of"]

log = logger("broadway_py.daemon")

#: Seconds that the end of a reload is waited for. The connection is cut after 30 s.
_WAIT_S: Final = 20.0


class Reloads:
    """The handlers of these requests.

    Args:
        view: carries out the reload.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    async def ask(self, request: web.Request) -> web.Response:
        """Has the settings read again, and answers when that has ended, or when it takes long."""
        try:
            await body_of(request, NoBody)
        except BodyRefused as refused:
            return json_answer({"error": str(refused)}, status=refused.status)
        log.info("a command came over HTTP", action="reload")
        reload = asyncio.ensure_future(self._view.reload_and_wait())
        await asyncio.wait({reload}, timeout=_WAIT_S)
        if not reload.done():
            reload.cancel()  # only the wait: the reload goes on
            return json_answer(told_of(self._view.reload_status()), status=202)
        return _answer(reload.result())

    async def tell(self, _request: web.Request) -> web.Response:
        """Answers with what is known of the reloads so far."""
        return json_answer(told_of(self._view.reload_status()))


def _answer(result: Reloaded) -> web.Response:
    told = {name: list(value) for name, value in asdict(result).items()}
    if result.outcome == "done":
        return json_answer({"done": "reload", **told})
    sentences = (*result.refused, *result.failed)
    status = 422 if result.outcome == "refused" else 503
    return json_answer({"error": "; ".join(sentences), **told}, status=status)


def told_of(status: ReloadStatus) -> dict[str, Any]:
    """Returns *status* as JSON can represent it.

    Why settings were refused is left out: it may quote them, and everybody who can reach the port can read this.
    """
    last: dict[str, Any] | None = None
    if status.last is not None:
        last = {"outcome": status.last.outcome, "at": status.last_at}
        last |= {name: list(value) for name, value in asdict(status.last).items() if name != "refused"}
    return {"running": status.is_running, "counts": dict(status.counts), "last": last}
