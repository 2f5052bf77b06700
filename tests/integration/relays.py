"""Kills of a process that consumes, publishes and acks; and what must have arrived, as counted from outside."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.daemon import ROOT
from tests.support.eventually import eventually

__all__ = ["killed_while_it_relays", "names"]

Left = Callable[[], Awaitable[int]]


def names(count: int) -> list[str]:
    """The payloads of *count* messages, each another."""
    return [f"n{number}" for number in range(count)]


@contextmanager
def _child(folder: Path, source: dict[str, Any], out: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline in a process of its own, which is killed at the end."""
    with (folder / "log").open("ab") as log:
        program = "tests.integration.publishing_killed"
        process = subprocess.Popen(
            [sys.executable, "-m", program, json.dumps(source), json.dumps(out)], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def killed_while_it_relays(
    folder: Path, source: dict[str, Any], out: dict[str, Any], left: Left, *, count: int, kills: int, seed: int
) -> None:
    """Run the pipeline from *source* to *out*, and kill it *kills* times meanwhile; then let it finish.

    Args:
        folder: for its log.
        source: a section of settings.
        out: a section of settings.
        left: how many messages are not settled yet.
        count: how many messages there are in all.
        kills: how often the process is killed.
        seed: of the moments.
    """
    chance = random.Random(seed)
    patience = 60 + count / 200
    for mark in sorted((chance.randrange(count // 20, count) for _ in range(kills)), reverse=True):
        with _child(folder, source, out) as process:
            await eventually(
                lambda mark=mark: _is_below(left, mark),  # type: ignore[misc]  # it is called within this round
                timeout=patience,
                what=f"fewer than {mark} messages are left",
            )
            assert process.poll() is None, (folder / "log").read_text()
    with _child(folder, source, out):
        await eventually(lambda: _is_below(left, 1), timeout=patience, what="everything is acked")


async def _is_below(left: Left, mark: int) -> bool:
    return await left() < mark
