"""The journal of one stage: what is at work there, whose turn it is, what a crash is put down to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from broadway_py._core.exits import exit_text
from broadway_py._core.identity import identity_of, name_of
from broadway_py.clock import Clock
from broadway_py.message import SETTLED, Failed, Message, Plain
from broadway_py.pipeline.poison.isolation import Isolation, root_of
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, Entry, Page
from broadway_py.pipeline.poison.memory import memory_mark
from broadway_py.stage import Wake

__all__ = ["Part", "StageJournal"]

Messages = Sequence[Message[Any]]


class Part(NamedTuple):
    """Of a chunk or a batch."""

    #: To be handled now.
    now: list[Message[Any]]
    #: To be handled afterwards, in parts of its own.
    rest: list[Message[Any]]
    #: Nothing else may be at work meanwhile.
    alone: bool


class StageJournal:
    """Keeps the journal for one stage, and gets it its turns.

    Args:
        isolation: of the process.
        pipeline: the pipeline's name.
        clock: of the pipeline.
        wake: the stage waits for it.
        is_cut: True once the stage is to finish nothing more.
    """

    def __init__(
        self, isolation: Isolation, *, pipeline: str, clock: Clock, wake: Wake, is_cut: Callable[[], bool]
    ) -> None:
        self._isolation = isolation
        self._pipeline = pipeline
        self._clock = clock
        self._wake = wake
        self._is_cut = is_cut
        self._page = Page(isolation.region)
        # Of the last crash: what the stage had in hand, and whether nothing else was at work.
        self._crashed_with: list[Message[Any]] = []
        self._crashed_alone = False

    # --- whose turn it is

    def first_part(self, messages: Messages) -> Part:
        """What of *messages* comes first: all that may run beside others, then what must be alone, one by one."""
        if self._isolation.may_run_together(messages):
            return Part(list(messages), [], alone=False)
        together: list[Message[Any]] = []
        suspects: list[Message[Any]] = []
        first: bytes | None = None
        for message in messages:
            identity = self._identity(message)
            if identity is None or not self._isolation.must_be_alone(identity, message):
                together.append(message)
            else:
                suspects.append(message)
                first = first or identity
        if together or not suspects:
            return Part(together, suspects, alone=False)
        # Messages of one parent have its identity: they stay together.
        one = [message for message in suspects if self._identity(message) == first]
        return Part(one, [message for message in suspects if self._identity(message) != first], alone=True)

    def try_turn(self, *, alone: bool) -> bool:
        """Take a turn; False: not now, see :meth:`wait_for_turn`."""
        turns, now = self._isolation.turns, self._clock.monotonic()
        came = turns.enter_alone(self, now) if alone else turns.enter(now)
        self._note_company()
        return came

    async def wait_for_turn(self, *, alone: bool) -> bool:
        """Wait for a turn; False when the stage was cut off first."""
        turns, clock = self._isolation.turns, self._clock
        came = False
        self._isolation.waiting.add(self._wake)
        try:
            while not came and not self._is_cut():
                await self._wake.wait_until(turns.changes_at, clock)
                came = self.try_turn(alone=alone)
            return came
        finally:
            self._isolation.waiting.discard(self._wake)
            if not came:
                turns.withdraw(self, clock.monotonic())
                self._isolation.wake_waiting()

    def begin(self, part: Part) -> None:
        """The turn is used for *part*. What of it is convicted fails here and now."""
        if part.alone:
            self._fail_convicted(part.now)
        if self._isolation.turns.alone is self:
            self._isolation.region.begin_alone(self._name(part.now[0]), memory_mark())

    def _fail_convicted(self, messages: Messages) -> None:
        for message in messages:
            entry = self._isolation.entry(self._identity(message))
            if entry is not None and entry.state in (CONVICTED, REPEATED) and message._status is None:
                message._status = Failed("worker_died", Plain(_sentence(entry)))

    def leave(self, part: Part) -> None:
        """The turn is over, whatever has become of *part*; what it settled of the suspects is cleared."""
        self._page.clear()
        isolation = self._isolation
        if part.alone:
            for message in part.now:
                entry = isolation.entry(self._identity(message))
                if entry is not None and root_of(message)._settlement == SETTLED:
                    isolation.journal.clear(entry.slot)
        isolation.turns.leave(self, self._clock.monotonic())
        self._note_company()
        isolation.wake_waiting()

    def note_crash(self, part: Part) -> None:
        """The stage has crashed over *part*. Whether that is put down to it, :meth:`blame` decides."""
        self._crashed_alone = part.alone and self._isolation.turns.alone is self
        self._crashed_with = part.now

    def blame(self) -> None:
        """The stage crashed once too often: the process ends because of what it had in hand the last time."""
        messages, self._crashed_with = self._crashed_with, []
        if messages:
            identities = dict.fromkeys(self._identity(message) for message in messages)
            self._isolation.region.blame(
                list(identities), alone=self._crashed_alone, name=self._name(messages[0]), memory=memory_mark()
            )

    def _name(self, message: Message[Any]) -> str:
        message = root_of(message)
        return "\0".join((self._pipeline, str(message.producer), str(name_of(message))))

    def _note_company(self) -> None:
        if self._isolation.turns.alone is None:
            self._isolation.region.end_alone()

    # --- what is at work

    def at_work(self, messages: Messages) -> None:
        """A callback is called with all of these."""
        self._page.set([self._identity(message) for message in messages])

    def noting(self, callback: Callable[[Message[Any]], Any]) -> Callable[[Message[Any]], Any]:
        """*callback*, which is called with one message after the other, and says so."""
        set_one, identity = self._page.set_one, self._identity

        def noted(message: Message[Any]) -> Any:
            set_one(identity(message))
            return callback(message)

        return noted

    def nothing_at_work(self) -> None:
        """The callback has returned."""
        self._page.clear()

    def may_be_told(self, failed: Messages) -> list[Message[Any]]:
        """Those of *failed* that ``handle_failed`` may see: not what has killed a process in there."""
        entries = [(message, self._isolation.entry(self._identity(message))) for message in failed]
        return [message for message, entry in entries if entry is None or entry.state != REPEATED]

    def _identity(self, message: Message[Any]) -> bytes | None:
        try:
            return message._identity
        except AttributeError:
            # Found out before any callback of ours has seen the message, and kept, whatever those change.
            root = root_of(message)
            message._identity = identity_of(root, self._pipeline) if root is message else self._identity(root)
            return message._identity


def _sentence(entry: Entry) -> str:
    return (
        f"{entry.deaths} worker processes died while it was handled, the last one ({exit_text(entry.exit)}) while "
        "nothing else was; it is not handled again. Mend what ends the process, restart the daemon, then replay it"
    )
