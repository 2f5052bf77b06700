"""The consumers of one channel: what they are asked for, and which one takes the place of which."""

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
    """How many unsettled messages a consumer may have."""

    prefetch: int
    #: Of these, for the time being; None: all.
    most: int | None = None

    @property
    def size(self) -> int:
        return self.prefetch if self.most is None else min(self.prefetch, self.most)


class Consumers:
    """One consumer for each queue. Whatever is asked for raises what the library says when the channel is gone.

    Args:
        options: the producer's settings.
        prefetch: how many unsettled messages of each queue the broker may hand out.
        channel: the one that they are on; raises ProducerError while there is none.
        on_delivery: called by the library with what comes by way of it.
        on_stray: the same, where deliveries should go past the library.
        waiting: tags of the consumers from which deliveries came that nobody has taken.
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
        # Wanted; last told to the channel; and what the consumers at work began with: changes may overtake each other.
        self._window = self._asked = self._consumed_with = _Window(prefetch)
        self._queues: Sequence[str] = ()
        self._sink: Sink | None = None
        #: Consumer tag -> queue: of every consumer whose deliveries may still wait to be taken.
        self.origins: dict[str, str] = {}
        self._at_work: set[str] = set()
        # Pausing, resuming and draining may come at once: they stand in line here, and the last word counts.
        self._turn = asyncio.Lock()
        #: Whether there are to be any: the last word.
        self.is_wanted = True
        self._has_ended = False

    @property
    def are_at_work(self) -> bool:
        """Whether there are any."""
        return bool(self._at_work)

    async def ask(self) -> None:
        """Tell the channel how many messages to hand out; of the consumers that begin from now on."""
        window = self._window
        await self._channel().basic_qos(prefetch_count=window.size)
        self._asked = window

    async def start(self, queues: Sequence[str], sink: Sink | None) -> None:
        """Consume *queues*, as the broker calls them; *sink* takes what goes past the library, None: nothing does."""
        self._queues, self._sink = queues, sink
        async with self._turn:
            # The first bodies may already ask for another prefetch.
            await self._consume()

    async def stop(self) -> None:
        """Cancel them, and give back what was not taken; nothing happens if they are wanted again meanwhile."""
        async with self._turn:
            if self.is_wanted:
                return
            await self._cancel(set(self._at_work))
            await self._give_back()

    async def resume(self, most: int | None) -> None:
        """Consume again, with a prefetch of *most* where that is less than the usual one."""
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
        """Have *prefetch* counted from the next word to the channel on; :meth:`change_prefetch` says that word."""
        self._window = self._window._replace(prefetch=prefetch)

    async def change_prefetch(self, prefetch: int) -> None:
        """Have the *prefetch* that was wanted last."""
        async with self._turn:
            if self._has_ended or prefetch != self._window.prefetch:
                return  # the next change is waiting behind this one
            await self.ask()
            if self._at_work and self._options.allows_another_consumer:
                await self._replace()

    def cancelled(self, tag: str) -> str | None:
        """The broker took back the consumer *tag*: the queue that it consumed; None where it is not at work."""
        if tag not in self._at_work:
            return None
        self._at_work.discard(tag)
        return self.origins[tag]

    def end(self) -> None:
        """No more messages are wanted of this channel, whatever is asked for from now on."""
        self._has_ended = True

    async def _consume(self) -> None:
        wanted = self._options.consume_options
        self._consumed_with = self._asked
        still = self._waiting() | self._at_work
        self.origins = {tag: queue for tag, queue in self.origins.items() if tag in still}
        for queue in self._queues:
            # Named by us, for the first delivery may be here before the answer is.
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
        """Have others in place of those at work, with what was asked for last; none if that is what they have."""
        old, options = set(self._at_work), self._options
        is_smaller = self._asked.size < self._consumed_with.size
        if self._asked.size == self._consumed_with.size:
            self._consumed_with = self._asked
        elif not options.allows_another_consumer or (is_smaller and not options.goes_with_its_consumer):
            # Beside the old ones, the new would bring newer messages before those that are given back come again.
            await self._cancel(old)
            if is_smaller:
                await self._give_back()
            await self._consume()
        else:
            # The queue never is without a consumer.
            await self._consume()
            await self._cancel(old)
            if is_smaller:
                await self._give_back()
