"""Processes take turns; who is stuck holds up nobody for long. Two turnstiles of one process exclude each other too."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broadway_py.storage import turnstile as module
from broadway_py.storage.turnstile import Turnstile
from tests.support.eventually import eventually_sync


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "q.db")


@pytest.fixture
def two(path: str) -> Iterator[tuple[Turnstile, Turnstile]]:
    one, other = Turnstile(path), Turnstile(path)
    yield one, other
    one.close()
    other.close()


def is_locked(path: str) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def test_who_has_just_had_the_turn_waits_for_the_one_in_line(two: tuple[Turnstile, Turnstile], path: str) -> None:
    greedy, patient = two
    order: list[str] = []

    def wait_and_pass() -> None:
        with patient.passed():
            order.append("patient")

    for _ in range(20):
        with greedy.passed():
            waiting = threading.Thread(target=wait_and_pass)
            waiting.start()
            eventually_sync(lambda: is_locked(f"{path}-gate"), what="somebody is in line")
        with greedy.passed():
            order.append("greedy")
        waiting.join()

    assert order == ["patient", "greedy"] * 20


def test_one_that_is_stuck_with_the_turn_is_waited_for_once_and_then_ignored_for_a_while(
    two: tuple[Turnstile, Turnstile], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    stuck, other = two
    passed = 0
    with stuck.passed():
        for _ in range(100):
            with other.passed():  # would take five seconds if each of them waited
                passed += 1
    assert passed == 100
    # What stood in line for nothing gives the turn back when it comes.
    eventually_sync(lambda: not is_locked(f"{path}-turn"), what="the turn is free")
    with stuck.passed():
        assert is_locked(f"{path}-turn")


def test_after_a_while_it_stands_in_line_again(
    two: tuple[Turnstile, Turnstile], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "_DETOUR", 0.0)
    stuck, other = two
    with stuck.passed(), other.passed():
        pass
    eventually_sync(lambda: not is_locked(f"{path}-turn"), what="the turn is free")
    with other.passed():
        assert is_locked(f"{path}-turn")


def test_closing_while_its_thread_still_stands_in_line_does_not_wait(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with ExitStack() as stack:
        stuck, other = Turnstile(path), Turnstile(path)
        with stuck.passed():
            with other.passed():
                pass
            other.close()
        stack.callback(stuck.close)
        eventually_sync(lambda: not is_locked(f"{path}-turn"), what="the turn is free")
        eventually_sync(lambda: not is_locked(f"{path}-gate"), what="the gate is free")


def test_an_error_inside_gives_the_turn_back(two: tuple[Turnstile, Turnstile], path: str) -> None:
    with pytest.raises(LookupError), two[0].passed():
        raise LookupError
    assert not is_locked(f"{path}-turn")
    with two[1].passed():
        pass


def test_a_place_where_nobody_can_write_raises_and_leaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "q.db-turn").mkdir()
    with pytest.raises(OSError, match=r"q\.db-turn"):
        Turnstile(str(tmp_path / "q.db"))
