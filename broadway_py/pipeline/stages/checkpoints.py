"""The checkpoints of one aggregator: each is begun, stored, and then its messages are acked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.histogram import SECONDS_BOUNDS, Histogram
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.committer import Committed
from broadway_py.pipeline.aggregation.held import Held
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.stages.aggregator_events import AggregatorEvents
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.services import Services
from broadway_py.stage import Wake
from broadway_py.state.codec import CodecError
from broadway_py.state.store import Commit

__all__ = ["Checkpoints"]

#: How many seconds an ack may take to end once it is cancelled.
_CANCEL_S: Final = 0.1

#: How many results of windows with many keys one checkpoint has at most: last ones, and those on time. While more than
#: these are not handed out, no more are stored. So checkpoints and memory are bounded, however many keys a window has.
_MOST_IN_PARTS: Final = 10_000


class Checkpoints:
    """Stores what an aggregator has added. At most one checkpoint is being stored at a time.

    Args:
        services: the services of the pipeline.
        keeper: the windows, and where they are stored.
        emitter: gets the results once they are stored.
        events: hears of each checkpoint.
        wake: set when a checkpoint has ended.
        task_name: the name of the task that stores one.
        interval_s: seconds from the first change to the checkpoint.
        most_held: a checkpoint begins at once when half as many messages are held.
    """

    def __init__(
        self,
        services: Services,
        keeper: Keeper,
        emitter: Emitter,
        events: AggregatorEvents,
        *,
        wake: Wake,
        task_name: str,
        interval_s: float,
        most_held: int,
    ) -> None:
        self._services = services
        self._keeper = keeper
        self._emitter = emitter
        self._events = events
        self._wake = wake
        self._task_name = task_name
        self._interval_s = interval_s
        self._most_held = most_held
        #: How many seconds each took that was stored.
        self.duration = Histogram(SECONDS_BOUNDS)
        #: What was added and is in no checkpoint yet.
        self.held = Held()
        #: What the checkpoint contains that is being stored.
        self.running = Held()
        #: True once nothing more is added: the next checkpoint is the last one with messages, and says so.
        self.has_ended = False
        self._task: asyncio.Task[None] | None = None
        # When something first changed since the last checkpoint, by the monotonic clock.
        self._changed_at: float | None = None
        self._is_flushing = self._is_marked_clean = self._is_closed = False
        # True if the last one was not enough for the last results of closed windows. Then the next one follows at once.
        self._has_left = False
        # True while the messages of a stored checkpoint are acked. This may be cancelled, and storing may not.
        self._is_acking = False

    @property
    def messages(self) -> int:
        """How many messages were added and are not stored yet."""
        return len(self.held) + len(self.running)

    # --- when

    @property
    def is_due(self) -> bool:
        """True if something is not stored yet, and is not being stored."""
        return self._has_news or (self._keeper.aggregation.has_parts and not self._is_held_up)

    @property
    def _has_news(self) -> bool:
        if self.has_ended and not self._is_marked_clean:
            return True  # the next start can rely on it
        # Without a file, what was handed out lies nowhere.
        has_emitted = self._keeper.is_durable and self._emitter.pending.has_emitted
        return bool(self.held) or self._keeper.aggregation.is_changed or has_emitted

    @property
    def _most_in_parts(self) -> int:
        """How many results that are taken in parts the next one may have."""
        # Those that fail alone, and the later firings of their windows, do not hold up others.
        return 0 if self._emitter.pending.ready > _MOST_IN_PARTS else _MOST_IN_PARTS

    @property
    def _is_held_up(self) -> bool:
        """True if a stop cannot store more results: ``emit`` takes nothing. They come with the next start."""
        return self._most_in_parts == 0 and self._emitter.pending.has_given_up

    @property
    def is_running(self) -> bool:
        """True while one is being stored."""
        return self._task is not None

    def flush(self) -> None:
        """Let the next one begin as soon as something has changed."""
        self._is_flushing = True

    def next_at(self, now: float) -> float | None:
        """Returns when the next one begins; None while one is being stored, and if nothing can be stored."""
        has_parts = self._keeper.aggregation.has_parts and self._most_in_parts > 0
        if not (has_parts or self._has_news):
            self._changed_at = None
            return None
        if self._changed_at is None:
            self._changed_at = now
        if self._task is not None:
            return None
        goes_on = has_parts and self._has_left
        if goes_on or self._is_flushing or 2 * len(self.held) >= self._most_held:
            return now
        return self._changed_at + self._interval_s

    # --- one of them

    async def begin(self) -> None:
        """Begin one. It is stored in a task of its own.

        Raises:
            CodecError: a value cannot be stored. Then all is held as before.
        """
        keeper = self._keeper
        commit, results = keeper.checkpoint(is_last=self.has_ended, most_in_parts=self._most_in_parts)
        # From here on the checkpoint will be stored, also if the stage is cut off meanwhile.
        self.running, self.held = self.held, Held()
        self._changed_at = None
        self._is_flushing = self._is_marked_clean = self.has_ended
        self._has_left = keeper.aggregation.has_parts
        pending = self._emitter.pending
        emitted = pending.pop_emitted()
        try:
            commit, due = await keeper.with_results(commit, results, emitted)
        except CodecError:
            pending.keep_emitted(emitted)
            self._is_marked_clean = False
            self._hold_again()
            raise
        work = self._store(commit, due, self._events.fired(commit.number, results, due))
        self._task = asyncio.get_running_loop().create_task(work, name=self._task_name)
        self._task.add_done_callback(lambda _: self._wake.set())

    async def _store(self, commit: Commit, results: Sequence[DueResult], tell_fired: Callable[[], None] | None) -> None:
        """Store a checkpoint, ack its messages, hand on its results. Nobody cancels this."""
        keeper = self._keeper
        outcome = await self._commit(commit)
        if outcome == "stored":
            if tell_fired is not None:
                tell_fired()
            stored, self.running = self.running, Held()
            if self._is_closed:
                return
            self._is_acking = True
            await self._services.settler.settle_stored([*stored.messages, *stored.repeats])
            self._is_acking = False
            keeper.note_acked(commit.number)
            self._emitter.add(results)
        elif outcome == "not_stored":
            # The drain gives them back.
            self._hold_again()
        # Otherwise they keep no outcome: they may be in the file, so they must not be delivered again as new ones.

    async def _commit(self, commit: Commit) -> Committed:
        """Store a checkpoint. Returns once it is stored, or when the time of a stop is over."""
        clock, committer = self._services.clock, self._keeper.committer
        started = clock.monotonic()
        span = self._events.checkpoint(commit.number, self.running)
        try:
            outcome = await committer.commit(commit)
        except foreign_errors() as error:
            if span is not None:
                span.exception(error)
            raise
        if outcome == "stored":
            self._keeper.note_stored()
            self.duration.observe(clock.monotonic() - started)
            if span is not None:
                span.stop()
        elif span is not None and committer.error is not None:
            span.exception(committer.error)
        return outcome

    def _hold_again(self) -> None:
        """Hold the messages of the checkpoint that was begun, because nothing of it is stored."""
        self._keeper.identities.not_committed()
        again, self.running = self.running, Held()
        self.held = Held([*again.messages, *self.held.messages], [*again.repeats, *self.held.repeats])

    def look(self) -> None:
        """Note whether the one that was being stored has ended. Raises what it has raised."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()

    # --- the end

    async def end(self) -> None:
        """Wait for the one that is being stored. It is not tried again if it fails, because the time is over."""
        self._keeper.committer.give_up()
        if self._task is not None and not self._task.done():
            # Never cancelled: what it stores would have an unknown outcome. See :meth:`close`.
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Wait for the one that is being stored. Its messages keep no outcome: the sources are closed.

        An ack that has not returned is cancelled, because nobody waits for it any more.
        """
        self._is_closed = True
        if self._task is None or self._task.done():
            return
        if not self._is_acking:
            await asyncio.wait({self._task})
            return
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_CANCEL_S)

    def take_held(self) -> list[Message[Any]]:
        """Take out and return the messages that no checkpoint contains."""
        held, self.held = self.held, Held()
        return [*held.messages, *held.repeats]
