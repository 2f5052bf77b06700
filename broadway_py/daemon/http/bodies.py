"""Reads and checks the bodies of requests that change something."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Final, NoReturn, TypeVar

from aiohttp import web
from pydantic import Field

from broadway_py.daemon.http.listener import Visit
from broadway_py.error_text import clipped
from broadway_py.errors import OptionsError
from broadway_py.options import Duration, Options, load

__all__ = ["BodyRefused", "ConcurrencyBody", "NoBody", "RateLimitBody", "ReplayBody", "body_of"]

#: The most characters of a sentence about a body. It may quote the body.
_MOST_SAID: Final = 500


class BodyRefused(Exception):
    """The body is not what the path takes. The text is one sentence for the client."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        self.status = status
        super().__init__(clipped(sentence, _MOST_SAID))


class _Body(Options):
    #: A valid body, which the errors show.
    example: ClassVar[str]


class NoBody(_Body):
    """The body of a request that needs none."""

    example = "{}"


class RateLimitBody(_Body):
    """Another rate limit."""

    example = '{"allowed_messages": 100}'

    allowed_messages: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]
    interval: Annotated[Duration, Field(ge=0.001, le=604_800)] | None = None
    reset: Annotated[bool, Field(strict=True)] = False


class ConcurrencyBody(_Body):
    """Another number of processors."""

    example = '{"processors": 10}'

    processors: Annotated[int, Field(ge=1, le=10_000, strict=True)]


class ReplayBody(_Body):
    """Which dead letters are put back."""

    example = '{"limit": 100}'

    #: None: all producers of the pipeline.
    producer: str | None = None
    #: None: a thousand.
    limit: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None


B = TypeVar("B", bound=_Body)


async def body_of(request: web.Request, model: type[B]) -> B:
    """Returns the body of *request*, checked by *model*. No body at all is read as ``{}``.

    Raises:
        BodyRefused: it is too long, no JSON, or not what *model* wants.
    """
    visit = request.protocol
    assert isinstance(visit, Visit)  # noqa: S101  # the port makes only these
    try:
        with visit.waiting_for_body():
            raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyRefused(f"expected a short body such as {model.example}, got a longer one than 64 KiB", 413) from None
    except web.RequestPayloadError:
        raise BodyRefused(f"expected a body such as {model.example}, got one whose parts cannot be read") from None
    try:
        # The parser itself takes NaN and infinity, which are no JSON.
        body: Any = json.loads(raw or b"{}", parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BodyRefused(f"expected JSON such as {model.example}, got something that cannot be read") from None
    if not isinstance(body, dict):
        raise BodyRefused(f"expected a JSON object such as {model.example}, got {_KINDS.get(type(body), 'null')}")
    if body and not model.model_fields:
        raise BodyRefused("expected {}, got a JSON object with fields, which this path does not have")
    try:
        return load(model, body)
    except OptionsError as wrong:
        raise BodyRefused(str(wrong.all()[0])) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_KINDS: Final = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
