"""Probation: what was at work when a worker died is handled alone, and what has killed two is handled no more.

Only in a daemon's workers: their supervisor outlives them, reads the journal and says who is suspected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broadway_py._core.exits import exit_text
from broadway_py._core.identity import identity_of, name_of
from broadway_py._core.turns import Turns
from broadway_py.errors import MalformedMessage
from broadway_py.message import SETTLED, Failed, Message, Plain
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, SUSPECTED, Entry, Journal, Page
from broadway_py.pipeline.poison.memory import memory_mark
from broadway_py.pipeline.settlement.spawned import Family

if TYPE_CHECKING:
    from broadway_py.pipeline.stages.stage import Worker

__all__ = ["PATIENCE_S", "Part", "Probation", "Witness"]

#: Seconds that a suspect waits for others to finish, and that others wait for it, before they go on together.
PATIENCE_S: Final = 60.0

Messages = Sequence[Message[Any]]


class Part(NamedTuple):
    """Of a chunk or a batch."""

    #: To be handled now.
    now: list[Message[Any]]
    #: To be handled afterwards, in parts of its own.
    rest: list[Message[Any]]
    #: Nothing else may be at work meanwhile.
    alone: bool


class Probation:
    """Of one worker process, over all of its pipelines.

    Args:
        journal: shared with the supervisor and the other workers.
        index: the worker's number.
    """

    def __init__(self, journal: Journal, index: int) -> None:
        self.journal = journal
        self.region = journal.region(index)
        self.region.begin()
        self.turns = Turns(PATIENCE_S)
        #: Who waits for a turn.
        self.waiting: set[Witness] = set()
        self._index = index
        self._changes = -1
        self._entries: dict[bytes, Entry] = {}

    def end(self) -> None:
        """The process leaves in order, unless a stage has crashed for good: that is put down to what it had in hand."""
        if not self.region.is_blamed:
            self.region.end()

    def entry(self, identity: bytes | None) -> Entry | None:
        """What is known of a message."""
        self._refresh()
        entry = None if identity is None else self._entries.get(identity)
        # Another worker may have cleared it.
        return entry if entry is None else entry._replace(state=self.journal.state(entry.slot))

    def _refresh(self) -> None:
        changes = self.journal.changes
        if self._changes != changes:
            self._changes = changes
            self._entries = self.journal.entries()

    def may_run_together(self, messages: Messages) -> bool:
        """True when none of *messages* needs a closer look, which is so almost always."""
        self._refresh()
        return not self._entries and not any(map(_comes_again, messages))

    def must_be_alone(self, identity: bytes, message: Message[Any]) -> bool:
        """True for a suspect, and for what a worker was at when it died although the supervisor has not looked yet."""
        # In this order: the supervisor writes the table before it empties the region of the dead.
        if _comes_again(message) and self.journal.is_at_work_elsewhere(identity, self._index):
            return True
        entry = self.entry(identity)
        return entry is not None and entry.state in (SUSPECTED, CONVICTED, REPEATED)

    def wake_waiting(self) -> None:
        """Somebody has left: let all look again."""
        for witness in self.waiting:
            witness.wake()


class Witness:
    """Keeps the journal for one stage, and gets it its turns.

    Args:
        probation: of the process.
        worker: the stage.
    """

    def __init__(self, probation: Probation, worker: Worker) -> None:
        self._probation = probation
        self._worker = worker
        self._pipeline = worker.services.name
        self._page = Page(probation.region)
        # Of the last crash: what the stage had in hand, and whether nothing else was at work.
        self._crashed_with: list[Message[Any]] = []
        self._crashed_alone = False

    def wake(self) -> None:
        """The turns have changed."""
        self._worker.wake.set()

    # --- whose turn it is

    def first_part(self, messages: Messages) -> Part:
        """What of *messages* comes first: all that may run beside others, then what must be alone, one by one."""
        if self._probation.may_run_together(messages):
            return Part(list(messages), [], alone=False)
        together: list[Message[Any]] = []
        suspects: list[Message[Any]] = []
        first: bytes | None = None
        for message in messages:
            identity = self._identity(message)
            if identity is None or not self._probation.must_be_alone(identity, message):
                together.append(message)
            else:
                suspects.append(message)
                first = first or identity
        if together or not suspects:
            return Part(together, suspects, alone=False)
        # Messages of one parent have its identity: they stay together.
        one = [message for message in suspects if self._identity(message) == first]
        return Part(one, [message for message in suspects if self._identity(message) != first], alone=True)

    def may_come_in(self, *, alone: bool) -> bool:
        """Take a turn; False: not now, see :meth:`come_in`."""
        turns, now = self._probation.turns, self._worker.services.clock.monotonic()
        came = turns.enter_alone(self, now) if alone else turns.enter(now)
        self._note_company()
        return came

    async def come_in(self, *, alone: bool) -> bool:
        """Wait for a turn; False when the stage was cut off first."""
        turns, worker, clock = self._probation.turns, self._worker, self._worker.services.clock
        came = False
        self._probation.waiting.add(self)
        try:
            while not came and not worker.cut:
                await worker.wake.wait_until(turns.changes_at, clock)
                came = self.may_come_in(alone=alone)
            return came
        finally:
            self._probation.waiting.discard(self)
            if not came:
                turns.withdraw(self, clock.monotonic())
                self._probation.wake_waiting()

    def begin(self, part: Part) -> None:
        """The turn is used for *part*. What of it is convicted fails here and now."""
        if part.alone:
            self._fail_convicted(part.now)
        if self._probation.turns.alone is self:
            self._probation.region.begin_alone(self._name(part.now[0]), memory_mark())

    def _fail_convicted(self, messages: Messages) -> None:
        for message in messages:
            entry = self._probation.entry(self._identity(message))
            if entry is not None and entry.state in (CONVICTED, REPEATED) and message._status is None:
                message._status = Failed("worker_died", Plain(_sentence(entry)))

    def leave(self, part: Part) -> None:
        """The turn is over, whatever has become of *part*; what it settled of the suspects is cleared."""
        self._page.clear()
        probation = self._probation
        if part.alone:
            for message in part.now:
                entry = probation.entry(self._identity(message))
                if entry is not None and _root(message)._settlement == SETTLED:
                    probation.journal.clear(entry.slot)
        probation.turns.leave(self, self._worker.services.clock.monotonic())
        self._note_company()
        probation.wake_waiting()

    def note_crash(self, part: Part) -> None:
        """The stage has crashed over *part*. Whether that is put down to it, :meth:`blame` decides."""
        self._crashed_alone = part.alone and self._probation.turns.alone is self
        self._crashed_with = part.now

    def blame(self) -> None:
        """The stage crashed once too often: the process ends because of what it had in hand the last time."""
        messages, self._crashed_with = self._crashed_with, []
        if messages:
            identities = dict.fromkeys(self._identity(message) for message in messages)
            self._probation.region.blame(
                list(identities), alone=self._crashed_alone, name=self._name(messages[0]), memory=memory_mark()
            )

    def _name(self, message: Message[Any]) -> str:
        message = _root(message)
        return "\0".join((self._pipeline, str(message.producer), str(name_of(message))))

    def _note_company(self) -> None:
        if self._probation.turns.alone is None:
            self._probation.region.end_alone()

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
        entries = [(message, self._probation.entry(self._identity(message))) for message in failed]
        return [message for message, entry in entries if entry is None or entry.state != REPEATED]

    def _identity(self, message: Message[Any]) -> bytes | None:
        try:
            return message._identity
        except AttributeError:
            # Found out before any callback of ours has seen the message, and kept, whatever those change.
            root = _root(message)
            message._identity = identity_of(root, self._pipeline) if root is message else self._identity(root)
            return message._identity


def _comes_again(message: Message[Any]) -> bool:
    message = _root(message)
    # A handler may have deleted what it does not need.
    attempt: int | None = getattr(message, "attempt", None)
    if attempt is not None and attempt > 1:
        return True
    try:
        metadata: object = getattr(message, "metadata", None)
    except MalformedMessage:
        # It may: nobody has counted.
        return attempt is None
    # A handler may have put anything there.
    return isinstance(metadata, dict) and bool(metadata.get("redelivered"))


def _root(message: Message[Any]) -> Message[Any]:
    """The message that the source has delivered: spawned ones come again by it alone."""
    while isinstance(family := message._acknowledgement[0], Family):
        message = family.parent
    return message


def _sentence(entry: Entry) -> str:
    return (
        f"{entry.deaths} worker processes died while it was handled, the last one ({exit_text(entry.exit)}) while "
        "nothing else was; it is not handled again. Mend what ends the process, restart the daemon, then replay it"
    )
