"""Takes over the messages in delay queues of the former version, which did not confirm that a message arrived."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect
from broadway_py.producers.rabbitmq.deliveries.choose_path import problem
from broadway_py.producers.rabbitmq.deliveries.message import ATTEMPT_HEADER
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder
from broadway_py.producers.rabbitmq.retries.letters import FIRST_FAILED_HEADER
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import former_delay_queues

__all__ = ["take_over"]

log = logger("broadway_py.producers.rabbitmq")

#: How many messages are held at a time.
_PORTION: Final = 100


async def take_over(options: RabbitMQOptions, name: str, forwarder: Forwarder, queue: str, clock: Clock) -> None:
    """Moves the retries of *queue* from delay queues of the former version to those of this version.

    Each is published with the broker's confirm, and only then acked in the old queue. A crash causes a duplicate at
    most. Messages that are not moved return to *queue* by themselves, as before. The old queues stay, because a process
    of the former version may still use them. Logs once what it found. Raises nothing for errors of the broker.
    """
    found: list[str] = []
    moved = 0
    reason: ProducerError | None = None
    try:
        mends = options.delivery_path != "plain" and problem() is None
        connection = await connect(options, f"{name}.former", cutting=mends)
        try:
            if mends and connection.reader is not None:
                connection.reader.mend()
            with errors.translated(lambda error: errors.of_loss(error, options, connection.where)):
                for former, wait_ms in former_delay_queues(queue):
                    channel = await _opened(connection)
                    try:
                        await channel.queue_declare(former, passive=True)
                    except ChannelNotFoundEntity:
                        continue
                    found.append(former)
                    while portion := await _taken(channel, former):
                        now_s = clock.wall()
                        waiting = [(one, _left_s(one, wait_ms / 1000.0, now_s)) for one in portion]
                        reasons = await forwarder.go_on_waiting(queue, waiting)
                        moved += reasons.count(None)
                        await _settle(channel, portion, reasons)
                    await channel.close()
        finally:
            # Messages that are still held go back to the broker.
            connection.abort()
            await connection.end()
    except ProducerError as trouble:
        reason = trouble
    if found:
        log.warning(
            "found delay queues of an older version, which can lose messages when the broker restarts: their messages "
            "were moved to new delay queues; delete each old queue when no process of the older version runs",
            queue=queue,
            found=found,
            moved=moved,
            **({} if reason is None else {"unfinished": str(reason)}),
        )


async def _opened(connection: Connection) -> Channel:
    channel = await connection.channel(publisher_confirms=False)
    return cast("Channel", await channel.get_underlay_channel())


async def _settle(
    channel: Channel, portion: Sequence[DeliveredMessage], reasons: Sequence[ProducerError | None]
) -> None:
    """Acks those of *portion* that were moved, and requeues the others.

    Raises:
        ProducerError: the first of *reasons*.
    """
    for one, reason in zip(portion, reasons, strict=True):
        tag = cast("int", one.delivery_tag)
        if reason is None:
            await channel.basic_ack(tag)
        else:
            await channel.basic_nack(tag, requeue=True)
    if (trouble := next((reason for reason in reasons if reason is not None), None)) is not None:
        raise trouble


async def _taken(channel: Channel, former: str) -> Sequence[DeliveredMessage]:
    """Fetches the next retries of ours, the oldest first. Stops at the first message that is none."""
    taken: list[DeliveredMessage] = []
    while len(taken) < _PORTION:
        one = await channel.basic_get(former)
        if isinstance(one.delivery, Basic.GetEmpty):
            break
        if ATTEMPT_HEADER not in (one.header.properties.headers or {}):
            await channel.basic_nack(cast("int", one.delivery_tag), requeue=True)
            break
        taken.append(one)
    return taken


def _left_s(retry: DeliveredMessage, wait_s: float, now_s: float) -> float:
    """Returns the seconds that *retry*, with a delay of *wait_s*, still has to wait.

    Nobody noted when the wait began. The wait of a first retry began when the message first failed. Others wait their
    whole delay again.
    """
    headers = retry.header.properties.headers or {}
    failed_at = headers.get(FIRST_FAILED_HEADER)
    if headers.get(ATTEMPT_HEADER) != 2 or not isinstance(failed_at, str):
        return wait_s
    try:
        began_s = datetime.fromisoformat(failed_at).timestamp()
    except ValueError:
        return wait_s
    return min(wait_s, max(0.0, began_s + wait_s - now_s))
