"""``broadway send``: what is on the queue for certain, and with what one goes on."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broadway_py.cli import app
from broadway_py.daemon.sending.raw_lines import raw_lines
from broadway_py.daemon.sending.send import NotAllSent, Sent, send_lines
from broadway_py.daemon.sending.targets import Put, Target
from broadway_py.errors import ProducerError, PublishError
from broadway_py.publisher import Outgoing
from tests.support.daemon import ROOT
from tests.support.eventually import eventually_sync
from tests.support.terminal import on_terminal


def target_with(put: Put) -> Target:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Put]:
        yield put

    return opened


def refusing(*bodies: bytes) -> tuple[Target, list[bytes]]:
    """A queue that does not take these bodies, and what it has stored."""
    stored: list[bytes] = []

    async def put(messages: Sequence[Outgoing]) -> None:
        stored.extend(one.data for one in messages if one.data not in bodies)
        left = [one for one in messages if one.data in bodies]
        if left:
            raise PublishError("the queue does not take it", unpublished=left)

    return target_with(put), stored


async def sent(data: bytes, target: Target, *, skip: int = 0) -> tuple[list[Sent], ProducerError | None]:
    told: list[Sent] = []
    try:
        await send_lines(io.BytesIO(data), target, told.append, skip=skip)
    except ProducerError as failed:
        return told, failed
    return told, None


async def test_progress_has_lines_and_bytes_of_the_input() -> None:
    target, stored = refusing()
    data = b"".join(b"line %d\n" % number for number in range(1200))
    told, failed = await sent(data, target)
    assert failed is None
    assert [(one.count, one.line) for one in told] == [(500, 500), (1000, 1000), (1200, 1200)]
    assert told[-1].size == len(data)
    assert b"\n".join(stored) + b"\n" == data


async def test_skipped_and_empty_lines_count_as_lines_of_the_input() -> None:
    target, stored = refusing()
    told, _ = await sent(b"a\n\nb\nc\n\nd", target, skip=3)
    assert (stored, told) == ([b"c", b"d"], [Sent(2, 6, 9)])


async def test_a_line_between_others_is_named_and_all_others_are_stored() -> None:
    target, stored = refusing(b"b", b"d")
    told, failed = await sent(b"a\n\nb\nc\nd\ne\n", target)
    assert isinstance(failed, NotAllSent)
    assert (str(failed), failed.last) == ("lines 3, 5 were not put on the queue: the queue does not take it", 6)
    assert (stored, told) == ([b"a", b"c", b"e"], [Sent(3, 2, 3)])


async def test_lines_at_the_end_are_where_sending_goes_on() -> None:
    target, stored = refusing(b"d", b"e")
    told, failed = await sent(b"a\nb\nc\nd\ne\n", target)
    assert isinstance(failed, NotAllSent)
    assert (str(failed), failed.last) == ("lines 4, 5 were not put on the queue: the queue does not take it", None)
    assert (stored, told) == ([b"a", b"b", b"c"], [Sent(3, 3, 6)])


async def test_of_many_lines_the_first_ten_are_named() -> None:
    target, _ = refusing(*(b"%d" % number for number in range(20, 40)))
    _, failed = await sent(b"\n".join(b"%d" % number for number in range(1, 50)), target)
    assert str(failed) == (
        "lines 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 10 more were not put on the queue: the queue does not take it"
    )


@pytest.mark.parametrize(("left", "count"), [((), 3), ((b"b",), 2)])
async def test_an_interrupted_call_counts_what_was_being_stored(left: tuple[bytes, ...], count: int) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def put(messages: Sequence[Outgoing]) -> None:
        began.set()
        await may_end.wait()
        if left:
            raise PublishError("no", unpublished=[one for one in messages if one.data in left])

    told: list[Sent] = []
    sending = asyncio.ensure_future(send_lines(io.BytesIO(b"a\nb\nc\n"), target_with(put), told.append))
    await began.wait()
    sending.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [one.count for one in told] == [count]


async def test_lines_of_a_pipe_come_as_they_are_written() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stream:  # noqa: PTH123  # a pipe has no path
        lists = raw_lines(stream, 2)
        os.write(writer, b"a\nb\nc\nd")
        assert await anext(lists) == [b"a\n", b"b\n"]
        assert await anext(lists) == [b"c\n"]
        waiting = asyncio.ensure_future(anext(lists))
        await asyncio.sleep(0)
        os.write(writer, b"e\nf")
        assert await waiting == [b"de\n"]
        os.close(writer)
        assert await anext(lists) == [b"f"]
        with pytest.raises(StopAsyncIteration):
            await anext(lists)


def waiting(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        return [row for (row,) in database.execute("SELECT payload FROM messages ORDER BY id")]


def test_ctrl_c_while_nothing_comes_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "broadway_py", "send", "--queue", f"{path}:orders", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    process.stdin.write(b"one\n\ntwo\nthr")
    process.stdin.flush()
    found: Callable[[], bool] = lambda: waiting(path) == [b"one", b"two"]  # noqa: E731  # it is awaited below
    eventually_sync(found, what="two lines are on the queue", ignoring=sqlite3.Error)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.decode()) == (
        130,
        b"",
        "broadway: interrupted; 2 lines were put on the queue before that; go on with --skip 3\n",
    )


def test_going_on_with_skip_leaves_out_what_was_sent(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("".join(f'{{"id": {number}}}\n' for number in range(600)) + "broken\n" + '{"id": 600}\n')
    words = ["send", "--queue", f"{tmp_path}/q.db:orders", "--key", "id", str(lines)]
    shown = CliRunner().invoke(app, words)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            "broadway: line 601: expected a JSON object whose field 'id', the key, is text or a whole number; "
            f"{len(waiting(tmp_path / 'q.db'))} lines were put on the queue before that; "
            f"go on with --skip {len(waiting(tmp_path / 'q.db'))}\n"
        ),
    )
    lines.write_text(lines.read_text().replace("broken\n", '{"id": -1}\n'))
    shown = CliRunner().invoke(app, [*words, "--skip", str(len(waiting(tmp_path / "q.db")))])
    assert shown.exit_code == 0
    assert len(set(waiting(tmp_path / "q.db"))) == len(waiting(tmp_path / "q.db")) == 602


def test_on_a_terminal_the_share_of_the_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\ntwo\n")
    with on_terminal("send", "--queue", tmp_path / "q.db:orders", tmp_path / "lines") as shown:
        assert shown.exit_code() == 0
        assert "0 lines sent" in shown.written
        assert "0%" in shown.written
        assert shown.written.endswith("2 lines were put on the queue\r\n")
