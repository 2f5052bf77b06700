"""A chunk or batch that runs in worker processes: what is finished, what is next, which message caused a death."""

from __future__ import annotations

import dataclasses
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from broadway_py.errors import MalformedMessage
from broadway_py.message import BatchInfo, Failed, Message, Plain
from broadway_py.pipeline.processes.pickling import NotPicklable, apply_result, pack_message
from broadway_py.pipeline.processes.protocol import BatchBody, ChunkBody, Headers, Kind
from broadway_py.process.frames import Frame, dumps

__all__ = ["BatchJob", "ChunkJob", "Group", "Job"]

_Told = Callable[[Message[Any]], None]


def _tell_nobody(_message: Message[Any]) -> None:
    pass


class Group(NamedTuple):
    """The positions of messages that a worker process gets in one job."""

    positions: Sequence[int]
    #: True if a worker process has died with these messages before.
    again: bool = False


class Job:
    """The common part of chunk jobs and batch jobs.

    A message is open until it has a result, has failed, or was taken back. A death of a worker process is blamed on a
    message only if the message was alone in it, and the process was new or an earlier one had died with the message.

    Args:
        messages: the messages, all still ok. A message that does not pickle, or whose metadata does not decode, fails
            here.
        headers: for each of *messages* the headers of its trace, if it has one. Empty: none has.
    """

    callback: ClassVar[Literal["handle_message", "handle_batch"]]

    def __init__(self, messages: Sequence[Message[Any]], headers: Sequence[Headers] = ()) -> None:
        self.messages = messages
        self._headers = headers
        self._open: dict[int, None] = {}
        self._packed: dict[int, bytes] = {}
        self._left: dict[int, tuple[Any, ...]] = {}
        for position, message in enumerate(messages):
            try:
                self._packed[position], self._left[position] = pack_message(message)
                self._open[position] = None
            except NotPicklable as problem:
                message._status = Failed("raised", str(problem), problem)
            except MalformedMessage as problem:
                message._status = Failed("invalid", str(problem), problem)
        self._groups = deque([Group(tuple(self._open))])
        #: The group that the worker process has, or had when it ended.
        self.group = Group(())
        # All messages of the group before this place are no longer open.
        self._place = 0

    def unfinished(self) -> list[Message[Any]]:
        """Returns the messages that have no result, have not failed and were not taken back."""
        return [self.messages[position] for position in self._open]

    def next_group(self) -> bool:
        """Go on to the next :attr:`group`. Returns False if there is none."""
        while self._groups:
            positions, again = self._groups.popleft()
            positions = [position for position in positions if position in self._open]
            if positions:
                self.group = Group(positions, again)
                self._place = 0
                return True
        return False

    def first(self) -> int | None:
        """Returns the first open position of the group; None if the group is done."""
        positions = self.group.positions
        while self._place < len(positions):
            if positions[self._place] in self._open:
                return positions[self._place]
            self._place += 1
        return None

    @property
    def in_hand(self) -> list[int]:
        """Returns the open positions of the group."""
        return [position for position in self.group.positions if position in self._open]

    def to_send(self) -> tuple[Kind, bytes]:
        """Returns the frame to send for the group."""
        raise NotImplementedError

    def take(self, frame: Frame) -> bool:
        """Process a frame from the worker process. Returns True if it is a result."""
        raise NotImplementedError

    def died(self, how: str, *, fresh: bool) -> None:
        """Note that the worker process died with the group. *fresh* is True if it had not finished a message before."""
        running = self.first()
        if running is None:
            return
        if len(self.group.positions) == 1 and (fresh or self.group.again):
            reason = f"the worker process died while {self.callback} ran for this message alone: {how}"
            self._close([running], Failed("worker_died", Plain(reason)))
        else:
            self._split(running)

    def overdue(self, running: Sequence[int], timeout_s: float) -> None:
        """Fail *running*, the messages being handled when the worker process was killed for its time-out.

        The rest of the group is sent again.
        """
        status = Failed(
            "timeout",
            Plain(f"the callback did not finish within its time-out of {timeout_s:g} s; its worker process was killed"),
        )
        self._close([position for position in running if position in self._open], status)
        self._groups.appendleft(Group(self.in_hand))

    def fail(self, status: Failed) -> None:
        """Fail all open messages with *status*."""
        self._close(tuple(self._open), status)

    def what_runs(self) -> list[int]:
        """Returns the positions that a callback is handling, as far as is known here."""
        raise NotImplementedError

    def worker_is_gone(self) -> None:
        """Note that the worker process has ended and all its frames were processed."""

    def _split(self, running: int) -> None:
        """Divide the group, to find out whether *running* caused the death and to handle the rest."""
        raise NotImplementedError

    def _finish(self, position: int, result: bytes) -> None:
        if position in self._open:
            apply_result(self.messages[position], result, self._left[position])
            self._remove(position)
            self._told_end(position)

    def _close(self, positions: Sequence[int], status: Failed) -> None:
        for position in positions:
            self.messages[position]._status = status
            self._remove(position)
            self._told_end(position)

    def _remove(self, position: int) -> None:
        del self._open[position], self._packed[position]

    def _told_end(self, position: int) -> None:
        """Called when the message at *position* has a result or has failed."""


class ChunkJob(Job):
    """Calls ``handle_message`` for each of *messages*. Each has a result of its own.

    Args:
        messages: as in :class:`Job`.
        taken: called with messages that were taken back after :meth:`take_back` had returned.
        begins: called with each message when ``handle_message`` begins with it, as far as is known here. It is called
            again if the message is handled again.
        ends: called with each message once it has a result or has failed.
        headers: as in :class:`Job`.
    """

    callback = "handle_message"

    def __init__(
        self,
        messages: Sequence[Message[Any]],
        taken: Callable[[list[Message[Any]]], None],
        begins: _Told = _tell_nobody,
        ends: _Told = _tell_nobody,
        *,
        headers: Sequence[Headers] = (),
    ) -> None:
        super().__init__(messages, headers)
        self._taken = taken
        self._begins = begins
        self._ends = ends
        # The positions that were asked for by take_back.
        self._wanted: set[int] = set()
        self._sent = False

    def to_send(self) -> tuple[Kind, bytes]:
        """Returns the frame that asks for ``handle_message`` for each message of the group, in order."""
        self._sent = True
        self._begins(self.messages[self.group.positions[0]])
        packed = [self._packed[position] for position in self.group.positions]
        headers = [self._headers[position] for position in self.group.positions] if self._headers else []
        return Kind.CHUNK, dumps(tuple(ChunkBody(packed, headers)))

    def take(self, frame: Frame) -> bool:
        """Process the result of one message, or the list of messages that the worker process leaves out."""
        if frame.kind == Kind.TAKEN:
            self._give_back([self.group.positions[each] for each in pickle.loads(frame.body)])  # noqa: S301  # from our own worker process
            return False
        self._finish(self.group.positions[frame.position], frame.body)
        following = self.first()
        if following is not None:
            self._begins(self.messages[following])
        return True

    def what_runs(self) -> list[int]:
        """Returns the position after the last result."""
        first = self.first()
        return [] if first is None else [first]

    def take_back(self, wanted: Callable[[Message[Any]], bool]) -> tuple[list[Message[Any]], list[int]]:
        """Take out the messages that no callback has seen and *wanted* accepts.

        Returns:
            The messages that were taken out, and the places in the group of those that only the worker process can
            leave out.
        """
        with_worker = set(self.in_hand) if self._sent else set()
        begun = set(self.what_runs()) if self._sent or self.group.again else set()
        asked = [p for p in self._open if p not in begun and p not in self._wanted and wanted(self.messages[p])]
        self._wanted.update(asked)
        out = [position for position in asked if position not in with_worker]
        for position in out:
            self._remove(position)
        places = [place for place, position in enumerate(self.group.positions) if position in asked]
        return [self.messages[position] for position in out], places if self._sent else []

    def worker_is_gone(self) -> None:
        """Take out the messages that the worker process was asked to leave out and had not begun."""
        self._sent = False
        running = set(self.what_runs())
        self._give_back([position for position in self._wanted if position not in running])

    def _give_back(self, positions: Sequence[int]) -> None:
        out = [position for position in positions if position in self._open]
        for position in out:
            self._remove(position)
        if out:
            self._taken([self.messages[position] for position in out])

    def _split(self, running: int) -> None:
        self._groups.appendleft(Group([position for position in self.in_hand if position != running]))
        self._groups.appendleft(Group([running], again=True))

    def _told_end(self, position: int) -> None:
        self._ends(self.messages[position])


class BatchJob(Job):
    """Calls ``handle_batch`` for *messages*. All results come together.

    After a death, each message is a batch of its own.
    """

    callback = "handle_batch"

    def __init__(self, messages: Sequence[Message[Any]], info: BatchInfo, headers: Headers | None = None) -> None:
        super().__init__(messages)
        self._info = info
        # The headers of the trace of the whole batch.
        self._batch_headers = headers

    def to_send(self) -> tuple[Kind, bytes]:
        """Returns the frame that asks for ``handle_batch`` for the group."""
        packed = [self._packed[position] for position in self.group.positions]
        return Kind.BATCH, dumps(
            tuple(BatchBody(packed, dataclasses.replace(self._info, size=len(packed)), self._batch_headers))
        )

    def take(self, frame: Frame) -> bool:
        """Process the results of the whole group."""
        results: list[bytes] = pickle.loads(frame.body)  # noqa: S301  # from our own worker process
        for position, result in zip(self.group.positions, results, strict=True):
            self._finish(position, result)
        return True

    def what_runs(self) -> list[int]:
        """Returns the open positions of the whole group."""
        return self.in_hand

    def _split(self, running: int) -> None:
        self._groups.extendleft(Group([position], again=True) for position in reversed(self.in_hand))
