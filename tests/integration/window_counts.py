"""Messages for windows, kills while they flow, and what must have come of them, as counted from outside."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aio_pika

from tests.support.daemon import ROOT
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

__all__ = [
    "START",
    "all_are_in",
    "check",
    "emitted",
    "killed_while_they_flow",
    "messages",
    "publish",
    "repeated",
    "wrong_windows",
]

#: The first event time. The clock of the test does not matter: nothing lies ahead of it.
START: Final = 1_000_000.0


def messages(seed: int, count: int, *, first: int = 0) -> list[str]:
    """*count* messages out of order, numbered from *first*: each is up to four seconds older than the newest before."""
    chance = random.Random(seed)
    return [
        json.dumps(
            {
                "number": number,
                "at": START + number / 100 - chance.uniform(0, 4),
                "key": f"key-{chance.randrange(20)}",
            }
        )
        for number in range(first, first + count)
    ]


async def publish(rabbitmq: RabbitMQ, sent: Sequence[str], *, first: int = 0) -> None:
    """Publishes *sent* to the queue ``work``, each with an id of its own: the numbers from *first*."""
    for start in range(0, len(sent), 500):
        await asyncio.gather(
            *(
                rabbitmq.channel.default_exchange.publish(
                    aio_pika.Message(line.encode(), message_id=str(number), delivery_mode=2), "work"
                )
                for number, line in enumerate(sent[start : start + 500], first + start)
            )
        )


# --- kills ------------------------------------------------------------------------------------------------------------


@contextmanager
def _child(folder: Path, source: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline in a process of its own, which is killed at the end."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.windows_killed", str(folder), json.dumps(source)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def killed_while_they_flow(
    folder: Path, source: dict[str, Any], left: Callable[[], Awaitable[int]], *, count: int, kills: int, seed: int
) -> None:
    """Run the pipeline on *source*, and kill it *kills* times while its *count* messages flow; then let it finish.

    Args:
        folder: for its state and what it emits.
        source: a section of settings.
        left: how many messages are not settled yet.
        count: how many messages there are in all.
        kills: how often the process is killed.
        seed: of the moments.
    """
    chance = random.Random(seed)
    marks = sorted((chance.randrange(count // 50, count) for _ in range(kills)), reverse=True)
    patience = 40 + count / 500
    for mark in marks:
        with _child(folder, source) as process:
            await eventually(
                lambda mark=mark: _is_below(left, mark),  # type: ignore[misc]  # it is called within this round
                timeout=patience,
                what=f"fewer than {mark} messages are left",
            )
            assert process.poll() is None, (folder / "log").read_text()
    with _child(folder, source):
        await all_are_in(folder, count, timeout=patience)
        await eventually(lambda: _is_below(left, 1), timeout=patience, what="everything is acked")


async def _is_below(left: Callable[[], Awaitable[int]], mark: int) -> bool:
    return await left() < mark


# --- the count from outside -------------------------------------------------------------------------------------------


def emitted(folder: Path) -> list[list[Any]]:
    """The rows that ``emit`` has written. The last line may have been cut off by a kill: it comes again."""
    file = folder / "emitted"
    rows: list[list[Any]] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        # The line after a line that was cut off stands right behind it.
        whole = line[line.rindex("[[") :] if line.endswith("]]") else "[]"
        rows += json.loads(whole)
    return rows


def _newest(rows: list[list[Any]]) -> dict[str, list[Any]]:
    """The row with the largest firing of each id."""
    return {row[0]: row for row in sorted(rows, key=lambda row: row[1])}


async def all_are_in(folder: Path, count: int, *, timeout: float = 40.0) -> None:
    """Wait until the results have *count* messages in them."""
    await eventually(
        lambda: sum(row[5] for row in _newest(emitted(folder)).values()) >= count,
        timeout=timeout,
        what=f"{count} messages are in the results",
    )


def repeated(rows: list[list[Any]]) -> int:
    """How many of *rows* are results that were there before."""
    return len(rows) - len({(name, firing) for name, firing, *_ in rows})


def wrong_windows(folder: Path, sent: Iterable[str]) -> dict[tuple[str, float], tuple[int, int]]:
    """Window by window, what is not as *sent* says: what came of it, and what should have come of it.

    A result that was emitted again must be the same as before.
    """
    expected: Counter[tuple[str, float]] = Counter()
    for line in sent:
        message = json.loads(line)
        expected[message["key"], message["at"] // 10 * 10] += 1
    rows = emitted(folder)
    values: dict[tuple[str, int], int] = {}
    for name, firing, _, _, value, _ in rows:
        assert values.setdefault((name, firing), value) == value, "one value for each id and firing"
    newest = _newest(rows).values()
    found = {(key, start): value for _, _, key, start, value, _ in newest}
    assert len(found) == len(newest), "one id for each key and window"
    return {
        window: (found.get(window, 0), expected[window])
        for window in found.keys() | expected.keys()
        if found.get(window, 0) != expected[window]
    }


def check(folder: Path, sent: Iterable[str]) -> None:
    """See that each message counts once, in its window."""
    assert wrong_windows(folder, sent) == {}
