"""Decides what becomes of a delivery: it is new, it repeats one that was handled, or it waits for one at work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from broadway_py._core.aggregation.ack_times import AckTimes
from broadway_py._core.aggregation.remembered import Remembered

__all__ = ["MOST_IDS", "Register", "Released", "Verdict"]

M = TypeVar("M")

#: How many ids are kept in memory. It takes some 250 MB.
MOST_IDS: Final = 2_000_000

#: What becomes of a delivery. ``new``: it is handled, and its id is at work from now on. ``repeat``: it is acked, and
#: not handled. ``waits``: the register keeps it until :meth:`Register.ended` hands it back.
Verdict = Literal["new", "repeat", "waits"]


@dataclass(slots=True)
class _Waiting(Generic[M]):
    message: M
    identity: bytes | None
    #: Later messages of this key wait behind it. None: it has none.
    key: Hashable


@dataclass(slots=True)
class Released(Generic[M]):
    """Deliveries that wait no longer, in the order in which they came."""

    #: They repeat what was handled: ack them.
    repeats: list[M] = field(default_factory=list)
    #: Handle them. Each has its id, which is at work from now on; None: it has none.
    new: list[tuple[M, bytes | None]] = field(default_factory=list)


class Register(Generic[M]):
    """The ids of messages that were handled not long ago, and those that are at work.

    An id is at work from the first delivery that is to be handled until that one has an outcome. Other deliveries of it
    wait meanwhile. They are repeats if the first one was handled, and if not, the next one is handled.

    The way of an id: :meth:`admit`, then :meth:`stored` once it is durable, and :meth:`ended` in any case. Times are
    seconds of ``ConnectedTime``.

    Args:
        keep_s: how long an id is kept after it was stored, in connected seconds (``dedup``).
        most: how many ids are kept. If there are more, the oldest are forgotten.
        key_of: returns the key of a message, in a pipeline that keeps the order of keys. Then messages of a key wait
            behind one that waits. None for a key: nothing waits behind it.
    """

    def __init__(self, *, keep_s: float, most: int = MOST_IDS, key_of: Callable[[M], Hashable] | None = None) -> None:
        self._key_of = key_of
        self._times = AckTimes(keep_s)
        self._handled = Remembered(most)
        # The ids at work, each with the deliveries that wait for it.
        self._at_work: dict[bytes, list[_Waiting[M]] | None] = {}
        # The keys of messages that wait, each with the id that it waits for.
        self._held_keys: dict[Hashable, bytes] = {}
        #: How many deliveries were recognised as repeats.
        self.duplicates = 0

    def __len__(self) -> int:
        """The number of ids that are kept."""
        return len(self._handled)

    @property
    def waiting(self) -> int:
        """How many deliveries wait."""
        return sum(len(waiting) for waiting in self._at_work.values() if waiting)

    def admit(self, message: M, identity: bytes | None) -> Verdict:
        """Returns what becomes of a delivery that came in. None: it has no id, so it is handled always."""
        key: Hashable = None
        if self._key_of is not None and (self._held_keys or identity in self._at_work):
            key = self._key_of(message)
        return self._admit(message, identity, key)

    def _admit(self, message: M, identity: bytes | None, key: Hashable) -> Verdict:
        if key is not None and (holder := self._held_keys.get(key)) is not None:
            self._wait(holder, _Waiting(message, identity, key))
            return "waits"
        if identity is None:
            return "new"
        if identity in self._at_work:
            self._wait(identity, _Waiting(message, identity, key))
            if key is not None:
                self._held_keys[key] = identity
            return "waits"
        if identity in self._handled:
            self.duplicates += 1
            return "repeat"
        self._at_work[identity] = None
        return "new"

    def _wait(self, identity: bytes, one: _Waiting[M]) -> None:
        waiting = self._at_work[identity]
        if waiting is None:
            self._at_work[identity] = [one]
        else:
            waiting.append(one)

    def ended(self, identity: bytes, *, is_handled: bool) -> Released[M] | None:
        """Notes that the delivery of *identity* at work has an outcome. Returns what waits no longer; None: nothing.

        Args:
            identity: the id.
            is_handled: True: it was handled, and need not be handled again. An id that is stored counts as handled.
        """
        waiting = self._at_work.pop(identity, None)
        if not waiting:
            return None
        for key in {one.key for one in waiting}:
            if self._held_keys.get(key) == identity:
                del self._held_keys[key]
        released: Released[M] = Released()
        for one in waiting:
            if is_handled and one.identity == identity:
                self.duplicates += 1
                released.repeats.append(one.message)
                continue
            verdict = self._admit(one.message, one.identity, one.key)
            if verdict == "new":
                released.new.append((one.message, one.identity))
            elif verdict == "repeat":
                released.repeats.append(one.message)
        return released

    def withdraw(self, messages: Collection[M]) -> None:
        """Forgets *messages*, which wait: they are given back to their source."""
        gone = set(map(id, messages))
        for identity, waiting in self._at_work.items():
            if waiting:
                self._at_work[identity] = [one for one in waiting if id(one.message) not in gone]
        held = {(one.key, identity) for identity, waiting in self._at_work.items() for one in waiting or ()}
        self._held_keys = {key: identity for key, identity in self._held_keys.items() if (key, identity) in held}

    # --- what is stored

    def stored(self, number: int, identities: bytes, connected_s: float) -> None:
        """Notes that commit *number*, which has *identities*, is durable. The numbers grow."""
        self._handled.add(number, identities)
        self._times.acked(number, connected_s)

    def forget(self, connected_s: float) -> int:
        """Forgets ids whose time is over. Returns the first commit whose ids the store must keep.

        Call it for each commit. One call forgets a bounded number of ids.
        """
        number = self._times.forget(connected_s)
        self._handled.forget_before(number)
        return max(number, self._handled.oldest)

    def horizon_s(self, connected_s: float) -> float:
        """Returns for how long a message is recognised, in connected seconds: *keep_s*, or less for want of room."""
        dropped = self._handled.dropped
        if dropped < self._times.forgotten_before:
            return self._times.keep_s
        return min(self._times.keep_s, self._times.age(dropped, connected_s) or 0.0)

    def memory(self, connected_s: float) -> dict[str, Any]:
        """Returns what :meth:`restore` needs, as JSON has it. It belongs into each commit, and is at most 3 kB."""
        return {"connected_s": connected_s, **self._times.saved()}

    def restore(self, memory: Mapping[str, Any], number: int) -> float:
        """Goes on from what :meth:`memory` has returned, after commit *number*. Returns the connected seconds."""
        connected_s = float(memory["connected_s"])
        self._times.restore(memory, number, connected_s)
        return connected_s

    def load(self, commits: Sequence[tuple[int, bytes]]) -> None:
        """Takes in the ids of stored commits. Call it in the order of their numbers."""
        for number, identities in commits:
            self._handled.add(number, identities)
