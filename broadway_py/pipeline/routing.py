"""Where the messages of a handled chunk go: to a batcher, to the settlement, to the failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from broadway_py.error_text import clipped
from broadway_py.message import Failed, Message, Plain

if TYPE_CHECKING:
    from broadway_py.pipeline.chunk import Chunk

__all__ = ["route", "settle_all"]


def settle_all(chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
    """Without batchers: what to settle as successful, nothing, what failed."""
    return [m for m in chunk if m._status is None], (), [m for m in chunk if m._status is not None]


def route(chunk: Chunk, batchers: Mapping[str, str]) -> tuple[Chunk, Chunk, Chunk]:
    """What to settle as successful, what goes to batchers, what failed; *batchers* by each name that they may be given.

    Sending a message to a batcher that does not exist fails it.
    """
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
            known = ", ".join(sorted(set(batchers.values())))
            # What a handler took from its message is not shown; what it left as it was is.
            words = Plain if message.batcher == "default" else str
            message._status = Failed(
                "unknown_batcher",
                words(f"handle_message chose batcher {_named(message.batcher)}; this pipeline has {known}"),
            )
            failed.append(message)
    return settle, forward, failed


def _named(batcher: object) -> str:
    """What the handler chose, for an error; it may have put anything there."""
    return repr(clipped(batcher, 200)) if isinstance(batcher, str) else f"of type {type(batcher).__name__}"


def _look_up(batchers: Mapping[str, str], name: object) -> str | None:
    return batchers.get(name) if isinstance(name, str) else None
