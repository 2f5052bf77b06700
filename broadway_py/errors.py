"""What can go wrong, by what the reader can do about it.

::

    BroadwayError
    ├── OptionsError              fix the setting named by its path
    ├── DefinitionError           fix the pipeline class
    ├── ProducerError             the source is away: the pipeline tries again by itself
    │   └── SourceRefused         … but refused us (credentials): it waits longer
    ├── SettleError               an acknowledger could not settle a part
    ├── MalformedMessage          what came with a message does not decode: that message fails as invalid
    ├── HandlerVerdict            raised by handlers, to say what is to become of the message
    │   ├── RetryLater            … deliver it again
    │   ├── Reject                … it will never succeed
    │   └── Unavailable           … it is not the message's fault: what we need is away
    ├── MessageFailed             submit(): the message ended as failed
    ├── BatchFailed               submit_batch().raise_for_failed(): some messages failed
    ├── PipelineCrashed           a stage crashed more often than max_restarts allows
    ├── PipelineNotRunning        the pipeline has not started, or is stopping
    └── CalledInsideCallback      a call that would wait for its own caller
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from broadway_py.foreign import text_of

__all__ = [
    "BatchFailed",
    "BroadwayError",
    "CalledInsideCallback",
    "DefinitionError",
    "HandlerVerdict",
    "MalformedMessage",
    "MessageFailed",
    "OptionsError",
    "PipelineCrashed",
    "PipelineNotRunning",
    "ProducerError",
    "Reject",
    "RetryLater",
    "SettleError",
    "SourceRefused",
    "Unavailable",
    "did_you_mean",
    "gathered",
]


class BroadwayError(Exception):
    """Root of every error that broadway_py raises on purpose."""


class OptionsError(BroadwayError, ValueError):
    """A setting is wrong. *path* says where, the text what was expected and what came.

    What else was found wrong at the same time is in *also*.
    """

    def __init__(self, path: Sequence[str], problem: str, *, also: Iterable[OptionsError] = ()) -> None:
        self.path = tuple(path)
        self.problem = problem
        self.also = tuple(also)
        super().__init__(f"{'.'.join(self.path)}: {problem}" if self.path else problem)

    @classmethod
    def of(cls, found: Iterable[OptionsError]) -> OptionsError:
        """One error for all of *found*, at least one: the first, with the others in its *also*."""
        first, *others = (one for each in found for one in each.all())
        return cls(first.path, first.problem, also=others)

    def all(self) -> list[OptionsError]:
        """This one, and what else was found wrong at the same time, each by itself."""
        return [OptionsError(self.path, self.problem) if self.also else self, *self.also]

    def under(self, *prefix: str) -> OptionsError:
        """The same error, seen from further out: *prefix* comes before its path."""
        return OptionsError((*prefix, *self.path), self.problem, also=[one.under(*prefix) for one in self.also])


@contextmanager
def gathered(wrong: list[OptionsError]) -> Iterator[None]:
    """Add what the block finds wrong with settings to *wrong*, and go on behind it."""
    try:
        yield
    except OptionsError as refused:
        wrong += refused.all()


class DefinitionError(BroadwayError, TypeError):
    """A pipeline class cannot work as it is written: a callback is missing or misspelt."""


class ProducerError(BroadwayError):
    """The source of messages is away. Raised by producers; the pipeline opens it again with back-off.

    The text is shown in ``/readyz``, so it must hold no credentials.
    """


class SourceRefused(ProducerError):
    """The source answered and refused us (login, permission): tried again, but after a longer wait."""


class SettleError(BroadwayError):
    """An acknowledger settled only a part. *unsettled* are the messages whose outcome nobody knows."""

    def __init__(self, reason: str, *, unsettled: Sequence[Any]) -> None:
        self.unsettled = list(unsettled)
        super().__init__(reason)


class MalformedMessage(BroadwayError, ValueError):
    """What came with a message (its properties, not its payload) does not decode. It fails with cause ``invalid``.

    Raised where it is noticed: when the handler looks at ``message.metadata`` of a producer that decodes on demand.
    """


class HandlerVerdict(BroadwayError):
    """What a handler raises to say what is to become of its message; see the leaves."""

    #: For people. What is no text is shown as text.
    reason: str = ""

    def __init__(self, reason: str = "") -> None:
        self.reason = text_of(reason)
        super().__init__(self.reason)


class RetryLater(HandlerVerdict):
    """Deliver the message again, *after* seconds or a timedelta (None: as the failure policy's back-off says).

    It counts as an attempt; after the last one the policy's ``final`` action follows. An *after* that is no duration
    is said to be wrong where the message is settled, which is then tried again as after any other error.
    """

    after: float | timedelta | None = None

    def __init__(self, after: float | timedelta | None = None, reason: str = "asked to be retried later") -> None:
        self.after = after
        super().__init__(reason)


class Reject(HandlerVerdict):
    """The message will never succeed: no retry, straight to the policy's ``final`` action."""


class Unavailable(HandlerVerdict):
    """Something that every message needs is away (a database, an API): not the message's fault.

    The breaker opens at once, and the message is delivered again without counting as an attempt where the source can.
    """


class MessageFailed(BroadwayError):
    """``submit()``: the message was settled as failed.

    *cause* and *reason* say why, as ``message.status`` does; the exception that failed it, if any, is chained.
    """

    def __init__(self, message: Any) -> None:
        self.message = message
        self.cause: str = message.status.cause
        self.reason: str = message.status.reason
        super().__init__(f"the submitted message failed ({self.cause}){_because(self.reason)}")
        self.__cause__ = message.status.exception


class BatchFailed(BroadwayError):
    """``Settled.raise_for_failed()``: at least one submitted message failed; why the first one did is chained."""

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
    """A stage crashed more often than ``max_restarts`` in ``max_seconds`` allows; the cause is chained."""


class PipelineNotRunning(BroadwayError):
    """The call needs a running pipeline; this one has not started, is stopping, or has stopped."""


class CalledInsideCallback(BroadwayError):
    """The call would wait for the stage that made it, for ever.

    From inside a callback use ``pipeline.request_stop()`` to end the pipeline.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(
            f"{call}() was awaited inside a callback of the same pipeline, which would wait for itself; "
            "use pipeline.request_stop() to end the pipeline, or hand the work to a task of your own"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when one of *known* is close to *name*, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""
