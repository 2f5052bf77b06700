"""The producer of the embedded queue: a durable queue in an SQLite file. It needs no broker."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import Field

from broadway_py.conflict import Conflict
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.examination import Finding
from broadway_py.log import logger
from broadway_py.message import Acknowledgement, Message
from broadway_py.options import Duration, PositiveInt
from broadway_py.producer import FailurePlan, Producer, SourceMessages
from broadway_py.producer_description import ProducerDescription, one_reader_each
from broadway_py.producers.queue_acknowledger import OnFailure, QueueAcknowledger, QueueReceipt
from broadway_py.stage.wake import Wake
from broadway_py.storage.errors import StorageError
from broadway_py.storage.examination import examine_queue
from broadway_py.storage.queue_consumer import ConsumerLost, QueueConsumer, Taken
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_members import Partition, Sharing
from broadway_py.storage.queue_options import QueuePlace
from broadway_py.storage.queue_rows import Held
from broadway_py.storage.queue_slots import SLOTS
from broadway_py.storage.queue_take import Row
from broadway_py.trace_place import TraceSource

__all__ = ["QueueOptions", "QueueProducer", "QueueReader"]

log = logger("broadway_py.producers.queue")

#: The most messages that one transaction takes. More would delay what else is in the same transaction.
_MOST_AT_ONCE: Final = 500


class QueueOptions(QueuePlace):
    """The settings of a :class:`QueueProducer`."""

    #: How long a reader may be stopped before other readers get its messages, in seconds. It is no limit for a handler:
    #: a running reader keeps its messages. The messages of a dead reader are given back at once.
    visibility: Annotated[Duration, Field(gt=0)] = 30.0
    #: What happens to a failed message, unless ``configure_ack(on_failure=…)`` says otherwise.
    on_failure: OnFailure = "dead_letter"
    #: Only one reader at a time has messages of a key, across all processes. ``ordered`` with several workers needs
    #: this. Messages are put with a key. Every reader of the queue must have the same setting.
    partitioned: Annotated[bool, Field(strict=True)] = False
    #: Into how many partitions the queue is divided, at most 64. Each has one reader, and its own windows. Messages
    #: are put with a key; those without one are in partition 0. Every reader of the queue must have the same setting.
    #: None: it is read as a whole.
    partitions: Annotated[int, Field(ge=1, le=SLOTS, strict=True)] | None = None
    #: The producer's name in metrics and logs.
    name: str | None = None
    #: How many readers the pipeline opens in each process.
    concurrency: PositiveInt = 1

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        if self.partitions is None:
            return
        if self.partitioned:
            yield Conflict(
                ("partitioned",),
                "expected partitioned or partitions, not both: leave partitioned out, because a partition has one "
                "reader anyway",
                frozenset({"partitioned", "partitions"}),
            )
        if self.concurrency != 1:
            yield Conflict(
                ("concurrency",), one_reader_each(self.concurrency), frozenset({"concurrency", "partitions"})
            )


class QueueProducer(ProducerDescription):
    """Takes messages from an embedded queue (see :class:`broadway_py.queue.Queue`, which puts them there).

    Any number of processes may read and write one file at the same time. A handled message is removed in a durable
    transaction. If a process dies, its messages are delivered again to the next reader that asks.

    ``message.data`` is bytes. ``message.metadata`` holds what was put with the message, and ``message_id``, ``queue``,
    ``enqueued_at`` (seconds since 1970) and ``redelivered``. ``message.attempt`` counts how often the message was
    taken.

    Args:
        path: the file; it is created if it is missing.
        queue: the queue in the file; it is created if it is new.
        visibility: how long a reader may be stopped before other readers get its messages, in seconds.
        on_failure: ``"dead_letter"`` (None) keeps failed messages in the file, ``"drop"`` removes them. If it is given,
            it overrides the default failure policy. For one message: ``message.configure_ack(on_failure="drop")``.
        partitioned: True: only one reader at a time has messages of a key (see :meth:`broadway_py.queue.Queue.put`).
            When readers come and go, keys move between them, each after its last message is settled. Every reader of
            the queue must have the same setting. A message without a key may go to any reader.
        partitions: into how many partitions the queue is divided (1 to 64), if several workers keep windows of its
            messages. A key lies in one partition for ever, and a partition has one reader; others stand by. A message
            without a key lies in partition 0. Every reader of the queue must have the same setting. None: it is read as
            a whole.
        name: the producer's name in metrics and logs.
        concurrency: how many readers the pipeline opens in each process.

    Raises:
        OptionsError: a setting is wrong.
    """

    marks_repeats = True
    outlives_process = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        queue: str,
        visibility: float | str = 30.0,
        *,
        on_failure: OnFailure | None = None,
        partitioned: bool = False,
        partitions: int | None = None,
        name: str | None = None,
        concurrency: int = 1,
    ) -> None:
        said = {} if on_failure is None else {"on_failure": on_failure}
        self.options = QueueOptions(
            path=path,
            queue=queue,
            visibility=visibility,
            partitioned=partitioned,
            partitions=partitions,
            name=name,
            concurrency=concurrency,
            **said,
        )
        self.on_failure_is_given = on_failure is not None
        self.name = self.options.name
        self.concurrency = self.options.concurrency
        self.partitions = self.options.partitions
        self.keeps_keys_apart = self.options.partitioned or self.partitions is not None
        self._sharing: Sharing = "partitioned" if self.options.partitioned else "shared"
        self._holder = ""
        self._partition: Partition | None = None

    def trace_source(self) -> TraceSource:
        """Returns what reads the headers of a trace from the metadata."""
        return TraceSource("broadway_queue", self.options.queue)

    def create(self) -> Producer:
        """Returns a reader of the queue, or of the partition."""
        return QueueReader(
            self.options,
            self._sharing,
            self._holder,
            partition=self._partition,
            on_failure_is_given=self.on_failure_is_given,
        )

    def describe_partition(self, index: int) -> ProducerDescription:
        """Returns a producer that reads the partition alone. While it has another reader, ``open`` raises."""
        made = copy.copy(self)
        made._sharing, made._holder = "alone", uuid.uuid4().hex
        made._partition = Partition(index, self.options.partitions or 1)
        return made

    def check_windows(self) -> None:
        """Refuses ``partitioned``.

        Raises:
            OptionsError: it is true.
        """
        if self.options.partitioned:
            # Its readers also take about the same number from each slot, so keys with few messages run ahead in time.
            raise OptionsError(
                ("partitioned",),
                "expected false with aggregators, got true: keys move when a reader comes or goes, and their windows "
                "stay behind; leave partitioned out, or set partitions",
            )

    def for_order(self) -> Self:
        """Returns a producer that reads the queue alone, or this one if each key has one reader anyway.

        With ``partitions`` and ``partitioned``, each key has one.

        "Alone" also excludes other copies of the same producer. While another reader is there, ``open`` raises. The
        pipeline tries again, so it works as a standby.
        """
        if self.keeps_keys_apart:
            return self
        made = copy.copy(self)
        made._sharing = "alone"
        made._holder = uuid.uuid4().hex
        return made

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        """Yields what the file, its disk and the queue in it are like."""
        async with asyncio.timeout(timeout):
            found = await asyncio.to_thread(examine_queue, self.options.path, self.options.queue)
        for finding in found:
            yield finding

    def succeed(self, former: Self) -> None:
        """Reads the queue alone if *former* did."""
        if former._holder:
            self._sharing, self._holder = former._sharing, former._holder


class QueueReader(Producer):
    """Takes messages from the queue, for one copy of a :class:`QueueProducer`.

    Args:
        options: the producer's settings.
        sharing: who may read the queue at the same time.
        holder: for ``sharing="alone"``: readers with the same name may read at the same time.
        partition: what it reads. None: the whole queue.
        on_failure_is_given: True if the settings give ``on_failure=``.
    """

    def __init__(
        self,
        options: QueueOptions,
        sharing: Sharing,
        holder: str,
        *,
        partition: Partition | None = None,
        on_failure_is_given: bool,
    ) -> None:
        self.options = options
        self._sharing: Sharing = sharing
        self._holder = holder
        self._partition = partition
        self._on_failure_is_given = on_failure_is_given
        self._file: QueueFile | None = None
        self._consumer: QueueConsumer | None = None

    async def open(self) -> None:
        """Opens the file, and gives back the messages of readers that died."""
        options = self.options
        self._clock = self.context.clock
        self._wake = Wake()
        # Set when the file may have changed. An idle upkeep waits for it.
        self._upkeep_wake = Wake()
        self._is_paused = False
        self._gone: ProducerError | None = None
        try:
            self._file = await QueueFile.open(options.path, options.queue, self._clock)
            self._consumer = await QueueConsumer.open(
                self._file,
                options.visibility,
                sharing=self._sharing,
                holder=self._holder,
                partition=self._partition,
            )
        except StorageError as error:
            raise ProducerError(str(error)) from error
        self._acknowledger = QueueAcknowledger(
            self._consumer, options.path, self.context.pipeline, on_failure_is_given=self._on_failure_is_given
        )
        self._upkeep = asyncio.create_task(self._keep_up(self._consumer), name=f"queue-upkeep:{options.queue}")

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]]:
        """Returns at most *demand* messages, the oldest first. While there are none, it waits, without polling."""
        consumer = self._consumer
        if consumer is None:
            raise ProducerError(f"queue file {self.options.path}: it is closed; call open() before handle_demand()")
        with consumer.listening(self._wake.set):
            while not self.context.draining.is_set():
                self._upkeep_wake.set()
                self._check()
                if self._is_paused:
                    await self._wake.wait()
                    continue
                taken = await self._take(consumer, min(demand, _MOST_AT_ONCE))
                if taken.rows and self._paused_meanwhile():
                    await self._give_back(consumer, taken.rows)
                elif taken.rows:
                    return [self._message(row) for row in taken.rows]
                else:
                    await self._wake.wait_until(taken.next_due, self._clock)
        return []

    def _paused_meanwhile(self) -> bool:
        return self._is_paused and not self.draining.is_set()

    def _check(self) -> None:
        if self._gone is not None:
            raise self._gone

    async def _take(self, consumer: QueueConsumer, limit: int) -> Taken:
        try:
            return await consumer.take(limit)
        except StorageError as error:
            raise ProducerError(str(error)) from error

    async def _give_back(self, consumer: QueueConsumer, rows: Sequence[Row]) -> None:
        try:
            await consumer.release([Held(row.id, row.lease) for row in rows])
        except StorageError as error:
            raise ProducerError(str(error)) from error

    def _message(self, row: Row) -> Message[bytes]:
        metadata: dict[str, Any] = {"message_id": str(row.id)}
        if row.metadata is not None:
            metadata.update(json.loads(row.metadata))
        metadata["queue"] = self.options.queue
        metadata["enqueued_at"] = row.enqueued_at
        metadata["redelivered"] = row.attempts > 1
        receipt = QueueReceipt(Held(row.id, row.lease), self.options.on_failure, row.was_taken)
        message = Message(row.payload, metadata, Acknowledgement(self._acknowledger, None, receipt))
        message.attempt = row.attempts
        return message

    async def _keep_up(self, consumer: QueueConsumer) -> None:
        trouble = ""
        while True:
            await self._clock.sleep(consumer.round)
            try:
                await consumer.upkeep()
            except ConsumerLost as error:
                self._gone = ProducerError(str(error))
                self._wake.set()
                self.context.lost(self._gone)
                return
            except StorageError as error:
                # Takes and settlements meet the same error and report it, so here a new try is enough.
                if trouble != str(error):
                    trouble = str(error)
                    log.warning("renewing the leases of a queue failed; trying again", reason=trouble)
            else:
                trouble = ""
            if (longest := consumer.idle_round) > consumer.round:
                await self._upkeep_wake.wait_until(self._clock.monotonic() + longest, self._clock)

    async def source_messages(self) -> SourceMessages:
        """Returns the counts of the queue, or of its partition.

        Partition 0 has the delayed messages and the dead letters of all partitions.
        """
        if self._file is None:
            raise ProducerError(f"queue file {self.options.path}: it is closed")
        reach = None if self._partition is None else self._partition.reach
        try:
            if reach is None:
                found = await self._file.count_waiting()
            else:
                found = await self._file.count_waiting(reach.slots, rest=reach.has_those_without_key)
        except StorageError as error:
            raise ProducerError(str(error)) from error
        return SourceMessages(*found)

    async def pause(self) -> None:
        """Stops taking messages. There is nothing to give back, because nothing is fetched in advance."""
        self._is_paused = True

    async def resume(self) -> None:
        """Starts taking messages again."""
        self._is_paused = False
        self._wake.set()

    async def prepare_for_draining(self) -> None:
        """Ends a ``handle_demand`` that waits."""
        self._wake.set()

    async def close(self) -> None:
        """Gives back the messages that are still held, and closes the file if nobody else in this process uses it."""
        consumer, self._consumer = self._consumer, None
        file, self._file = self._file, None
        if consumer is not None:
            self._upkeep.cancel()
            self._upkeep_wake.close()
            await asyncio.wait([self._upkeep])
            if not self._upkeep.cancelled() and (error := self._upkeep.exception()) is not None:
                log.error("renewing the leases of a queue has crashed", exc_info=error)
            await consumer.close()
        if file is not None:
            await file.close()
