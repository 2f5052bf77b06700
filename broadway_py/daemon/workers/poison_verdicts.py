"""Decides which messages may have ended a worker, from the in-flight journal, and tells all workers through it."""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import Final

from broadway_py._core.exits import exit_text
from broadway_py._core.poison import Suspects
from broadway_py.log import logger
from broadway_py.pipeline.poison.journal import CONVICTED, MOST_ENTRIES, REPEATED, SUSPECTED, Journal, Trace
from broadway_py.pipeline.poison.memory import memory_mark, ran_out

__all__ = ["PoisonVerdicts"]

log = logger("broadway_py.daemon")

#: Signals that people and service managers send. The kernel sends SIGKILL too, when memory runs out.
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})


class PoisonVerdicts:
    """Owns the journal.

    Args:
        workers: how many workers there are.
        most: the most messages that are remembered, of suspected and of convicted ones each.
    """

    def __init__(self, workers: int, most: int = MOST_ENTRIES // 2) -> None:
        self.journal = Journal.create(workers)
        self._suspects = Suspects(most)

    @property
    def descriptor(self) -> int:
        """The descriptor of the journal, for workers to inherit."""
        return self.journal.descriptor

    def grow(self, workers: int) -> None:
        """Makes room for *workers*. Workers that run keep their regions."""
        self.journal.grow(workers)

    def left(self, index: int) -> None:
        """Handles the end of worker *index* that was asked for while the others run on."""
        self.journal.region(index).reset()

    def died(self, index: int, code: int, peak_kib: int) -> int:
        """Handles the death of worker *index* that nobody asked for. Returns how many messages are suspected.

        Args:
            index: the worker's number.
            code: the exit code, as ``subprocess`` gives it.
            peak_kib: the most memory that the worker has used, in KiB.
        """
        region = self.journal.region(index)
        trace = region.read()
        by_itself = -code not in _FROM_OUTSIDE or ran_out(trace.memory, memory_mark(peak_kib))
        suspects = 0 if trace.has_ended else self._conclude(trace, code, by_itself=by_itself)
        # This is the last step: a worker that no longer finds a message in the region must find it in the table.
        region.reset()
        return suspects

    def _conclude(self, trace: Trace, code: int, *, by_itself: bool) -> int:
        journal, suspects = self.journal, self._suspects
        self.forget_cleared()
        is_alone = trace.is_alone and len(trace.at_work) == 1 and not trace.has_unnamed
        findings = suspects.died(trace.at_work, alone=is_alone, by_itself=by_itself)
        for one in findings.forgotten:
            journal.drop(one)
        for one in findings.suspects:
            journal.put(one, SUSPECTED, 1, code)
        for one in findings.repeated:
            journal.put(one, REPEATED, findings.deaths, code)
        if findings.convicted is not None:
            journal.put(findings.convicted, CONVICTED, findings.deaths, code)
            _log_conviction(trace.name, findings.deaths, code)
        if findings.forgotten:
            _log_forgotten(findings.forgotten)
        return len(findings.suspects)

    def forget_cleared(self) -> None:
        """Removes from the table the messages that workers have cleared. Workers check less when the table is empty."""
        for cleared in self.journal.cleared():
            self._suspects.clear(cleared)
            self.journal.drop(cleared)

    def close(self) -> None:
        """Closes the journal, when the workers are gone."""
        self.journal.close()


def _log_conviction(name: str, deaths: int, code: int) -> None:
    # The end of a very long name is cut off.
    pipeline, producer, message_id = (*name.split("\0", 2), "", "")[:3]
    log.error(
        "a message ends the workers that handle it; it will not be handled any more",
        pipeline=pipeline,
        producer=producer,
        message_id=message_id,
        deaths=deaths,
        exit=exit_text(code),
    )


def _log_forgotten(forgotten: Collection[bytes]) -> None:
    log.warning("too many messages are suspected of ending workers; the oldest are forgotten", messages=len(forgotten))
