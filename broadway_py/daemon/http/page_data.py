"""Answers the requests that only the live page and ``broadway top`` need: workers, settings, history."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from aiohttp import web

from broadway_py.daemon.http.answers import json_answer
from broadway_py.daemon.http.history import History
from broadway_py.daemon.http.view import View, WorkerState

__all__ = ["PageData"]


class PageData:
    """The handlers of these requests.

    Args:
        view: gives the data.
        history: the points of the last 30 minutes.
    """

    def __init__(self, view: View, history: History) -> None:
        self._view = view
        self._history = history

    async def workers(self, _request: web.Request) -> web.Response:
        """Answers with the state of each worker."""
        await self._view.refresh()
        return json_answer({"workers": [_told(one) for one in self._view.workers()]})

    async def settings(self, _request: web.Request) -> web.Response:
        """Answers with all settings, without secrets."""
        return json_answer(self._view.settings())

    async def history(self, request: web.Request) -> web.Response:
        """Answers with the points that are newer than the query's ``since``, in seconds since 1970."""
        try:
            since = float(request.query.get("since", "0"))
        except ValueError:
            since = math.nan
        if not math.isfinite(since):
            return json_answer({"error": "since: expected seconds since 1970, such as 1764547200.5"}, status=400)
        return json_answer(self._history.told(since))


def _told(worker: WorkerState) -> dict[str, Any]:
    busy = {name: [round(share, 4) for share in shares] for name, shares in worker.processors_busy.items()}
    return {**asdict(worker), "processors_busy": busy}
