"""The dead letters of a RabbitMQ queue.

AMQP cannot read a message without taking it. So every letter is fetched and none is acknowledged. Letters that were
only read are given back at the end, and the broker puts them where they were. Meanwhile nobody else sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from aio_pika.abc import AbstractChannel
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity, InvalidFrameError
from pamqp.commands import Basic

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.daemon.dead_letters.letters import Head, PartlyReplayed, printable, size_of
from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq import RabbitMQOptions
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.connection import connect
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.producers.rabbitmq.deliveries.choose_path import problem
from broadway_py.producers.rabbitmq.retries.death_headers import death_of
from broadway_py.producers.rabbitmq.retries.letters import HEADER_PREFIX, Letter, as_new, renewed
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.topology.delivery_limits import limit_in, times_returned

__all__ = ["Home", "RabbitMQLetters", "opened"]

_NAME: Final = "broadway dlq"
#: Our headers that are shown under another name.
_SAID_BEFORE: Final = frozenset({"attempt", "attempts", "cause", "exception", "failed-at", "id"})


class Home(NamedTuple):
    """The queues to which dead letters may go back.

    A letter's own header can only choose among these, because anybody can write that header.
    """

    #: The queue for a letter that names none. None: it is not known.
    usual: str | None = None
    #: Other queues, which a letter may name.
    others: Sequence[str] = ()
    #: True if all letters go to the usual queue, even if they name another one.
    is_sure: bool = False

    def of(self, said: str | None) -> str | None:
        """Returns the queue for a letter that names the queue *said*. Returns None if it may go nowhere."""
        if said is None or self.is_sure:
            return self.usual
        return said if said == self.usual or said in self.others else None


class _Taken(NamedTuple):
    head: Head
    tag: int
    delivery: DeliveredMessage


class RabbitMQLetters:
    """The dead letters in the queue *name*.

    Args:
        name: the queue that holds the dead letters.
        home: where they may go back to.
        channel: the channel that fetches them. Its end gives back those that are left.
        publisher: publishes the letters that go back.
        limit: how often the queue takes a letter back before it drops it. None: there is no limit.
    """

    is_approximate: Final = False

    def __init__(self, name: str, home: Home, channel: Channel, publisher: Publisher, limit: int | None = None) -> None:
        self.name = name
        self._home = home
        self._channel = channel
        self._publisher = publisher
        self._limit = limit
        self._taken: dict[str, _Taken] | None = None

    async def count(self) -> int:
        """Returns how many are in the queue now."""
        return len(await self._all())

    async def note(self) -> None:
        """Returns nothing: the list is complete."""

    async def portions(self, most: int | None = None) -> AsyncGenerator[Sequence[Head], None]:
        """Yields the oldest *most* that are in the queue now (None: all) at once, the oldest first.

        Only the first call fetches letters. It leaves those beyond *most* in the queue.
        """
        yield [taken.head for taken in (await self._all(most)).values()]

    async def payload(self, letter: str) -> bytes:
        """Returns the payload of *letter*."""
        return (await self._all())[letter].delivery.body

    async def replay(self, letters: Sequence[str]) -> int:
        """Puts *letters* back as new messages into the queue in which they failed. Returns how many.

        A letter is removed here only after the broker has confirmed it there.

        Raises:
            PartlyReplayed: some were not confirmed, or only their own header says where they belong. They stay.
        """
        taken = [(await self._all())[one] for one in letters]
        new = [self._as_new(one) for one in taken]
        published = iter(await self._publisher.publish([one for one in new if isinstance(one, Letter)]))
        reasons = [next(published) if isinstance(one, Letter) else one for one in new]
        safe = [one for one, reason in zip(taken, reasons, strict=True) if reason is None]
        await self._ack(safe)
        for reason in reasons:
            if reason is not None:
                raise PartlyReplayed(len(safe), len(letters) - len(safe), reason)
        return len(safe)

    async def discard(self, letters: Sequence[str]) -> int:
        """Removes *letters* for good. Returns how many."""
        taken = [(await self._all())[one] for one in letters]
        await self._ack(taken)
        return len(taken)

    async def discard_all(self) -> int:
        """Removes all of them for good, also those that cannot be decoded. The broker does it, and none is fetched."""
        return cast("int", (await self._channel.queue_purge(self.name)).message_count)

    async def give_back(self) -> None:
        """Gives back the letters that are still held. They stay where they were in the queue.

        A quorum queue counts how often a message came back, and drops it at a limit. So at half of the limit a copy, at
        the end of the queue, replaces the letter. The letter is removed only after the broker has confirmed the copy.

        Raises:
            ProducerError: the broker refused the copies. The letters are still there.
        """
        reasons = await self._renew(self._worn()) if self._taken and self._limit is not None else []
        if self._taken:
            last = max(taken.tag for taken in self._taken.values())
            # On recent brokers a nack does not count as a delivery attempt, but the loss of a channel does.
            await self._channel.basic_nack(last, multiple=True, requeue=True)
            self._taken = {}
        if reasons:
            some = "1 dead letter" if len(reasons) == 1 else f"{len(reasons)} dead letters"
            raise ProducerError(
                f"{some} in queue {self.name!r} came back so often that the broker would soon drop them "
                f"(its limit is {self._limit} times), and the broker refused new copies of them: {reasons[0]}; "
                "correct that, or make room in the queue, before you run broadway dlq again"
            )

    def _worn(self) -> list[_Taken]:
        """Returns the letters that have come back at least half as often as the limit allows."""
        most = max(1, (self._limit or 0) // 2)
        return [taken for taken in (self._taken or {}).values() if (_returned(taken) or 0) >= most]

    async def _renew(self, worn: Sequence[_Taken]) -> list[ProducerError]:
        """Replaces each letter of *worn* by a copy. Returns the reasons of those that could not be replaced."""
        reasons = await self._publisher.publish([renewed(taken.delivery, self.name) for taken in worn])
        await self._ack([taken for taken, reason in zip(worn, reasons, strict=True) if reason is None])
        return [reason for reason in reasons if reason is not None]

    async def _all(self, most: int | None = None) -> dict[str, _Taken]:
        if self._taken is None:
            self._taken = {}
            numbers: dict[str, int] = {}
            count = cast("int", (await self._channel.queue_declare(self.name, passive=True)).message_count)
            # Only as many as were there: letters that come meanwhile are left for the next call.
            for _ in range(count if most is None else min(most, count)):
                delivery = await self._fetched(count)
                if isinstance(delivery.delivery, Basic.GetEmpty):
                    break
                taken = _read(delivery, self._taken, numbers)
                self._taken[taken.head.id] = taken
        return self._taken

    async def _fetched(self, count: int) -> DeliveredMessage:
        """Returns the next letter of *count*.

        Raises:
            ProducerError: its properties do not decode, and this connection does not repair them.
        """
        ended = self._channel.connection.closing
        try:
            return await self._channel.basic_get(self.name)
        except (Exception, asyncio.CancelledError):
            if ended.done() and not ended.cancelled() and isinstance(ended.exception(), InvalidFrameError):
                read = len(self._taken or ())
                raise ProducerError(
                    f"the properties of dead letter {read + 1} of {count} in queue {self.name!r} cannot be decoded, "
                    "and delivery_path: plain cannot skip it; set delivery_path: auto, or remove all dead letters "
                    "unread with broadway dlq purge --yes"
                ) from None
            raise

    async def _ack(self, letters: Sequence[_Taken]) -> None:
        for one in letters:
            await self._channel.basic_ack(one.tag)
            if self._taken is not None:
                del self._taken[one.head.id]

    def _as_new(self, taken: _Taken) -> Letter | ProducerError:
        """Returns the letter to publish, or why it cannot be published."""
        died = death_of(taken.delivery.header.properties.headers or {})
        to = self._home.of(died.queue)
        if to is not None:
            return as_new(taken.delivery, to)
        if died.queue is None:
            why = "does not say which queue it failed in"
        else:
            why = (
                f"says that it failed in queue {printable(died.queue)!r}, but a publisher can forge that, and it is "
                "neither a queue of the pipeline nor that of --queue"
            )
        return ProducerError(f"letter {taken.head.id} {why}; name the queue to put it into with --to NAME")


@asynccontextmanager
async def opened(options: RabbitMQOptions, dead: str, home: Home) -> AsyncIterator[RabbitMQLetters]:
    """Opens the dead letters in the queue *dead* of the broker that *options* name. See :class:`RabbitMQLetters`.

    Raises:
        ProducerError: the broker cannot be reached, or there is no such queue.
    """
    hush()
    mends = options.delivery_path != "plain" and problem() is None
    connection = await connect(options, _NAME, cutting=mends)
    if mends and connection.reader is not None:
        connection.reader.mend()
    publisher = Publisher(options, f"{_NAME}.publisher", SYSTEM_CLOCK)
    where = connection.where
    try:
        with errors.translated(_loss(options, where)):
            channel: AbstractChannel = await connection.channel(publisher_confirms=False)
            try:
                underlay = cast("Channel", await channel.get_underlay_channel())
                limit = limit_in(options.dead_letter_arguments, connection.version)
                letters = RabbitMQLetters(dead, home, underlay, publisher, limit)
                try:
                    yield letters
                except BaseException:
                    # The letters are given back explicitly: the broker counts the loss of a channel as an attempt, but
                    # not this.
                    with contextlib.suppress(Exception, asyncio.CancelledError):
                        await _given_back(letters, options)
                    raise
                await _given_back(letters, options)
            except ChannelNotFoundEntity:
                raise ProducerError(
                    f"there is no queue {dead!r} on {where}: either no message has become a dead letter yet, or the "
                    "dead letters are in another queue; name that queue with --dead NAME"
                ) from None
    finally:
        await publisher.close()
        await connection.end()


async def _given_back(letters: RabbitMQLetters, options: RabbitMQOptions) -> None:
    async with asyncio.timeout(options.connect_timeout):
        await letters.give_back()


def _returned(taken: _Taken) -> int | None:
    redelivered = bool(cast("Basic.GetOk", taken.delivery.delivery).redelivered)
    return times_returned(taken.delivery.header.properties.headers or {}, redelivered=redelivered)


def _loss(options: RabbitMQOptions, where: str) -> Callable[[BaseException], ProducerError]:
    return lambda error: errors.of_loss(error, options, where)


def _read(delivery: DeliveredMessage, known: Mapping[str, object], numbers: dict[str, int]) -> _Taken:
    """Returns *delivery* under a name that is not in *known*. *numbers* are the last numbers given to each name."""
    properties = delivery.header.properties
    headers: Mapping[str, Any] = properties.headers or {}
    # Letters that the broker itself has put there have no id of ours. The id is made printable, so that it can be typed
    # as it is shown.
    wanted = printable(str(headers.get("x-broadway-id") or properties.message_id or "letter"))
    # Thousands of letters may have the same id, so numbers that were given already are not tried again.
    name, number = wanted, numbers.get(wanted, 1)
    while name in known:
        number += 1
        name = f"{wanted}~{number}"
    numbers[wanted] = number
    ours = {one.removeprefix(HEADER_PREFIX): value for one, value in headers.items() if one.startswith(HEADER_PREFIX)}
    _, cause, attempts = death_of(headers)
    failed_at, exception = ours.get("failed-at"), ours.get("exception")
    facts = [
        ("id", name),
        ("cause", cause or "-"),
        ("exception", str(exception or "-")),
        ("attempts", "-" if attempts is None else str(attempts)),
        ("died", str(failed_at or "-")),
        *((one, str(value)) for one, value in sorted(ours.items()) if one not in _SAID_BEFORE),
        ("message-id", str(properties.message_id or "-")),
        ("size", size_of(len(delivery.body))),
    ]
    head = Head(
        name,
        _seconds(failed_at),
        attempts,
        cause or "-",
        None if exception is None else str(exception),
        len(delivery.body),
        facts,
    )
    tag = cast("Basic.GetOk", delivery.delivery).delivery_tag
    return _Taken(head, cast("int", tag), delivery)


def _seconds(when: object) -> float | None:
    try:
        return datetime.fromisoformat(str(when)).timestamp()
    except ValueError:
        return None
