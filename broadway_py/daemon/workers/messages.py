"""What a supervisor and its workers say to each other, over two pipes per worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import Metric

from broadway_py.daemon.settings.settings import Settings
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["Act", "Answer", "Assignment", "Command", "Final", "FromWorker", "Refused", "Report"]

#: What a worker can be asked for; the last two are answered.
Act = Literal["stop", "now", "dump", "report", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first thing a worker is told."""

    settings: Settings
    index: int
    workers: int
    #: Pipelines that somebody has paused.
    paused: frozenset[str]
    #: The supervisor's module search path.
    search_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Supervisor to worker. *number* is repeated in the report or the answer; 0: none is waited for."""

    act: Act
    number: int = 0
    pipeline: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Worker to supervisor, each second and when asked for: one moment of its pipelines."""

    pipelines: Mapping[str, PipelineStats]
    #: Everything in the worker's default registry: the user's own metrics, and those of the process.
    metrics: tuple[Metric, ...]
    lag_seconds: float
    number: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """Worker to supervisor: the command of this number is done, or cannot be."""

    number: int
    pipeline: str
    #: Why it cannot be done.
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """Worker to supervisor: the last report; *ended*: by itself, not because somebody asked.

    Not *started*: the ``setup`` of a pipeline raised, as it would in another worker.
    """

    report: Report
    ended: bool
    started: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Worker to supervisor: the settings do not work here either; the sentence for the user."""

    sentence: str


#: Anything that a worker sends.
FromWorker = Report | Answer | Final | Refused
