"""A pipeline with windows for processes that are killed, stopped or stand by; what it emits is counted from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from broadway_py import Aggregator, Message, Pipeline, Processors, Window, WindowResult

__all__ = ["Counting", "Counts"]


class Counts(Aggregator[str, dict[str, Any], int]):
    """Counts messages by key and ten seconds. Appends each list that it emits to the file ``emitted``, as JSON."""

    window = Window.fixed(10, by=lambda message: message.data["at"], delay=5, idle_timeout=2)

    def key(self, message: Message[dict[str, Any]]) -> str:
        return str(message.data["key"])

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[dict[str, Any]]) -> int:
        return acc + 1

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        rows = [[one.id, one.firing, one.key, one.start, one.value, one.count] for one in results]
        with (Path(self.context["folder"]) / "emitted").open("a") as file:
            file.write(json.dumps(rows) + "\n")


class Counting(Pipeline[dict[str, Any]]):
    """Counts what comes. Its context names the folder for what is emitted.

    With ``tells`` in the context, each message that is handled is a line ``handled <number>`` of standard output. It
    is a pipe, so it takes lines when no file does.
    """

    context: dict[str, Any]
    aggregators = {"counts": Counts}  # noqa: RUF012  # an option
    processors = Processors(concurrency=4, max_demand=50)
    shutdown_timeout = 10.0

    def transformer(self, message: Message[Any]) -> None:
        message.data = json.loads(message.data)

    async def handle_message(self, message: Message[dict[str, Any]]) -> None:
        if self.context.get("tells"):
            # One piece, because the log goes to the same pipe from a thread of its own.
            sys.stdout.write(f"handled {message.data['number']}\n")
            sys.stdout.flush()
