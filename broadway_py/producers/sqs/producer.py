"""The SQS producer that users name in their code and settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from broadway_py.errors import OptionsError
from broadway_py.message import Message
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producers.sqs.deliveries.receive_attempts import Attempts
from broadway_py.producers.sqs.requests.log_filter import hush
from broadway_py.producers.sqs.session import LAST_POLLS_S, Session
from broadway_py.producers.sqs.settings.options import SQSOptions

__all__ = ["SQSProducer"]


class SQSProducer(Producer):
    """Receives from an SQS queue, standard or FIFO.

    ::

        SQSProducer("orders", region="eu-central-1", dead_letter_queue="orders-dead")

    ``message.data`` is the body as bytes (UTF-8). ``message.metadata`` holds ``message_id``, ``receipt_handle``,
    ``md5_of_body``, ``queue``, ``redelivered``, ``attributes`` and ``message_attributes`` (those that were asked for),
    and on FIFO queues ``message_group_id``. ``message.attempt`` is SQS's own count of receives.

    On a FIFO queue only one message of a group is in the pipeline at a time. The next one comes after it is deleted. If
    it fails, the others of its group go back with it.

    Args:
        queue_url: the queue's URL, or its name.
        region: such as ``eu-central-1``; default: from the URL, or as AWS programs find it.
        endpoint_url: the address of SQS, if it is not AWS.
        settings: any other field of :class:`SQSOptions`.

    Raises:
        OptionsError: a setting is wrong or unknown.
    """

    def __init__(
        self,
        queue_url: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        **settings: Any,
    ) -> None:
        given = {"queue_url": queue_url, "region": region, "endpoint_url": endpoint_url}
        settings.update((name, value) for name, value in given.items() if value is not None)
        self.options = SQSOptions(**settings)
        self.name = self.options.name
        self.concurrency = self.options.concurrency
        self.on_failure_is_given = self.options.on_failure_is_given
        self._session: Session | None = None
        self._attempts = Attempts(is_fifo=self.options.is_fifo)
        # Tasks of all copies: sessions that have lost their source, and still settle what they handed over.
        self._retiring: set[asyncio.Task[None]] = set()

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Refuses a *plan* that names another place for dead letters, or that would delete them.

        Raises:
            OptionsError: the plan is refused.
        """
        if plan is None:
            return
        wrong: list[OptionsError] = []
        if plan.dead_letter is not None:
            wrong.append(
                OptionsError(
                    ("failure", "dead_letter"),
                    "for SQS the producer says where dead letters go: name the queue in its dead_letter_queue, or "
                    "leave it to the queue's redrive policy, and leave dead_letter out here",
                )
            )
        has_place = self.options.dead_letter_queue is not None
        if (
            plan.authority.policy_decides
            and "dead_letter" in plan.actions
            and not has_place
            and self.options.on_failure.action == "ack"
        ):
            wrong.append(
                OptionsError(
                    ("failure",),
                    "dead letters would be deleted: no dead_letter_queue is set, and then on_failure: ack counts; set "
                    "dead_letter_queue, or leave on_failure out where the queue has a redrive policy, or choose drop",
                )
            )
        if wrong:
            raise OptionsError.of(wrong)

    async def open(self) -> None:
        """Finds the queue, and checks that we may delete from it.

        Raises:
            SourceRefused: no credentials, or no permission.
            ProducerError: SQS or the queue is not available.
        """
        hush()
        self._session = Session(
            self.options,
            self.clock,
            pipeline=self.pipeline,
            producer=self.name or "sqs",
            capacity=self.capacity,
            attempts=self._attempts,
            requests=self.requests,
            lost=self.lost,
        )
        await self._session.open()

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]]:
        """Returns at most *demand* messages. Waits for the first one.

        Raises:
            ProducerError: SQS or the queue is not available.
        """
        return await self._opened().take(demand)

    def begin_draining(self) -> None:
        """Begins to drain: ends a waiting :meth:`handle_demand`, and gives back what nobody has taken."""
        super().begin_draining()
        if self._session is not None:
            self._session.stop()

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
            task = asyncio.get_running_loop().create_task(session.retire(), name="sqs-retire")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            return
        await session.close()

    async def end_lost_copies(self) -> None:
        """Waits some seconds for receives of lost copies: if cut off, they may take messages. Then ends the copies."""
        # The first caller takes the tasks: a second cancel would interrupt their clean end.
        tasks = set(self._retiring)
        self._retiring -= tasks
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=LAST_POLLS_S)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError(f"{self!r} is a description: the pipeline opens a copy of it")
        return self._session
