"""Settles the messages of the embedded queue."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from broadway_py.acknowledger import Acknowledger
from broadway_py.error_text import name_of
from broadway_py.errors import SettleError
from broadway_py.message import Message, Outcome
from broadway_py.storage.errors import StorageError
from broadway_py.storage.queue_consumer import QueueConsumer
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_rows import Held

__all__ = ["OnFailure", "QueueAcknowledger", "QueueReceipt"]

#: What happens to a failed message: it is kept among the dead letters of the file, or removed.
OnFailure = Literal["dead_letter", "drop"]


class QueueReceipt(NamedTuple):
    """What is needed to settle one message."""

    held: Held
    on_failure: OnFailure
    #: Whether any reader has had the message before.
    was_taken: bool = False
    #: True: ``configure_ack`` of this message set ``on_failure``.
    is_configured: bool = False


class QueueAcknowledger(Acknowledger):
    """Settles the messages of one reader. After the reader is closed it settles nothing."""

    abilities = frozenset({"configure", "release", "retry", "dead_letter"})

    def __init__(self, consumer: QueueConsumer, path: str, pipeline: str, *, on_failure_is_given: bool) -> None:
        self.on_failure_is_given = on_failure_is_given
        self._consumer = consumer
        self._path = path
        self._pipeline = pipeline

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Removes the successful messages and moves the failed ones to the dead letters.

        This is one transaction, and it is durable when the call returns.

        Raises:
            SettleError: for messages whose lease was lost to another reader, or for all of them if the file cannot be
                written.
        """
        done = [message.acknowledgement.data.held for message in successful]
        dead: list[NewDeadLetter] = []
        for message in failed:
            receipt: QueueReceipt = message.acknowledgement.data
            if receipt.on_failure == "drop":
                done.append(receipt.held)
            else:
                dead.append(_new_dead_letter(receipt.held, message))
        await self._settle(self._consumer.settle(done, dead, self._pipeline), [*successful, *failed])

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Gives the messages back without a result. The attempt does not count. Raises as :meth:`ack` does."""
        await self._settle(self._consumer.release([m.acknowledgement.data.held for m in messages]), messages)

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Delivers each message again after its delay (in seconds). The attempt counts. Raises as :meth:`ack` does."""
        held = [(message.acknowledgement.data.held, delay_s) for message, delay_s in messages_and_delays]
        await self._settle(self._consumer.retry(held), [message for message, _ in messages_and_delays])

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Moves the messages to the dead letters, in one transaction. Raises as :meth:`ack` does."""
        dead = [_new_dead_letter(message.acknowledgement.data.held, message) for message in messages]
        await self._settle(self._consumer.settle((), dead, self._pipeline), messages)

    def is_repeat(self, data: Any) -> bool:
        """Returns whether any reader has had the message before, also one that gave it back or died."""
        receipt: QueueReceipt = data
        return receipt.was_taken

    def on_failure_is_configured(self, data: Any) -> bool:
        """Returns whether ``configure_ack(on_failure=…)`` was called for the message."""
        receipt: QueueReceipt = data
        return receipt.is_configured

    def outcome_of_failed(self, data: Any) -> Outcome:
        """Returns "dead_lettered" or "dropped", depending on ``on_failure``."""
        return "dropped" if data.on_failure == "drop" else "dead_lettered"

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> QueueReceipt:
        """Sets ``on_failure`` to ``"dead_letter"`` or ``"drop"`` for one message."""
        receipt: QueueReceipt = data
        for option, value in options.items():
            if option != "on_failure":
                raise ValueError(f"configure_ack({option}=…): the embedded queue knows on_failure only")
            if value not in get_args(OnFailure):
                raise ValueError(f"configure_ack(on_failure=…) takes 'dead_letter' or 'drop', got {value!r}")
            receipt = receipt._replace(on_failure=value, is_configured=True)
        return receipt

    async def _settle(self, settling: Any, messages: Sequence[Message[Any]]) -> None:
        try:
            gone: set[Held] = await settling
        except StorageError as error:
            raise SettleError(str(error), unsettled=messages) from error
        if gone:
            raise SettleError(
                f"queue file {self._path}: {len(gone)} of {len(messages)} messages were not settled, because this "
                "reader no longer holds them: it was closed, or did not run for longer than its visibility, and "
                "another reader may have taken them",
                unsettled=[message for message in messages if message.acknowledgement.data.held in gone],
            )


def _new_dead_letter(held: Held, message: Message[Any]) -> NewDeadLetter:
    status = message.status
    if status is None:
        return NewDeadLetter(held, "failed", None)
    return NewDeadLetter(held, status.cause, None if status.exception is None else name_of(status.exception))
