"""Shows the page until a key, a signal or an error ends it."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from broadway_py.cli.endings import fail
from broadway_py.cli.http_client import DaemonClient, DaemonError
from broadway_py.cli.top.figures import History
from broadway_py.cli.top.page import Shown, page
from broadway_py.cli.top.poller import Poller, known_form
from broadway_py.cli.top.screen import Key, Quit, Screen
from broadway_py.cli.top.terminal import Terminal
from broadway_py.daemon.process.main_thread import ExitCode

__all__ = ["show"]

#: The page is drawn at least this often, so that the age of old figures is right.
_DRAW_S: Final = 1.0


def show(client: DaemonClient, console: Console) -> None:
    """Shows the daemon on the terminal until a person ends it with q or Ctrl-C.

    A daemon that is away is asked again. One whose answers have another form ends the command with a sentence.
    """
    terminal = Terminal()
    session = _Session(client, console, terminal)
    try:
        with terminal.opened():
            session.run()
    except KeyboardInterrupt:
        return
    except DaemonError as failed:  # the terminal is as before, so the sentence stays to be read
        fail(failed, ExitCode.CRASH)


class _Session:
    def __init__(self, client: DaemonClient, console: Console, terminal: Terminal) -> None:
        self._client = client
        self._console = console
        self._terminal = terminal
        self._poller = Poller(client, terminal.news)
        self._history = History()
        self._screen = Screen()
        self._shown = Shown(client.url, has_keys=terminal.has_keys)

    def run(self) -> None:
        self._poller.start()
        while not self._drawn():
            # Ctrl-Z: the screen is given back, and taken again when the process is continued.
            self._terminal.give_back()
            self._terminal.suspend()
            self._terminal.take_keys()

    def _drawn(self) -> bool:
        """Draws until the page must end; returns False if it must stop for a while."""
        with Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while True:
                with known_form(self._client):
                    drawn = self._page()
                live.update(drawn, refresh=True)
                woken = self._terminal.wait(_DRAW_S)
                if woken.must_suspend:
                    return False
                if any(self._pressed(key) for key in woken.keys):
                    return True

    def _pressed(self, key: Key) -> bool:
        done = self._screen.press(key, self._shown.pipelines, self._console.height - 4)
        if isinstance(done, Quit):
            return True
        if done is not None:
            self._screen.notice = f"{done.what} was sent"
            self._poller.carry_out(done)
        return False

    def _page(self) -> Group:
        answers, workers, trouble, notices = self._poller.take()
        for answer in answers:
            self._history.add(answer)
        latest = self._history.latest
        shown = self._shown
        if answers:
            shown.pipelines = self._history.figures()
        if latest is not None:
            shown.age_s, shown.version = time.monotonic() - latest.at_s, latest.version
        shown.workers, shown.trouble, shown.has_keys = workers, trouble, self._terminal.has_keys
        if notices:
            self._screen.notice = notices[-1]
        width, height = self._console.size
        return Group(*(line or Text(" ") for line in page(shown, self._screen, width, height)))
