"""What is on the screen, and what each key does to it. Nothing here waits, reads or draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from broadway_py.cli.top.figures import Figures, shown

__all__ = ["Act", "Key", "Keys", "Quit", "Screen"]


class Key(Enum):
    """The keys that do something."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    ENTER = "enter"
    BACK = "back"
    PAUSE = "p"
    YES = "y"
    QUIT = "q"
    OTHER = "other"


class Act(NamedTuple):
    """A command for the daemon: *what* is ``pause`` or ``resume``."""

    pipeline: str
    what: str


class Quit(NamedTuple):
    """The page must end."""


_ESCAPE: Final = b"\x1b"
#: What terminals send. Longer ones come first.
_SEQUENCES: Final = (
    (b"\x1b[A", Key.UP),
    (b"\x1bOA", Key.UP),
    (b"\x1b[B", Key.DOWN),
    (b"\x1bOB", Key.DOWN),
    (b"\x1b[C", Key.ENTER),
    (b"\x1bOC", Key.ENTER),
    (b"\x1b[D", Key.BACK),
    (b"\x1bOD", Key.BACK),
    (b"\x1b[5~", Key.PAGE_UP),
    (b"\x1b[6~", Key.PAGE_DOWN),
)
_SINGLE: Final = {
    b"k": Key.UP,
    b"j": Key.DOWN,
    b"\r": Key.ENTER,
    b"\n": Key.ENTER,
    b"\x7f": Key.BACK,
    b"\x08": Key.BACK,
    b"p": Key.PAUSE,
    b"y": Key.YES,
    b"Y": Key.YES,
    b"q": Key.QUIT,
    b"Q": Key.QUIT,
}


class Keys:
    """Finds the keys in the bytes that a terminal sends. The bytes of one key may come in several parts."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_waiting(self) -> bool:
        """Returns whether the last bytes may be the beginning of a key."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Key]:
        """Returns the keys that are complete with *data*."""
        self._rest += data
        found: list[Key] = []
        while self._rest:
            size, key = self._first()
            if not size:
                break
            self._rest = self._rest[size:]
            found.append(key)
        return found

    def flush(self) -> list[Key]:
        """Returns what the rest is if nothing more comes: Escape, or nothing that has a meaning."""
        rest, self._rest = self._rest, b""
        return [Key.BACK if rest == _ESCAPE else Key.OTHER] if rest else []

    def _first(self) -> tuple[int, Key]:
        rest = self._rest
        if not rest.startswith(_ESCAPE):
            return 1, _SINGLE.get(rest[:1], Key.OTHER)
        for sequence, key in _SEQUENCES:
            if rest.startswith(sequence):
                return len(sequence), key
        if len(rest) == 1 or rest in {b"\x1b[", b"\x1bO"}:
            return 0, Key.OTHER
        if rest[1:2] not in (b"[", b"O"):
            return 1, Key.BACK
        # An unknown sequence ends with the first letter, or with ~.
        for at in range(2, len(rest)):
            if rest[at : at + 1].isalpha() or rest[at : at + 1] == b"~":
                return at + 1, Key.OTHER
        return (0 if len(rest) < 16 else len(rest)), Key.OTHER


@dataclass(slots=True)
class Screen:
    """What a person has chosen."""

    #: The name of the pipeline that keys act on.
    chosen: str | None = None
    #: True: all about it is shown. False: all pipelines are.
    is_open: bool = False
    #: How many lines of the open pipeline are above the screen.
    scrolled: int = 0
    #: The command that waits for a yes.
    asked: Act | None = None
    #: What became of the last command.
    notice: str = ""

    def follow(self, pipelines: Sequence[Figures]) -> None:
        """Keeps to the pipelines that exist."""
        names = [one.name for one in pipelines]
        if self.chosen not in names:
            self.chosen = names[0] if names else None
            self.is_open = False
            self.asked = None

    def press(self, key: Key, pipelines: Sequence[Figures], page: int) -> Act | Quit | None:
        """Does what *key* says. Returns a command, or that the page must end.

        Args:
            key: the key.
            pipelines: what is shown.
            page: how many lines a page has.
        """
        self.follow(pipelines)
        if self.asked is not None:
            asked, self.asked = self.asked, None
            self.notice = "" if key is Key.YES else "nothing was changed"
            return asked if key is Key.YES else None
        self.notice = ""
        if key is Key.QUIT:
            return Quit()
        if key is Key.BACK:
            self.is_open = False
        elif key is Key.ENTER and self.chosen is not None:
            self.is_open, self.scrolled = True, self.scrolled if self.is_open else 0
        elif key is Key.PAUSE:
            self._ask(pipelines)
        elif key in _STEPS:
            self._move(_STEPS[key] * (max(1, page - 1) if key in {Key.PAGE_UP, Key.PAGE_DOWN} else 1), pipelines)
        return None

    @property
    def question(self) -> str | None:
        """Returns the question that waits for an answer."""
        if self.asked is None:
            return None
        return f"{self.asked.what} {shown(self.asked.pipeline)} in all workers? y: yes, any other key: no"

    def _ask(self, pipelines: Sequence[Figures]) -> None:
        one = next((one for one in pipelines if one.name == self.chosen), None)
        if one is None:
            return
        if one.is_paused:
            self.asked = Act(one.name, "resume")
        elif one.now.get("state") == "running":
            self.asked = Act(one.name, "pause")
        else:
            self.notice = f"{shown(one.name)} is {one.state}: only a pipeline that runs can be paused"

    def _move(self, step: int, pipelines: Sequence[Figures]) -> None:
        if self.is_open:
            self.scrolled = max(0, self.scrolled + step)
            return
        names = [one.name for one in pipelines]
        if self.chosen in names:
            self.chosen = names[min(len(names) - 1, max(0, names.index(self.chosen) + step))]


_STEPS: Final = {Key.UP: -1, Key.DOWN: 1, Key.PAGE_UP: -1, Key.PAGE_DOWN: 1}
