"""Recognises messages that were delivered before, so that each of them is added once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broadway_py._core.aggregation.ack_times import AckTimes
from broadway_py._core.aggregation.held_identities import HeldIdentities
from broadway_py._core.aggregation.identifier import Identified, Identifier
from broadway_py._core.aggregation.remembered import Remembered
from broadway_py._core.ledger import Run
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message

__all__ = ["Identities", "Sorted"]

Messages = Sequence[Message[Any]]

#: How many identities are kept in memory.
_MOST: Final = 2_000_000


@dataclass(slots=True, eq=False)
class Sorted:
    """What becomes of messages: which are new, and which repeat one that was added."""

    #: Messages to add, in their order.
    new: list[Message[Any]] = field(default_factory=list)
    #: The identity of each message in :attr:`new`.
    identities: list[bytes | None] = field(default_factory=list)
    #: They repeat messages that are held for the next checkpoint: ack them with those.
    of_held: list[Message[Any]] = field(default_factory=list)
    #: They repeat messages of the checkpoint that is being committed: ack them with those.
    of_running: list[Message[Any]] = field(default_factory=list)
    #: They repeat messages that are durable: ack them now.
    of_committed: list[Message[Any]] = field(default_factory=list)
    #: They repeat messages in :attr:`new`. Sort them once :meth:`Identities.hold` knows which of those were added.
    later: Identified | None = None
    #: The identities of the marked messages in :attr:`new`.
    marked: set[bytes] = field(default_factory=set)
    #: The runs of :attr:`new`; None: not known.
    runs: list[Run] | None = None


class Identities:
    """The identities of one aggregator: of what it holds, and of what it has committed not long ago.

    The way of a list of messages::

        identified = identities.identify(messages)
        found = await store.find(aggregator, identified.wanted) if identified.wanted else ()
        left: Identified | None = identified
        while left is not None:
            sorted_ = identities.sort(left, found)
            failed = ...  # add sorted_.new, and settle or keep the repeats
            identities.hold(sorted_, failed)
            left = sorted_.later

    The way of a checkpoint: :meth:`begin`, then :meth:`committed`, and :meth:`acked` once its messages are acked; or
    :meth:`not_committed`. No two of them run at the same time. Times are seconds of ``ConnectedTime``.

    Args:
        aggregator: its name, for what users read.
        looked_up: names of the producers of which each message is looked up.
        marking: names of the producers that mark what they may have delivered before (``marks_repeats``). Only marked
            messages are looked up. Messages of other producers are never delivered again.
        identity: the user's ``identity(message)``. With it, each message of any producer is looked up.
        required: True: a message without an identity fails.
        keep_s: how long an identity is kept after its message was acked, in connected seconds (``dedup``).
        most: how many identities are kept in memory, where each message is looked up.
    """

    def __init__(
        self,
        aggregator: str,
        *,
        looked_up: Collection[str],
        marking: Collection[str],
        identity: Callable[[Message[Any]], object] | None = None,
        required: bool = False,
        keep_s: float = 600.0,
        most: int = _MOST,
    ) -> None:
        self._identifier = Identifier(
            aggregator, looked_up=looked_up, marking=marking, identity=identity, required=required
        )
        #: Names a message, see :meth:`Identifier.of`.
        self.of = self._identifier.of
        #: Whether identities are kept in memory. Then hand those in the state file to :meth:`load` at the start.
        self.in_memory = identity is not None or bool(looked_up)
        self._asks_file = identity is None and bool(marking)
        #: False: no message can be a repeat, and none needs an identity. Then nothing else need be called.
        self.is_needed = self.in_memory or self._asks_file or required
        self._times = AckTimes(keep_s)
        self._remembered = Remembered(most)
        # A message that is not marked may arrive after its own repeat: its handler was slower. So what was added for a
        # marked message is kept, too, and each message is compared with it.
        self._of_marked = Remembered(most)
        self._number = 0
        # What the next checkpoint will make durable, and what the one that runs does; those of them that were marked.
        self._held = HeldIdentities()
        self._running = HeldIdentities()
        self._held_marked: set[bytes] = set()
        self._running_marked: set[bytes] = set()
        #: How many messages were recognised as repeats.
        self.duplicates = 0

    # --- messages

    def identify(self, messages: Messages) -> Identified:
        """Finds the identity of each of *messages*, and those to look for in the state file.

        A message fails if the user's ``identity`` raises for it, or if it has no identity and one is required.
        """
        result = self._identifier.identify(messages)
        for identity in result.marked:
            if identity in self._held or identity in self._running:
                # It may be durable before the messages are sorted.
                result.known.add(identity)
            elif identity not in self._remembered:
                result.wanted.add(identity)
        return result

    @property
    def without_identity(self) -> int:
        """How many messages that may be delivered again had no identity."""
        return self._identifier.without_identity

    @property
    def uncertain(self) -> int:
        """How many of the messages without identity may have been delivered before. They may be counted twice."""
        return self._identifier.uncertain

    def sort(self, identified: Identified, found: Collection[bytes] = ()) -> Sorted:
        """Sorts messages into new ones and repeats.

        Args:
            identified: the messages, with their identities.
            found: those of :attr:`Identified.wanted` that the state file has.
        """
        may_repeat = self._held_marked or self._running_marked or self._of_marked
        if not may_repeat and identified.lookups.count("none") == len(identified.lookups):
            return Sorted(identified.messages, identified.identities, runs=identified.runs)
        result, later = Sorted(), Identified(known=identified.known)
        met: set[bytes] = set()
        for message, identity, lookup in zip(
            identified.messages, identified.identities, identified.lookups, strict=True
        ):
            if identity is not None:
                if lookup != "none" or self._was_marked(identity):
                    place = self._place_of(identity, identified, found, result)
                    if place is not None:
                        place.append(message)
                        self.duplicates += 1
                        continue
                if identity in met and (lookup != "none" or identity in result.marked):
                    later.messages.append(message)
                    later.identities.append(identity)
                    later.lookups.append(lookup)
                    continue
                met.add(identity)
                if lookup == "marked":
                    result.marked.add(identity)
            result.new.append(message)
            result.identities.append(identity)
        if later.messages:
            result.later = later
        return result

    def _was_marked(self, identity: bytes) -> bool:
        """Returns whether a marked message with *identity* was added."""
        return identity in self._held_marked or identity in self._running_marked or identity in self._of_marked

    def _place_of(
        self, identity: bytes, identified: Identified, found: Collection[bytes], result: Sorted
    ) -> list[Message[Any]] | None:
        """Returns the list in *result* for a repeat of *identity*. None: it is no repeat."""
        if identity in self._held:
            return result.of_held
        if identity in self._running:
            return result.of_running
        if (
            identity in found
            or identity in identified.known
            or identity in self._remembered
            or identity in self._of_marked
        ):
            return result.of_committed
        return None

    # --- what is held

    def hold(self, result: Sorted, left_out: Collection[Message[Any]] = ()) -> None:
        """Notes that the new messages of *result* were added, except those in *left_out*.

        The next checkpoint makes them durable.
        """
        identities = result.identities
        if left_out:
            without = set(map(id, left_out))
            identities = [
                identity
                for message, identity in zip(result.new, result.identities, strict=True)
                if id(message) not in without
            ]
        self._held.add(filter(None, identities))
        if result.marked:
            self._held_marked |= result.marked.intersection(identities)

    def let_go(self, messages: Messages) -> None:
        """Forgets that *messages* are held for the next checkpoint, because they have failed."""
        gone = set(filter(None, map(self._identity_or_none, messages)))
        self._held.remove(gone)
        self._held_marked -= gone

    def _identity_or_none(self, message: Message[Any]) -> bytes | None:
        try:
            return self.of(message)
        except foreign_errors(cancellations=True):
            return None

    # --- checkpoints

    def begin(self, number: int) -> bytes:
        """Begins checkpoint *number* with all that is held. Returns the identities, one after the other."""
        self._number = number
        self._running, self._held = self._held, HeldIdentities()
        self._running_marked, self._held_marked = self._held_marked, set()
        return self._running.joined()

    def committed(self) -> None:
        """Notes that the checkpoint is durable."""
        if self.in_memory:
            self._remembered.add(self._number, self._running.joined())
        self._of_marked.add(self._number, b"".join(self._running_marked))
        self._end()

    def not_committed(self) -> None:
        """Notes that nothing of the checkpoint is durable. Its identities are held for the next one."""
        self._held.add(self._running)
        self._held_marked |= self._running_marked
        self._end()

    def _end(self) -> None:
        self._running = HeldIdentities()
        self._running_marked = set()

    def acked(self, number: int, connected_s: float) -> None:
        """Notes that the messages of all checkpoints up to *number* were acked, at the latest at *connected_s*."""
        self._times.acked(number, connected_s)

    def forget(self, connected_s: float) -> int:
        """Forgets identities whose time is over. Returns the first checkpoint whose identities the file must keep.

        Call it for each checkpoint. One call forgets a bounded number of identities in memory.
        """
        number = self._times.forget(connected_s)
        for kept in (self._remembered, self._of_marked):
            kept.forget_before(number)
        # The file is of no use for what memory has no room for, unless it is asked, too.
        return number if self._asks_file else max(number, self._remembered.oldest)

    def horizon_s(self, connected_s: float) -> float:
        """Returns how long after its ack a message is still recognised, in connected seconds.

        It is *keep_s*, or less if there is no room in memory for so many identities.
        """
        dropped = self._remembered.dropped
        if dropped < self._times.forgotten_before:
            return self._times.keep_s
        return min(self._times.keep_s, self._times.age(dropped, connected_s) or 0.0)

    # --- over a restart

    def memory(self, connected_s: float) -> dict[str, Any]:
        """Returns what :meth:`restore` needs, as JSON has it. It belongs into each checkpoint, and is at most 3 kB."""
        return {"connected_s": connected_s, **self._times.saved()}

    def restore(self, memory: Mapping[str, Any], number: int) -> float:
        """Goes on from what :meth:`memory` has returned, after checkpoint *number*. Returns the connected seconds."""
        connected_s = float(memory["connected_s"])
        self._times.restore(memory, number, connected_s)
        return connected_s

    def load(self, number: int, identities: bytes) -> None:
        """Takes in the identities of checkpoint *number* from the state file. Call it in the order of the numbers."""
        self._remembered.add(number, identities)
