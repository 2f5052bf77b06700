"""Asks the daemon once a second, and carries out commands, in threads: the page must answer keys meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from broadway_py.cli.http_client import DaemonClient, DaemonError, pipeline_path
from broadway_py.cli.top.figures import Answer, answer_of
from broadway_py.cli.top.screen import Act

__all__ = ["Poller", "ask", "ask_workers", "known_form"]

_EVERY_S: Final = 1.0
_MOST_WORKERS: Final = 1024

Workers = Sequence[Mapping[str, Any]]


def ask(client: DaemonClient) -> Answer:
    """Returns what the daemon says about its pipelines now.

    Raises:
        DaemonError: it does not answer, or something else does.
    """
    said = client.get("/api/pipelines")
    answer = answer_of(said, time.monotonic())
    if answer is None:
        raise DaemonError(
            f"another program than a broadway daemon answers at {client.url}: "
            "check http.host and http.port of the settings, or the address in --url"
        )
    return answer


def ask_workers(client: DaemonClient) -> Workers:
    """Returns what the daemon says about its processes; nothing if it does not know them.

    Raises:
        DaemonError: it does not answer.
    """
    try:
        said = client.get("/api/workers")
    except DaemonError as refused:
        if refused.status is None:
            raise
        return ()
    workers = said.get("workers") if isinstance(said, dict) else said
    if not isinstance(workers, list):
        return ()
    return [one for one in workers[:_MOST_WORKERS] if isinstance(one, dict)]


@contextmanager
def known_form(client: DaemonClient) -> Iterator[None]:
    """Turns an error of the block into one that says that the daemon has another version.

    Raises:
        DaemonError: its answer did not have the form that the block expects.
    """
    try:
        yield
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError):
        raise DaemonError(
            f"the daemon at {client.url} answers in a form that this version of broadway does not know: "
            "install the same version on both sides"
        ) from None


class Poller:
    """Asks one daemon until the program ends.

    Args:
        client: asks it.
        changed: called in a thread of the poller after each answer, and when a command has ended.
    """

    def __init__(self, client: DaemonClient, changed: Callable[[], object]) -> None:
        self._client = client
        self._changed = changed
        self._lock = threading.Lock()
        self._news: list[Answer] = []
        self._workers: Workers = ()
        self._trouble: str | None = None
        self._notices: list[str] = []
        self._soon = threading.Event()

    def start(self) -> None:
        """Begins to ask."""
        # These threads may wait for an answer when the program ends, and must not hold it up.
        threading.Thread(target=self._run, name="broadway top", daemon=True).start()

    def take(self) -> tuple[list[Answer], Workers, str | None, list[str]]:
        """Returns what is new: answers, the workers, why the last request failed, and what commands have said."""
        with self._lock:
            news, self._news = self._news, []
            notices, self._notices = self._notices, []
            return news, self._workers, self._trouble, notices

    def carry_out(self, act: Act) -> None:
        """Sends a command. Its result is a notice."""
        threading.Thread(target=self._act, args=(act,), name="broadway top command", daemon=True).start()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._once()
            self._changed()
            self._soon.wait(max(0.05, _EVERY_S - (time.monotonic() - began)))
            self._soon.clear()

    def _once(self) -> None:
        try:
            answer, workers = ask(self._client), ask_workers(self._client)
        except DaemonError as failed:
            with self._lock:
                self._trouble = str(failed)
            return
        with self._lock:
            self._news.append(answer)
            self._workers, self._trouble = workers, None

    def _act(self, act: Act) -> None:
        try:
            self._client.post(pipeline_path(act.pipeline, act.what))
        except DaemonError as failed:
            said = str(failed)
        else:
            said = f"{act.what}d {act.pipeline}" if act.what.endswith("e") else f"{act.what}ed {act.pipeline}"
        with self._lock:
            self._notices.append(said)
        self._soon.set()
        self._changed()
