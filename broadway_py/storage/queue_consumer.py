"""One reader of a queue: takes messages, holds them for as long as it lives, settles them.

How long a message stays held does not depend on any wall clock:

* each consumer holds a file lock; the kernel drops it when the process dies, and the next one who looks gives the dead
  one's messages back at once;
* while it holds messages, a consumer moves its *beat* in the file, every third of its visibility. One that is alive
  but stands still (stopped, starved) loses its messages when another consumer has watched the beat stand still for the
  whole visibility, by the watcher's own forward-only clock. Where each key has one owner (``partitioned``), the beat
  moves all the time, because a reader that stands still must lose its keys too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple, Self

from broadway_py.log import logger
from broadway_py.storage import queue_dead as dead_letters
from broadway_py.storage import queue_members as members
from broadway_py.storage import queue_rows as rows
from broadway_py.storage import queue_take as taking
from broadway_py.storage.errors import StorageError
from broadway_py.storage.locks import LifeLock, is_alive
from broadway_py.storage.queue_dead import Buried
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_members import Membership, Sharing
from broadway_py.storage.queue_rows import Held
from broadway_py.storage.queue_take import Row

__all__ = ["ConsumerLost", "QueueConsumer", "Taken"]

log = logger("broadway_py.storage")

#: How often a consumer looks after its own and others' leases, in seconds, when a third of its visibility is longer.
_ROUND: Final = 1.0


class ConsumerLost(StorageError):
    """The file does not know this consumer any more; open a new one."""


class Taken(NamedTuple):
    """What a take gave."""

    rows: list[Row]
    #: When there is none: the moment (of ``clock.monotonic()``) at which the next delayed message is due.
    next_due: float | None


class _Peer(NamedTuple):
    id: int
    beat: int
    visibility: float
    #: Whether its beat must move: it holds messages, or keys.
    must_move: bool
    is_alive: bool


class QueueConsumer:
    """Made by :meth:`open`. Whoever opens it calls :meth:`upkeep` each :attr:`round` seconds until it is closed."""

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
        # Held, but nobody will settle them any more: a settlement failed, or the taker was cancelled.
        self._forsaken: set[Held] = set()
        # Beats of other consumers, and since when each has stood still before our eyes.
        self._watched: dict[int, tuple[int, float]] = {}
        self._looked = self._beaten

    @classmethod
    async def open(cls, file: QueueFile, visibility: float, *, sharing: Sharing = "shared", holder: str = "") -> Self:
        """Enter a new consumer into *file*, and give back what dead ones have left.

        Raises:
            StorageError: why not, and what to do; also when it and another reader may not be there together.
        """
        consumer = cls(file, Membership(visibility, sharing, holder))
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
            self._lock.drop()  # of an entry that the disk had no room for
            self._lock = None
        self._id, clash = members.enter(at, self._file.queue, self._membership, self._lives)
        if clash is not None:
            raise StorageError(
                f"queue file {self._file.writer.path}, queue {self._file.name!r}: {clash}; standing by until it is "
                "free: for ordered work in several processes, put messages with a key and set partitioned: true for "
                "every reader"
            )
        path = self._lock_path(self._id)
        try:
            # Locked before anybody else can see the row, so nobody can take it for a dead one's.
            self._lock = LifeLock(path, self._file.writer.path)
        except OSError as error:
            raise StorageError(
                f"queue file {self._file.writer.path}: the lock file {path} cannot be made ({error.strerror}): "
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

    def listening(self, callback: Callable[[], object]) -> AbstractContextManager[None]:
        """While inside, *callback* is called when there may be something new to take."""
        return self._file.writer.listening(callback)

    async def take(self, limit: int) -> Taken:
        """Take at most *limit* ready messages, the oldest first; does not wait for one.

        Raises:
            ConsumerLost: this consumer is not known any more.
            StorageError: the file is away or refuses.
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
            # It may have stood still, and its keys were dealt to others: take part again.
            self._beat(at)
            reach = members.reach(at, self._file.queue, self._id, self._membership)
        return reach

    def _beat(self, at: sqlite3.Connection) -> None:
        if not members.beat(at, self._id, self._membership):
            raise ConsumerLost(
                f"queue file {self._file.writer.path}: this consumer was declared dead, for its lock file "
                f"{self._lock_path(self._id)} was gone; what it held was given back: leave lock files alone"
            )

    def _forsake(self, taken: Taken) -> None:
        # Its taker was cancelled before it got them.
        self._held += len(taken.rows)
        self._forsaken.update(Held(row.id, row.lease) for row in taken.rows)

    async def settle(self, done: Sequence[Held], dead: Sequence[Buried] = (), pipeline: str = "") -> set[Held]:
        """Remove what is *done*, move what is *dead* to the dead letters, in one transaction.

        Returns:
            Those whose lease was gone: given to somebody else meanwhile, and left alone.

        Raises:
            StorageError: none of them was settled; they will be given back.
        """
        wall = self._clock.wall()

        def change(at: sqlite3.Connection) -> set[Held]:
            return rows.delete(at, done) | dead_letters.bury(at, dead, pipeline, wall)

        # Another reader of this process may have waited for the keys of these.
        return await self._let_go(change, [*done, *(one.held for one in dead)], wakes=self._is_partitioned)

    async def release(self, held: Sequence[Held]) -> set[Held]:
        """Give back, as if never taken; those whose lease was gone.

        Raises:
            StorageError: none was given back yet; they will be.
        """
        return await self._let_go(lambda at: rows.release(at, held), held, wakes=True)

    async def retry(self, held: Sequence[tuple[Held, float]]) -> set[Held]:
        """Give back, each to be taken again after so many seconds; those whose lease was gone.

        Raises:
            StorageError: none was given back yet; they will be, at once.
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
            # Also when cancelled: it may or may not be done, and giving back what is gone does nothing.
            self._forsaken.update(held)
            raise
        self._held -= len(held)
        return gone

    async def upkeep(self) -> None:
        """One round: show that this consumer lives, give back what it lost track of and what others left behind.

        Raises:
            ConsumerLost: this consumer is not known any more.
            StorageError: the file is away or refuses; call again.
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
        peers = await self._file.writer.read(self._look_around)
        stalled = self._stalled(peers, self._clock.monotonic())
        dead = [peer.id for peer in peers if not peer.is_alive]
        if not dead and not stalled:
            return
        freed = await self._file.writer.write(lambda at: self._give_back(at, dead, stalled), wakes=True)
        if freed:
            log.warning(
                "gave back what other consumers left unsettled",
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
        # Who has just slept has watched nobody: after a suspend or a long stop, everything is judged anew.
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
            # Should the transaction be lost, the missing file says the same as the unlocked one.
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
        """Give back everything that is still held, and leave. What is settled later settles nothing."""
        try:
            await self._file.writer.write(self._leave, wakes=True)
        except StorageError as error:
            # Without its lock it counts as dead, and the next consumer gives back what it held.
            log.warning("a consumer could not sign off", reason=str(error))
        finally:
            if self._lock is not None:
                self._lock.drop()

    def _leave(self, at: sqlite3.Connection) -> None:
        rows.free_consumer(at, self._id)
        members.leave(at, self._id)
