"""The journal of one stage: the messages being handled, the stage's turns, and which messages a crash is blamed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from broadway_py._core.exits import exit_text
from broadway_py._core.identity import id_of, identity_of
from broadway_py.clock import Clock
from broadway_py.message import SETTLED, Failed, Message, Plain
from broadway_py.pipeline.poison.isolation import Isolation, root_of
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, Entry, Page
from broadway_py.pipeline.poison.memory import memory_mark
from broadway_py.stage import Wake

__all__ = ["Part", "StageJournal"]

Messages = Sequence[Message[Any]]


class Part(NamedTuple):
    """A part of a chunk or a batch."""

    #: The messages to handle now.
    now: list[Message[Any]]
    #: The messages to handle afterwards, in parts of their own.
    rest: list[Message[Any]]
    #: True if no other message may be handled meanwhile.
    alone: bool


class StageJournal:
    """Keeps the journal for one stage, and takes turns for it.

    Args:
        isolation: the isolation of the process.
        pipeline: the pipeline's name.
        clock: the pipeline's clock.
        wake: wakes the stage.
        is_cut: returns True once the stage is cut off.
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
        # The messages of the stage's last crash, and whether they ran alone.
        self._crashed_with: list[Message[Any]] = []
        self._crashed_alone = False

    # --- turns

    def first_part(self, messages: Messages) -> Part:
        """Returns the part of *messages* to handle first.

        All messages that may run together come first. Then those that must run alone follow, one by one.
        """
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
        # Children have the identity of their parent, so the children of one parent stay together.
        one = [message for message in suspects if self._identity(message) == first]
        return Part(one, [message for message in suspects if self._identity(message) != first], alone=True)

    def try_turn(self, *, alone: bool) -> bool:
        """Take a turn if possible now. Returns False if not; then see :meth:`wait_for_turn`."""
        turns, now = self._isolation.turns, self._clock.monotonic()
        came = turns.enter_alone(self, now) if alone else turns.enter(now)
        self._note_company()
        return came

    async def wait_for_turn(self, *, alone: bool) -> bool:
        """Wait for a turn. Returns False if the stage was cut off first."""
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
        """Begin the turn for *part*. Convicted messages in it fail now."""
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
        """End the turn for *part*, whatever its result was. Suspects that are settled are cleared."""
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
        """Remember that the stage crashed while it handled *part*. :meth:`blame` uses this."""
        self._crashed_alone = part.alone and self._isolation.turns.alone is self
        self._crashed_with = part.now

    def blame(self) -> None:
        """Blame the messages of the last crash for the end of the process: the stage has crashed too often."""
        messages, self._crashed_with = self._crashed_with, []
        if messages:
            identities = dict.fromkeys(self._identity(message) for message in messages)
            self._isolation.region.blame(
                list(identities), alone=self._crashed_alone, name=self._name(messages[0]), memory=memory_mark()
            )

    def _name(self, message: Message[Any]) -> str:
        message = root_of(message)
        return "\0".join((self._pipeline, str(message.producer), str(id_of(message))))

    def _note_company(self) -> None:
        if self._isolation.turns.alone is None:
            self._isolation.region.end_alone()

    # --- messages being handled

    def at_work(self, messages: Messages) -> None:
        """Note that a callback is called with all of *messages*."""
        self._page.set([self._identity(message) for message in messages])

    def noting(self, callback: Callable[[Message[Any]], Any]) -> Callable[[Message[Any]], Any]:
        """Returns *callback*, wrapped so that each message is noted before it is handled."""
        set_one, identity = self._page.set_one, self._identity

        def noted(message: Message[Any]) -> Any:
            set_one(identity(message))
            return callback(message)

        return noted

    def nothing_at_work(self) -> None:
        """Note that the callback has returned."""
        self._page.clear()

    def may_be_told(self, failed: Messages) -> list[Message[Any]]:
        """Returns those of *failed* that ``handle_failed`` may get: all except messages that killed a process there."""
        entries = [(message, self._isolation.entry(self._identity(message))) for message in failed]
        return [message for message, entry in entries if entry is None or entry.state != REPEATED]

    def _identity(self, message: Message[Any]) -> bytes | None:
        try:
            return message._identity
        except AttributeError:
            # Computed before a callback sees the message, and kept even if callbacks change the message.
            root = root_of(message)
            message._identity = identity_of(root, self._pipeline) if root is message else self._identity(root)
            return message._identity


def _sentence(entry: Entry) -> str:
    return (
        f"{entry.deaths} worker processes died while they handled this message. The last one "
        f"({exit_text(entry.exit)}) handled nothing else. The message is not handled again: correct what ends the "
        "process, restart the daemon, then replay the message"
    )
