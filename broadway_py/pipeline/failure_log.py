"""Failures in the log: the first few of a kind whole, the rest of the minute as a number, and never the payload."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.foreign import foreign_errors, text_of, type_name
from broadway_py.log import logger
from broadway_py.message import Failed, Message

__all__ = ["PLACE", "FailureLog", "id_of", "masked", "place_of"]

log = logger("broadway_py.pipeline")

#: Attribute of an exception that came from another process without its traceback: where it was raised there.
PLACE: Final = "_broadway_place"
#: How many failures of one kind are logged one by one in each minute.
SHOWN_PER_MINUTE: Final = 5
MINUTE_S: Final = 60.0
#: Kinds are (stage, cause, exception type); user code could make types without end.
_MOST_KINDS: Final = 200
#: How much of a payload is searched for words to mask.
_MASK_CHARS: Final = 65_536
#: A word of at least this length is also hidden where it is part of a longer one.
_PART_CHARS: Final = 5
_WORD: Final = re.compile(r"[^\s'\"(),:;=<>\[\]{}]+")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")

_Kind = tuple[str, str, str]


class FailureLog:
    """Writes what failed in one pipeline.

    Args:
        pipeline: its name, on every line.
        clock: whose minutes count.
    """

    def __init__(self, pipeline: str, clock: Clock) -> None:
        self._log = log.bind(pipeline=pipeline)
        self._clock = clock
        # Failures of each kind in the running minute, and since when it runs.
        self._minutes: dict[_Kind, tuple[float, int]] = {}

    def note(self, stage: str, messages: Sequence[Message[Any]], contexts: Mapping[int, Context]) -> None:
        """*messages* failed in *stage*; those that *contexts* holds, by identity, are told of in their own."""
        now = self._clock.monotonic()
        for message in messages:
            status = message.status
            if status is None:
                continue
            kind = (stage, status.cause, type(status.exception).__name__ if status.exception else "")
            if kind not in self._minutes and len(self._minutes) >= _MOST_KINDS:
                kind = (stage, status.cause, "other")
            since, count = self._minutes.get(kind, (now, 0))
            if now - since >= MINUTE_S:
                self._sum_up(kind, count)
                since, count = now, 0
            self._minutes[kind] = (since, count + 1)
            if count < SHOWN_PER_MINUTE:
                own = contexts.get(id(message))
                if own is None:
                    self._show(stage, message, status)
                else:
                    own.run(self._show, stage, message, status)
            elif count == SHOWN_PER_MINUTE:
                self._clock.call_at(since + MINUTE_S, lambda kind=kind: self._minute_over(kind))  # type: ignore[misc]  # the default binds the kind

    def cannot_be_told(self, stage: str, count: int, error: BaseException) -> None:
        """*count* messages failed in *stage*, and one of them cannot be written down: what it holds raised *error*."""
        self._log.error(
            "messages failed, but what they hold cannot be shown", stage=stage, messages=count, raised=type_name(error)
        )

    def callback_failed(self, callback: str, stage: str, error: BaseException) -> None:
        """*callback* itself raised, where that changes no message."""
        self._log.error(
            f"{callback} raised; the messages are settled as they were",
            stage=stage,
            exception=type(error).__name__,
            at=place_of(error),
        )

    def close(self) -> None:
        """Sum up what was not shown."""
        for kind, (_, count) in self._minutes.items():
            self._sum_up(kind, count)
        self._minutes.clear()

    def _minute_over(self, kind: _Kind) -> None:
        since, count = self._minutes.get(kind, (0.0, 0))
        if count and self._clock.monotonic() - since >= MINUTE_S:
            self._sum_up(kind, count)
            del self._minutes[kind]

    def _sum_up(self, kind: _Kind, count: int) -> None:
        if count > SHOWN_PER_MINUTE:
            stage, cause, exception = kind
            self._log.warning(
                "more messages failed in the same way",
                stage=stage,
                cause=cause,
                exception=exception or None,
                not_shown=count - SHOWN_PER_MINUTE,
            )

    def _show(self, stage: str, message: Message[Any], status: Failed) -> None:
        fields: dict[str, Any] = {"stage": stage, "message_id": id_of(message), "cause": status.cause}
        # What does not fit a schema is told without the input in the first place.
        fields["reason"] = status.reason if status.cause == "invalid" else masked(status.reason, message)
        if status.exception is not None:
            fields["exception"] = type(status.exception).__name__
            fields["at"] = place_of(status.exception)
        if message.attempt is not None:
            fields["attempt"] = message.attempt
        self._log.warning("a message failed", **fields)


def masked(text: str, message: Message[Any]) -> str:
    """*text* with every word that also stands in the message's payload replaced by ``***``.

    The text of an exception often quotes what it stumbled over: ``int("4711")`` raises a sentence with 4711 in it.
    What was computed from the payload (a checksum, a part decoded from base64) is not recognised.
    """
    payload = _payload_text(message)
    words = {word.strip(".!?") for word in _WORD.findall(payload)}

    def hide(word: re.Match[str]) -> str:
        bare = word[0].strip(".!?").casefold()
        # A short word counts only as a whole, or "the" would be hidden because of the Netherlands.
        return "***" if bare and (bare in payload if len(bare) >= _PART_CHARS else bare in words) else word[0]

    return _WORD.sub(hide, text)


def id_of(message: Message[Any]) -> str | None:
    """What its source calls it; None also where a handler has put something else in place of the metadata."""
    try:
        return message.id
    except foreign_errors():
        return None  # the handler may have put anything there


def _payload_text(message: Message[Any]) -> str:
    """The payload as text, in each of the ways in which an error may quote it."""
    raw = message.raw
    texts = [_shown(raw), _shown(message.data)]
    if isinstance(raw, bytes | bytearray | memoryview):
        texts.append(bytes(raw[:_MASK_CHARS]).decode(errors="replace"))
    elif isinstance(raw, str):
        texts.append(raw[:_MASK_CHARS])
    # JSON may write ü as \\u00fc.
    texts += [_ESCAPE.sub(lambda code: chr(int(code[1], 16)), text) for text in texts]
    return "\n".join(texts).casefold()


def _shown(value: object) -> str:
    try:
        return repr(value)[:_MASK_CHARS]
    except foreign_errors():
        return ""  # an object of the user that cannot be shown


def place_of(error: BaseException) -> str:
    """The innermost places of *error*'s traceback, outermost first: file, line, function; no source, no values."""
    try:
        if (place := getattr(error, PLACE, None)) is not None:
            return text_of(place)
        frames = traceback.extract_tb(error.__traceback__)[-4:]
    except foreign_errors():
        return ""  # an exception of the user's that does not let itself be asked
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames)
