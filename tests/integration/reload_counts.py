"""A pipeline that notes what it handles, when, and whether the broker delivers it again; and what tests read of it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broadway_py import Batcher, BatchInfo, Message, Pipeline
from tests.support.counter import message_id

__all__ = ["Note", "Notes", "notes_in"]


class Notes(Pipeline[bytes]):
    """Writes a line for each message into a file of its own, in the folder ``context["folder"]``."""

    batchers = {"default": Batcher(batch_size=100, batch_timeout=0.1)}  # noqa: RUF012  # an option

    async def setup(self) -> None:
        name = f"{self.name}-{os.getpid()}-{time.monotonic_ns()}.notes"
        self.file = os.open(Path(self.context["folder"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    async def teardown(self) -> None:
        os.close(self.file)

    async def handle_message(self, message: Message[bytes]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        now = time.monotonic()
        lines = [f"{message_id(one.data)} {now:.6f} {int(one.metadata['redelivered'])}\n" for one in messages]
        os.write(self.file, "".join(lines).encode())


@dataclass(frozen=True, slots=True)
class Note:
    """One message that was handled."""

    id: str
    at: float
    redelivered: bool


def notes_in(folder: Path, pipeline: str) -> list[list[Note]]:
    """What each pipeline object of this name has noted: one list for each, in the order of their starts."""
    found: list[list[Note]] = []
    for file in folder.glob(f"{pipeline}-*.notes"):
        parts = (line.split() for line in file.read_text().splitlines())
        found.append([Note(one, float(at), again == "1") for one, at, again in parts])
    return sorted((notes for notes in found if notes), key=lambda notes: notes[0].at)


def process_of(file: Path) -> int:
    """The process that has written a file of notes."""
    return int(file.name.rsplit("-", 2)[1])


def gaps_of(folder: Path, pipeline: str) -> list[float]:
    """The seconds between the last message of one pipeline object and the first of the next one in its process."""
    by_process: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for file in folder.glob(f"{pipeline}-*.notes"):
        times = [float(line.split()[1]) for line in file.read_text().splitlines()]
        if times:
            by_process[process_of(file)].append((times[0], times[-1]))
    return [
        after[0] - before[1]
        for spans in by_process.values()
        for before, after in zip(sorted(spans), sorted(spans)[1:], strict=False)
    ]


def twice_without_cause(notes: Sequence[Sequence[Note]]) -> dict[str, int]:
    """Ids that were handled more than once, where a later delivery is not marked as one that the broker repeats."""
    deliveries: dict[str, list[Note]] = defaultdict(list)
    for some in notes:
        for one in some:
            deliveries[one.id].append(one)
    return {
        name: len(found)
        for name, found in deliveries.items()
        if len(found) > 1 and not all(one.redelivered for one in sorted(found, key=lambda one: one.at)[1:])
    }


def sections(folder: Path, queues: dict[str, dict[str, Any]], concurrency: int) -> dict[str, Any]:
    """The pipelines of the settings: ``main`` with this concurrency, and ``other``, which is always the same."""
    return {
        name: {
            "class": "tests.integration.reload_counts:Notes",
            "context": {"folder": str(folder)},
            "producer": producer,
            "processors": {"concurrency": concurrency if name == "main" else 2},
        }
        for name, producer in queues.items()
    }
