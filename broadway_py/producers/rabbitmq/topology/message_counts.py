"""How many messages wait in the queues of a source, by the broker's own counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from aiormq import Channel
from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity

from broadway_py.producer import SourceMessages
from broadway_py.producers.rabbitmq.connection.errors import words_of

__all__ = ["DelaysInUse", "MessageCounts"]


@dataclass
class DelaysInUse:
    """The delay queues of a producer that are known to exist. The broker does not list its queues."""

    names: set[str] = field(default_factory=set)
    #: Queues of the source whose delay queues of earlier runs were looked for.
    looked: set[str] = field(default_factory=set)


class MessageCounts:
    """Counts by passive declares, on channels of its own: a refusal closes the channel, and nothing else.

    Args:
        another_channel: opens a channel of the source's connection.
    """

    def __init__(self, another_channel: Callable[[], Awaitable[Channel]]) -> None:
        self._another_channel = another_channel
        self._channel: Channel | None = None
        self._troubles: list[str] = []

    async def of_source(
        self, queues: Collection[str], delays: DelaysInUse, former: Iterable[str], dead: Collection[str] | None
    ) -> SourceMessages:
        """Returns the sums of *queues*, of their delay queues, and of their dead letters.

        A missing queue for dead letters has none: we declare it when there is one. So does a missing delay queue.

        Args:
            queues: the queues of the source.
            delays: the delay queues in use. Those that are gone are removed.
            former: delay queues that earlier runs may have left. Those that exist are added to *delays*.
            dead: the queues for dead letters. None: it is not known where they are.

        Raises:
            AMQPError: the broker is not available.
        """
        ready = self._sum([await self._count(queue, missing=None) for queue in queues])
        for queue in former:
            if await self._count(queue, missing=-1) != -1:
                delays.names.add(queue)
        waiting: list[int | None] = []
        for queue in sorted(delays.names):
            count = await self._count(queue, missing=-1)
            if count == -1:
                delays.names.discard(queue)
            else:
                waiting.append(count)
        letters = None if dead is None else self._sum([await self._count(queue, missing=0) for queue in dead])
        if self._channel is not None:
            await self._channel.close()
        return SourceMessages(ready, self._sum(waiting), letters, self._troubles[0] if self._troubles else None)

    async def _count(self, queue: str, *, missing: int | None) -> int | None:
        """Returns how many messages *queue* can hand out; *missing* if there is no such queue; None: not known."""
        if self._channel is None:
            self._channel = await self._another_channel()
        try:
            return (await self._channel.queue_declare(queue, passive=True)).message_count
        except ChannelClosed as refused:
            self._channel = None
            said = words_of(refused)
            # The broker says "not found" of a queue that is only unavailable, too.
            if missing is not None and isinstance(refused, ChannelNotFoundEntity) and "no queue" in said:
                return missing
            self._troubles.append(f"the broker does not tell the number of messages in queue {queue!r}: {said}")
            return None

    @staticmethod
    def _sum(counts: Iterable[int | None]) -> int | None:
        known = list(counts)
        return None if None in known else sum(one for one in known if one is not None)
