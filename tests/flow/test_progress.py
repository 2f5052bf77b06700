"""How far a flow is: what is counted, what is drawn of it, and the lines where nothing can be drawn again."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.errors import FlowFailed, OptionsError
from broadway_py.flow import Flow
from broadway_py.flow.counts import Counts, summed
from broadway_py.flow.description import checks
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.plan import plan_of
from broadway_py.flow.progress import Drawing, Expected, drawing_of, expected_of
from broadway_py.flow.running.loop_thread import LoopThread
from broadway_py.flow.running.one_run import FlowRun, end_task
from broadway_py.stage import ProducerStage
from broadway_py.testing import FakeClock
from tests.flow.each_runner import each_runner, each_runner_in_program, each_runner_with_workers
from tests.flow.processes import works
from tests.stage.support import run_until_idle, soon
from tests.support.eventually import eventually, eventually_sync

# --- what is drawn


def test_elements_are_drawn_with_what_waits() -> None:
    counts = Counts(1_500, 0, {"from_iterable": 0, "partition 2": 1_200, "result": 3})

    assert drawing_of(counts, Expected(), 2.0) == Drawing(1_500, "waiting: partition 2=1,200, result=3")
    assert drawing_of(Counts(7), Expected(10), 2.0) == Drawing(7, "")


@pytest.mark.parametrize(
    ("elements", "seconds", "text"),
    [
        (0, 0.0, "0 elements"),
        (999, 2.0, "999 elements, 500/s"),
        (1_000, 2.0, "1k elements, 500/s"),
        (12_345_678, 10.0, "12.3M elements, 1.23M/s"),
        (999_600_000, 1e9, "1G elements, 1/s"),
        (5 * 10**15, 1.0, "5,000T elements, 5,000T/s"),
    ],
)
def test_bytes_are_drawn_with_the_elements_and_their_rate(elements: int, seconds: float, text: str) -> None:
    assert drawing_of(Counts(elements, 17), Expected(read_bytes=40), seconds) == Drawing(17, text)


def test_what_processes_count_is_added_up() -> None:
    one, other = Counts(1, 10, {"a": 1, "result": 0}), Counts(2, 20, {"a": 2, "result": 5})

    assert summed([one, other]) == Counts(3, 30, {"a": 3, "result": 5})
    assert summed([]) == Counts()


class Refuses:
    """It has a length, but does not say it."""

    def __len__(self) -> int:
        raise RuntimeError

    def __iter__(self) -> Any:
        return iter(())


class Endless(ProducerStage[int]):
    def handle_demand(self, demand: int) -> list[int]:
        return [0] * demand


def expected(flow: Flow[Any]) -> Expected:
    return expected_of(plan_of(flow._layer, 1))


def test_the_elements_of_what_has_a_length_are_expected() -> None:
    assert expected(Flow.from_iterables([range(5), [1, 2]]).map(works.same)) == Expected(7)
    assert expected(Flow.merge(Flow.from_iterable([1]), Flow.from_iterable(range(9)))) == Expected(10)


@pytest.mark.parametrize(
    "flow",
    [
        Flow.from_iterable(iter([1])),
        Flow.from_iterables([[1], iter([1])]),
        Flow.from_iterable(Refuses()),
        Flow.from_stages([Endless()]),
        Flow.from_files("/dev/null"),
        Flow.merge(Flow.from_files(__file__), Flow.from_iterable([1])),
    ],
)
def test_without_a_length_nothing_is_expected(flow: Flow[Any]) -> None:
    assert expected(flow) == Expected()


def test_the_bytes_of_files_are_expected(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("12345")
    other.write_text("1234567")
    flow = Flow.from_files([one, other])

    assert expected(flow) == Expected(read_bytes=12)
    one.unlink()
    assert expected(flow) == Expected()


# --- what is refused


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_only_true_and_false_are_taken(value: Any) -> None:
    with pytest.raises(OptionsError) as raised:
        Flow.from_iterable([1]).using(progress=value)

    assert str(raised.value) == f"using.progress: expected True or False, got {value!r}"


def test_the_library_that_draws_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    flow = Flow.from_iterable([1], stages=1)

    with pytest.raises(OptionsError) as raised:
        flow.using(progress=True)

    assert str(raised.value) == (
        "using.progress: it needs tqdm, which is not installed: pip install 'broadway-py[flow]'"
    )
    assert flow.using(progress=False).to_list() == [1]


# --- what is counted


def lines_of(count: int) -> bytes:
    return b"".join(b"%09d\n" % number for number in range(count))


FILES: Final[dict[str, bytes]] = {
    "plain.txt": lines_of(300_000),
    "no_last_end.txt": lines_of(300_000) + b"1",
    "one_line.txt": b"1" * 3_000_000,
    "packed.gz": gzip.compress(lines_of(300_000)),
    "empty.txt": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_of_a_file_are_all_counted_in_the_end(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])

    assert read_bytes_of(Flow.from_files(path), "tasks") == len(FILES[name])


@each_runner
def test_the_bytes_of_all_files_are_added_up(runner: Any, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)

    assert read_bytes_of(Flow.from_files(tmp_path / "*"), runner) == sum(map(len, FILES.values()))


def test_the_bytes_of_a_file_with_another_encoding_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_bytes(content := lines_of(300_000).decode().encode("utf-16"))

    assert read_bytes_of(Flow.from_files(path, encoding="utf-16"), "tasks") == len(content)


def read_bytes_of(flow: Flow[Any], runner: Any) -> int:
    run = run_of(flow.filter(works.nothing), RunSettings(runner, 2), FakeClock())
    return run._count().read_bytes


def run_of(flow: Flow[Any], settings: RunSettings, clock: FakeClock) -> FlowRun:
    """Runs *flow* to its end."""

    async def main() -> FlowRun:
        run = FlowRun(flow._layer, settings, clock)
        await run.consume(lambda _: None)
        return run

    return asyncio.run(main())


async def test_bytes_are_counted_while_a_file_is_read(tmp_path: Path) -> None:
    path, go_on = tmp_path / "lines.txt", asyncio.Event()
    path.write_bytes(lines_of(300_000))

    async def wait(line: str) -> str:
        if line == "000150000":
            await go_on.wait()
        return line

    run = FlowRun(Flow.from_files(path, stages=1).map(wait)._layer, RunSettings(), FakeClock())
    running = asyncio.create_task(run.consume(lambda _: None))
    await eventually(lambda: run._count().read_bytes >= 1_500_000, what="half of it is read")
    read = run._count()

    # The reader is ahead by some lists, and it reads in blocks.
    assert read.read_bytes < 2_000_000
    assert read.elements_in < 160_000
    go_on.set()
    await soon(running)


async def test_lists_are_counted_that_wait_before_a_stage_and_before_the_result() -> None:
    never = asyncio.Event()

    async def wait(number: int) -> int:
        if number:
            await never.wait()
        return number

    async def numbers() -> AsyncIterator[int]:
        for number in [0] * 3 + [1] * 9:
            yield number

    flow = Flow.from_iterable(numbers(), stages=1, max_demand=2).map(works.same)
    run = FlowRun(flow.shuffle(stages=1, max_demand=4, min_demand=3).map(wait)._layer, RunSettings(), FakeClock())
    running = asyncio.create_task(run.main())
    await run_until_idle()

    # Three zeros wait for the reader, who takes nothing. The stage has a list in its hand.
    assert run._count() == Counts(9, 0, {"from_iterable": 2, "shuffle 2": 3, "result": 3})
    await end_task(running)


def test_lists_are_counted_that_wait_for_code_that_reads_one_by_one() -> None:
    flow = Flow.from_iterable(range(9), stages=1, max_demand=4, min_demand=3).map(works.same)

    with LoopThread(flow._layer, RunSettings()) as thread:
        assert thread.next() is not None
        assert thread._run is not None
        # It has a list in its hand, and three of the four that it has asked for wait.
        eventually_sync(lambda: thread._run and thread._run._count().waiting["result"] == 3, what="three lists wait")


# --- lines


def watched(flow: Flow[Any], runner: Any, clock: FakeClock) -> tuple[FlowRun, asyncio.Task[Any]]:
    run = FlowRun(flow._layer, RunSettings(runner, 1, progress=True), clock)
    return run, asyncio.create_task(run.consume(lambda _: None))


@each_runner_in_program
async def test_where_no_terminal_is_a_line_comes_every_ten_seconds_and_at_the_end(
    runner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, reached, go_on = FakeClock(), asyncio.Event(), asyncio.Event()

    async def wait(number: int) -> int:
        if number == 3:
            reached.set()
            await go_on.wait()
        return number

    _, running = watched(Flow.from_iterable(range(5), stages=1, max_demand=1).map(wait), runner, clock)
    await reached.wait()
    await clock.advance(9.9)
    assert capsys.readouterr() == ("", "")
    await clock.advance(10.2)
    go_on.set()
    await soon(running)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        " 80% 4/5 [00:10<00:02,  2.50s/ elements]",
        " 80% 4/5 [00:20<00:05,  5.00s/ elements]",
        "100% 5/5 [00:20<00:00,  4.02s/ elements]",
    ]


@each_runner_with_workers
async def test_worker_processes_say_how_far_they_are(
    runner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, gate, path = FakeClock(), tmp_path / "gate", tmp_path / "gates.txt"
    os.mkfifo(gate)
    path.write_text(f"{gate}\n\n")
    flow = Flow.from_files(path, stages=1, max_demand=4, min_demand=3).map(works.pass_gate)
    run, running = watched(flow, runner, clock)

    # Each second they are asked. Who is asked has been told then what they have answered before.
    async def is_counted() -> bool:
        await clock.advance(1)
        return run._count().elements_in == 2

    await eventually(is_counted, what="the worker process has told what it has read")
    await clock.advance(11)
    first = capsys.readouterr().err.splitlines()[-1]
    gate.write_text("go")
    await soon(running)
    last = capsys.readouterr().err.splitlines()[-1]

    size = path.stat().st_size
    assert first.startswith(f"100% {size}.")
    assert "2 elements, " in first
    assert first.endswith(", waiting: from_files=1]")
    assert last.startswith(f"100% {size}.")
    assert "waiting" not in last


async def test_nothing_is_shown_unless_somebody_wants_it(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    run = FlowRun(Flow.from_iterable([1]).map(works.same)._layer, RunSettings(), clock)

    await run.consume(lambda _: None)

    assert clock._timers == []
    assert capsys.readouterr() == ("", "")


@each_runner
def test_a_flow_that_fails_leaves_a_last_line(runner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    flow = Flow.from_iterable(range(100), stages=1, max_demand=1).map(works.refuse)

    with pytest.raises(FlowFailed):
        flow.using(runner, workers=1, progress=True).run()

    (line,) = capsys.readouterr().err.splitlines()
    # What is in the list that has failed counts or not.
    drawn = re.search(r" (\d+)/100 \[", line)
    assert drawn is not None
    assert 18 <= int(drawn[1]) < 100


@each_runner_with_workers
def test_a_flow_in_a_worker_process_shows_nothing(runner: Any, capfd: pytest.CaptureFixture[str]) -> None:
    flow = Flow.from_iterable([5, 6], stages=1).map(works.run_a_flow).using(runner, workers=1, progress=True)

    assert flow.to_list() == [5, 6]
    assert len(capfd.readouterr().err.splitlines()) == 1


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("make", [Gone, lambda: None, closed])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_flow_goes_on_where_nothing_can_be_shown(
    make: Callable[[], Any], is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make()
    if file is not None and not file.closed:
        monkeypatch.setattr(file, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", file)

    assert Flow.from_iterable([1], stages=1).map(works.same).using(progress=True).to_list() == [1]
