"""One reader of a queue: it takes messages, holds them as long as it lives, and settles them.

How long a message stays held does not depend on any wall clock:

* Each consumer holds a file lock. The kernel drops it when the process dies, and the next consumer that looks gives the
  dead one's messages back at once.
* While it holds messages, a consumer changes its *beat* in the file every third of its visibility timeout. A consumer
  that is alive but does not run (stopped, starved) loses its messages when another consumer has seen the same beat for
  the whole visibility timeout, by the watcher's own monotonic clock. Where each key has one owner (``partitioned``),
  the beat changes all the time, because a reader that does not run must lose its keys too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from broadway_py.log import logger
from broadway_py.storage import queue_dead as dead_letters
from broadway_py.storage import queue_members as members
from broadway_py.storage import queue_rows as rows
from broadway_py.storage import queue_take as taking
from broadway_py.storage.errors import StorageError
from broadway_py.storage.locks import LifeLock, is_alive
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_members import Membership, Partition, Sharing
from broadway_py.storage.queue_rows import Held
from broadway_py.storage.queue_take import Row

__all__ = ["ConsumerLost", "QueueConsumer", "Taken"]

log = logger("broadway_py.storage")

#: The longest time, in seconds, between two checks of a consumer's own and others' leases. It is a third of the
#: visibility timeout if that is shorter.
_ROUND: Final = 1.0


class ConsumerLost(StorageError):
    """The file does not know this consumer any more. Open a new one."""


class Taken(NamedTuple):
    """The result of a take."""

    rows: list[Row]
    #: If there are no rows: when the next delayed message is due, on ``clock.monotonic()``.
    next_due: float | None


class _Peer(NamedTuple):
    id: int
    beat: int
    visibility: float
    #: Whether its beat must change, because it holds messages or keys.
    must_move: bool
    is_alive: bool


class QueueConsumer:
    """One consumer, made by :meth:`open`.

    The caller must call :meth:`upkeep` every :attr:`round` seconds until the consumer is closed. While nobody has
    anything to give back, :attr:`idle_round` is enough.
    """

    def __init__(self, file: QueueFile, membership: Membership) -> None:
        self._file = file
        self._membership = membership
        self._visibility = membership.visibility
        self._is_partitioned = membership.sharing == "partitioned"
        self._clock = file.clock
        self._id = 0
        self._lock: LifeLock | None = None
        self._takes = 0
        self._held = 0
        self._beaten = self._clock.monotonic()
        # Messages that are held but that nobody will settle: a settlement failed, or the taker was cancelled.
        self._forsaken: set[Held] = set()
        # The beats of other consumers, and since when this consumer has seen each one unchanged.
        self._watched: dict[int, tuple[int, float]] = {}
        self._looked = self._beaten
        # At this number of changes of the file, no other consumer had anything to give back. None: not known.
        self._idle_at: int | None = None
        self._listens = 0

    @classmethod
    async def open(
        cls,
        file: QueueFile,
        visibility: float,
        *,
        sharing: Sharing = "shared",
        holder: str = "",
        partition: Partition | None = None,
    ) -> Self:
        """Enters a new consumer into *file*, and gives back the messages of dead ones. See :class:`Membership`.

        Raises:
            StorageError: this failed, or another reader of the queue excludes this one. The text says why and what to
                do.
        """
        consumer = cls(file, Membership(visibility, sharing, holder, partition))
        try:
            await file.writer.write(consumer._enter)
            await consumer._free_others()
        except BaseException:
            if consumer._lock is not None:
                consumer._lock.drop()
            raise
        return consumer

    def _enter(self, at: sqlite3.Connection) -> None:
        if self._lock is not None:
            self._lock.drop()  # from an entry that a full disk did not take
            self._lock = None
        self._id, clash = members.enter(at, self._file.queue, self._membership, self._lives)
        if clash is not None:
            raise StorageError(f"queue file {self._file.writer.path}, queue {self._file.name!r}: {clash}")
        path = self._lock_path(self._id)
        try:
            # The file is locked before anybody else can see the row, so nobody can think that this consumer is dead.
            self._lock = LifeLock(path, self._file.writer.path)
        except OSError as error:
            raise StorageError(
                f"queue file {self._file.writer.path}: the lock file {path} cannot be created ({error.strerror}): "
                "give this user write permission to the directory, or choose another path"
            ) from error

    def _lock_path(self, consumer: int) -> str:
        return f"{self._file.writer.path}-consumer-{consumer}"

    def _lives(self, consumer: int) -> bool:
        return is_alive(self._lock_path(consumer))

    @property
    def round(self) -> float:
        """Seconds between two calls of :meth:`upkeep`."""
        return min(_ROUND, self._visibility / 3)

    @property
    def idle_round(self) -> float:
        """Seconds until the next call of :meth:`upkeep`, if nothing comes before: more than :attr:`round` while idle.

        An idle consumer holds nothing and listens, and nobody else in the file held anything at the last look. So
        nothing can be due before the file changes. Call :meth:`upkeep` a round after a call of a listener.
        """
        changes = self._file.writer.changes
        is_idle = self._listens > 0 and changes is not None and changes == self._idle_at
        if not is_idle or self._held or self._forsaken or self._is_partitioned:
            return self.round
        return self._visibility / 3

    @contextlib.contextmanager
    def listening(self, callback: Callable[[], object]) -> Iterator[None]:
        """Calls *callback* when there may be something new to take, while the block runs."""
        self._listens += 1
        try:
            with self._file.writer.listening(callback):
                yield
        finally:
            self._listens -= 1

    async def take(self, limit: int) -> Taken:
        """Takes at most *limit* ready messages, the oldest first. Does not wait for one.

        Raises:
            ConsumerLost: the file does not know this consumer any more.
            StorageError: the file cannot be used or refuses.
        """
        self._takes += 1
        lease = self._id << 32 | self._takes
        taken = await self._file.writer.write(
            lambda at: self._take(at, lease, limit), rows=limit, unclaimed=self._forsake
        )
        if taken.rows:
            self._held += len(taken.rows)
            self._beaten = self._clock.monotonic()
        return taken

    def _take(self, at: sqlite3.Connection, lease: int, limit: int) -> Taken:
        queue = self._file.queue
        reach = self._reach(at)
        found = taking.find(at, queue, reach, limit, lease)
        if found.next_due is not None and found.next_due <= self._file.time():
            taking.wake_due(at, queue, self._file.time())
            found = taking.find(at, queue, reach, limit, lease)
        if found.rows:
            self._beat(at)
            taking.take(at, found.rows)
            return Taken(found.rows, None)
        return Taken([], None if found.next_due is None else self._file.monotonic(found.next_due))

    def _reach(self, at: sqlite3.Connection) -> taking.Reach:
        reach = members.reach(at, self._file.queue, self._id, self._membership)
        if not reach.slots:
            # It may not have run for a time, and its keys were given to others. The beat makes it take part again.
            self._beat(at)
            reach = members.reach(at, self._file.queue, self._id, self._membership)
        return reach

    def _beat(self, at: sqlite3.Connection) -> None:
        if not members.beat(at, self._id, self._membership):
            raise ConsumerLost(
                f"queue file {self._file.writer.path}: this consumer was declared dead, because its lock file "
                f"{self._lock_path(self._id)} was gone; its messages were given back: do not remove lock files"
            )

    def _forsake(self, taken: Taken) -> None:
        # The taker was cancelled before it got them.
        self._held += len(taken.rows)
        self._forsaken.update(Held(row.id, row.lease) for row in taken.rows)

    async def settle(self, done: Sequence[Held], dead: Sequence[NewDeadLetter] = (), pipeline: str = "") -> set[Held]:
        """Removes the messages in *done* and moves those in *dead* to the dead letters, in one transaction.

        Returns:
            The messages whose lease was gone: another consumer has got them meanwhile, and they are left alone.

        Raises:
            StorageError: none of them was settled. They will be given back.
        """
        wall = self._clock.wall()

        def change(at: sqlite3.Connection) -> set[Held]:
            return rows.delete(at, done) | dead_letters.add_dead(at, dead, pipeline, wall)

        # Another reader of this process may wait for the keys of these messages.
        return await self._let_go(change, [*done, *(one.held for one in dead)], wakes=self._is_partitioned)

    async def release(self, held: Sequence[Held]) -> set[Held]:
        """Gives *held* back as if never taken. Returns those whose lease was gone.

        Raises:
            StorageError: none was given back yet. They will be given back later.
        """
        return await self._let_go(lambda at: rows.release(at, held), held, wakes=True)

    async def retry(self, held: Sequence[tuple[Held, float]]) -> set[Held]:
        """Gives each message back, to be taken again after its delay in seconds. Returns those whose lease was gone.

        Raises:
            StorageError: none was given back yet. They will be given back later, without the delay.
        """

        def change(at: sqlite3.Connection) -> set[Held]:
            now = self._file.time()
            return rows.postpone(at, [(one, now + delay_s) for one, delay_s in held])

        return await self._let_go(change, [one for one, _ in held], wakes=True)

    async def _let_go(
        self, change: Callable[[sqlite3.Connection], set[Held]], held: Sequence[Held], *, wakes: bool
    ) -> set[Held]:
        try:
            gone = await self._file.writer.write(change, rows=len(held), wakes=wakes)
        except BaseException:
            # This is also for a cancelled caller: the change may or may not be stored, and giving back twice does
            # nothing.
            self._forsaken.update(held)
            raise
        self._held -= len(held)
        return gone

    async def upkeep(self) -> None:
        """Shows that this consumer lives, and gives back messages that it or other consumers have left.

        Raises:
            ConsumerLost: the file does not know this consumer any more.
            StorageError: the file cannot be used or refuses. Call again.
        """
        if self._forsaken:
            await self._free(tuple(self._forsaken))
        if (self._held > 0 or self._is_partitioned) and self._clock.monotonic() - self._beaten >= self._visibility / 3:
            await self._file.writer.write(self._beat)
            self._beaten = self._clock.monotonic()
        await self._free_others()

    async def _free(self, forsaken: Iterable[Held]) -> None:
        await self._file.writer.write(lambda at: rows.free(at, forsaken), wakes=True)
        self._forsaken.difference_update(forsaken)
        self._held -= len(tuple(forsaken))

    # --- other consumers --------------------------------------------------------------------------------------------

    async def _free_others(self) -> None:
        changes = self._file.writer.changes
        peers = await self._file.writer.read(self._look_around)
        stalled = self._stalled(peers, self._clock.monotonic())
        dead = [peer.id for peer in peers if not peer.is_alive]
        self._idle_at = None if any(peer.must_move for peer in peers) else changes
        if not dead and not stalled:
            return
        freed = await self._file.writer.write(lambda at: self._give_back(at, dead, stalled), wakes=True)
        if freed:
            log.warning(
                "gave back messages that other consumers left unsettled",
                queue_file=self._file.writer.path,
                messages=freed,
                dead_consumers=len(dead),
                stalled_consumers=len(stalled),
            )

    def _look_around(self, at: sqlite3.Connection) -> list[_Peer]:
        found = at.execute(
            "SELECT id, beat, visibility, sharing IS 'partitioned' OR EXISTS (SELECT 1 FROM messages WHERE "
            "lease BETWEEN consumers.id << 32 AND ((consumers.id + 1) << 32) - 1) FROM consumers WHERE id <> ?",
            (self._id,),
        )
        return [
            _Peer(peer, beat, visibility, bool(must_move), self._lives(peer))
            for peer, beat, visibility, must_move in found
        ]

    def _stalled(self, peers: Iterable[_Peer], now: float) -> list[_Peer]:
        # A consumer that has just slept has watched nobody: after a suspend or a long stop it starts to watch anew.
        watched = self._watched if now - self._looked < 3 * self.round else {}
        self._looked = now
        self._watched = {}
        stalled = []
        for peer in peers:
            if not (peer.is_alive and peer.must_move):
                continue
            beat, since = watched.get(peer.id, (peer.beat, now))
            if beat != peer.beat:
                since = now
            elif now - since >= peer.visibility:
                stalled.append(peer)
            self._watched[peer.id] = (peer.beat, since)
        return stalled

    def _give_back(self, at: sqlite3.Connection, dead: Iterable[int], stalled: Iterable[_Peer]) -> int:
        freed = 0
        for peer in dead:
            freed += rows.free_consumer(at, peer)
            members.leave(at, peer)
            # If the transaction is lost, the missing file means the same as the unlocked one.
            Path(self._lock_path(peer)).unlink(missing_ok=True)
        for stalled_peer in stalled:
            is_still = at.execute(
                "SELECT 1 FROM consumers WHERE id = ? AND beat = ?", (stalled_peer.id, stalled_peer.beat)
            ).fetchone()
            if is_still:
                freed += rows.free_consumer(at, stalled_peer.id)
                members.suspend(at, stalled_peer.id)
        return freed

    async def close(self) -> None:
        """Gives back everything that is still held, and leaves the queue. Later settlements settle nothing."""
        try:
            await self._file.writer.write(self._leave, wakes=True)
        except StorageError as error:
            # Without its lock this consumer counts as dead, and the next consumer gives back what it held.
            log.warning("a consumer could not leave its queue; the next one gives its messages back", reason=str(error))
        finally:
            if self._lock is not None:
                self._lock.drop()

    def _leave(self, at: sqlite3.Connection) -> None:
        rows.free_consumer(at, self._id)
        members.leave(at, self._id)
