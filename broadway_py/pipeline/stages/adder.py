"""Adds messages to the windows of one aggregator: sorts out the repeats first, and settles what cannot be added."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from broadway_py._core.aggregation.identifier import Identified
from broadway_py._core.aggregation.identities import Sorted
from broadway_py._core.aggregation.outcome import Added
from broadway_py._core.backoff import Backoff
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.stages.aggregator_events import AggregatorEvents
from broadway_py.pipeline.stages.checkpoints import Checkpoints
from broadway_py.pipeline.stages.conclusion import Conclusion
from broadway_py.pipeline.stages.refusals import Refusals
from broadway_py.pipeline.stages.services import Services
from broadway_py.stage import Wake
from broadway_py.state.codec import CodecError
from broadway_py.storage.errors import StorageError

__all__ = ["Adder"]

R = TypeVar("R")

log = logger("broadway_py.pipeline")


class Adder:
    """Adds messages to the windows of one aggregator, each message once.

    Args:
        services: the services of the pipeline.
        keeper: the windows.
        checkpoints: hold what was added.
        events: hears of late messages.
        refusals: settles what cannot be added.
        conclusion: settles failed messages.
        call: calls the code of the user.
        wake: wakes the stage.
    """

    def __init__(
        self,
        services: Services,
        keeper: Keeper,
        checkpoints: Checkpoints,
        events: AggregatorEvents,
        refusals: Refusals,
        *,
        conclusion: Conclusion,
        call: Call,
        wake: Wake,
    ) -> None:
        self._services = services
        self._keeper = keeper
        self._checkpoints = checkpoints
        self._events = events
        self._conclusion = conclusion
        self._call = call
        self._wake = wake
        self._refusals = refusals
        self._room = CleanRoom(services.base)
        self._log = log.bind(pipeline=services.name, aggregator=keeper.name)
        #: How many late messages there were, by what made them late.
        self.late = {"event_time": 0, "held": 0}

    async def add(self, messages: Sequence[Message[Any]]) -> bool:
        """Sort out the repeats, and add the others.

        Returns False if the stage was cut off first: then the drain must give *messages* back.
        """
        keeper = self._keeper
        identities = keeper.identities
        if not identities.is_needed:
            await self._add(Sorted(list(messages)))
            return True
        identified = self._room.run(identities.identify, messages)
        if identified.failed:
            await self._conclusion.conclude((), identified.failed)
        wanted = identified.wanted
        found = await self._ask_store(lambda: keeper.find(wanted)) if wanted else set()
        if found is None:
            return False
        left: Identified | None = identified
        while left is not None:
            one = identities.sort(left, found)
            await self._add(one)
            left = one.later
        return True

    async def add_again(self, error: CodecError) -> bool:
        """Go back to what is stored, and add what is held again: now it turns out whose value cannot be stored.

        Returns False if the stage was cut off first: then the drain must give back what is held.
        """
        keeper, held = self._keeper, self._checkpoints.held
        messages = held.messages
        self._log.error(
            "a value cannot be stored; the messages since the last checkpoint are added again, one by one",
            messages=len(messages),
            reason=str(error),
        )
        if await self._ask_store(keeper.go_back) is None:
            return False
        held.messages = []
        out: Added = self._room.run(keeper.add, messages)
        held.messages = out.added
        self._note_late(out.late)
        gone = [*out.late, *(message for message, _ in [*out.failed, *out.ahead])]
        if keeper.identities.is_needed:
            keeper.identities.let_go(gone)
        await self._refusals.settle(out)
        return True

    async def _add(self, one: Sorted) -> None:
        keeper, checkpoints = self._keeper, self._checkpoints
        out: Added = self._room.run(keeper.add, one.new)
        if keeper.identities.is_needed:
            keeper.identities.hold(one, [*out.late, *(message for message, _ in [*out.failed, *out.ahead])])
        self._note_late(out.late)
        # Those that were added are in the order of the new ones.
        keeper.time.note_added(out, one.runs if len(out.added) == len(one.new) else None)
        checkpoints.held.messages += out.added
        checkpoints.held.repeats += one.of_held
        checkpoints.running.repeats += one.of_running
        # Late ones, too: their windows have closed, so no watermark need wait until they are settled.
        keeper.time.arrive([*one.of_held, *one.of_running, *out.late])
        if one.of_committed:
            await self._services.settler.settle_stored(one.of_committed)
        await self._refusals.settle(out)

    def _note_late(self, late: Sequence[Message[Any]]) -> None:
        by_cause: dict[str, list[Message[Any]]] = {}
        for message in late:
            why = "held" if self._keeper.time.was_held_too_long(message) else "event_time"
            by_cause.setdefault(why, []).append(message)
        for why, messages in by_cause.items():
            self.late[why] += len(messages)
            self._events.late(messages, why)

    # --- the store

    async def _ask_store(self, ask: Callable[[], Awaitable[R]]) -> R | None:
        """Returns what *ask* does; None if the stage was cut off before the store could say it."""
        backoff = Backoff(0.1, 5.0, kind="exp")
        has_failed = False
        while not self._call.cut:
            try:
                answer = await ask()
            except StorageError as error:
                has_failed = True
                self._keeper.committer.note(error)
                self._keeper.time.note_blocked(is_blocked=True)
                await self._pause(backoff.failed())
            else:
                if has_failed:
                    # Otherwise the trouble, if there is one, is that checkpoints cannot be stored.
                    self._keeper.committer.note_success()
                return answer
        return None

    async def _pause(self, seconds: float) -> None:
        """Wait for so many seconds, or until cut off."""
        clock = self._services.clock
        until = clock.monotonic() + seconds
        while not self._call.cut and clock.monotonic() < until:
            await self._wake.wait_until(until, clock)
