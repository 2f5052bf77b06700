"""The settings of a RabbitMQ producer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, Self, get_args

from aio_pika.abc import AbstractChannel
from pydantic import BeforeValidator, Field, field_validator, model_validator
from yarl import URL

from broadway_py.errors import did_you_mean
from broadway_py.options import Duration, Options, PositiveInt

__all__ = ["Binding", "ConsumeOptions", "DeclareOptions", "MetadataName", "RabbitMQOptions", "Verdict"]

#: What happens to a message at the broker. ``reject`` drops it, or dead-letters it where the queue says so;
#: ``reject_and_requeue_once`` requeues it unless this delivery was already a second one.
Verdict = Literal["ack", "reject", "reject_and_requeue", "reject_and_requeue_once"]

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
    "redelivered",
    "reply_to",
    "routing_key",
    "timestamp",
    "type",
    "user_id",
]

#: "auto" asks for at least and at most so many messages in advance.
AUTO_PREFETCH: Final = (20, 2000)

AfterConnect = Callable[[AbstractChannel], Awaitable[object]]


def _known_name(value: object) -> object:
    known = get_args(MetadataName)
    if value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ValueError(f"no such property of a delivery; known here: {', '.join(known)}{hint}")
    return value


def _prefetch(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_535):
        return value
    # 0 means "no limit" to RabbitMQ: the whole queue would come into memory.
    raise ValueError("expected 'auto' or a whole number from 1 to 65535")


def _function(value: object) -> object:
    if value is None or callable(value):
        return value
    raise ValueError("expected an async function of one argument, the channel")


class DeclareOptions(Options):
    """How ``declare: active`` declares the queue. They must equal those of a queue that exists already."""

    #: The queue outlives a restart of the broker.
    durable: bool = True
    #: The broker deletes the queue when its last consumer has gone.
    auto_delete: bool = False
    #: The queue belongs to this connection, and goes with it.
    exclusive: bool = False
    #: The broker's own settings, such as ``x-queue-type`` or ``x-dead-letter-exchange``.
    arguments: dict[str, Any] = Field(default_factory=dict)


class Binding(Options):
    """The queue gets what *exchange* routes by *routing_key*. Bound at each connect; the exchange must exist."""

    exchange: str
    routing_key: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)


class ConsumeOptions(Options):
    """How the queue is consumed."""

    #: Refuse any other consumer on the queue; while another one is there, connecting fails and is tried again.
    exclusive: bool = False
    #: The consumer's name at the broker. None: made up.
    consumer_tag: str | None = None
    #: The broker's own settings, such as ``x-priority``.
    arguments: dict[str, Any] = Field(default_factory=dict)


class RabbitMQOptions(Options):
    """Everything that can be set of a :class:`RabbitMQProducer`."""

    #: The queue's name. "" lets the broker choose one, and needs ``declare: active``.
    queue: Annotated[str, Field(strict=True)]
    #: ``amqp[s]://user:password@host:port/vhost``; the query may set heartbeat and TLS files as aio-pika takes them.
    url: str = Field("amqp://guest:guest@127.0.0.1/", repr=False)
    #: The producer's name in metrics, logs and ``message.producer``. None: the pipeline gives it one.
    name: str | None = None
    #: How many connections consume side by side, each with a prefetch of its own.
    concurrency: PositiveInt = 1
    #: How many unsettled messages the broker hands out in advance, per connection. "auto": what the pipeline can hold.
    prefetch_count: Annotated[int | Literal["auto"], BeforeValidator(_prefetch)] = "auto"
    #: Properties of the delivery to be found in ``message.metadata``, besides ``message_id`` and ``redelivered``.
    metadata: tuple[Annotated[str, BeforeValidator(_known_name)], ...] = ()
    #: What becomes of a message that was handled. ``message.configure_ack(on_success=…)`` changes it for one.
    on_success: Verdict = "ack"
    #: What becomes of a message that failed. ``message.configure_ack(on_failure=…)`` changes it for one.
    on_failure: Verdict = "reject"
    #: ``passive`` looks whether the queue exists, ``active`` creates it if not, ``never`` just consumes.
    declare: Literal["never", "passive", "active"] = "passive"
    declare_options: DeclareOptions = Field(default_factory=DeclareOptions)
    bindings: tuple[Binding, ...] = ()
    #: ``await after_connect(channel)`` at each connect, before anything else is done on the channel.
    after_connect: Annotated[AfterConnect | None, BeforeValidator(_function)] = None
    consume_options: ConsumeOptions = Field(default_factory=ConsumeOptions)
    #: Seconds between signs of life; a silent connection is given up after about three times that.
    heartbeat: Annotated[Duration, Field(ge=1, le=3600)] = 15.0
    #: Seconds from the first packet until messages may flow, ``after_connect`` included.
    connect_timeout: Annotated[Duration, Field(gt=0)] = 15.0
    #: The connection's name at the broker. None: pipeline, producer and copy.
    connection_name: str | None = None

    @field_validator("url")
    @classmethod
    def _is_amqp(cls, value: str) -> str:
        try:
            url = URL(value)
            complete = url.scheme in {"amqp", "amqps"} and bool(url.host) and url.port != 0
        except ValueError:
            complete = False
        if not complete:
            # What came is not shown: it may hold a password.
            raise ValueError("expected amqp://user:password@host:port/vhost, or the same with amqps://")
        return value

    @model_validator(mode="after")
    def _declaration_fits(self) -> Self:
        if not self.queue and self.declare != "active":
            raise ValueError(
                f"queue '' is named by the broker when it is declared, but declare is {self.declare!r}: "
                "set declare: active, or name the queue"
            )
        if "declare_options" in self.model_fields_set and self.declare != "active":
            raise ValueError(
                f"declare_options are used by declare: active only, but declare is {self.declare!r}: "
                "set declare: active, or remove them"
            )
        return self

    def prefetch(self, capacity: int) -> int:
        """The prefetch for a pipeline that can hold *capacity* messages."""
        if isinstance(self.prefetch_count, int):
            return self.prefetch_count
        least, most = AUTO_PREFETCH
        return max(least, min(most, capacity))

    @property
    def heartbeat_seconds(self) -> int:
        """Whole seconds, as AMQP has them: the setting, or else what the URL asks for."""
        if "heartbeat" not in self.model_fields_set:
            asked = URL(self.url).query.get("heartbeat", "")
            if asked.isdecimal() and int(asked) > 0:
                return int(asked)
        return math.ceil(self.heartbeat)

    @property
    def where(self) -> str:
        """The broker's address as it may be shown: without user, password and query."""
        url = URL(self.url)
        masked = "***@" if url.user is not None or url.password is not None else ""
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host
        return f"{url.scheme}://{masked}{host}:{port}{url.raw_path}"
