"""Processes take turns; who is stuck holds up nobody for long. Two queues in one process exclude each other too."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_py.storage import writer_queue as module
from broadway_py.storage.writer_queue import WriterQueue
from tests.support.eventually import eventually_sync


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "q.db")


@pytest.fixture
def three(path: str) -> Iterator[list[WriterQueue]]:
    made = [WriterQueue(path) for _ in range(3)]
    yield made
    for one in made:
        one.close()


class Line:
    """Lets writer queues wait in threads, and notes in which order they pass."""

    def __init__(self, path: str) -> None:
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []
        self._path = Path(f"{path}-line")

    def join(self, writer_queue: WriterQueue, name: str) -> None:
        """Wait in a thread; returns once it is in line."""
        last = self.last()

        def wait_and_pass() -> None:
            with writer_queue.passed():
                self.order.append(name)

        self.threads.append(threading.Thread(target=wait_and_pass))
        self.threads[-1].start()
        eventually_sync(lambda: self.last() > last, what=f"{name} has a number")

    def last(self) -> int:
        """The last number that was drawn."""
        return int.from_bytes(self._path.read_bytes(), "little")

    def end(self) -> None:
        """Wait until all have passed."""
        for thread in self.threads:
            thread.join(10)


def is_free(writer_queue: WriterQueue) -> bool:
    """Whether nobody has the turn or waits for it."""
    numbers = writer_queue._numbers
    number = numbers.draw()
    try:
        return numbers.is_called(number, wait=False)
    finally:
        numbers.give_back(number)


def test_who_has_just_had_the_turn_goes_to_the_end_of_the_line(three: list[WriterQueue], path: str) -> None:
    greedy, second, third = three
    line = Line(path)
    for turn in range(10):
        with greedy.passed():
            line.join(second, "second")
            line.join(third, "third")
            assert len(line.order) == 3 * turn, "somebody passed out of turn"
        with greedy.passed():
            line.order.append("greedy")
        line.end()

    assert line.order == ["second", "third", "greedy"] * 10


def test_one_that_is_stuck_with_the_turn_is_waited_for_once_and_then_ignored_for_a_while(
    three: list[WriterQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    stuck, other, third = three
    passed = 0
    with stuck.passed():
        for _ in range(100):
            with other.passed():  # would take five seconds if each of them waited
                passed += 1
    assert passed == 100
    # What stood in line for nothing gives its number back when that is called.
    eventually_sync(lambda: is_free(third), what="the turn is free")


def test_after_a_while_it_stands_in_line_again(three: list[WriterQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "_DETOUR", 0.0)
    stuck, other, third = three
    with stuck.passed():
        for _ in range(3):
            with other.passed():
                pass
    eventually_sync(lambda: is_free(third), what="the turn is free")
    with other.passed():
        assert not is_free(third)


def test_closing_while_its_thread_still_stands_in_line_does_not_wait(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    stuck, other = WriterQueue(path), WriterQueue(path)
    with stuck.passed():
        with other.passed():
            pass
        other.close()
    eventually_sync(lambda: is_free(stuck), what="the turn is free")
    stuck.close()


def test_the_number_of_one_that_died_is_free(three: list[WriterQueue]) -> None:
    dead, other, _ = three
    dead._numbers.draw()
    assert not is_free(other)
    dead._numbers.close()  # as the kernel does it
    assert is_free(other)
    dead._numbers = other._numbers.__class__(f"{dead._path}-line", dead._path)


def test_one_that_was_stopped_while_it_drew_a_number_stops_nobody(
    three: list[WriterQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    stopped, other, third = three
    stopped._numbers._lock(0, fcntl.F_WRLCK, wait=True)
    with other.passed():
        pass
    stopped._numbers.give_back(0)
    eventually_sync(lambda: is_free(third), what="the turn is free")


def test_an_error_inside_gives_the_turn_back(three: list[WriterQueue]) -> None:
    with pytest.raises(LookupError), three[0].passed():
        raise LookupError
    assert is_free(three[1])


def test_a_place_where_nobody_can_write_raises(tmp_path: Path) -> None:
    (tmp_path / "q.db-line").mkdir()
    with pytest.raises(OSError, match=r"q\.db-line"):
        WriterQueue(str(tmp_path / "q.db"))
