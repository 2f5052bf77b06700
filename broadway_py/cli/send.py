"""``broadway send``: puts lines on a queue."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from broadway_py.cli import streams
from broadway_py.cli.arguments import Assignments
from broadway_py.cli.completion import pipeline_names
from broadway_py.cli.endings import INTERRUPTED, fail, sentences
from broadway_py.cli.progress import Progress
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.errors import BroadwayError, OptionsError

__all__ = ["send"]


def send(
    *,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE.yaml] [INPUT]",
            help="The settings file (none with --queue), then the file whose lines are sent. - is standard input.",
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option(metavar="FILE:NAME", help="Send to this embedded queue. It needs no settings file.")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Send to the queue that this pipeline reads.", autocompletion=pipeline_names),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field of each line, a JSON object, that is the key of the message."),
    ] = None,
    skip: Annotated[
        int, typer.Option(min=0, metavar="N", help="Leave out the first N lines of the input, to go on after an error.")
    ] = 0,
    assignments: Assignments = None,
) -> None:
    """Put the lines of a file, or of standard input, on a queue, one message per line. Empty lines are left out.

    Works for the embedded queue, RabbitMQ and SQS. Each message is confirmed by
    the queue. If the queue is not available, or does not take a line, the exit
    code is 1. The output then says how many lines are certainly on the queue,
    and with which --skip to go on. The same holds after Ctrl-C.

    [bold]Examples[/]

      broadway send --queue var/queue.db:orders lines.txt

      generate-orders | broadway send --queue var/queue.db:orders -

      broadway send orders.yaml --pipeline orders lines.txt

      broadway send orders.yaml --key customer orders.jsonl

      broadway send orders.yaml orders.jsonl --skip 12500
    """
    from broadway_py.daemon.sending.targets import queue_file, target_of  # noqa: PLC0415  # keeps --help fast

    given = list(arguments or [])
    with sentences():
        if queue is not None:
            target = queue_file(queue)
        elif given:
            settings = read_settings([Path(given.pop(0))], assignments=assignments or [])
            try:
                target = target_of(settings, pipeline, has_keys=key is not None)
            except OptionsError as wrong:
                raise settings.located(wrong) from None
        else:
            raise OptionsError((), "send: name a settings file, or a queue with --queue FILE:NAME")
    if len(given) > 1:
        fail(f"send: expected one input, got {', '.join(given)}", ExitCode.USAGE)
    with _input(given[0] if given else "-") as stream:
        _send(stream, target, key, skip)


def _send(stream: BinaryIO, target: Any, key: str | None, skip: int) -> None:
    from broadway_py.daemon.sending.send import NotAllSent, Sent, send_lines  # noqa: PLC0415  # keeps --help fast

    sent = Sent()
    progress = Progress("lines sent", _size_of(stream))

    def reached(now: Sent) -> None:
        nonlocal sent
        sent = now
        progress.reached(now.count, now.size)

    try:
        with progress:
            asyncio.run(send_lines(stream, target, reached, key=key, skip=skip))
    except (BroadwayError, KeyboardInterrupt) as ended:
        is_interrupted = isinstance(ended, KeyboardInterrupt)
        reason = "interrupted" if is_interrupted else ended
        go_on = ""
        if isinstance(ended, NotAllSent) and ended.last is not None:
            go_on = (
                f"; all others up to line {ended.last} are on it: send those again, and go on with --skip {ended.last}"
            )
        elif sent.line:
            go_on = f"; go on with --skip {sent.line}"
        fail(f"{reason}; {_counted(sent.count)} before that{go_on}", INTERRUPTED if is_interrupted else ExitCode.CRASH)
    typer.echo(_counted(sent.count))


def _counted(count: int) -> str:
    return f"{count:,} {'line was' if count == 1 else 'lines were'} put on the queue"


def _size_of(stream: BinaryIO) -> int | None:
    """Returns the bytes of a file; None: *stream* is something else, and nobody knows how long it will be."""
    try:
        status = os.fstat(stream.fileno())
    except io.UnsupportedOperation:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if streams.is_input_closed():
            fail("send: standard input is closed; name a file whose lines are to be sent", ExitCode.USAGE)
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115  # closed below, outside the except
    except OSError as failed:
        fail(f"{name}: cannot be read: {failed.strerror}", ExitCode.USAGE)
    with stream:
        yield stream
