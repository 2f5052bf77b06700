"""Spawned messages: a parent is settled when all messages spawned from it are settled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from broadway_py._core.ledger import Ledger
from broadway_py.acknowledger import Acknowledger
from broadway_py.message import Acknowledgement, Failed, Message, Plain, Spawned

__all__ = ["ParentAcknowledger", "adopt_children"]

Conclude = Callable[[Sequence[Message[Any]], Sequence[Message[Any]]], Awaitable[None]]
GiveBack = Callable[[Sequence[Message[Any]]], Awaitable[None]]


class ParentAcknowledger(Acknowledger):
    """Acknowledges the children of one parent, and the parent after the last of them.

    The parent is given back if a child was. It fails if a child failed, with the cause of the first failed child.
    Otherwise it is acked.

    Args:
        parent: the message that waits for its children.
        children: the number of children.
        conclude: settles the parent, as successful or as failed.
        give_back: gives the parent back.
    """

    def __init__(self, parent: Message[Any], children: int, conclude: Conclude, give_back: GiveBack) -> None:
        self.parent = parent
        self._children = children
        self._open = children
        self._failed: list[Message[Any]] = []
        self._returned = False
        self._conclude = conclude
        self._give_back = give_back

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Count settled children. Settles the parent after the last child."""
        self._failed.extend(failed)
        await self._leave(len(successful) + len(failed))

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Count children that are given back. The parent is given back after the last child, and spawns again later."""
        self._returned = True
        await self._leave(len(messages))

    async def _leave(self, count: int) -> None:
        self._open -= count
        if self._open:
            return
        parent = self.parent
        if self._returned:
            await self._give_back([parent])
        elif self._failed:
            first = self._failed[0].status or Failed("failed")
            reason = Plain(
                f"{len(self._failed)} of {self._children} messages spawned from it failed; the first: {first.cause}"
            )
            parent.status = Failed(first.cause, reason, first.exception)
            await self._conclude((), [parent])
        else:
            await self._conclude([parent], ())


def adopt_children(parent: Message[Any], ledger: Ledger, now: float, conclude: Conclude, give_back: GiveBack) -> None:
    """Make *parent* wait for its children. They are entered into their own *ledger*: they are not deliveries."""
    children = parent._children or []
    family = ParentAcknowledger(parent, len(children), conclude, give_back)
    entry = ledger.begin(now, parent)
    entry.producer = parent.producer or ""
    for number, child in enumerate(children):
        child._acknowledgement = Acknowledgement(family, None, Spawned(parent, number))
        child._ledger_entry = entry
    ledger.receive(entry, children, sum(child._size for child in children))
