"""Writes log lines in its own thread, so that code that logs never waits for the reader."""

from __future__ import annotations

import io
import logging
import os
import queue
import select
import threading
import weakref
from datetime import UTC, datetime
from typing import Final, TextIO

from broadway_py.log import Fields, line_limit

__all__ = ["LogWriter", "keep_standard_streams"]

#: The most lines, and the most characters, that may wait for a reader.
_MOST_LINES: Final = 10_000
_MOST_CHARS: Final = 4 * 1024 * 1024
#: Seconds that a flush waits for the reader. The end of the process waits as long.
_FLUSH_S: Final = 0.5
#: Seconds that a forked child waits for the reader at each line. It does not have the thread.
_CHILD_S: Final = 0.2
#: Seconds between two checks for lines that the limit has left out.
_SUM_UP_S: Final = 5.0

_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


class LogWriter(logging.Handler):
    """Puts lines into a bounded queue, in order. A daemonic thread writes them to *stream*.

    While the queue is full, lines are dropped and counted. The count is written as soon as a line can be written. A
    forked child has no thread: it writes its lines itself, and drops those that cannot be written in a short time. A
    stream without a descriptor, such as a ``StringIO``, is written to at once, because it cannot make the writer wait.

    Args:
        stream: where the lines go. None: nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._is_child = False
        self._thread: threading.Thread | None = None
        self._begin()
        if self._descriptor is not None:
            self._start()
        _writers.add(self)

    def _begin(self) -> None:
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        # Each number is changed by one side only: threads that log hold the handler's lock, and there is one writing
        # thread.
        self._put_chars = self._written_chars = 0
        self._dropped = self._not_written = self._told = 0

    def _start(self) -> None:
        try:
            thread = threading.Thread(target=self._write_all, name="broadway-log", daemon=True)
            thread.start()
        except RuntimeError:
            return  # no thread can be started now; the next line tries again
        self._thread = thread

    @property
    def dropped(self) -> int:
        """How many lines were lost."""
        return self._dropped + self._not_written

    def emit(self, record: logging.LogRecord) -> None:
        """Puts the line of *record* into the queue. It never waits and never raises."""
        try:
            line = self.format(record) + "\n"
        except Exception as error:  # noqa: BLE001  # the caller's error: a wrong argument, an object whose repr fails
            line = self._line(
                "a log line could not be formatted",
                line_of=record.name,
                at=f"{record.filename}:{record.lineno} {record.funcName}",
                exception=type(error).__name__,
            )
        if self._descriptor is None:
            self._write_to_object(line)
        elif self._is_child:
            if not _write(self._descriptor, self._encoded(line), patience_s=_CHILD_S):
                self._dropped += 1
        elif self._lines.qsize() >= _MOST_LINES or self._put_chars - self._written_chars > _MOST_CHARS:
            self._dropped += 1
        else:
            self._put_chars += len(line)
            self._lines.put(line)
            if self._thread is None:
                self._start()

    def flush(self) -> None:
        """Waits a short time until the lines that were logged so far are written."""
        thread = self._thread
        if self._is_child or thread is None or thread is threading.current_thread() or not thread.is_alive():
            return
        written = threading.Event()
        self._lines.put(written)
        written.wait(_FLUSH_S)

    def close(self) -> None:
        """Writes the lines that were logged so far, if somebody reads them. Lines that are logged later are lost."""
        self.flush()
        if self._thread is not None:
            self._lines.put(None)
        super().close()

    def _end(self) -> None:
        descriptor, self._descriptor, self._stream = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)

    def be_a_child(self) -> None:
        """Adapts to a forked child: the parent writes the waiting lines, and the thread does not exist here."""
        self._begin()
        self._is_child, self._thread = True, None

    def _write_all(self) -> None:
        while True:
            try:
                line = self._lines.get(timeout=_SUM_UP_S)
            except queue.Empty:
                line_limit.sum_up()
                continue
            if line is None:
                self._end()
                return
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._written_chars += len(line)
            if not self._descriptor_takes(line):
                self._not_written += 1
            elif self.dropped > self._told:
                missing, self._told = self.dropped - self._told, self.dropped
                self._descriptor_takes(
                    self._line(
                        "log lines were dropped: they were not read fast enough, or the disk was full", lines=missing
                    )
                )

    def _descriptor_takes(self, line: str) -> bool:
        return self._descriptor is not None and _write(self._descriptor, self._encoded(line))

    def _write_to_object(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line)
            self._stream.flush()
        except Exception:  # noqa: BLE001  # closed, or broken: a log must not break what it tells of
            self._not_written += 1

    def _encoded(self, line: str) -> bytes:
        return line.encode(self._encoding, errors="backslashreplace")

    def _line(self, event: str, **fields: object) -> str:
        said = Fields(event=event, **fields, level="warning", timestamp=datetime.now(UTC).isoformat())
        record = logging.LogRecord("broadway_py.daemon", logging.WARNING, __file__, 0, said, (), None)
        # The formatter expects these fields in our own lines.
        record.__dict__.update(_logger=None, _name="warning")
        try:
            return self.format(record) + "\n"
        except Exception:  # noqa: BLE001  # the formatter itself is broken
            return f"{said}\n"


def _descriptor_of(stream: TextIO | None) -> int | None:
    """Returns a duplicate of the descriptor of *stream*, or None if it has none.

    The original may be closed later, and its number may then be that of another file.
    """
    try:
        return None if stream is None else os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
        return None


def _write(descriptor: int, data: bytes, *, patience_s: float | None = None) -> bool:
    """Writes all of *data*. Returns False if it cannot be written, or if nobody has read it within *patience_s*."""
    rest = memoryview(data)
    while rest:
        try:
            # A pipe that has any room takes 4096 bytes without waiting.
            if patience_s is not None and not _has_room(descriptor, patience_s):
                return False
            rest = rest[os.write(descriptor, rest[: 4096 if patience_s is not None else len(rest)]) :]
        except BlockingIOError:
            # Another process has made it non-blocking, which changes it for us too.
            if not _has_room(descriptor, patience_s):
                return False
        except (OSError, ValueError):
            return False
    return True


def _has_room(descriptor: int, patience_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if patience_s is None else patience_s * 1000))


def keep_standard_streams() -> None:
    """Makes sure that descriptors 0, 1 and 2 are open. Else a file that gets one is written to by mistake."""
    while True:
        try:
            descriptor = os.open(os.devnull, os.O_RDWR)
        except OSError:
            return
        if descriptor > 2:  # standard error
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)  # started programs need them open too


def _after_fork() -> None:
    for writer in list(_writers):
        writer.be_a_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
