"""Gives failed messages their status: from an error, a return value or the transformer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from broadway_py import forks
from broadway_py._core.failure import asked_delay
from broadway_py._core.settlement import drop, not_returned, returned_list_problem, returned_one_problem
from broadway_py.error_text import text_of
from broadway_py.errors import MalformedMessage, RetryLater, Unavailable
from broadway_py.foreign import article, foreign_errors, is_a
from broadway_py.message import Failed, Message, Plain, gaps_in, raised
from broadway_py.pipeline.contexts import CleanRoom

__all__ = ["fail", "fail_together", "failure_from", "reconcile", "refused", "refused_return", "transform"]

#: Reads the errors of a group also if its class has another attribute of this name.
_ERRORS_OF: Final[Any] = vars(BaseExceptionGroup)["exceptions"]


def failure_from(error: BaseException) -> Failed:
    """Returns the status of a message whose callback raised *error*."""
    forks.leave_if_forked(error)
    if is_a(error, asyncio.CancelledError):
        return Failed("cancelled", Plain("the callback was cancelled, but not by the pipeline"), error)
    if is_a(error, MalformedMessage):
        return Failed("invalid", text_of(error), error)
    if is_a(error, BaseExceptionGroup) and (away := _unavailable_in(error)) is not None:
        return raised(away)
    try:
        asked_delay(error)
    except ValueError as wrong:
        return Failed("raised", str(wrong), error)
    return raised(error)


def _unavailable_in(group: BaseException) -> Unavailable | None:
    """Returns the first error of *group*, if all of them are ``Unavailable``, as those of an ``asyncio.TaskGroup``."""
    first: Unavailable | None = None
    errors = [group]
    while errors:
        error = errors.pop()
        if isinstance(error, BaseExceptionGroup):
            errors += reversed(_ERRORS_OF.__get__(error))
        elif isinstance(error, Unavailable):
            first = first or error
        else:
            return None
    return first


def fail(messages: Sequence[Message[Any]], status: Failed) -> None:
    """Give each of *messages* the status."""
    for message in messages:
        message._status = status


def refused(sentence: str) -> Failed:
    """Returns the status of a message whose callback returned something that is not allowed."""
    return Failed("raised", Plain(sentence), TypeError(sentence))


def refused_return(callback: str, returned: object) -> Failed:
    """Returns the status of a message for which *callback* returned neither None nor the message itself."""
    return refused(returned_one_problem(callback, returned))


def reconcile(callback: str, given: Sequence[Message[Any]], returned: object) -> None:
    """Fail those of *given* that are missing from *returned*, the list (not None) that *callback* returned.

    A message that has failed before keeps its status. All of *given* fail if the whole value is refused.
    """
    problem, missing = returned_list_problem(callback, given, returned)
    if problem:
        fail(given, refused(problem))
    else:
        fail([message for message in missing if message.ok], not_returned(callback))


def fail_together(messages: Sequence[Message[Any]], error: BaseException) -> None:
    """Fail all of *messages*: a callback got them together and raised *error*.

    If the error came from malformed messages, only those fail as ``invalid``. The others are tried again, whatever the
    failure policy says about such an error.
    """
    status = failure_from(error)
    own: list[MalformedMessage | None] = [None] * len(messages)
    if is_a(error, MalformedMessage):
        own = [_malformed(message) for message in messages]
    if any(own):
        reason = f"another message of the same call is malformed: {text_of(error)}"
        status = Failed("raised", reason, RetryLater(reason=reason))
    for message, malformed in zip(messages, own, strict=True):
        message._status = status if malformed is None else failure_from(malformed)


def _malformed(message: Message[Any]) -> MalformedMessage | None:
    """Returns the error if the metadata of *message* does not decode, else None."""
    try:
        _ = message.metadata
    except MalformedMessage as error:
        return error
    except AttributeError:
        return None  # the callback has deleted the metadata
    return None


def transform(messages: Sequence[Message[Any]], transformer: Callable[[Message[Any]], object], room: CleanRoom) -> None:
    """Call *transformer* on each of *messages*, in *room*. A message for which it raises fails."""
    for message in messages:
        try:
            returned = room.run(transformer, message)
            if returned is not None and returned is not message:
                drop(returned)
                raise TypeError(
                    f"transformer returned {article(returned)}; expected None or the message it was given: "
                    "change the message in place, in a plain function"
                )
            if gaps := gaps_in(message):
                raise TypeError(
                    f"transformer deleted message.{gaps[0]}; keep the attribute, or set it to another value"
                )
        except foreign_errors() as error:
            # An error in user code fails only this message.
            message.status = failure_from(error)
