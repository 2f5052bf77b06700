"""The messages between a supervisor and its workers. They go over two pipes per worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import Metric

from broadway_py.daemon.pipelines.changes import Change
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.pipeline.stats import PipelineStats

__all__ = [
    "Act",
    "Answer",
    "Applied",
    "Assignment",
    "Command",
    "Control",
    "FromWorker",
    "LastReport",
    "Refused",
    "Report",
]

#: The commands to a worker that it answers.
Control = Literal["pause", "resume", "rate_limit", "concurrency"]
#: All commands to a worker. The result of a reload has a message of its own.
Act = Literal["stop", "now", "dump", "report", "reload"] | Control


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a worker."""

    settings: Resolved
    index: int
    #: Pipelines that are paused.
    paused: frozenset[str]
    #: The supervisor's module search path.
    search_path: tuple[str, ...]
    #: What was changed before this worker started, and the pipelines that it is for.
    changes: tuple[tuple[str, Change], ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """Supervisor to worker. The report or the answer repeats *number*. 0: the supervisor waits for none."""

    act: Act
    number: int = 0
    pipeline: str = ""
    #: With ``rate_limit`` and ``concurrency``.
    change: Change | None = None
    #: The settings to reload.
    settings: Resolved | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Worker to supervisor, each second and when asked for: the state of its pipelines at one moment."""

    pipelines: Mapping[str, PipelineStats]
    #: The costs of requests, dropped log lines, and everything in the worker's default registry: the user's own metrics
    #: and those of the process.
    metrics: tuple[Metric, ...]
    lag_seconds: float
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """Worker to supervisor: the command of this number is done, or cannot be done."""

    number: int
    act: Act
    pipeline: str
    #: Why it cannot be done.
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """Worker to supervisor: the reload of this number has ended."""

    number: int
    result: Reloaded


@dataclass(frozen=True, slots=True)
class LastReport:
    """Worker to supervisor: the last report. *ended*: the worker has ended by itself and not because it was asked to.

    *started* is False if a pipeline could not start, because its ``setup`` raised for example. It would fail in another
    worker too.
    """

    report: Report
    ended: bool
    started: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Worker to supervisor: the settings are wrong in this process. *sentence* is the error text for the user."""

    sentence: str


#: Every message that a worker sends.
FromWorker = Report | Answer | Applied | LastReport | Refused
