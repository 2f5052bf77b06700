"""The errors of the library, sorted by what the reader can do about them.

::

    BroadwayError
    ├── OptionsError              fix the setting named by its path
    ├── DefinitionError           fix the pipeline class
    ├── ProducerError             the source is not available: the pipeline tries again by itself
    │   └── SourceRefused         the source refused the login or a permission: the pipeline waits longer
    ├── SettleError               an acknowledger could not settle some of its messages
    ├── PublishError              some messages were not confirmed by the place that they were published to
    ├── MalformedMessage          the properties of a message do not decode: that message fails as invalid
    ├── EventTimeError            an event has no time that a window can use: return seconds or an aware datetime
    ├── HandlerVerdict            raised by handlers, to say what must happen to the message
    │   ├── RetryLater            deliver it again
    │   ├── Reject                it will never succeed
    │   └── Unavailable           not the fault of the message: something that the handler needs is not available
    ├── MessageFailed             submit(): the message ended as failed
    ├── BatchFailed               submit_batch(), then raise_for_failed(): some messages failed
    ├── PipelineCrashed           a stage crashed more often than max_restarts allows
    ├── StageDown                 a stage that this one depends on has ended, or died
    ├── FlowFailed                a function of a flow, or its source, has raised: the flow has ended
    ├── PipelineNotRunning        the pipeline has not started, or is stopping
    └── CalledInsideCallback      a call that would wait for its own caller
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from broadway_py.foreign import text_of, type_name

__all__ = [
    "BatchFailed",
    "BroadwayError",
    "CalledInsideCallback",
    "DefinitionError",
    "EventTimeError",
    "FlowFailed",
    "HandlerVerdict",
    "MalformedMessage",
    "MessageFailed",
    "OptionsError",
    "PipelineCrashed",
    "PipelineNotRunning",
    "ProducerError",
    "PublishError",
    "Reject",
    "RetryLater",
    "SettleError",
    "SourceRefused",
    "StageDown",
    "Unavailable",
    "did_you_mean",
    "gathered",
]


class BroadwayError(Exception):
    """The base class of every error that broadway_py raises on purpose."""


class OptionsError(BroadwayError, ValueError):
    """A setting is wrong. *path* says where it is; the text says what was expected and what was given.

    *also* holds the other errors that were found at the same time.
    """

    def __init__(self, path: Sequence[str], problem: str, *, also: Iterable[OptionsError] = ()) -> None:
        self.path = tuple(path)
        self.problem = problem
        self.also = tuple(also)
        super().__init__(f"{'.'.join(self.path)}: {problem}" if self.path else problem)

    @classmethod
    def of(cls, found: Iterable[OptionsError]) -> OptionsError:
        """Returns one error for all of *found*: the first one, with the others in its *also*. *found* is not empty."""
        first, *others = (one for each in found for one in each.all())
        return cls(first.path, first.problem, also=others)

    def all(self) -> list[OptionsError]:
        """Returns this error and those in *also*, each as a separate error."""
        return [OptionsError(self.path, self.problem) if self.also else self, *self.also]

    def under(self, *prefix: str) -> OptionsError:
        """Returns the same error with *prefix* in front of its path, and in front of the paths in *also*."""
        return OptionsError((*prefix, *self.path), self.problem, also=[one.under(*prefix) for one in self.also])


@contextmanager
def gathered(wrong: list[OptionsError]) -> Iterator[None]:
    """Catches an OptionsError of the ``with`` block and adds it to *wrong*. The code after the block then runs."""
    try:
        yield
    except OptionsError as refused:
        wrong += refused.all()


class DefinitionError(BroadwayError, TypeError):
    """A pipeline class cannot work as it is written: a callback is missing or misspelt."""


class ProducerError(BroadwayError):
    """The source of messages is not available. Producers raise it; the pipeline opens the source again with back-off.

    The text is shown in ``/readyz``, so it must hold no credentials.
    """

    #: True: ``open`` raises it, and the source may have delivered messages already. They come again as those of a lost
    #: connection do, see :meth:`~broadway_py.producer.Producer.returns_within`.
    may_have_delivered: bool = False


class SourceRefused(ProducerError):
    """The source answered, but refused access (login, permission). The pipeline tries again after a longer wait."""


class SettleError(BroadwayError):
    """An acknowledger settled only some of its messages. *unsettled* holds those whose outcome is unknown."""

    def __init__(self, reason: str, *, unsettled: Sequence[Any]) -> None:
        self.unsettled = list(unsettled)
        super().__init__(reason)


class PublishError(BroadwayError):
    """Some messages were not confirmed by the place that they were published to. The others of the call are.

    *unpublished* holds those that are not confirmed, in the order of the call. They may have arrived nevertheless, so
    publishing them again may repeat them. *refused* holds those among them that the place will not take as they are,
    however often they are published: the message is too long, for example. The reason may be shown; it holds no data.
    """

    def __init__(self, reason: str, *, unpublished: Sequence[Any], refused: Sequence[Any] = ()) -> None:
        self.unpublished = list(unpublished)
        self.refused = list(refused)
        super().__init__(reason)


class MalformedMessage(BroadwayError, ValueError):
    """The properties of a message (not its payload) do not decode. The message fails with cause ``invalid``.

    It is raised where the problem is noticed. If the producer decodes on demand, this is when the handler reads
    ``message.metadata``.
    """


class EventTimeError(BroadwayError, ValueError):
    """The function ``by`` of a window returned no time that the window can use. The text names the kind of value only.

    A time is an aware datetime, or a finite number of seconds since 1970. A window takes one of the two kinds.
    """


class HandlerVerdict(BroadwayError):
    """The base class of what a handler raises to say what must happen to its message."""

    #: A reason for people. A value that is not text is converted to text.
    reason: str = ""

    def __init__(self, reason: str = "") -> None:
        self.reason = text_of(reason)
        super().__init__(self.reason)


class RetryLater(HandlerVerdict):
    """The message must be delivered again *after* seconds or a timedelta (None: after the failure policy's back-off).

    This counts as an attempt; the policy's ``final`` action follows the last one. If *after* is not a duration, an
    error is reported when the message is settled, and the message is tried again as after any other error.
    """

    after: float | timedelta | None = None

    def __init__(self, after: float | timedelta | None = None, reason: str = "asked to be retried later") -> None:
        self.after = after
        super().__init__(reason)


class Reject(HandlerVerdict):
    """The message will never succeed. It is not retried; the policy's ``final`` action follows at once."""


class Unavailable(HandlerVerdict):
    """Something that every message needs (a database, an API) is not available. It is not the message's fault.

    The breaker opens at once. The message is delivered again; if the source can do so, this does not count as an
    attempt.
    """


class MessageFailed(BroadwayError):
    """Raised by ``submit()``: the message was settled as failed.

    *cause* and *reason* say why, as in ``message.status``. If an exception made it fail, that exception is chained.
    """

    def __init__(self, message: Any) -> None:
        self.message = message
        self.cause: str = message.status.cause
        self.reason: str = message.status.reason
        super().__init__(f"the submitted message failed ({self.cause}){_because(self.reason)}")
        self.__cause__ = message.status.exception


class BatchFailed(BroadwayError):
    """Raised by ``Settled.raise_for_failed()``: at least one submitted message failed.

    The exception of the first failed message is chained.
    """

    def __init__(self, failed: Sequence[Any], total: int) -> None:
        self.failed = list(failed)
        first = self.failed[0].status
        super().__init__(
            f"{len(self.failed)} of {total} submitted messages failed; the first one ({first.cause})"
            f"{_because(first.reason)}"
        )
        self.__cause__ = first.exception


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


class PipelineCrashed(BroadwayError):
    """A stage crashed more than ``max_restarts`` times within ``max_seconds``. The cause is chained."""


class StageDown(BroadwayError):
    """A stage of :mod:`broadway_py.stage` that is needed has ended.

    A consumer dies of it when the producer of a permanent subscription has died; the producer's error is its cause.
    Calls that need a running stage raise it too.
    """


class FlowFailed(BroadwayError):
    """A flow has ended, because a function that it calls, or one of its sources, has raised. The cause is chained.

    It is also raised if a worker process has died. The text names the operator and the place, never the element.

    Attributes:
        operator: what has failed, such as ``"map 2: parse"``.
        stage: the index of the stage in which it failed.
        place: where the element comes from, such as ``"element 17 of source 0"`` (elements and sources are counted
            from 0) or ``"words.txt, line 3"``; None: this is not known.
        element: what the function was called with; None if it was called for no element.
    """

    def __init__(
        self, operator: str, cause: BaseException, *, stage: int = 0, place: str | None = None, element: Any = None
    ) -> None:
        self.operator = operator
        self.stage = stage
        self.place = place
        self.element = element
        at = "" if place is None else f" at {place}"
        super().__init__(f"{operator} failed with {type_name(cause)} in stage {stage}{at}")
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the class with the text alone, and loses the cause.
        return FlowFailed, (self.operator, self.__cause__), {**vars(self), "args": self.args}


class PipelineNotRunning(BroadwayError):
    """The call needs a running pipeline, but this one has not started, is stopping, or has stopped."""


class CalledInsideCallback(BroadwayError):
    """The call would wait for ever, because it waits for the stage that made it.

    To end the pipeline from inside a callback, use ``pipeline.request_stop()``.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(
            f"{call}() was awaited inside a callback of the same pipeline, which would wait for itself; "
            "use pipeline.request_stop() to end the pipeline, or hand the work to a task of your own"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` if one of *known* is close to *name*, else an empty string."""
    import difflib  # noqa: PLC0415  # few processes need it, and worker processes start faster without it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""
