"""Whoever logs never waits for whoever reads."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broadway_py.daemon.logs.log_writer import LogWriter
from broadway_py.log import Fields
from tests.support.eventually import eventually


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """The end to read from, and a stream that writes into it."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    try:
        yield reading, stream
    finally:
        with contextlib.suppress(OSError):
            os.close(reading)
        with contextlib.suppress(OSError):
            stream.close()


def log_to(writer: LogWriter) -> logging.Logger:
    log = logging.Logger("test")  # noqa: LOG001  # of this test alone
    log.addHandler(writer)
    return log


def read_all(reading: int, until: str) -> list[str]:
    text = ""
    while until not in text:
        text += os.read(reading, 65_536).decode()
    return text.splitlines()


def dropped_in(text: str) -> list[int]:
    """The numbers of lines that the whole lines of *text* say were dropped."""
    said = "log lines were dropped: they were not read fast enough, or the disk was full lines="
    return [int(line.removeprefix(said)) for line in text.rpartition("\n")[0].splitlines() if line.startswith(said)]


def test_nobody_waits_while_nobody_reads_and_what_was_dropped_is_said() -> None:
    with pipe() as (reading, stream):
        writer = LogWriter(stream)
        log = log_to(writer)
        began = time.monotonic()
        for number in range(30_000):
            log.warning("line %d %s", number, "x" * 90)
        assert time.monotonic() - began < 10
        assert writer.dropped > 10_000
        dropped = writer.dropped

        # On a quick machine lines are dropped before the pipe is full. Then each part is said when there is room again.
        text = ""
        while sum(dropped_in(text)) < dropped:
            text += os.read(reading, 65_536).decode()
    assert sum(dropped_in(text)) == dropped
    numbers = [int(line.split()[1]) for line in text.splitlines() if line.startswith("line")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 500


def test_a_flood_of_long_lines_takes_no_memory_without_bound() -> None:
    with pipe() as (_, stream):
        writer = LogWriter(stream)
        log = log_to(writer)
        for _ in range(1_000):
            log.warning("x" * 8_000)
        assert writer._put_chars - writer._written_chars < 5 * 1024 * 1024
        assert writer.dropped > 300


def test_a_flush_writes_what_was_logged_and_does_not_wait_long_for_a_reader_that_hangs() -> None:
    with pipe() as (reading, stream):
        writer = LogWriter(stream)
        log_to(writer).warning("the last words")
        writer.flush()
        assert os.read(reading, 1000) == b"the last words\n"

        log_to(writer).warning("x" * 1_000_000)
        began = time.monotonic()
        writer.flush()
        assert time.monotonic() - began < 3


def test_lines_of_many_threads_are_whole() -> None:
    with pipe() as (reading, stream):
        writer = LogWriter(stream)
        log = log_to(writer)

        def say(name: str) -> None:
            for _ in range(50):
                log.warning("%s%s", name, "y" * 500)

        threads = [threading.Thread(target=say, args=(name,)) for name in "abcd"]
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.extend(read_all(reading, "the end")))
        reader.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.warning("the end")
        reader.join(20)
    assert sorted(found[:-1]) == sorted(f"{name}{'y' * 500}" for name in "abcd" for _ in range(50))


async def test_a_reader_that_is_gone_and_a_full_disk_cost_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        writer = LogWriter(stream)
        log_to(writer).warning("to nobody")
        await eventually(lambda: writer.dropped == 1, what="the line is counted as dropped")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        writer = LogWriter(full)
        log_to(writer).warning("no room")
        await eventually(lambda: writer.dropped == 1, what="the line is counted as dropped")


def test_no_stream_and_a_closed_one_are_fine() -> None:
    log_to(LogWriter(None)).warning("nowhere")
    stream = io.StringIO()
    writer = LogWriter(stream)
    stream.close()
    log_to(writer).warning("nowhere")
    assert writer.dropped == 1


def test_a_line_that_cannot_be_made_is_said_without_what_is_in_it() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("canary")

    stream = io.StringIO()
    log_to(LogWriter(stream)).warning("%s", Broken())
    assert stream.getvalue().startswith("a log line could not be formatted line_of=test at=")
    assert stream.getvalue().endswith("exception=RuntimeError\n")


def test_what_no_encoding_can_write_is_escaped() -> None:
    with pipe() as (reading, stream):
        writer = LogWriter(stream)
        log_to(writer).warning("half a \ud83d pair")
        writer.flush()
        assert os.read(reading, 1000) == b"half a \\ud83d pair\n"


def test_fields_are_text_for_the_last_resort() -> None:
    assert str(Fields(event="e", lines=3)) == "e lines=3"


def run(program: str, *, redirect: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that logs as the daemon does."""
    head = """
        import logging, os, sys, threading
        from broadway_py.daemon.logs import logs
        from broadway_py.daemon.settings.settings import Log
        logs.configure(Log())
        log = logging.getLogger("mine")
    """
    code = textwrap.dedent(head) + textwrap.dedent(program)
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, text=True, timeout=60, check=False, **pipes)  # ours


def events(text: str) -> list[str]:
    return [json.loads(line)["event"] for line in text.splitlines()]


@pytest.mark.integration
def test_the_last_lines_of_a_crash_are_there_in_their_order() -> None:
    ended = run("""
        for number in range(500):
            log.warning("line %d", number)
        raise ValueError("canary")
    """)
    assert events(ended.stderr) == [*(f"line {number}" for number in range(500)), "an error ended the program"]
    assert "canary" not in ended.stderr
    assert ended.returncode == 1


@pytest.mark.integration
def test_a_child_that_a_handler_forks_logs_and_ends_and_writes_nothing_twice() -> None:
    ended = run("""
        log.warning("before")
        child = os.fork()
        if child == 0:
            log.warning("in the child")
            logging.shutdown()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        log.warning("after")
    """)
    assert ended.stdout == "7\n"
    assert sorted(events(ended.stderr)) == ["after", "before", "in the child"]


@pytest.mark.integration
def test_a_child_that_is_forked_while_nobody_reads_ends_all_the_same() -> None:
    reading, writing = os.pipe()
    try:
        code = """
            for number in range(3_000):
                log.warning("x" * 100)
            child = os.fork()
            if child == 0:
                log.warning("in the child")
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """
        ended = run(code, stderr=writing)
        assert (ended.stdout, ended.returncode) == ("7\n", 0)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.integration
def test_standard_streams_that_are_closed_from_the_start_take_no_file_of_others(tmp_path: Path) -> None:
    file = tmp_path / "data"
    ended = run(
        f"""
        with open({str(file)!r}, "w") as data:
            log.warning("a line")
            os.write(2, b"from a library")
            data.write("only this")
        """,
        redirect="0<&- 1>&- 2>&-",
    )
    assert ended.returncode == 0
    assert file.read_text() == "only this"
