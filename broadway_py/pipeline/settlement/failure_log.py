"""Writes failures to the log: the first few of a kind one by one, the rest of the minute as a number."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final

from broadway_py import error_text
from broadway_py._core.identity import id_of
from broadway_py.clock import Clock
from broadway_py.error_text import (
    clipped,
    error_texts_are_shown,
    how_to_see_texts,
    name_of,
    place_of,
    shown_text,
)
from broadway_py.foreign import foreign_errors, type_name
from broadway_py.limit import MINUTE_S, OTHER, PerMinute
from broadway_py.log import ALL, logger
from broadway_py.message import Failed, Message, place_of_reason, plain_reason
from broadway_py.pipeline.settlement.recent_failures import RecentFailures

__all__ = ["FailureLog", "Fate", "masked", "reason_of"]

log = logger("broadway_py.pipeline")

#: How many failures of one kind are logged one by one in each minute.
SHOWN_PER_MINUTE: Final = 5
#: A kind is (stage, cause, exception type, what happens to the message). The number of kinds is limited because user
#: code could create exception types without end.
_MOST_KINDS: Final = 200
#: How many characters of a text, and of a payload, are used to mask words.
_MASKED_CHARS: Final = 2_048
_PAYLOAD_CHARS: Final = 16_384
#: A word of at least this length is also hidden if the payload contains it as part of a longer word.
_PART_CHARS: Final = 5
_WORD: Final = re.compile(r"[^\s'\"(),:;=<>\[\]{}]+")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")

#: Returns what happens to a failed message: the kind, and the words for it.
Fate = Callable[[Message[Any]], tuple[str, str]]

_Kind = tuple[str, str, str, str]


class FailureLog:
    """Logs the failures of one pipeline.

    Args:
        pipeline: the pipeline's name, written on every line.
        clock: the clock that measures the minutes.
    """

    def __init__(self, pipeline: str, clock: Clock) -> None:
        self._log = log.bind(pipeline=pipeline)
        self._clock = clock
        self._minutes: PerMinute[_Kind] = PerMinute(SHOWN_PER_MINUTE, _MOST_KINDS, ("", "", OTHER, ""))
        #: The kinds of failures that came last.
        self.recent = RecentFailures()

    def note(
        self,
        stage: str,
        messages: Sequence[Message[Any]],
        statuses: Sequence[Failed | None] | None = None,
        fate: Fate | None = None,
        *,
        contexts: Mapping[int, Context] | None = None,
    ) -> None:
        """Log that *messages* failed in *stage*.

        Args:
            stage: the layer.
            messages: the failed messages.
            statuses: why each failed; None for the status of each message itself.
            fate: says what happens to each; None if that is not known.
            contexts: maps the ``id()`` of a message to its context, if its handler has set context variables; its line
                is written in that context.
        """
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._sum_up(now)
        for number, message in enumerate(messages):
            status = message.status if statuses is None else statuses[number]
            if status is None:
                continue
            becomes, words = ("", "") if fate is None else fate(message)
            exception = name_of(status.exception) if status.exception is not None else ""
            kind = (stage, str(status.cause), exception, becomes)
            verdict = self._minutes.note(kind, now)
            # To find the place takes long, so it is looked up for the messages that are shown.
            place = _place_of(status) if verdict == "show" else None
            self.recent.note(kind, words, place, wall)
            own = None if contexts is None else contexts.get(id(message))
            if place is not None and own is not None:
                own.run(self._show, stage, message, status, place, words)
            elif place is not None:
                self._show(stage, message, status, place, words)
            elif verdict == "begin_hiding":
                self._clock.call_at(now + MINUTE_S, lambda: self._sum_up(self._clock.monotonic()))

    def cannot_be_told(self, stage: str, count: int, error: BaseException) -> None:
        """Log that *count* messages failed in *stage*, but one of them cannot be shown: its content raised *error*."""
        self._log.error(
            "messages failed, but their errors cannot be shown", stage=stage, messages=count, raised=type_name(error)
        )

    def callback_failed(self, callback: str, stage: str, error: BaseException) -> None:
        """Log that *callback* itself raised *error*, and that this changes no message."""
        self._log.error(
            f"{callback} raised an error; the messages are settled as they were before it",
            stage=stage,
            exception=name_of(error),
            at=place_of(error),
            reason=error_text.reason_of(error),
        )

    def close(self) -> None:
        """Log the numbers of failures that were not shown one by one."""
        for kind, count in self._minutes.close():
            self._tell(kind, count)

    def _sum_up(self, now: float) -> None:
        for kind, count in self._minutes.over(now):
            self._tell(kind, count)

    def _tell(self, kind: _Kind, count: int) -> None:
        stage, cause, exception, becomes = kind
        fields = {"stage": stage, "cause": cause, "exception": exception or None, "becomes": becomes}
        self._log.warning(
            "more messages failed in the same way",
            **{key: value for key, value in fields.items() if value != ""},
            not_shown=count,
            **{ALL: True},
        )

    def note_crash(self, stage: str, messages: Sequence[Message[Any]], fate: Fate) -> None:
        """Note that a crash of *stage* made *messages* fail. The log has a line about the crash itself."""
        wall = self._clock.wall()
        for message in messages:
            if (status := message.status) is not None and status.exception is not None:
                becomes, words = fate(message)
                kind = (stage, str(status.cause), name_of(status.exception), becomes)
                self.recent.note(kind, words, place_of(status.exception), wall)

    def _show(self, stage: str, message: Message[Any], status: Failed, place: str, becomes: str) -> None:
        fields: dict[str, Any] = {"stage": stage, "message_id": id_of(message), "cause": status.cause}
        fields["reason"] = reason_of(message, status)
        if status.exception is not None:
            fields["exception"] = name_of(status.exception)
        if place:
            fields["at"] = place
        if message.attempt is not None:
            fields["attempt"] = message.attempt
        if becomes:
            fields["becomes"] = becomes
        self._log.warning("a message failed", **fields, **{ALL: True})


def _place_of(status: Failed) -> str:
    """Returns where in the code the failure arose; "" if that is not known."""
    if status.exception is not None:
        return place_of(status.exception)
    return (place_of_reason(status) or "") if status.cause == "failed" else ""


def reason_of(message: Message[Any], status: Failed) -> str:
    """Returns why *message* failed, as far as the log may show it, or how to see the reason."""
    if (plain := plain_reason(status)) is not None:
        return plain
    if error_texts_are_shown():
        return masked(status.reason, message)
    shown = None if status.exception is None else shown_text(status.exception)
    return how_to_see_texts() if shown is None else shown


def masked(text: str, message: Message[Any]) -> str:
    """Returns *text* with every word that is also in the message's payload replaced by ``***``.

    This is no guarantee: values computed from the payload are not recognised, nor words far back in a long payload.
    """
    payload = _payload_text(message)
    words = {word.strip(".!?") for word in _WORD.findall(payload)}

    def hide(word: re.Match[str]) -> str:
        bare = word[0].strip(".!?").casefold()
        # A short word counts only as a whole word. Otherwise "Netherlands" in a payload would hide "the".
        return "***" if bare and (bare in payload if len(bare) >= _PART_CHARS else bare in words) else word[0]

    return _WORD.sub(hide, clipped(text, _MASKED_CHARS))


def _payload_text(message: Message[Any]) -> str:
    """Returns the beginning of the payload as text, in each form in which an error may quote it."""
    texts = [_shown(message.raw), _shown(message.data)]
    raw = message.raw
    try:
        if isinstance(raw, bytes | bytearray | memoryview):
            texts.append(bytes(raw[:_PAYLOAD_CHARS]).decode(errors="replace"))
        elif isinstance(raw, str):
            texts.append(raw[:_PAYLOAD_CHARS])
    except Exception:  # noqa: BLE001, S110  # a memoryview of another shape; its repr is in the list already
        pass
    # JSON may escape ü as \\u00fc.
    texts += [_ESCAPE.sub(lambda code: chr(int(code[1], 16)), text) for text in texts]
    return "\n".join(texts).casefold()


_repr: Final = reprlib.Repr()
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = 200
_repr.maxstring = _repr.maxother = _PAYLOAD_CHARS


def _shown(value: object) -> str:
    try:
        if isinstance(value, bytes | bytearray | memoryview | str):
            return repr(value[:_PAYLOAD_CHARS])
        return _repr.repr(value)[:_PAYLOAD_CHARS]
    except foreign_errors():
        return ""  # an object of the user raised
