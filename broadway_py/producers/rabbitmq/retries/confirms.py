"""Writes messages to one channel, many at once, and gets the broker's answer to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from aiormq import Channel

from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.wire.publish_frames import PublishFrames

__all__ = ["Answer", "Confirms", "Portion"]

#: What the broker has answered: no error is a confirm. It is cancelled if no answer can come any more.
Answer = asyncio.Future[Any]

#: A portion is full when it has so many messages, or so many bytes.
_MESSAGES: Final = 250
_BYTES: Final = 256 * 1024
#: While so many messages or bytes of a channel are not answered, no more are written. Callers that were cancelled while
#: the broker accepts nothing leave theirs behind.
_MOST_MESSAGES: Final = 8_000
_MOST_BYTES: Final = 8 * 1024 * 1024


class Portion:
    """Messages that go out in one write.

    Args:
        told: called with this portion, the position of a message in the caller's list, and its answer.
    """

    __slots__ = ("_told", "answered", "frames", "is_overdue", "names", "size", "waiting", "written_at")

    def __init__(self, told: Callable[[Portion, int, Answer], None]) -> None:
        self._told = told
        #: The message ids, each with the position of its message.
        self.names: dict[str, int] = {}
        self.frames: list[bytes] = []
        self.size = 0
        #: The answers that have not come yet, by position.
        self.waiting: dict[int, Answer] = {}
        #: Done when all answers have come.
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: When it was written, in the time of the event loop. While the broker accepts nothing, this goes on.
        self.written_at = 0.0
        #: Whether the answers took too long.
        self.is_overdue = False

    @property
    def is_full(self) -> bool:
        """Returns whether it should be written before another message is added."""
        return len(self.names) >= _MESSAGES or self.size >= _BYTES

    def add(self, name: str, position: int, frames: list[bytes]) -> None:
        """Adds a message whose id is *name*. No other one in this portion has that id."""
        self.names[name] = position
        self.frames += frames
        self.size += sum(map(len, frames))

    def answer(self, position: int, answer: Answer) -> None:
        """Notes *answer*, and tells it."""
        del self.waiting[position]
        if not self.waiting:
            self.answered.set_result(None)
        self._told(self, position, answer)

    def tell_early(self) -> None:
        """Tells the answers of this turn of the event loop, which are noted, and told again, in the next one."""
        for position, answer in self.waiting.items():
            if answer.done():
                self._told(self, position, answer)


class Confirms:
    """The messages that were written to one channel and are not answered yet.

    The client library reads the answers. It has a future for each delivery tag, and finds the tag of a returned message
    by the message id. So no two messages with one id may be on their way at the same time.

    Args:
        channel: a channel with publisher confirms, to which nobody else publishes.
        writer: the connection's writer. The client library writes whole frames to it, and so do we, so frames never
            mix.
    """

    def __init__(self, channel: Channel, writer: asyncio.StreamWriter) -> None:
        self._channel = channel
        self._writer = writer
        self._frames = PublishFrames(channel.number, channel.max_content_size)
        self._tag = 0
        #: The ids of messages that are not answered, the oldest first, and the bytes of their portions.
        self._flying: dict[str, Portion] = {}
        self._size = 0
        self._is_over = False
        channel.closing.add_done_callback(self._on_end)

    def frames(self, letter: Letter) -> list[bytes]:
        """Returns the bytes of *letter*, in parts.

        Raises:
            TypeError, ValueError, OverflowError, RecursionError, struct.error: something in it cannot be written.
        """
        return self._frames.of(letter.exchange, letter.queue, letter.properties, letter.body)

    def in_the_way_of(self, portion: Portion) -> Portion | None:
        """Returns the portion that must be answered before *portion* may be written; None: it may be written now."""
        if len(self._flying) >= _MOST_MESSAGES or self._size >= _MOST_BYTES:
            return next(iter(self._flying.values()))
        return next((self._flying[name] for name in portion.names if name in self._flying), None)

    @property
    def is_waiting(self) -> bool:
        """Returns whether there are messages without an answer."""
        return bool(self._flying)

    def write(self, portion: Portion) -> None:
        """Writes *portion*. Counting the messages and writing them are one synchronous step.

        After the end of the channel nothing is written, and the answers are cancelled.
        """
        loop = asyncio.get_running_loop()
        portion.written_at = loop.time()
        self._size += portion.size
        for name, position in portion.names.items():
            self._tag += 1
            answer: Answer = loop.create_future()
            self._channel.confirmations[self._tag] = answer
            self._channel.message_id_delivery_tag[name] = self._tag
            self._flying[name] = portion
            portion.waiting[position] = answer
            answer.add_done_callback(partial(self._answered, portion, name, position))
        if self._is_over or self._writer.is_closing():
            self.give_up()
        else:
            self._writer.write(b"".join(portion.frames))
        portion.frames.clear()

    def _answered(self, portion: Portion, name: str, position: int, answer: Answer) -> None:
        self._flying.pop(name, None)
        self._channel.message_id_delivery_tag.pop(name, None)
        if not answer.cancelled():
            # Reads the error even if nobody asks for it any more, so that asyncio does not log it.
            answer.exception()
        portion.answer(position, answer)
        if not portion.waiting:
            self._size -= portion.size

    def give_up(self, error: BaseException | None = None) -> None:
        """Ends every answer that has not come: with *error*, or cancelled."""
        self._is_over = True
        for portion in set(self._flying.values()):
            for answer in portion.waiting.values():
                if answer.done():
                    continue
                if error is None or isinstance(error, asyncio.CancelledError):
                    answer.cancel()
                else:
                    answer.set_exception(error)

    def _on_end(self, closing: asyncio.Future[Any]) -> None:
        self.give_up(None if closing.cancelled() else closing.exception())
