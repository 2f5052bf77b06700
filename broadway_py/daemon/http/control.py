"""Carries out the requests that change something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web

from broadway_py.daemon.http.answers import json_answer, no_pipeline
from broadway_py.daemon.http.bodies import BodyRefused, ConcurrencyBody, NoBody, RateLimitBody, ReplayBody, body_of
from broadway_py.daemon.http.view import Replaying, Told, View
from broadway_py.daemon.pipelines.changes import ConcurrencyChange, RateChange
from broadway_py.errors import OptionsError
from broadway_py.log import logger

__all__ = ["Control"]

log = logger("broadway_py.daemon")

B = TypeVar("B", NoBody, RateLimitBody, ConcurrencyBody, ReplayBody)

#: How many dead letters one request puts back, unless it says another number.
_REPLAYED: Final = 1000


class Control:
    """The handlers of these requests.

    Args:
        view: carries out the commands.
        replaying: puts dead letters back. None: this program has no settings that say where they are.
    """

    def __init__(self, view: View, replaying: Replaying | None) -> None:
        self._view = view
        self._replaying = replaying

    async def pause(self, request: web.Request) -> web.Response:
        """Pauses a pipeline."""
        return await self._carry_out(request, "pause", NoBody, lambda name, _body: self._view.pause(name))

    async def resume(self, request: web.Request) -> web.Response:
        """Resumes a pipeline."""
        return await self._carry_out(request, "resume", NoBody, lambda name, _body: self._view.resume(name))

    async def rate_limit(self, request: web.Request) -> web.Response:
        """Changes the rate limit of a pipeline."""

        def change(name: str, body: RateLimitBody) -> Awaitable[Told]:
            return self._view.change(name, RateChange(body.allowed_messages, body.interval, body.reset))

        return await self._carry_out(request, "rate_limit", RateLimitBody, change)

    async def concurrency(self, request: web.Request) -> web.Response:
        """Changes the number of processors of a pipeline, in each worker."""

        def change(name: str, body: ConcurrencyBody) -> Awaitable[Told]:
            return self._view.change(name, ConcurrencyChange(body.processors))

        return await self._carry_out(request, "concurrency", ConcurrencyBody, change)

    async def replay(self, request: web.Request) -> web.Response:
        """Puts dead letters of a pipeline back into the queue in which they failed."""

        async def put_back(name: str, body: ReplayBody) -> web.Response:
            if self._replaying is None:
                raise OptionsError((), "this program has no settings file, which says where they are; use broadway dlq")
            count, trouble = await self._replaying.replay(name, body.producer, body.limit or _REPLAYED)
            log.info("dead letters were put back", pipeline=name, count=count, trouble=trouble)
            told = {"pipeline": name, "replayed": count, "heard": [], "not_heard": {}}
            if trouble is None:
                return json_answer({**told, "done": "replay"})
            return json_answer({**told, "error": f"not all dead letters were put back: {trouble}"}, status=503)

        return await self._with_body(request, "replay", ReplayBody, put_back)

    async def _carry_out(
        self, request: web.Request, act: str, model: type[B], command: Callable[[str, B], Awaitable[Told]]
    ) -> web.Response:
        async def answered(name: str, body: B) -> web.Response:
            return _answer(name, act, await command(name, body))

        return await self._with_body(request, act, model, answered)

    async def _with_body(
        self, request: web.Request, act: str, model: type[B], carry_out: Callable[[str, B], Awaitable[web.Response]]
    ) -> web.Response:
        name = request.match_info["name"]
        if name not in self._known():
            return no_pipeline(name, self._known())
        try:
            body = await body_of(request, model)
        except BodyRefused as refused:
            return json_answer({"error": str(refused)}, status=refused.status)
        if name not in self._known():  # a reload has removed it while the body came
            return no_pipeline(name, self._known())
        log.info("a command came over HTTP", action=act, pipeline=name, **body.model_dump(exclude_unset=True))
        try:
            return await carry_out(name, body)
        except OptionsError as impossible:
            error = f"{act} of {name!r} is not possible: {impossible}"
            return json_answer({"pipeline": name, "error": error, "heard": [], "not_heard": {}}, status=409)

    def _known(self) -> list[str]:
        return [one.name for one in self._view.stats()]


def _answer(name: str, act: str, told: Told) -> web.Response:
    heard, not_heard = list(told.heard), {str(index): why for index, why in told.not_heard.items()}
    if not not_heard:
        return json_answer({"pipeline": name, "done": act, "heard": heard, "not_heard": {}})
    others = "; ".join(f"worker {index}: {why}" for index, why in not_heard.items())
    log.warning(
        "not every worker has carried out a command that came over HTTP", action=act, pipeline=name, reason=others
    )
    error = f"not every worker has carried out {act} of {name!r}: {others}"
    return json_answer({"pipeline": name, "error": error, "heard": heard, "not_heard": not_heard}, status=503)
