"""A call of ``publish`` or ``publish_many``, its messages, and the lists in which they travel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from broadway_py._core.outgoing_lists import OutgoingLists
from broadway_py.errors import DefinitionError, PublishError, Unavailable
from broadway_py.publisher import Outgoing, Unconfirmed
from broadway_py.tracing import Sending

__all__ = ["Entry", "OutgoingList", "PublishCall", "PublishUnavailable", "refuse_other_loops"]


class PublishUnavailable(PublishError, Unavailable):
    """Messages are not confirmed because their place is not available. This is not the fault of the message at work."""


class PublishCall:
    """One call of a handler.

    Args:
        items: what the handler gave.
        deadline: when its time is over, by the clock.
        loop: the event loop.
    """

    def __init__(self, items: Sequence[Any], deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.items = items
        self.deadline = deadline
        #: The span of the call; None without tracing.
        self.sending: Sending | None = None
        #: How many items are confirmed.
        self.confirmed = 0
        #: By position: why the place never takes an item.
        self.refused: dict[int, str] = {}
        #: The messages without an outcome, by position.
        self.open: dict[int, Entry] = {}
        self._reason: str | None = None
        self._is_confirmed = bytearray(len(items))
        self._failed = 0
        self._loop = loop
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_hopeless(self) -> bool:
        """Returns whether a message has failed for a reason that the items that come after it have, too."""
        return self._failed > 0

    async def settled(self) -> None:
        """Wait until no message is without an outcome."""
        if self.open:
            self._waiting = self._loop.create_future()
            await self._waiting

    def confirm(self, position: int) -> None:
        """Note that the place has confirmed an item."""
        self.confirmed += 1
        self._is_confirmed[position] = 1
        self._close(position)

    def refuse(self, position: int, reason: str) -> None:
        """Note that the place never takes an item."""
        self.refused[position] = reason
        self._close(position)

    def fail(self, position: int, reason: str | None) -> None:
        """Note that an item is not confirmed, and is not tried again. None: *reason* is not known here."""
        self._failed += 1
        self.note(reason)
        self._close(position)

    def note(self, reason: str | None) -> None:
        """Note why items are not confirmed. The first reason counts."""
        self._reason = self._reason or reason

    def _close(self, position: int) -> None:
        self.open.pop(position, None)
        if not self.open and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def error(self, publisher: str, otherwise: str) -> PublishError | None:
        """Returns the error of the call; None: all items are confirmed.

        Args:
            publisher: the name of the publisher.
            otherwise: the reason of items that no list has told.
        """
        total = len(self.items)
        missing = total - self.confirmed
        if not missing:
            return None
        reason = next(iter(self.refused.values()), None) or self._reason or otherwise
        what = "the message was" if total == 1 else f"{missing} of {total} messages were"
        # A message whose own fault it is must not open the breaker.
        kind = PublishError if self.refused else PublishUnavailable
        return kind(
            f"publisher {publisher!r}: {what} not confirmed: {reason}",
            unpublished=[item for item, done in zip(self.items, self._is_confirmed, strict=True) if not done],
            refused=[self.items[position] for position in sorted(self.refused)],
        )


class Entry:
    """One message of a call, from when it waits until it has an outcome."""

    __slots__ = ("call", "list", "message", "place", "position", "size")

    def __init__(self, call: PublishCall, position: int, message: Outgoing, size: int) -> None:
        self.call = call
        #: Its position in the call.
        self.position = position
        self.message = message
        self.size = size
        #: The list that it travels in, and its position there; None while it waits.
        self.list: OutgoingList | None = None
        self.place = 0


class OutgoingList(Unconfirmed):
    """A list that is being sent. It tells the callers what becomes of each message, as soon as that is known.

    Args:
        entries: its messages.
        lists: the books of what is on its way.
        freed: called when there is room for more.
    """

    def __init__(self, entries: Sequence[Entry], lists: OutgoingLists[Entry], freed: Callable[[], None]) -> None:
        super().__init__([entry.message for entry in entries])
        #: The task that sends it. Set by who starts it.
        self.task: asyncio.Task[None] | None = None
        #: When the last of its callers waits no longer.
        self.deadline = max(entry.call.deadline for entry in entries)
        self._entries = entries
        self._lists = lists
        self._freed = freed
        #: Whether the place has confirmed any of them.
        self.has_confirmed = False
        self._counts = True
        # The bytes of messages that nobody waits for any more. They may still be on their way.
        self._withdrawn: list[int] = []
        self._reasons: dict[int, str] = {}
        for place, entry in enumerate(entries):
            entry.list, entry.place = self, place

    def confirm(self, position: int) -> None:
        """Note that the place has confirmed a message."""
        self.has_confirmed = True
        if self.waiting.pop(position, None) is not None:
            entry = self._entries[position]
            entry.call.confirm(entry.position)
            self._release(entry.size)

    def refuse(self, position: int, reason: str) -> None:
        """Note that the place will not take a message as it is, however often it is sent."""
        if self.waiting.pop(position, None) is not None:
            entry = self._entries[position]
            entry.call.refuse(entry.position, reason)
            self._release(entry.size)

    def fail(self, reason: str, *, position: int | None = None, lasting: bool = False) -> None:
        """Note why messages wait after a try."""
        super().fail(reason, position=position, lasting=lasting)
        if position is not None:
            # What is left waits for another try. The messages of others need not wait with it.
            self._reasons[position] = reason
            self._leave()

    def withdraw(self, entry: Entry) -> None:
        """Send a message no more: its caller does not wait any longer."""
        if self.waiting.pop(entry.place, None) is not None:
            entry.call.note(self._why(entry.place))
            self._withdrawn.append(entry.size)
            if not self.waiting and self.task is not None:
                self.task.cancel()

    def end(self) -> None:
        """Note that the list is sent no more. What is not confirmed has failed."""
        for position in list(self.waiting):
            del self.waiting[position]
            entry = self._entries[position]
            entry.call.fail(entry.position, self._why(position))
            self._lists.release(entry.size)
        for size in self._withdrawn:
            self._lists.release(size)
        self._withdrawn.clear()
        self._leave()
        self._freed()

    def _why(self, position: int) -> str | None:
        return self._reasons.get(position) or self.reason

    def _release(self, size: int) -> None:
        self._lists.release(size)
        if self._lists.waiting or self._lists.has_much_room:
            self._freed()

    def _leave(self) -> None:
        """Let another list be sent beside this one."""
        if self._counts:
            self._counts = False
            self._lists.end_list()
            self._freed()


def refuse_other_loops(loop: asyncio.AbstractEventLoop, called: str) -> None:
    """Raise if this is a thread, or another event loop than *loop*.

    Raises:
        DefinitionError: the text says what to do.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        raise DefinitionError(
            f"{called}() was called in a thread, as plain `def` callbacks run; a publisher works in the event loop of "
            "its pipeline: write the callback as `async def`, and await the call"
        ) from None
    if running is not loop:
        raise DefinitionError(
            f"{called}() was called in another event loop than that of its pipeline: await it in an `async def` "
            "callback of the pipeline"
        )
