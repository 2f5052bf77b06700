"""Publishes to a list in this process, for tests and trials."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.foreign import is_a, shown
from broadway_py.publisher import Outgoing, Publisher, Sink, Unconfirmed

__all__ = ["MemoryPublisher"]


class MemoryPublisher(Sink):
    """Keeps what is published in this process, for tests.

    ::

        out = MemoryPublisher()
        async with Orders(publishers={"out": out}, …) as orders:
            await orders.submit(b"…")
        assert [message.data for message in out.messages] == [b"…"]

    Args:
        most: how many messages it keeps. When it is full, it confirms no more, as a full queue does, until
            :attr:`messages` is shorter again: ``out.messages.clear()``.

    Raises:
        OptionsError: *most* is no positive whole number.
    """

    def __init__(self, most: int = 10_000) -> None:
        if not is_a(most, int) or is_a(most, bool) or most < 1:
            raise OptionsError(("most",), f"expected a positive whole number, got {shown(most)}")
        #: What was published, in its order. A message that is published again is there again.
        self.messages: list[Outgoing] = []
        # The copy that a pipeline has must share these.
        self._place = _Place(most, self.messages)

    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        """Returns a publisher that appends to :attr:`messages`."""
        return _Appending(self._place, clock)

    def go_away(self, reason: str = "the place is away") -> None:
        """Confirms nothing from now on, as a broker that is away: what is published waits, and fails for *reason*."""
        self._place.away = reason

    def come_back(self) -> None:
        """Takes messages again, also those that wait."""
        self._place.away = None
        for publisher in self._place.publishers:
            publisher.look()

    def __repr__(self) -> str:
        return f"<MemoryPublisher of {len(self.messages)} messages>"


class _Place:
    """What a memory publisher, its copies and its publishers share."""

    def __init__(self, most: int, messages: list[Outgoing]) -> None:
        self.most = most
        self.messages = messages
        self.away: str | None = None
        self.publishers: list[_Appending] = []


class _Appending(Publisher):
    def __init__(self, place: _Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._is_closed = False
        self._waiting: list[asyncio.Future[None]] = []
        place.publishers.append(self)

    def look(self) -> None:
        """Lets those who wait look again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def open(self) -> None:
        """Does nothing, unless the place is away.

        Raises:
            ProducerError: it is, or this publisher is closed.
        """
        away = "memory: the publisher is closed" if self._is_closed else self._place.away
        if away is not None:
            raise ProducerError(away)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Keeps *messages*.

        Raises:
            PublishError: there is no room for some of them; or the place is away; or this publisher is closed.
        """
        unconfirmed = Unconfirmed(messages)
        await self.deliver(unconfirmed, timeout=timeout)
        error = unconfirmed.error(f"memory: no confirmation within {timeout:g} s")
        if error is not None:
            raise error

    async def deliver(self, unconfirmed: Unconfirmed, *, timeout: float) -> None:
        """Keeps what waits in *unconfirmed*, as far as there is room, once the place is there."""
        limit = self._clock.timeout(timeout)
        try:
            async with limit:
                while self._place.away is not None and not self._is_closed:
                    self.trouble = self._place.away
                    unconfirmed.fail(self.trouble)
                    await self._change()
        except TimeoutError:
            if not limit.expired():
                raise
            return
        self._keep(unconfirmed)

    def _keep(self, unconfirmed: Unconfirmed) -> None:
        kept, most = self._place.messages, self._place.most
        self.trouble = None
        for position, message in list(unconfirmed.waiting.items()):
            if self._is_closed or len(kept) >= most:
                self.trouble = (
                    "memory: the publisher is closed" if self._is_closed else f"memory is full: {most} messages"
                )
                unconfirmed.fail(self.trouble, lasting=True)
                return
            kept.append(message)
            unconfirmed.confirm(position)

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            self._waiting.remove(future)

    async def close(self) -> None:
        """Takes no more."""
        self._is_closed = True
        self.look()
        if self in self._place.publishers:
            self._place.publishers.remove(self)
