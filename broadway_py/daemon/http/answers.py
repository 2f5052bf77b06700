"""Makes answers of the HTTP port that are the same for reading and for control."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from broadway_py.daemon.logs.logs import mask_credentials

__all__ = ["SAFE_HEADERS", "Handler", "json_answer", "no_pipeline"]

#: The headers of every answer.
SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_answer(body: object, *, status: int = 200) -> web.Response:
    """Returns an answer with *body* as JSON."""
    # Reasons come from producers. Those of ours hold no credentials, but those of a plug-in may.
    return web.json_response(text=mask_credentials(json.dumps(body, default=repr)), status=status)


def no_pipeline(name: str, known: Iterable[str]) -> web.Response:
    """Returns the answer to a request for a pipeline that does not exist."""
    return json_answer({"error": f"no pipeline {name!r}; known here: {', '.join(known)}"}, status=404)
