"""The SQS producer that users name in their code and settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, Self

from broadway_py.errors import OptionsError
from broadway_py.examination import Finding
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producer_description import ProducerDescription
from broadway_py.producers.sqs.deliveries.receive_attempts import Attempts
from broadway_py.producers.sqs.deliveries.trace_source import SQSTraceSource
from broadway_py.producers.sqs.examination import examine_source
from broadway_py.producers.sqs.lost_copies import LostCopies
from broadway_py.producers.sqs.reader import Learned, SQSReader
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.trace_place import TraceSource

__all__ = ["SQSProducer"]

#: So much later than a visibility timeout ends, at most, a receive gets the message. LocalStack looks once a second.
_SHOWN_AFTER_S: Final = 2.0


class SQSProducer(ProducerDescription):
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

    outlives_process = True

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
        self._attempts = Attempts(is_fifo=self.options.is_fifo)
        self._lost_copies = LostCopies()
        self._learned = Learned()

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
                    "with SQS the producer decides where dead letters go: name the queue in its dead_letter_queue, or "
                    "use the redrive policy of the queue, and leave dead_letter out here",
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
                    "dead letters would be deleted, because no dead_letter_queue is set and on_failure is ack; set "
                    "dead_letter_queue, or leave on_failure out if the queue has a redrive policy, or choose drop",
                )
            )
        if wrong:
            raise OptionsError.of(wrong)

    def trace_source(self) -> TraceSource:
        """Returns what reads the headers of a trace from the message attributes."""
        return SQSTraceSource(self.options.queue_name)

    def create(self) -> Producer:
        """Returns what receives from the queue."""
        return SQSReader(self.options, self._attempts, self._lost_copies, self._learned)

    def returns_within(self, *, process_died: bool) -> float:
        """Returns how long SQS may hide what a lost receive took: it may wait for messages, and then hides them.

        The visibility timeout is the setting, or what the queue said at the last connect, before it 30 s.
        """
        given = self.options.visibility_timeout
        visibility_s = self._learned.visibility_s if given is None else given
        return self.options.wait_time_seconds + visibility_s + _SHOWN_AFTER_S

    def examine(self, pipeline: str, plan: FailurePlan | None, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what the queue, the permissions and the places of dead letters are like, and this machine's clock."""
        return examine_source(self.options, plan, timeout=timeout)

    def succeed(self, former: Self) -> None:
        """Takes over the lost copies of *former*, and what it knows of the queue if it was the same."""
        self._lost_copies = former._lost_copies
        if former.options.queue_url == self.options.queue_url:
            self._attempts = former._attempts
            self._learned = former._learned

    async def end_lost_copies(self) -> None:
        """Waits some seconds for receives of lost copies, and then ends these copies."""
        await self._lost_copies.end()
