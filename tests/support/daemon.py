"""The daemon as a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.eventually import eventually_sync

__all__ = ["ROOT", "Daemon", "Rows", "daemon"]

ROOT = Path(__file__).parents[2]


class Daemon:
    """A running ``broadway run``. Its port is chosen by the system; its log lines are JSON."""

    def __init__(
        self, folder: Path, files: Sequence[Path], *options: str, environ: dict[str, str] | None = None
    ) -> None:
        arguments = ["run", *map(str, files), "--set", "http.port=0", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broadway_py", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Nobody here shows a certificate of a public authority, and reading those of the system takes its time.
            env={**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": os.devnull, **(environ or {})},
            start_new_session=True,
        )
        #: All that it has printed, to standard output and standard error.
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line.decode().rstrip("\n"))
                self._grown.notify_all()

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def until_logged(self, event: str, *, count: int = 1, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for the *count*-th log line of this event."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log if line["event"] == event]

        with self._grown:
            seen = self._grown.wait_for(lambda: len(found()) >= count or self.process.poll() is not None, timeout)
        assert seen, f"expected {count} x {event!r} in the log, within {timeout} s; got:\n" + "\n".join(self.lines)
        assert len(found()) >= count, f"it has exited without {event!r} in its log:\n" + "\n".join(self.lines)
        return found()[count - 1]

    @property
    def url(self) -> str:
        """Where it serves; waits until it does."""
        return str(self.until_logged("listening")["url"]).rstrip("/")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310  # our own http URL
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def post(self, path: str) -> int:
        """Send ``{}``; the status."""
        return self.posted(path)[0]

    def posted(
        self, path: str, body: dict[str, Any] | None = None, *, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send *body*, with *token* if it is given; the status and the body of the answer."""
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(  # noqa: S310  # our own http URL
            self.url + path, data=json.dumps(body or {}).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own http URL
                return int(answer.status), json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def until_ready(self, timeout: float = 60.0) -> None:
        """Wait for 200 from ``/readyz``."""
        eventually_sync(lambda: self.get("/readyz")[0] == 200, timeout=timeout, what="/readyz answers 200")

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """One scrape: by name and labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        wanted = set(labels.items())
        return sum(
            value for (found, series), value in self.metrics().items() if found == name and wanted <= set(series)
        )

    def workers(self) -> dict[int, int]:
        """Process ids of the workers, by their number, as the log told last."""
        return {line["index"]: line["pid"] for line in self.log if line["event"] == "worker started"}

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self, timeout: float = 40.0) -> int:
        """Wait for its end."""
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def terminated(self, timeout: float = 40.0) -> tuple[int, float]:
        """SIGTERM, then its exit code and the seconds that took."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.exit_code(timeout), time.monotonic() - began


@contextmanager
def daemon(
    folder: Path, *files: Path, options: Sequence[str] = (), environ: dict[str, str] | None = None
) -> Iterator[Daemon]:
    """A daemon that does not outlive the block, nor do its workers."""
    running = Daemon(folder, files, *options, environ=environ)
    try:
        yield running
    finally:
        # The whole session: workers whose supervisor was killed belong to it too.
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.exit_code()
        assert running.process.stdout is not None
        running.process.stdout.close()


class Rows:
    """A queue file, read without our own code: ids of all that was put, of what waits, and of what is dead."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            (last,) = database.execute(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
            ).fetchone()
            self.put = set(range(1, last + 1))
            self.waiting = {row for (row,) in database.execute("SELECT id FROM messages")}
            self.dead = {row for (row,) in database.execute("SELECT id FROM dead_letters")}
