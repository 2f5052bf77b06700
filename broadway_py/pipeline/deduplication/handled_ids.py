"""The ids of handled messages of one partition: in memory, and in the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from pydantic_core import to_json

from broadway_py._core.aggregation.connected_time import ConnectedTime
from broadway_py._core.deduplication.register import Register, Released
from broadway_py.clock import Clock
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.committer import Committed, Committer
from broadway_py.pipeline.deduplication.naming import Naming
from broadway_py.state.store import IDENTITY_BYTES, AggregatorFacts, Commit, StateStore

__all__ = ["FACTS", "NAME", "AtWork", "HandledIds", "Holder", "Timed"]

#: The ids are stored as those of an aggregator with this name. No real one has it in a pipeline with ids.
NAME: Final = "deduplicate_by"
FACTS: Final = AggregatorFacts(1, "ids of handled messages", "none", "none")


class Holder(Protocol):
    """The source of messages that wait."""

    @property
    def waiting(self) -> dict[int, Message[Any]]:
        """Its messages that wait, by their ``id()``."""

    def release(self, repeats: Sequence[Message[Any]], new: Sequence[Message[Any]]) -> None:
        """Takes back messages that wait no longer: to ack the *repeats*, and to send on the *new* ones."""


class Timed(Protocol):
    """What counts for how long a producer was read."""

    @property
    def has_ended(self) -> bool:
        """True if nothing more comes."""

    def active(self, now: float) -> float:
        """Returns the seconds in which it was read."""


class AtWork(NamedTuple):
    """What a message that is handled carries: its id, and who stores it."""

    ids: HandledIds
    identity: bytes
    #: True: an aggregator has stored its effect, and its own identity of the message. The id is not stored again.
    is_stored: bool = False


class HandledIds:
    """The ids of one partition; of the whole pipeline, if its sources have none.

    Ids that are to be stored at the same time share a commit. The next commit begins when the one before has ended.

    Args:
        pipeline: the pipeline's name.
        store: where the ids are stored. Whoever uses this opens and closes it.
        clock: the pipeline's clock.
        naming: names the messages.
        register: decides.
        timed: the producers, each with the time for which it was read.
        is_durable: False: what is stored ends with the process.
        partition: the partition; None: the sources have none.
    """

    def __init__(
        self,
        pipeline: str,
        store: StateStore,
        clock: Clock,
        *,
        naming: Naming,
        register: Register[Message[Any]],
        timed: Sequence[Timed],
        is_durable: bool,
        partition: int | None,
    ) -> None:
        self.register = register
        self.is_durable = is_durable
        self.partition = partition
        #: How many messages had no id.
        self.without_identity = 0
        #: How many ids were read at the start so far, and how many there are.
        self.loaded = self.to_load = 0
        self._pipeline = pipeline
        self._store = store
        self._clock = clock
        self._naming = naming
        self._timed = timed
        self._connected = ConnectedTime()
        self._number = 0
        self._committer = Committer(
            store,
            clock,
            _nothing,
            pipeline=pipeline,
            aggregator=NAME,
            complaint="the ids of handled messages cannot be stored; nothing is acked until they can",
        )
        # What the next commit stores, each with the future of its caller.
        self._wanted: list[tuple[bytes, asyncio.Future[Committed]]] = []
        self._task: asyncio.Task[None] | None = None
        self._holders: dict[int, Holder] = {}

    # --- messages

    def sort(
        self, messages: Sequence[Message[Any]], producer: str, holder: Holder
    ) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Returns those of *messages* that are to be handled, and those that repeat what was handled.

        The others wait. They are in ``holder.waiting`` until they are released or withdrawn. *messages* came from
        *producer*, and *holder* is its source.
        """
        new: list[Message[Any]] = []
        repeats: list[Message[Any]] = []
        admit = self.register.admit
        for message, identity in zip(messages, self._naming.names_of(messages, producer), strict=True):
            if identity is None:
                self.without_identity += message._status is None
            verdict = admit(message, identity)
            if verdict == "new":
                if identity is not None:
                    message._at_work = AtWork(self, identity)
                new.append(message)
            elif verdict == "repeat":
                repeats.append(message)
            else:
                holder.waiting[id(message)] = message
                self._holders[id(message)] = holder
        return new, repeats

    def withdraw(self, messages: Sequence[Message[Any]]) -> None:
        """Forget *messages*, which wait: they are given back."""
        for message in messages:
            holder = self._holders.pop(id(message), None)
            if holder is not None:
                holder.waiting.pop(id(message), None)
        self.register.withdraw(messages)

    def ended(self, identity: bytes, *, is_handled: bool) -> None:
        """Note that the message with *identity* has an outcome. What has waited for it goes back to its source."""
        released = self.register.ended(identity, is_handled=is_handled)
        if released is not None:
            self._release(released)

    def _release(self, released: Released[Message[Any]]) -> None:
        by_holder: dict[int, tuple[Holder, list[Message[Any]], list[Message[Any]]]] = {}
        for message in released.repeats:
            self._let_go(message, by_holder)[1].append(message)
        for message, identity in released.new:
            if identity is not None:
                message._at_work = AtWork(self, identity)
            self._let_go(message, by_holder)[2].append(message)
        for holder, repeats, new in by_holder.values():
            holder.release(repeats, new)

    def _let_go(
        self, message: Message[Any], by_holder: dict[int, tuple[Holder, list[Message[Any]], list[Message[Any]]]]
    ) -> tuple[Holder, list[Message[Any]], list[Message[Any]]]:
        holder = self._holders.pop(id(message))
        del holder.waiting[id(message)]
        return by_holder.setdefault(id(holder), (holder, [], []))

    # --- the store

    async def store(self, identities: Sequence[bytes]) -> Committed:
        """Store *identities*. Returns when they are on the disk, or when the time of a stop is over.

        A cancellation ends the wait, and not the storing.
        """
        if not self.is_durable:
            self._note_stored(self._number + 1, b"".join(identities), self.connected_s)
            self.register.forget(self.connected_s)
            return "stored"
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._wanted.append((b"".join(identities), future))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._store_all(), name=f"{self._pipeline}.{NAME}")
        return await future

    async def _store_all(self) -> None:
        """Store what is wanted, until nothing is. Nobody cancels this: what is being stored would be unknown."""
        wanted: list[tuple[bytes, asyncio.Future[Committed]]] = []
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, []
                _answer(wanted, await self._commit(b"".join(identities for identities, _ in wanted)))
        finally:
            # Nobody waits for ever, also if there is an error in the code of the library.
            left, self._wanted = [*wanted, *self._wanted], []
            _answer(left, "unknown")
            self._task = None

    async def _commit(self, identities: bytes) -> Committed:
        connected_s = self.connected_s
        number = self._number + 1
        forget_before = self.register.forget(connected_s)
        memory = to_json(self.register.memory(connected_s))
        commit = Commit(NAME, number, memory, identities=identities, forget_before=forget_before)
        outcome = await self._committer.commit(commit)
        if outcome == "stored":
            self._note_stored(number, identities, connected_s)
        return outcome

    def _note_stored(self, number: int, identities: bytes, connected_s: float) -> None:
        self._number = number
        self.register.stored(number, identities, connected_s)

    @property
    def connected_s(self) -> float:
        """For how many seconds all sources that have not ended were read together, since the first start."""
        now = self._clock.monotonic()
        return self._connected.advance({one: one.active(now) for one in self._timed if not one.has_ended})

    @property
    def trouble(self) -> str | None:
        """Why ids cannot be stored, in one sentence; None if they can."""
        return self._committer.trouble

    @property
    def failures(self) -> int:
        """How many tries to store ids failed."""
        return self._committer.failures

    @property
    def state_bytes(self) -> int:
        """How many bytes the stored ids have; 0 if none are stored."""
        return self._store.size_bytes(NAME) if self.is_durable else 0

    async def load(self) -> None:
        """Take up the ids that are stored, in parts, so that others can run between them."""
        loaded = await self._store.load(NAME)
        self.loaded, self.to_load = 0, loaded.identities
        self._number = loaded.number
        if loaded.memory is not None:
            memory: Mapping[str, Any] = json.loads(loaded.memory)
            self._connected = ConnectedTime(self.register.restore(memory, loaded.number))
        async for stored in self._store.identities(NAME):
            for each in stored:
                self.register.load([each])
                self.loaded += len(each.identities) // IDENTITY_BYTES
            await asyncio.sleep(0)
        _ = self.connected_s  # it counts from now on

    def give_up(self) -> None:
        """Do not try again after the next failure: the time of a stop is over."""
        self._committer.give_up()

    async def close(self) -> None:
        """Wait for what is being stored."""
        self.give_up()
        if self._task is not None:
            await asyncio.wait({self._task})


def _answer(wanted: Sequence[tuple[bytes, asyncio.Future[Committed]]], outcome: Committed) -> None:
    for _, future in wanted:
        if not future.done():
            future.set_result(outcome)


def _nothing() -> None:
    """Does nothing: whoever asks for the trouble looks at it."""
