"""The port through which a message's outcome reaches its source."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from broadway_py.message import Acknowledgement, Message, Outcome

__all__ = [
    "Acknowledger",
    "CallerAcknowledger",
    "Configures",
    "DeadLetters",
    "NoopAcknowledger",
    "Releases",
    "Retries",
]


class Acknowledger(abc.ABC):
    """Settles messages at their source.

    One call is made per (acknowledger, ref) and round. The pipeline has already taken the claim on every message it
    passes: an acknowledger never sees a message twice. It may also offer, as methods of the same class:

    * ``configure(ref, data, options) -> data`` for ``message.configure_ack(...)`` (see :class:`Configures`);
    * ``async release(ref, messages)``: give back without a decision, costing no attempt where the broker can
      (see :class:`Releases`). Without it, what a stopping pipeline has not started is finished instead;
    * ``async retry(ref, messages_and_delays)``: deliver again after so many seconds (see :class:`Retries`);
    * ``async dead_letter(ref, messages)``: keep safe elsewhere, then take off the source (see :class:`DeadLetters`).
    """

    @abc.abstractmethod
    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Tell the source. Both lists must be attempted, also when the first raises.

        Raises:
            SettleError: a part could not be settled; the others were.
            Exception: the outcome of all of them is unknown. Nothing is tried again by the pipeline.
        """

    def outcome_of_failed(self, data: Any) -> Outcome:
        """What :meth:`ack` does with a failed message whose acknowledgement data is *data*: for the books."""
        return "rejected"

    def dead_letters_go_to(self, data: Any) -> str | None:
        """Where ``dead_letter`` keeps a message whose acknowledgement data is *data*, for the log; None: unnamed."""
        return None

    def failure_said_by(self, data: Any) -> Literal["source", "message"] | None:
        """Who has said what :meth:`ack` is to do with a failed message whose acknowledgement data is *data*.

        ``"source"``: the settings of its source, which go before the default failure policy; ``"message"``:
        ``configure_ack`` of this very message, which goes before any; None: nobody.
        """
        return None


@runtime_checkable
class Configures(Protocol):
    """An acknowledger whose messages take ``configure_ack(...)``."""

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        """The new acknowledgement data. Raises ValueError for an unknown option or value."""


@runtime_checkable
class Releases(Protocol):
    """An acknowledger that can give messages back without a decision."""

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Give *messages* back to the source, for anybody to take. Raises as ``ack`` does."""


@runtime_checkable
class Retries(Protocol):
    """An acknowledger that can have a message delivered again later."""

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Deliver each message again, once its delay (in seconds) has passed, as the next attempt."""


@runtime_checkable
class DeadLetters(Protocol):
    """An acknowledger with a place for messages that have failed for good."""

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Keep *messages* safe elsewhere *before* they are taken off the source. ``message.status`` says why."""


class NoopAcknowledger(Acknowledger):
    """Settles nothing: for sources that need no answer."""

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Nothing is told to anybody."""


class CallerAcknowledger(Acknowledger):
    """Hands the settled messages to whoever waits in :meth:`settled`. Used by ``submit`` and by tests.

    Args:
        expected: how many messages carry this acknowledger.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.successful: list[Message[Any]] = []
        self.failed: list[Message[Any]] = []
        #: The ``configure_ack`` calls, as they came.
        self.configured: list[Mapping[str, Any]] = []
        self._done = asyncio.Event()
        if expected == 0:
            self._done.set()

    def acknowledgement(self, data: Any = None) -> Acknowledgement:
        """What each of the expected messages carries."""
        return Acknowledgement(self, id(self), data)

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Keep the messages for the caller, in the order they were settled."""
        self.successful.extend(successful)
        self.failed.extend(failed)
        if len(self.successful) + len(self.failed) >= self.expected:
            self._done.set()

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        """Note the options; the data stays as it is."""
        self.configured.append(dict(options))
        return data

    async def settled(self) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Wait until every expected message was settled; the successful and the failed ones."""
        await self._done.wait()
        return self.successful, self.failed
