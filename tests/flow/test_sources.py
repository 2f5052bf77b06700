"""What a flow reads: in memory, in a thread, awaited, from files and from running stages; and how far ahead."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broadway_py.errors import FlowFailed, StageDown
from broadway_py.flow import Flow
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.running import run as flow_run
from broadway_py.stage import ProducerStage, from_iterable
from tests.flow.support import report_of, results, results_async
from tests.stage.support import Counter, soon


async def counted(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def awaited(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


class Sequence:
    """Has no length and no ``__next__``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, place: int) -> int:
        if place >= self.count:
            raise IndexError
        return place

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


@pytest.mark.parametrize(
    "make",
    [
        lambda: range(23),
        lambda: list(range(23)),
        lambda: dict.fromkeys(range(23)),
        lambda: (number for number in range(23)),
        lambda: iter(range(23)),
        lambda: Sequence(23),
        lambda: counted(23),
        lambda: awaited(23),
    ],
)
@pytest.mark.parametrize("demand", [1, 5, 1_000])
async def test_every_kind_of_iterable_is_read_to_its_end(make: Callable[[], Any], demand: int) -> None:
    flow = Flow.from_iterable(make(), stages=1, max_demand=demand).map(lambda number: number + 1)

    assert await soon(results_async(flow)) == list(range(1, 24))


@pytest.mark.parametrize("make", [list, lambda: iter([]), lambda: counted(0)])
async def test_an_empty_source_gives_nothing(make: Callable[[], Any]) -> None:
    assert await soon(results_async(Flow.from_iterable(make()))) == []
    assert await soon(results_async(Flow.from_iterable(make()).map(str).partition().map(str))) == []


def numbered(read: list[int]) -> Iterator[int]:
    for number in itertools.count():
        read.append(number)
        yield number


def test_an_endless_source_is_read_only_as_far_as_it_is_asked_for() -> None:
    read: list[int] = []
    flow = Flow.from_iterable(numbered(read), stages=1, max_demand=3).map(str)

    assert list(itertools.islice(results_of(flow), 10)) == [str(number) for number in range(10)]
    # One list of two at each of the two edges, and what the reader was asked for.
    assert len(read) <= 10 + 3 * 2


def results_of(flow: Flow[Any]) -> Iterator[Any]:
    return flow_run.iterate(flow._layer, RunSettings())


def test_an_element_is_handed_over_as_it_comes() -> None:
    given: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def waiting() -> Iterator[int]:
        while (number := given.get()) is not None:
            yield number

    elements = results_of(Flow.from_iterable(waiting()).map(lambda number: number * 10))
    came = []
    for number in range(3):
        given.put(number)
        came.append(next(elements))
    given.put(None)

    assert (came, list(elements)) == ([0, 10, 20], [])


class Reader:
    """It has a length. Its elements come from outside, and it must be closed."""

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.is_closed = False

    def __len__(self) -> int:
        return 1_000

    def __iter__(self) -> Iterator[int]:
        try:
            for _ in range(len(self)):
                yield self.given.get()
        finally:
            self.is_closed = True


@pytest.mark.parametrize("stages", [1, 2])
def test_what_has_a_length_and_iterates_itself_may_wait_and_is_closed(stages: int) -> None:
    reader = Reader()
    elements = results_of(Flow.from_iterable(reader, stages=stages).map(lambda number: number * 10))
    came = []
    for number in range(3):
        reader.given.put(number)
        came.append(next(elements))
    for number in range(len(reader)):  # so that it does not wait when it is closed
        reader.given.put(number)
    elements.close()  # type: ignore[attr-defined]  # it is a generator

    assert (came, reader.is_closed) == ([0, 10, 20], True)


async def test_an_awaited_element_is_handed_over_as_it_comes() -> None:
    given: asyncio.Queue[int | None] = asyncio.Queue()

    async def waiting() -> AsyncIterator[int]:
        while (number := await given.get()) is not None:
            yield number

    flow = Flow.from_iterable(waiting()).map(lambda number: number * 10)
    elements = flow_run.aiterate(flow._layer, RunSettings())
    came = []
    for number in range(3):
        given.put_nowait(number)
        came.append(await soon(anext(elements)))
    given.put_nowait(None)

    assert (came, [each async for each in elements]) == ([0, 10, 20], [])


def test_a_source_that_blocks_does_not_hold_up_another_one() -> None:
    go_on = threading.Event()

    def waiting() -> Iterator[int]:
        go_on.wait()
        yield 0

    elements = results_of(Flow.from_iterables([waiting(), [1, 2, 3]]))
    first = [next(elements) for _ in range(3)]
    go_on.set()

    assert (first, list(elements)) == ([1, 2, 3], [0])


# --- errors of sources


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError


class FailingSized(list[int]):
    def __iter__(self) -> Iterator[int]:
        return failing(2)


async def failing_later(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    raise LookupError


@pytest.mark.parametrize(
    ("items", "place"),
    [(failing(2), "element 2"), (FailingSized(), "element 2"), (failing_later(2), "element 2")],
)
async def test_a_source_that_raises_ends_the_flow_and_says_where(items: Any, place: str) -> None:
    with pytest.raises(FlowFailed) as raised:
        await soon(results_async(Flow.from_iterables([[1], items]).map(str)))

    error = raised.value
    assert type(error.__cause__) is LookupError
    assert (error.operator, error.place) == ("from_iterable", f"{place} of source 1")
    assert str(error) == f"from_iterable failed with LookupError in stage 0 at {place} of source 1"


class Uniterable:
    def __iter__(self) -> Iterator[int]:
        raise LookupError


def test_what_cannot_be_iterated_ends_the_flow() -> None:
    with pytest.raises(FlowFailed, match="failed with LookupError in stage 0 at element 0 of source 0"):
        results(Flow.from_iterable(Uniterable()))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_an_error_that_ends_programs_or_tasks_is_an_error_of_the_source(error: type[BaseException]) -> None:
    def ending() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(FlowFailed) as raised:
        results(Flow.from_iterable(ending()).map(str))

    assert type(raised.value.__cause__) is error


# --- files


def test_lines_of_files_come_in_their_order_without_their_ends(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{name}{number}\r\n" for number in range(1_000)))
        paths.append(path)

    lines = results(Flow.from_files(paths, stages=1, range_bytes=100).map(str))

    assert lines == [f"{name}{number}" for name in ("a", "b") for number in range(1_000)]


def test_the_place_of_a_line_is_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{number}\n" for number in range(100)))

    def refuse(line: str) -> int:
        if line == "41":
            raise ValueError(line)
        return int(line)

    with pytest.raises(FlowFailed) as raised:
        results(Flow.from_files(path, range_bytes=17).map(refuse))

    error = raised.value
    assert (error.operator, error.place, error.element) == ("map 1: refuse", f"{path}, line 42", "41")
    assert str(error).endswith(f"at {path}, line 42")


def test_a_line_that_does_not_decode_ends_the_flow(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"one\n\xff\n")

    with pytest.raises(FlowFailed) as raised:
        results(Flow.from_files(path))

    assert str(raised.value) == f"from_files failed with UnicodeDecodeError in stage 0 at {path}, line 2"
    assert isinstance(raised.value.__cause__, UnicodeDecodeError)


def test_a_file_that_has_gone_ends_the_flow(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("one")
    flow = Flow.from_files(path)
    path.unlink()

    with pytest.raises(FlowFailed) as raised:
        results(flow)
    assert str(raised.value) == f"from_files failed with FileNotFoundError in stage 0 at {path}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"word"))
    broken = tmp_path / "b.gz"
    broken.write_bytes(gzip.compress(b"word")[:-4])

    with pytest.raises(FlowFailed) as raised:
        results(Flow.from_files(tmp_path / "*.gz"))
    assert str(raised.value) == f"from_files failed with EOFError in stage 0 at {broken}"


def test_files_are_read_as_far_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("word\n" * 100_000)

    report = report_of(Flow.from_files(path).map(len))

    assert (report.elements_in, report.elements_out) == (100_000, 100_000)
    elements = results_of(Flow.from_files(path, stages=1))
    assert next(elements) == "word"
    elements.close()  # type: ignore[attr-defined]  # it is a generator


# --- running stages


async def test_a_running_stage_is_read_until_it_ends() -> None:
    async with from_iterable(range(2_000)) as source:
        assert await soon(results_async(Flow.from_stages([source], stages=1).map(str))) == [
            str(number) for number in range(2_000)
        ]


async def test_a_running_stage_is_asked_for_no_more_than_the_demand() -> None:
    async with Counter() as source:
        flow = Flow.from_stages([source], stages=1, max_demand=4, min_demand=2).map(str)
        elements = flow_run.aiterate(flow._layer, RunSettings())
        assert [await soon(anext(elements)) for _ in range(5)] == ["0", "1", "2", "3", "4"]
        # Lists of two: one was taken, one waits at each of two edges, and the last four are asked for.
        assert source.next <= 5 + 2 * 4 + 4
        await elements.aclose()
        assert not source.outlet.edges


class Dying(ProducerStage[int]):
    def handle_demand(self, demand: int) -> list[int]:
        raise LookupError


async def test_a_running_stage_that_dies_ends_the_flow() -> None:
    async with Dying() as source:
        with pytest.raises(FlowFailed) as raised:
            await soon(results_async(Flow.from_stages([source])))
        with pytest.raises(LookupError):
            await source.wait()

    assert str(raised.value) == "from_stages failed with StageDown in stage 0"
    assert isinstance(raised.value.__cause__, StageDown)
    assert isinstance(raised.value.__cause__.__cause__, LookupError)


async def test_a_stage_that_has_not_started_is_an_error_and_no_wait_without_an_end() -> None:
    with pytest.raises(FlowFailed) as raised:
        await soon(results_async(Flow.from_stages([Counter()])))

    assert str(raised.value) == "from_stages failed with RuntimeError in stage 0"
    assert str(raised.value.__cause__) == "Counter has not started: use it in an `async with` block"


async def test_a_stage_of_another_event_loop_is_an_error_and_no_wait_without_an_end() -> None:
    async with from_iterable(range(3)) as source:
        with pytest.raises(FlowFailed) as raised:
            Flow.from_stages([source]).to_list()

    assert str(raised.value) == "from_stages failed with RuntimeError in stage 0"
    assert str(raised.value.__cause__) == (
        f"{source.name} runs in another event loop than the flow: "
        "run the flow in the loop of the stage, with `async for` or a method such as run_async()"
    )


def test_an_iterable_may_be_several() -> None:
    several: list[Iterable[int]] = [[1, 2], iter([3]), range(4, 6)]

    assert sorted(results(Flow.from_iterables(several))) == [1, 2, 3, 4, 5]
