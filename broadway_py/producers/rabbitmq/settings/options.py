"""The settings of a RabbitMQ producer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, get_args

from aio_pika.abc import AbstractChannel
from pydantic import BeforeValidator, Field, PrivateAttr

from broadway_py._core.backoff import Backoff, BackoffKind
from broadway_py.conflict import Conflict
from broadway_py.errors import did_you_mean
from broadway_py.options import Duration, PositiveInt
from broadway_py.producers.rabbitmq.settings.address import TlsOptions
from broadway_py.producers.rabbitmq.settings.arguments import (
    Arguments,
    QueueNames,
    RetryArguments,
)
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions, text_or_texts
from broadway_py.producers.rabbitmq.settings.partitions import (
    MOST_PARTITIONS,
    SINGLE_ACTIVE,
    conflicts_of_partitions,
    queues_of,
)
from broadway_py.producers.rabbitmq.settings.queue_options import Binding, ConsumeOptions, DeclareOptions

__all__ = [
    "AUTO_BYTES",
    "BY_THE_BROKER",
    "Disposition",
    "MergeOptions",
    "MetadataName",
    "RabbitMQOptions",
    "TlsOptions",
]

#: What the broker is told of a message. ``reject`` drops it, or dead-letters it if the queue has a dead-letter
#: exchange. ``reject_and_requeue_once`` requeues it unless this delivery was already a second one.
Disposition = Literal["ack", "reject", "reject_and_requeue", "reject_and_requeue_once"]

MetadataName = Literal[
    "app_id",
    "cluster_id",
    "consumer_tag",
    "content_encoding",
    "content_type",
    "correlation_id",
    "delivery_tag",
    "exchange",
    "expiration",
    "headers",
    "message_id",
    "persistent",
    "priority",
    "queue",
    "redelivered",
    "reply_to",
    "routing_key",
    "timestamp",
    "type",
    "user_id",
]

#: The least and the greatest prefetch of "auto", in messages.
_AUTO_COUNT: Final = (20, 2000)
#: The most messages that AMQP can write as a prefetch.
_MOST_PREFETCH: Final = 65_535
_Prefetch = Annotated[int, Field(ge=1, le=_MOST_PREFETCH)]
#: The most bytes that a prefetch of "auto" may hold, estimated from the bodies received so far.
AUTO_BYTES: Final = 64 * 1024 * 1024
#: The value of ``dead_letter`` that means the queue's own dead-letter exchange. The user must know that there is one.
BY_THE_BROKER: Final = "broker"
#: Seconds. Without a wait between two connects, a missing broker would cause hundreds of connects and log lines a
#: second.
_LEAST_WAIT_S: Final = 0.05

AfterConnect = Callable[[AbstractChannel], Awaitable[object]]
#: ``fn(index of the copy) -> settings that replace those of the producer``
MergeOptions = Callable[[int], Mapping[str, Any]]


def _known_name(value: object) -> object:
    known = get_args(MetadataName)
    if value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ValueError(f"no such property of a delivery; known here: {', '.join(known)}{hint}")
    return value


def _prefetch(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_PREFETCH):
        return value
    # 0 means "no limit" to RabbitMQ: it would send the whole queue into our memory.
    raise ValueError(f"expected 'auto' or a whole number from 1 to {_MOST_PREFETCH}")


def _takes_one(function: object) -> bool:
    try:
        inspect.signature(function).bind(None)  # type: ignore[arg-type]  # asked after callable()
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in function does not describe its parameters
    return True


def _after_connect(value: object) -> object:
    if value is None or (callable(value) and _takes_one(value)):
        return value
    raise ValueError("expected an async function of one argument, the channel")


def _merge_options(value: object) -> object:
    if value is None or (callable(value) and _takes_one(value)):
        return value
    raise ValueError("expected a function of one argument, the index of the copy, that returns settings")


def _queues(value: object) -> object:
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("expected the name of a queue or a list of them, got an empty list")
        text_or_texts(value)
        twice = next((one for one in value if value.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"queue {twice!r} is named twice")
    return text_or_texts(value)


class RabbitMQOptions(BrokerOptions):
    """All settings of a :class:`RabbitMQProducer`."""

    #: The queue's name, or a list of names. "" lets the broker choose one, and needs ``declare: active``.
    queue: Annotated[QueueNames, BeforeValidator(_queues)]
    #: Into how many partitions the source is divided: the queues ``<queue>.0``, ``<queue>.1`` and so on. An exchange
    #: with the name of the queue puts messages with equal routing keys into one of them. Each has one reader at a time,
    #: and its own windows. None: it is not divided.
    partitions: Annotated[int, Field(ge=1, le=MOST_PARTITIONS, strict=True)] | None = None
    #: The producer's name in metrics, logs and ``message.producer``. None: the pipeline gives it one.
    name: str | None = None
    #: How many connections consume side by side. Each has its own prefetch.
    concurrency: PositiveInt = 1
    #: How many unsettled messages the broker hands out in advance, per connection and queue. "auto": what the pipeline
    #: can hold, from 20 to 2000, and fewer when bodies are large.
    prefetch_count: Annotated[
        int | Literal["auto"], BeforeValidator(_prefetch, json_schema_input_type=_Prefetch | Literal["auto"])
    ] = "auto"
    #: Properties of the delivery to add to ``message.metadata``, besides ``message_id`` and ``redelivered``.
    metadata: tuple[Annotated[str, BeforeValidator(_known_name, json_schema_input_type=MetadataName)], ...] = ()
    #: What happens to a handled message. ``message.configure_ack(on_success=…)`` changes it for one message.
    on_success: Disposition = "ack"
    #: What happens to a failed message. If it is given, it replaces the default failure policy.
    #: ``message.configure_ack(on_failure=…)`` changes it for one message.
    on_failure: Disposition = "reject"
    #: ``passive`` checks that the queue exists, ``active`` creates it if it is missing, ``never`` only consumes.
    declare: Literal["never", "passive", "active"] = "passive"
    declare_options: DeclareOptions = Field(default_factory=DeclareOptions)
    bindings: tuple[Binding, ...] = ()
    #: ``await after_connect(channel)`` is called at each connect, before anything else is done on the channel.
    after_connect: Annotated[AfterConnect | None, BeforeValidator(_after_connect, json_schema_input_type=None)] = None
    #: ``merge_options(index)`` returns settings that replace those above for one copy. It is called at each connect.
    merge_options: Annotated[MergeOptions | None, BeforeValidator(_merge_options, json_schema_input_type=None)] = None
    consume_options: ConsumeOptions = Field(default_factory=ConsumeOptions)
    #: ``active`` creates the queue for dead letters if it is missing, ``passive`` checks that it exists.
    dead_letter_declare: Literal["passive", "active"] = "active"
    #: Arguments for the broker for the dead-letter queue, such as ``x-queue-type: quorum``.
    dead_letter_arguments: Arguments = Field(default_factory=dict)
    #: Arguments for the broker, added to ours, for the queues in which messages wait for their next attempt. These are
    #: quorum queues, unless ``x-queue-type: classic`` is given, or the consumed queue itself does not survive the
    #: broker.
    retry_arguments: RetryArguments = Field(default_factory=dict)
    #: How often a quorum queue takes a message back before it drops it. Set it if the limit comes from a policy or from
    #: somebody else's declaration: we cannot read either. None: as its arguments say, or else the broker's default.
    delivery_limit: Annotated[int, Field(ge=1, strict=True)] | None = None
    #: How the waits between two connects grow. ``jitter``: random, up to a ceiling that doubles. ``exp``: doubling.
    #: ``rand``: random between the two limits below. ``rand_exp``: the same, but growing. ``stop``: no wait, the
    #: pipeline ends.
    backoff_type: BackoffKind = "jitter"
    #: The first wait in seconds (with jitter its ceiling). None: 1, or backoff_max if that is less. 0 counts as 50 ms.
    backoff_min: Annotated[Duration, Field(ge=0)] | None = None
    #: The longest wait in seconds. None: 30, or backoff_min if that is more.
    backoff_max: Annotated[Duration, Field(ge=0)] | None = None
    #: ``fast``: deliveries bypass the client library, which is several times as fast. ``plain``: they go through it.
    #: ``auto``: fast, unless a test at the first connect shows that it cannot work here; then plain, with one warning.
    delivery_path: Literal["auto", "fast", "plain"] = "auto"

    #: The only partition that is consumed. None: all of them.
    _partition: int | None = PrivateAttr(default=None)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        yield from super().conflicts()
        yield from self._conflicts_of_declaration()
        yield from self._conflicts_of_consumers()
        if self.partitions is not None:
            yield from conflicts_of_partitions(
                self.queue,
                concurrency=self.concurrency,
                merges=self.merge_options is not None,
                declare=self.declare_options if self.declare == "active" else None,
                bindings=len(self.bindings),
                consume=self.consume_options,
            )
        low, most = self.backoff_min, self.backoff_max
        if low is not None and most is not None and low > most:
            yield Conflict(
                ("backoff_min",),
                f"expected no more than backoff_max ({most:g}), got {low:g}",
                frozenset({"backoff_min", "backoff_max"}),
            )

    def _conflicts_of_declaration(self) -> Iterator[Conflict]:
        if "" in self.queues and self.declare != "active":
            yield Conflict(
                ("queue",),
                f"'' is named by the broker when it is declared, but declare is {self.declare!r}: "
                "set declare: active, or name the queue",
                frozenset({"queue", "declare"}),
            )
        if "declare_options" in self.model_fields_set and self.declare != "active":
            yield Conflict(
                ("declare_options",),
                f"used by declare: active only, but declare is {self.declare!r}: set declare: active, or remove them",
                frozenset({"declare_options", "declare"}),
            )
        for index, binding in enumerate(self.bindings):
            if binding.queue is not None and binding.queue not in self.queues:
                hint = did_you_mean(binding.queue, self.queues)
                yield Conflict(
                    ("bindings", str(index), "queue"),
                    f"{binding.queue!r} is not consumed here, but {', '.join(self.queues)}{hint}",
                    frozenset({"bindings", "queue"}),
                )

    def _conflicts_of_consumers(self) -> Iterator[Conflict]:
        if self.consume_options.exclusive and self.declares_quorum:
            yield Conflict(
                ("consume_options", "exclusive"),
                "this has no effect on a quorum queue, so others would consume it too; declare it "
                "with x-single-active-consumer: true, and one consumer at a time gets messages",
                frozenset({"consume_options", "declare", "declare_options"}),
            )
        if self.consume_options.consumer_tag is not None and len(self.queues) > 1:
            yield Conflict(
                ("consume_options", "consumer_tag"),
                "this names one consumer, but there is one for each of several queues",
                frozenset({"consume_options", "queue"}),
            )

    @property
    def queues(self) -> tuple[str, ...]:
        """Returns the names of the queues that are consumed."""
        return self.all_queues if self._partition is None else (self.all_queues[self._partition],)

    @property
    def all_queues(self) -> tuple[str, ...]:
        """Returns the names of all queues of the source, also those of other partitions."""
        if self.partitions is not None:
            return queues_of(self.source, self.partitions)
        return (self.queue,) if isinstance(self.queue, str) else self.queue

    @property
    def shown_queue(self) -> str | tuple[str, ...]:
        """Returns what is consumed, for the log: the name of the queue, or several names."""
        return self.queue if self._partition is None else self.all_queues[self._partition]

    @property
    def source(self) -> str:
        """Returns the name of the source, if it is divided: that of its exchange, and the first part of its queues'."""
        return self.queue if isinstance(self.queue, str) else self.queue[0]

    def of_partition(self, number: int) -> Self:
        """Returns the same options, but the partition *number* alone is consumed."""
        made = self.model_copy()
        made._partition = number
        return made

    def named_after(self, queue: str) -> str:
        """Returns the name after which the dead-letter queue of *queue* is named: all partitions share one."""
        return queue if self.partitions is None else self.source

    @property
    def declare_arguments(self) -> dict[str, Any]:
        """Returns the arguments with which ``declare: active`` declares a queue."""
        wanted = self.declare_options.arguments
        return wanted if self.partitions is None else {**wanted, SINGLE_ACTIVE: True}

    @property
    def on_failure_is_given(self) -> bool:
        """Returns whether on_failure was given."""
        return "on_failure" in self.model_fields_set

    def prefetch(self, capacity: int, mean_bytes: float = 0.0) -> int:
        """Returns the prefetch of each queue, for a pipeline that can hold *capacity* messages.

        With "auto" it is smaller when bodies have many *mean_bytes* on average (0: none was received yet).
        """
        if isinstance(self.prefetch_count, int):
            return self.prefetch_count
        least, most = _AUTO_COUNT
        count = max(least, min(most, capacity))
        if mean_bytes > 0.0:
            count = max(1, min(count, int(AUTO_BYTES / mean_bytes / len(self.queues))))
        return count

    @property
    def allows_another_consumer(self) -> bool:
        """Returns whether another consumer may replace one: an exclusive or single active one would lose its place."""
        wanted = self.consume_options
        is_single = self.declare == "active" and bool(self.declare_options.arguments.get(SINGLE_ACTIVE))
        return not wanted.exclusive and wanted.consumer_tag is None and not is_single and self.partitions is None

    @property
    def declares_quorum(self) -> bool:
        """Returns whether the queues are quorum queues by our own declaration."""
        return self.declare == "active" and self.declare_options.arguments.get("x-queue-type") == "quorum"

    def is_passing(self, queue: str) -> bool:
        """Returns whether *queue* does not outlive its connection or the broker, as far as we know."""
        wanted = self.declare_options
        is_declared_so = self.declare == "active" and (wanted.exclusive or wanted.auto_delete or not wanted.durable)
        # The broker invents such a name at each connect.
        return is_declared_so or not queue or queue.startswith("amq.")

    @property
    def goes_with_its_consumer(self) -> bool:
        """Returns whether the broker deletes the queue after its last consumer is gone, as far as we know."""
        return self.declare == "active" and self.declare_options.auto_delete

    @property
    def backoff(self) -> tuple[float, float]:
        """Returns the first and the longest wait between two connects, in seconds."""
        low, most = self.backoff_min, self.backoff_max
        if low is None:
            low = 1.0 if most is None else min(1.0, most)
        return low, max(low, 30.0) if most is None else most

    def make_backoff(self) -> Backoff | None:
        """Returns new waits for one copy; None: the settings do not set them."""
        if not self.model_fields_set & {"backoff_type", "backoff_min", "backoff_max"}:
            return None
        return Backoff(*self.backoff, kind=self.backoff_type, least_s=_LEAST_WAIT_S)

    def without_no_ack(self) -> Self:
        """Returns the same options without ``no_ack``, for messages that are settled by their result."""
        if not self.consume_options.no_ack:
            return self
        settled = self.consume_options.model_copy(update={"no_ack": False})
        return self.model_copy(update={"consume_options": settled})

    def backoff_that_goes_on(self) -> Backoff:
        """Returns new waits as long as those between two connects. They never tell the caller to stop."""
        kind: BackoffKind = "jitter" if self.backoff_type == "stop" else self.backoff_type
        return Backoff(*self.backoff, kind=kind, least_s=_LEAST_WAIT_S)
