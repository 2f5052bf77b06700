"""The messages between a supervisor and its workers. They go over two pipes per worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import Metric

from broadway_py.daemon.settings.settings import Settings
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["Act", "Answer", "Assignment", "Command", "FromWorker", "LastReport", "Refused", "Report"]

#: The commands to a worker. The last two are answered.
Act = Literal["stop", "now", "dump", "report", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a worker."""

    settings: Settings
    index: int
    workers: int
    #: Pipelines that are paused.
    paused: frozenset[str]
    #: The supervisor's module search path.
    search_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Supervisor to worker. The report or the answer repeats *number*. 0: the supervisor waits for none."""

    act: Act
    number: int = 0
    pipeline: str = ""


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
    pipeline: str
    #: Why it cannot be done.
    refused: str | None = None


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
FromWorker = Report | Answer | LastReport | Refused
