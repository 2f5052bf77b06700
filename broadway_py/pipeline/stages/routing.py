"""Decides where each message of a handled chunk goes: to a batcher, to the settlement, to the failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from broadway_py.error_text import clipped
from broadway_py.errors import did_you_mean
from broadway_py.foreign import article, is_a
from broadway_py.message import Failed, Message, Plain, gaps_in

if TYPE_CHECKING:
    from broadway_py.pipeline.callbacks.chunk import Chunk

__all__ = ["route", "settle_all"]


def settle_all(chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
    """Without batchers: what to settle as successful, nothing, what failed."""
    return [m for m in chunk if m._status is None], (), [m for m in chunk if m._status is not None]


def route(chunk: Chunk, batchers: Mapping[str, str]) -> tuple[Chunk, Chunk, Chunk]:
    """What to settle as successful, what goes to batchers, what failed; *batchers* by each name that they may be given.

    Sending a message to a batcher that does not exist fails it, and so does deleting where it goes to.
    """
    try:
        return _route(chunk, batchers)
    except AttributeError:
        for message in chunk:
            if message._status is None and "batcher" in gaps_in(message):
                message._status = Failed(
                    "unknown_batcher",
                    Plain(
                        f"message.batcher was deleted; this pipeline has {', '.join(_names(batchers))}: set it to one "
                        "of them, or to None for no batch"
                    ),
                )
        return _route(chunk, batchers)


def _route(chunk: Chunk, batchers: Mapping[str, str]) -> tuple[Chunk, Chunk, Chunk]:
    settle: list[Message[Any]] = []
    forward: list[Message[Any]] = []
    failed: list[Message[Any]] = []
    # Neighbours mostly go to one batcher: looked up once. None is no name here, it is handled before.
    last: str | None = None
    last_name = ""
    for message in chunk:
        if message._status is not None:
            failed.append(message)
        elif message.batcher is None:
            settle.append(message)
        elif message.batcher is last:
            message.batcher = last_name
            forward.append(message)
        elif (name := _look_up(batchers, message.batcher)) is not None:
            last, last_name = message.batcher, name
            message.batcher = name
            forward.append(message)
        else:
            message._status = Failed("unknown_batcher", _sentence(message.batcher, batchers))
            failed.append(message)
    return settle, forward, failed


def _look_up(batchers: Mapping[str, str], name: object) -> str | None:
    # A text of a type of its own may hash and compare as it likes.
    return batchers.get(str.__str__(cast("str", name))) if is_a(name, str) else None


def _names(batchers: Mapping[str, str]) -> list[str]:
    return sorted(set(batchers.values()))


def _sentence(name: object, batchers: Mapping[str, str]) -> str:
    known = _names(batchers)
    # What a handler took from its message is not shown; what it left as it was is.
    if type(name) is str and name == "default":
        return Plain(
            "message.batcher is 'default', and this pipeline has no batcher of that name; set it in handle_message, "
            f"to one of {', '.join(known)}, or to None for no batch"
        )
    text = clipped(str.__str__(cast("str", name)), 200) if is_a(name, str) else None
    chosen = article(name) if text is None else f"{text!r}"
    return (
        f"handle_message chose batcher {chosen}; this pipeline has {', '.join(known)}{did_you_mean(text or '', known)}"
    )
