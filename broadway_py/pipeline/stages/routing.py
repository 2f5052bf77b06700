"""Decides where each message of a handled chunk goes: to a batcher, to settlement, or to the failed ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from broadway_py.error_text import clipped
from broadway_py.errors import did_you_mean
from broadway_py.foreign import article, is_a
from broadway_py.message import Failed, Message, Plain, gaps_in

if TYPE_CHECKING:
    from broadway_py.pipeline.callbacks.chunk import Chunk

__all__ = ["route", "route_in_partitions", "settle_all"]


def settle_all(chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
    """Returns (messages to settle as successful, nothing, failed messages). For pipelines without batchers."""
    return [m for m in chunk if m._status is None], (), [m for m in chunk if m._status is not None]


def route(chunk: Chunk, batchers: Mapping[str, str]) -> tuple[Chunk, Chunk, Chunk]:
    """Returns (messages to settle as successful, messages for batchers, failed messages).

    *batchers* maps each name that a message may use to the batcher's name. A message fails if its batcher does not
    exist, or if ``message.batcher`` was deleted.
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
    # Neighbours mostly go to the same batcher, so its name is looked up once. None was handled before.
    last: str | None = None
    last_name = ""
    for message in chunk:
        if message._status is not None:
            failed.append(message)
            continue
        batcher = message.batcher
        if batcher is None:
            settle.append(message)
        elif batcher is last:
            message.batcher = last_name
            forward.append(message)
        elif (name := _look_up(batchers, batcher)) is not None:
            last, last_name = batcher, name
            message.batcher = name
            forward.append(message)
        else:
            message._status = Failed("unknown_batcher", _sentence(batcher, batchers))
            failed.append(message)
    return settle, forward, failed


def route_in_partitions(
    chunk: Chunk, batchers: Mapping[str, str], *, aggregators: Collection[str], partition_of: Mapping[str, int]
) -> tuple[Chunk, Chunk, Chunk]:
    """Does the same as :func:`route`, in a pipeline whose sources have partitions.

    A message of no partition, such as a submitted one, fails if it is for one of *aggregators*: nobody knows who owns
    its key.
    """
    settle, forward, failed = route(chunk, batchers)
    lost = [message for message in forward if message.batcher in aggregators and message.producer not in partition_of]
    if not lost:
        return settle, forward, failed
    for message in lost:
        message._status = Failed(
            "unknown_batcher",
            Plain(
                f"aggregator {message.batcher!r} takes messages of the sources only, because their partition says who "
                "owns a key, and this message was submitted to the pipeline: publish it to the source"
            ),
        )
    return settle, [message for message in forward if message._status is None], [*failed, *lost]


def _look_up(batchers: Mapping[str, str], name: object) -> str | None:
    # A subclass of str may have its own hash and comparison.
    return batchers.get(str.__str__(cast("str", name))) if is_a(name, str) else None


def _names(batchers: Mapping[str, str]) -> list[str]:
    return sorted(set(batchers.values()))


def _sentence(name: object, batchers: Mapping[str, str]) -> str:
    known = _names(batchers)
    # A name that the handler took from its message is not shown; the unchanged default is.
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
