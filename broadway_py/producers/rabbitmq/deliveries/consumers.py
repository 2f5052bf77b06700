"""The consumers of one channel: starts, cancels and replaces them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from aiormq import Channel
from aiormq.abc import DeliveredMessage

from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.wire.delivery_parser import Sink

__all__ = ["Consumers"]


class _Window(NamedTuple):
    """The number of unsettled messages that a consumer may have."""

    prefetch: int
    #: A temporary lower limit; None: there is none.
    most: int | None = None

    @property
    def size(self) -> int:
        return self.prefetch if self.most is None else min(self.prefetch, self.most)


class Consumers:
    """Runs one consumer for each queue. If the channel is gone, every method raises the library's error.

    Args:
        options: the producer's settings.
        prefetch: how many unsettled messages of each queue the broker may hand out.
        channel: returns the channel of the consumers; raises ProducerError while there is none.
        on_delivery: called by the library with its deliveries, on the plain path.
        on_stray: called by the library with its deliveries, when they should bypass it.
        waiting: returns the tags of the consumers whose deliveries wait in the buffer.
        give_back: requeues what nobody has taken.
    """

    def __init__(
        self,
        options: RabbitMQOptions,
        prefetch: int,
        *,
        channel: Callable[[], Channel],
        on_delivery: Callable[[DeliveredMessage], Coroutine[Any, Any, None]],
        on_stray: Callable[[DeliveredMessage], Coroutine[Any, Any, None]],
        waiting: Callable[[], set[str]],
        give_back: Callable[[], Awaitable[None]],
    ) -> None:
        self._options = options
        self._channel = channel
        self._on_delivery = on_delivery
        self._on_stray = on_stray
        self._waiting = waiting
        self._give_back = give_back
        # Three windows may differ, because one change may overtake another: the one that is wanted, the one that the
        # channel was last told, and the one with which the current consumers began.
        self._window = self._asked = self._consumed_with = _Window(prefetch)
        self._queues: Sequence[str] = ()
        self._sink: Sink | None = None
        #: Consumer tag -> queue, for every consumer whose deliveries may still wait in the buffer.
        self.origins: dict[str, str] = {}
        self._at_work: set[str] = set()
        # Pause, resume and drain may come at the same time. The lock runs them one by one, and the last request counts.
        self._turn = asyncio.Lock()
        #: Whether there are to be consumers, by the last request.
        self.is_wanted = True
        self._has_ended = False

    @property
    def are_at_work(self) -> bool:
        """Returns whether there are any consumers."""
        return bool(self._at_work)

    async def ask(self) -> None:
        """Tells the channel how many messages to hand out. It counts for consumers that begin later."""
        window = self._window
        await self._channel().basic_qos(prefetch_count=window.size)
        self._asked = window

    async def start(self, queues: Sequence[str], sink: Sink | None) -> None:
        """Starts to consume *queues* by the names that the broker uses.

        *sink* takes the deliveries that bypass the library; None: none do.
        """
        self._queues, self._sink = queues, sink
        async with self._turn:
            # The lock is needed, because the first bodies may already ask for another prefetch.
            await self._consume()

    async def stop(self) -> None:
        """Cancels the consumers and gives back what was not taken. Does nothing if they are wanted again meanwhile."""
        async with self._turn:
            if self.is_wanted:
                return
            await self._cancel(set(self._at_work))
            await self._give_back()

    async def resume(self, most: int | None) -> None:
        """Starts to consume again, with a prefetch of *most* if that is less than the usual one."""
        self.is_wanted = True
        self._window = self._window._replace(most=most)
        async with self._turn:
            if not self.is_wanted or self._has_ended:
                return
            if self._window != self._asked:
                await self.ask()
            if not self._at_work:
                await self._consume()
            elif self._asked.most != self._consumed_with.most:
                await self._replace()

    def want_prefetch(self, prefetch: int) -> None:
        """Sets the *prefetch* for the next call to the channel. :meth:`change_prefetch` makes that call."""
        self._window = self._window._replace(prefetch=prefetch)

    async def change_prefetch(self, prefetch: int) -> None:
        """Applies the *prefetch*, if it is still the one that was wanted last."""
        async with self._turn:
            if self._has_ended or prefetch != self._window.prefetch:
                return  # the next change is waiting for the lock
            await self.ask()
            if self._at_work and self._options.allows_another_consumer:
                await self._replace()

    def cancelled(self, tag: str) -> str | None:
        """Notes that the broker cancelled the consumer *tag*. Returns its queue; None: it is not at work."""
        if tag not in self._at_work:
            return None
        self._at_work.discard(tag)
        return self.origins[tag]

    def end(self) -> None:
        """Ends consuming on this channel: later requests have no effect."""
        self._has_ended = True

    async def _consume(self) -> None:
        wanted = self._options.consume_options
        self._consumed_with = self._asked
        still = self._waiting() | self._at_work
        self.origins = {tag: queue for tag, queue in self.origins.items() if tag in still}
        for queue in self._queues:
            # We choose the name, because the first delivery may come before the broker's answer.
            tag = wanted.consumer_tag or f"broadway.{uuid.uuid4().hex}"
            self.origins[tag] = queue
            self._at_work.add(tag)
            if self._sink is not None:
                self._sink.add(tag)
            await self._channel().basic_consume(
                queue,
                self._on_delivery if self._sink is None else self._on_stray,
                exclusive=wanted.exclusive,
                arguments=wanted.all_arguments(),
                consumer_tag=tag,
            )

    async def _cancel(self, tags: set[str]) -> None:
        self._at_work -= tags
        for tag in tags:
            await self._channel().basic_cancel(tag)

    async def _replace(self) -> None:
        """Replaces the current consumers by ones with the latest window. Does nothing if the size is the same."""
        old, options = set(self._at_work), self._options
        is_smaller = self._asked.size < self._consumed_with.size
        if self._asked.size == self._consumed_with.size:
            self._consumed_with = self._asked
        elif not options.allows_another_consumer or (is_smaller and not options.goes_with_its_consumer):
            # New consumers beside the old ones would get newer messages before the older ones, which are given back.
            await self._cancel(old)
            if is_smaller:
                await self._give_back()
            await self._consume()
        else:
            # In this order the queue always has a consumer.
            await self._consume()
            await self._cancel(old)
            if is_smaller:
                await self._give_back()
