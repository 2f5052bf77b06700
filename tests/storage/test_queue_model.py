"""The embedded queue against a model: whatever is done to it, nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broadway_py.storage.queue_consumer import QueueConsumer
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_rows import Counts, Held, NewRow
from broadway_py.testing import FakeClock

R = TypeVar("R")

VISIBILITY: Final = 30.0
SLOTS: Final = (None, None, 3, 17)
WINDOW: Final = 100.0


@dataclass
class Entry:
    """What the model knows about a message."""

    payload: bytes
    priority: int
    slot: int | None
    attempts: int = 0
    #: Whether any reader has had it.
    was_taken: bool = False
    #: By the forward-only clock; None: at once.
    due: float | None = None
    #: The lease and its holder, while it is held.
    lease: int | None = None
    holder: int | None = None


class Reader:
    """A consumer and what the model knows about it."""

    def __init__(self, number: int, consumer: QueueConsumer, now: float) -> None:
        self.number = number
        self.consumer = consumer
        #: When it last showed that it lives, and whether it still goes its rounds.
        self.moved_at = now
        self.is_stuck = False


class QueueMachine(RuleBasedStateMachine):
    """One queue, up to three readers of it; the model is a dictionary."""

    sharing: Any = "shared"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="queue-model-"))
        self.clock = FakeClock()
        self.waiting: dict[int, Entry] = {}
        self.dead: dict[int, Entry] = {}
        self.gone: set[int] = set()
        self.recent: dict[str, tuple[int, float]] = {}
        self.readers: list[Reader] = []
        self.opened_readers = 0
        #: Holdings that the queue has taken back: settling them must do nothing.
        self.stale: list[Held] = []

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.file = self.run(QueueFile.open(self.directory / "q.db", "q", self.clock))
        self.join()

    def teardown(self) -> None:
        for reader in self.readers:
            self.run(reader.consumer.close())
        if hasattr(self, "file"):
            self.run(self.file.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    # --- putting

    @rule(
        bodies=st.lists(st.binary(max_size=20), min_size=1, max_size=5),
        priority=st.sampled_from((0, 0, 0, 5, -5)),
        slot=st.sampled_from(SLOTS),
        delay=st.sampled_from((None, None, None, 5.0, 50.0)),
    )
    def put(self, bodies: list[bytes], priority: int, slot: int | None, delay: float | None) -> None:
        priority = priority if slot is None else 0
        due = None if delay is None else self.file.time() + delay
        ids = self.run(self.file.put([NewRow(body, None, due, priority, slot) for body in bodies]))
        assert ids == sorted(set(ids))
        for number, body in zip(ids, bodies, strict=True):
            assert number not in self.waiting
            assert number not in self.dead
            assert number not in self.gone, "a number was given twice"
            self.waiting[number] = Entry(
                body, priority, slot, due=None if delay is None else self.clock.monotonic() + delay
            )

    @rule(names=st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
    def put_named(self, names: list[str]) -> None:
        numbers = self.run(self.file.put_new([(NewRow(name.encode()), name) for name in names], WINDOW))
        now = self.clock.monotonic()
        for name, number in zip(names, numbers, strict=True):
            known, until = self.recent.get(name, (0, 0.0))
            if until > now:
                assert number == known, "a repetition was stored"
            else:
                assert number not in self.waiting
                self.recent[name] = (number, now + WINDOW)
                self.waiting[number] = Entry(name.encode(), 0, None)

    # --- taking and settling

    def is_ready(self, entry: Entry) -> bool:
        return entry.lease is None and (entry.due is None or entry.due <= self.clock.monotonic())

    def live(self, index: int) -> Reader | None:
        usable = [reader for reader in self.readers if not reader.is_stuck]
        return usable[index % len(usable)] if usable else None

    @rule(index=st.integers(0, 2), limit=st.sampled_from((1, 2, 5, 100)))
    def take(self, index: int, limit: int) -> None:
        reader = self.live(index)
        if reader is None:
            return
        ready = {number for number, entry in self.waiting.items() if self.is_ready(entry)}
        taken = self.run(reader.consumer.take(limit)).rows
        numbers = [row.id for row in taken]
        assert set(numbers) <= ready, "something was taken that is not ready"
        self.check_order(numbers, ready)
        if self.sharing == "shared":
            # Slots are cut at an even share, so that a take of many may need a second one.
            enough = limit if all(self.waiting[number].slot is None for number in ready) else 1
            assert len(taken) >= min(enough, len(ready))
        for row in taken:
            entry = self.waiting[row.id]
            entry.attempts += 1
            entry.due = None
            entry.lease, entry.holder = row.lease, reader.number
            seen = (row.payload, row.attempts, row.was_taken)
            assert seen == (entry.payload, entry.attempts, entry.was_taken)
            entry.was_taken = True
        if taken:
            reader.moved_at = self.clock.monotonic()

    def check_order(self, numbers: list[int], ready: set[int]) -> None:
        """Messages without a key by priority and age, those of a slot by age."""
        for slot in set(SLOTS):
            mine = [number for number in numbers if self.waiting[number].slot == slot]
            all_ready = sorted(
                (number for number in ready if self.waiting[number].slot == slot),
                key=lambda number: (-self.waiting[number].priority, number),
            )
            assert mine == all_ready[: len(mine)]

    def held_by(self, reader: Reader) -> list[Held]:
        return [
            Held(number, entry.lease)
            for number, entry in self.waiting.items()
            if entry.lease is not None and entry.holder == reader.number
        ]

    @rule(index=st.integers(0, 2), done=st.integers(0, 3), failed=st.integers(0, 2), with_stale=st.booleans())
    def settle(self, index: int, done: int, failed: int, *, with_stale: bool) -> None:
        reader = self.live(index)
        if reader is None:
            return
        held = self.held_by(reader)
        good, bad = held[:done], held[done : done + failed]
        stale = self.stale[:2] if with_stale else []
        lost = self.run(
            reader.consumer.settle([*good, *stale], [NewDeadLetter(one, "raised", "ValueError") for one in bad], "p")
        )
        assert lost == set(stale)
        for one in good:
            del self.waiting[one.id]
            self.gone.add(one.id)
        for one in bad:
            entry = self.waiting.pop(one.id)
            entry.lease = entry.holder = None
            self.dead[one.id] = entry
        # The consumer counts what it was told; the stale ones were never its own.
        reader.consumer._held += len(stale)

    @rule(index=st.integers(0, 2), delay=st.sampled_from((0.0, 5.0, 50.0)))
    def retry(self, index: int, delay: float) -> None:
        reader = self.live(index)
        held = [] if reader is None else self.held_by(reader)[:2]
        if reader is None or not held:
            return
        assert self.run(reader.consumer.retry([(one, delay) for one in held])) == set()
        for one in held:
            entry = self.waiting[one.id]
            entry.lease = entry.holder = None
            entry.due = self.clock.monotonic() + delay

    @rule(index=st.integers(0, 2))
    def release(self, index: int) -> None:
        reader = self.live(index)
        held = [] if reader is None else self.held_by(reader)[:3]
        if reader is None or not held:
            return
        assert self.run(reader.consumer.release(held)) == set()
        for one in held:
            entry = self.waiting[one.id]
            entry.lease = entry.holder = None
            entry.attempts -= 1

    @rule()
    def replay(self) -> None:
        chosen = sorted(self.dead)[:2]
        assert self.run(self.file.replay(chosen)) == len(chosen)
        for number in chosen:
            entry = self.dead.pop(number)
            entry.attempts = 0
            self.waiting[number] = entry

    @rule()
    def purge(self) -> None:
        chosen = sorted(self.dead)[-1:]
        assert self.run(self.file.discard_dead(chosen)) == len(chosen)
        for number in chosen:
            del self.dead[number]
            self.gone.add(number)

    # --- readers that come, go, die and hang

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def join(self) -> None:
        consumer = self.run(QueueConsumer.open(self.file, VISIBILITY, sharing=self.sharing))
        self.opened_readers += 1
        self.readers.append(Reader(self.opened_readers, consumer, self.clock.monotonic()))

    def free(self, reader: Reader) -> None:
        for one in self.held_by(reader):
            entry = self.waiting[one.id]
            entry.lease = entry.holder = None
            self.stale.append(one)

    @precondition(lambda self: self.readers)
    @rule(index=st.integers(0, 2))
    def leave(self, index: int) -> None:
        reader = self.readers.pop(index % len(self.readers))
        self.run(reader.consumer.close())
        self.free(reader)

    @precondition(lambda self: len(self.readers) > 1)
    @rule(index=st.integers(0, 2))
    def die(self, index: int) -> None:
        reader = self.readers.pop(index % len(self.readers))
        lock = reader.consumer._lock
        assert lock is not None
        lock.drop()  # what the kernel does when a process dies
        self.run(self.readers[0].consumer.upkeep())
        self.free(reader)

    @precondition(lambda self: len(self.readers) > 1)
    @rule(index=st.integers(1, 2))
    def hang(self, index: int) -> None:
        self.readers[index % len(self.readers)].is_stuck = True

    @precondition(lambda self: any(reader.is_stuck for reader in self.readers))
    @rule()
    def wake_up(self) -> None:
        for reader in self.readers:
            if reader.is_stuck:
                reader.is_stuck = False
                self.run(reader.consumer.upkeep())
                reader.moved_at = self.clock.monotonic()

    @rule(seconds=st.sampled_from((1, 7, 70)))
    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.run(self.clock.advance(1.0))
            for reader in self.readers:
                if not reader.is_stuck:
                    self.run(reader.consumer.upkeep())
                    reader.moved_at = self.clock.monotonic()
        if not any(not reader.is_stuck for reader in self.readers):
            return
        for reader in self.readers:
            # Its neighbours have watched it for the whole visibility, from a round after it stopped.
            if reader.is_stuck and seconds > VISIBILITY + 1:
                self.free(reader)
            elif reader.is_stuck:
                self.see_who_was_freed(reader)

    def see_who_was_freed(self, reader: Reader) -> None:
        """Between one and two visibilities both are right; what the file says holds."""
        held = self.run(
            self.file.writer.read(lambda at: dict(at.execute("SELECT id, lease FROM messages WHERE lease IS NOT NULL")))
        )
        if any(held.get(one.id) != one.lease for one in self.held_by(reader)):
            self.free(reader)

    @rule(seconds=st.sampled_from((-100_000.0, -10.0, 10.0, 100_000.0)))
    def step_the_wall_clock(self, seconds: float) -> None:
        self.clock.step_wall(seconds)

    @rule()
    def restart(self) -> None:
        """The program ends, and begins again."""
        for reader in self.readers:
            self.run(reader.consumer.close())
            self.free(reader)
        self.readers = []
        self.run(self.file.close())
        self.open()

    # --- what must always be so

    @invariant()
    def the_counts_agree(self) -> None:
        if not hasattr(self, "file"):
            return
        counts = self.run(self.file.count())
        held = sum(entry.lease is not None for entry in self.waiting.values())
        assert (counts.ready + counts.delayed, counts.held) == (len(self.waiting) - held, held)
        assert counts.dead == len(self.dead)
        assert isinstance(counts, Counts)

    @invariant()
    def no_slot_is_in_two_hands(self) -> None:
        if self.sharing != "partitioned":
            return
        holders: dict[int, set[int | None]] = {}
        for entry in self.waiting.values():
            if entry.lease is not None and entry.slot is not None:
                holders.setdefault(entry.slot, set()).add(entry.holder)
        assert all(len(hands) == 1 for hands in holders.values())


class PartitionedMachine(QueueMachine):
    """The same with readers that keep keys apart."""

    sharing = "partitioned"


QUICK = settings(max_examples=25, stateful_step_count=40)


def test_a_shared_queue_does_what_the_model_does() -> None:
    run_state_machine_as_test(QueueMachine, settings=settings(QUICK))


def test_a_partitioned_queue_does_what_the_model_does() -> None:
    run_state_machine_as_test(PartitionedMachine, settings=settings(QUICK))
