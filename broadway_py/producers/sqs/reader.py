"""What runs of an SQS producer: one copy, from its connect to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broadway_py.message import Message
from broadway_py.producer import Producer, SourceMessages
from broadway_py.producers.sqs.deliveries.receive_attempts import Attempts
from broadway_py.producers.sqs.lost_copies import LostCopies
from broadway_py.producers.sqs.requests.log_filter import hush
from broadway_py.producers.sqs.session import Session
from broadway_py.producers.sqs.settings.options import SQSOptions

__all__ = ["Learned", "SQSReader"]


@dataclass
class Learned:
    """What the copies of one producer have learned about their queue. They share it."""

    #: The visibility timeout in seconds; before the first connect, what SQS gives a new queue.
    visibility_s: float = 30.0


class SQSReader(Producer):
    """Receives from the queue of a :class:`~broadway_py.producers.sqs.SQSProducer`, for one copy of it.

    Args:
        options: the producer's settings.
        attempts: names the receives of FIFO queues, for all copies of the producer.
        lost_copies: settles what lost copies have handed over.
        learned: what the copies of the producer share.
    """

    def __init__(self, options: SQSOptions, attempts: Attempts, lost_copies: LostCopies, learned: Learned) -> None:
        self._options = options
        self._attempts = attempts
        self._lost_copies = lost_copies
        self._learned = learned
        self._session: Session | None = None

    async def open(self) -> None:
        """Finds the queue, and checks that we may delete from it.

        Raises:
            SourceRefused: no credentials, or no permission.
            ProducerError: SQS or the queue is not available.
        """
        hush()
        context = self.context
        self._session = Session(
            self._options,
            context.clock,
            pipeline=context.pipeline,
            producer=context.producer,
            capacity=context.capacity,
            attempts=self._attempts,
            requests=context.requests,
            trace_fields=context.trace_fields,
            lost=context.lost,
        )
        await self._session.open()
        self._learned.visibility_s = self._session.visibility_s

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]]:
        """Returns at most *demand* messages. Waits for the first one.

        Raises:
            ProducerError: SQS or the queue is not available.
        """
        return await self._opened().take(demand)

    async def source_messages(self) -> SourceMessages:
        """Returns SQS's approximate counts of the queue and of its dead letter queue: two requests."""
        return await self._opened().source_messages()

    async def pause(self) -> None:
        """Stops receiving, and gives back messages that were not handed over."""
        self._opened().pause()

    async def resume(self) -> None:
        """Starts to receive again."""
        self._opened().resume()

    async def prepare_for_draining(self) -> None:
        """Stops receiving. While no message is in the pipeline, also waits for receives that still run.

        On an idle queue a receive may run for up to ``wait_time_seconds``. If it were cut off, SQS could still answer
        it with messages, which nobody would see until their visibility timeout ends.
        """
        if self._session is not None:
            self._session.stop()
            await self._session.until_polls_end()

    async def close(self) -> None:
        """Gives back what is left and closes every connection. Takes a few seconds at most.

        After a loss it returns at once, and a task goes on to settle what was handed over, until nothing is left.
        """
        session, self._session = self._session, None
        if session is None:
            return
        if session.trouble is not None and not self.draining.is_set():
            self._lost_copies.retire(session)
        else:
            await session.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError(f"{self!r} is not open; call open() first")
        return self._session
