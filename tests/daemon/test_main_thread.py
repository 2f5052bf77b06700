from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.main_thread import Request, Watch
from broadway_py.daemon.settings.settings import Log
from broadway_py.errors import OptionsError
from tests.support.eventually import eventually_sync


class Body:
    """Ends when told to; notes what it was told."""

    def __init__(self, shutdown_timeout: float = 30.0, *, obeys: bool = True) -> None:
        self.shutdown_timeout = shutdown_timeout
        self.told: list[str] = []
        self.running = threading.Event()
        self.released = threading.Event()
        self._obeys = obeys
        self._ended = asyncio.Event()

    async def run(self) -> int:
        self.running.set()
        await self._ended.wait()
        return 0

    def stop(self) -> None:
        self.told.append("stop")
        if self._obeys:
            self._ended.set()

    def give_up(self) -> None:
        self.told.append("give up")
        self._ended.set()

    def reload(self) -> None:
        self.told.append("reload")

    def log_state(self) -> None:
        self.told.append("log state")

    def abandon(self) -> None:
        self.told.append("abandon")


class Blocked(Body):
    """A handler that blocks the loop, until the test lets it go."""

    async def run(self) -> int:
        self.running.set()
        self.released.wait()
        return 0


class Seconds:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def watched(body: Body, **options: Any) -> Iterator[tuple[Watch, list[object], threading.Thread]]:
    watch = Watch(body, signals={}, **options)
    codes: list[object] = []

    def run() -> None:
        try:
            codes.append(watch.run())
        except OptionsError as wrong:
            codes.append(wrong)

    thread = threading.Thread(target=run)
    thread.start()
    body.running.wait(10)
    try:
        yield watch, codes, thread
    finally:
        body.released.set()
        thread.join(10)


def test_a_stop_drains_and_ends_with_the_bodys_code() -> None:
    body = Body()
    with watched(body) as (watch, codes, thread):
        watch.request(Request.STOP)
        thread.join(10)
    assert (codes, body.told) == ([0], ["stop"])


def until_taken(watch: Watch) -> None:
    eventually_sync(lambda: not watch._events._waiting, what="the main thread has taken the request")


def told_after(body: Body, watch: Watch) -> list[str]:
    """What *body* was told, once everything that was asked for until now has been dealt with."""
    before = body.told.count("log state")
    watch.request(Request.DUMP)
    eventually_sync(lambda: body.told.count("log state") > before, what="the state is logged")
    return [each for each in body.told if each != "log state"]


def test_a_second_stop_after_more_than_a_second_cuts_the_drain_short() -> None:
    clock, body = Seconds(), Body(obeys=False)
    with watched(body, monotonic=clock) as (watch, codes, thread):
        watch.request(Request.STOP)
        assert told_after(body, watch) == ["stop"]
        clock.now += 1.001
        watch.request(Request.STOP)
        thread.join(10)
    assert (codes, [each for each in body.told if each != "log state"]) == ([0], ["stop", "give up"])


def test_stops_within_a_second_are_one() -> None:
    clock, body = Seconds(), Body(obeys=False)
    with watched(body, monotonic=clock) as (watch, codes, thread):
        for step in (0.0, 0.0, 0.4, 0.6):
            clock.now += step
            watch.request(Request.STOP)
            assert told_after(body, watch) == ["stop"]
        # A second after the first of them, not after the last: who keeps pressing Ctrl-C gets it.
        clock.now += 0.01
        watch.request(Request.STOP)
        thread.join(10)
    assert codes == [0]


def test_a_wish_to_leave_at_once_does_not_wait_for_a_second_to_pass() -> None:
    body = Body(obeys=False)
    with watched(body, monotonic=Seconds()) as (watch, codes, thread):
        watch.request(Request.STOP)
        watch.request(Request.NOW)
        thread.join(10)
    assert (codes, body.told) == ([0], ["stop", "give up"])


def test_two_drains_are_one() -> None:
    body = Body(obeys=False)
    with watched(body) as (watch, codes, thread):
        watch.request(Request.DRAIN)
        watch.request(Request.DRAIN)
        watch.request(Request.DUMP)
        watch.request(Request.NOW)
        thread.join(10)
    assert (codes, body.told) == ([0], ["stop", "log state", "give up"])


def test_a_blocked_loop_is_left_at_the_deadline_with_its_stack_in_the_log() -> None:
    stream = io.StringIO()
    logs.configure(Log(), stream=stream)
    body = Blocked(shutdown_timeout=0.2)
    with watched(body, grace=0.1) as (watch, codes, thread):
        began = time.monotonic()
        watch.request(Request.STOP)
        thread.join(10)
        assert 0.25 < time.monotonic() - began < 2.2
    assert codes == [75]
    assert body.told == ["abandon"]
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert last["event"] == "the drain ran out of time and the event loop does not answer; the process ends without it"
    assert "self.released.wait()" in last["stack"]


def test_a_second_signal_leaves_a_blocked_loop_soon() -> None:
    clock, body = Seconds(), Blocked(shutdown_timeout=1000.0)
    with watched(body, grace=0.2, monotonic=clock) as (watch, codes, thread):
        watch.request(Request.STOP)
        until_taken(watch)
        clock.now += 2.0
        watch.request(Request.STOP)
        began = time.monotonic()
        thread.join(10)
        assert time.monotonic() - began < 2.0
    assert codes == [75]


def test_a_reload_is_asked_for_in_the_loop() -> None:
    body = Body()
    with watched(body) as (watch, _, thread):
        watch.request(Request.RELOAD)
        watch.request(Request.STOP)
        thread.join(10)
    assert body.told == ["reload", "stop"]


def test_a_wrong_setting_found_while_running_is_raised() -> None:
    class Wrong(Body):
        async def run(self) -> int:
            self.running.set()
            raise OptionsError(("http", "port"), "is in use")

    with watched(Wrong()) as (_, codes, thread):
        thread.join(10)
    (wrong,) = codes
    assert str(wrong) == "http.port: is in use"


def test_a_crash_of_the_body_is_code_1() -> None:
    class Crashing(Body):
        async def run(self) -> int:
            self.running.set()
            raise RuntimeError

    with watched(Crashing()) as (_, codes, thread):
        thread.join(10)
    assert codes == [1]


@pytest.mark.parametrize("told", ["task", "generator"])
def test_what_is_left_in_the_loop_is_cleaned_up(told: str) -> None:
    cleaned = threading.Event()

    class Leaving(Body):
        async def run(self) -> int:
            self.running.set()
            if told == "task":
                self.task = asyncio.create_task(self._wait())
                await asyncio.sleep(0)
            else:
                self.generator = self._generate()
                await anext(self.generator)
            return 0

        async def _wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()

        async def _generate(self) -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                cleaned.set()

    with watched(Leaving()) as (_, codes, thread):
        thread.join(10)
    assert codes == [0]
    assert cleaned.is_set()
