"""``executor="process"``: callbacks in worker processes, which may die, hang, or hold what does not pickle."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from broadway_py import Failed, Message, OptionsError, Pipeline, Processors, Unavailable
from broadway_py.error_text import place_of
from broadway_py.pipeline.processes.protocol import Kind
from broadway_py.process.frames import Frame, FrameReader, frame
from broadway_py.process.packed_errors import WorkerError
from broadway_py.producers import MemoryProducer
from tests.pipeline.process_pipelines import (
    Broken,
    DeadOnArrival,
    Far,
    FarAsync,
    FarAsyncSetup,
    FarBatch,
    FarFamily,
    HiddenClass,
    Numbered,
    Order,
    Picky,
    Unsendable,
    collatz,
)
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    events_logged,
    in_flight,
    logged,
    outcomes,
    telemetry_events,
)
from tests.support.eventually import eventually

T = TypeVar("T")

#: Seconds after which something that should have come never will. Starting Python takes its time on a busy machine.
DEADLINE = 60.0


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE):
        return await awaitable


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """What the callbacks note, line by line."""
    path = tmp_path / "journal"
    path.touch()
    return path


def noted(journal: Path, what: str) -> list[list[str]]:
    """The words after *what* on each line that begins with it."""
    lines = [line.split() for line in journal.read_text(encoding="utf-8").splitlines()]
    return [words[1:] for words in lines if words[0] == what]


async def until_noted(journal: Path, what: str, times: int = 1) -> list[list[str]]:
    await eventually(lambda: len(noted(journal, what)) >= times, timeout=DEADLINE, what=f"the journal notes {what}")
    return noted(journal, what)


async def run_through(orders: list[Order], cls: type[Far] = Far, **options: Any) -> tuple[Recorder, Far]:
    """Run *orders* through to the end; every process is gone afterwards."""
    recorder = Recorder()
    pipeline = cls(producer=MemoryProducer(recorder.messages(orders)), **options)
    await soon(pipeline.start())
    await soon(pipeline.wait())
    recorder.check_once()
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    return recorder, pipeline


def is_alive(pid: int | str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


async def until_gone(pid: int | str) -> None:
    await eventually(lambda: not is_alive(pid), timeout=DEADLINE, what="the worker process was gone")


def failures(recorder: Recorder) -> list[Failed]:
    return [m.status for call in recorder.calls for m in call.failed if m.status is not None]


def reasons(recorder: Recorder) -> list[tuple[str, str]]:
    return [(status.cause, status.reason) for status in failures(recorder)]


# --- what goes over and what comes back


async def test_results_of_computing_handlers_are_those_of_the_plain_function() -> None:
    recorder, _ = await run_through(
        [("collatz", number) for number in range(1, 101)],
        processors=Processors(concurrency=2, max_demand=10, executor="process"),
    )

    assert sorted(recorder.successful) == sorted(collatz(number) for number in range(1, 101))


async def test_the_message_stays_the_same_object_and_keeps_its_acknowledger() -> None:
    recorder = Recorder()
    messages = recorder.messages([("collatz", 27), ("keep", None)])
    pipeline = Far(producer=MemoryProducer(messages))
    await soon(pipeline.start())
    await soon(pipeline.wait())

    settled = [message for call in recorder.calls for message in call.successful]
    assert [message is given for message, given in zip(settled, messages, strict=True)] == [True, True]
    assert [message.data for message in settled] == [111, ("keep", None)]


async def test_everything_but_the_acknowledger_goes_over_and_what_was_changed_comes_back() -> None:
    recorder = Recorder()
    message = recorder.message(("route", None), detail="own", message_id="id-1", old=1, lock=threading.Lock())
    message.raw = b"raw"
    message.attempt = 2
    lock = message.metadata["lock"]
    pipeline = Far(producer=MemoryProducer([message]))
    await soon(pipeline.start())
    await soon(pipeline.wait())

    assert message.metadata == {"message_id": "id-1", "lock": lock, "seen": [2, "memory", 0, b"raw", "id-1"]}
    assert (message.batcher, message.batch_key, message.batch_mode) == (None, ("a", 1), "flush")
    assert recorder.options == [("own", {"on_failure": "drop"})]
    assert message.acknowledgement.data == {"was": "own", "on_failure": "drop"}


async def test_options_that_the_acknowledger_refuses_fail_the_message() -> None:
    class Strict(Recorder):
        def configure(self, ref: Any, data: Any, options: Any) -> Any:
            raise ValueError("on_failure takes other words")

    recorder = Strict()
    pipeline = Far(producer=MemoryProducer(recorder.messages([("route", None)])))
    await soon(pipeline.start())
    await soon(pipeline.wait())

    assert reasons(recorder) == [("raised", "ValueError: on_failure takes other words")]


async def test_a_failure_comes_back_with_its_cause_and_the_data_as_it_stood() -> None:
    recorder, _ = await run_through([("fail", "not today"), ("collatz", 3)])

    assert reasons(recorder) == [("failed", "not today")]
    assert recorder.failed == ["changed"]
    assert recorder.successful == [7]


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (
            ("return", 3),
            (
                "handle_message returned an int; expected None or the message it was given: "
                "change the message in place (message.data = …) and return nothing"
            ),
        ),
        (
            ("coroutine", None),
            (
                "handle_message returned a coroutine; expected None or the message it was given: "
                "change the message in place (message.data = …) and return nothing"
            ),
        ),
        (
            ("unsendable", None),
            (
                "handle_message left something in the message that cannot be pickled, so the message cannot come back "
                "from the worker process: TypeError: cannot pickle '_thread.lock' object"
            ),
        ),
        (
            ("picky", os.getpid()),
            "the result from the worker process cannot be unpickled: ValueError: not in this process",
        ),
        (
            ("keep", Picky(os.getpid(), here=False)),
            "cannot be unpickled in the worker process: ValueError: not in this process",
        ),
        (
            ("keep", threading.Lock()),
            (
                "expected data that can be pickled, for executor='process', got a tuple: TypeError: cannot pickle "
                "'_thread.lock' object; change it in prepare_messages, which runs in the parent"
            ),
        ),
        (
            ("ack", None),
            (
                "RuntimeError: ack_immediately() was called in a worker process, but acknowledgers stay in the parent; "
                "call it in prepare_messages, or settle by the result of the callback"
            ),
        ),
        (("exit", 3), "SystemExit: 3"),
        (("delete", "data"), "handle_message deleted message.data; keep the attribute, or set it to another value"),
        (
            ("delete", "batch_key"),
            "handle_message deleted message.batch_key; keep the attribute, or set it to another value",
        ),
    ],
)
async def test_what_goes_wrong_with_one_message_fails_that_message_alone(
    order: Order, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, _ = await run_through([("collatz", 2), order, ("collatz", 4)])

    assert recorder.successful == [1, 2]
    assert len(recorder.failed) == 1
    cause, reason = reasons(recorder)[0]
    assert cause == "raised"
    assert reason.removeprefix("ValueError: ") == sentence.removeprefix("ValueError: ")
    assert events_logged(caplog) == ["a message failed"]


async def test_an_exception_comes_back_with_its_type_its_text_and_its_place() -> None:
    recorder, _ = await run_through([("raise", "value"), ("raise", "numbered"), ("raise", "stuck")])
    errors = [status.exception for status in failures(recorder)]

    plain, numbered, stuck = errors
    assert type(plain) is ValueError
    assert isinstance(numbered, Numbered)
    assert numbered.number == 7
    assert isinstance(stuck, WorkerError)
    assert type(stuck).__name__ == "Stuck"
    assert [str(error) for error in errors] == ["no good", "seven", "for ever"]
    assert all("process_pipelines.py" in place_of(error) and "do_raise" in place_of(error) for error in errors if error)
    assert [reason for _, reason in reasons(recorder)] == ["ValueError: no good", "Numbered: seven", "Stuck: for ever"]


async def test_children_spawned_in_a_worker_process_come_back() -> None:
    recorder, pipeline = await run_through([("spawn", 3), ("spawn", 2)], FarFamily)

    assert isinstance(pipeline, FarFamily)
    assert recorder.successful == [("spawn", 3)]
    assert reasons(recorder) == [("failed", "1 of 2 messages spawned from it failed; the first: failed")]
    assert pipeline.seen == [(0, {"of": 3}), (1, {"of": 3}), (2, {"of": 3}), (0, {"of": 2})]


async def test_message_events_of_telemetry_are_told_in_the_parent() -> None:
    with telemetry_events(
        "broadway.processor.message.start", "broadway.processor.message.stop", "broadway.processor.message.exception"
    ) as seen:
        await run_through([("keep", 1), ("raise", "value")])

    assert [event.rsplit(".", 1)[1] for event, _, _ in seen] == ["start", "stop", "start", "exception"]
    assert all(metadata["name"] == "Far.processors.0" for _, _, metadata in seen)


# --- the worker process


async def test_a_worker_process_runs_setup_worker_once_and_never_setup(journal: Path) -> None:
    recorder, _ = await run_through([("pid", None)] * 30, name="orders", context=str(journal))

    assert noted(journal, "setup") == [[str(os.getpid())]]
    (worker,) = noted(journal, "setup_worker")
    assert worker[1] == "orders"
    assert set(recorder.successful) == {int(worker[0])}
    assert not is_alive(worker[0])


async def test_each_stage_has_one_process(journal: Path) -> None:
    together = Processors(concurrency=3, max_demand=1, min_demand=0, executor="process")
    recorder, _ = await run_through([("pid", None)] * 60, context=str(journal), processors=together)

    assert 1 <= len(noted(journal, "setup_worker")) <= 3
    assert set(recorder.successful) == {int(words[0]) for words in noted(journal, "setup_worker")}


async def test_no_process_is_started_for_nothing(journal: Path) -> None:
    await run_through([], context=str(journal))

    assert noted(journal, "setup_worker") == []


async def test_what_a_callback_prints_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    await run_through([("print", "printed far away")])

    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "printed far away\n")


async def test_signals_for_the_whole_group_do_not_end_it(journal: Path) -> None:
    recorder, _ = await run_through([("signal", None), ("collatz", 2)], context=str(journal))

    assert len(recorder.successful) == 2
    assert len(noted(journal, "setup_worker")) == 1


async def test_the_object_of_a_worker_process_can_be_shown() -> None:
    recorder, _ = await run_through([("show", None)])

    assert recorder.successful == ["<Far name='Far' running>"]


async def test_request_stop_in_a_worker_process_stops_the_pipeline() -> None:
    recorder = ReturningRecorder()
    pipeline = Far(producer=ManualProducer(*recorder.messages([("stop", None)])))
    await soon(pipeline.start())

    await soon(pipeline.wait())

    assert recorder.successful == [("stop", None)]


async def test_a_worker_process_imports_from_where_its_parent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise ImportError('not this one')")
    (tmp_path / "elsewhere").mkdir()
    source = "from tests.pipeline.process_pipelines import Far\nclass Elsewhere(Far):\n    pass\n"
    (tmp_path / "elsewhere" / "pipelines_elsewhere.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [str(Path(entry or ".").absolute()) for entry in sys.path])
    monkeypatch.chdir(tmp_path)
    recorder, _ = await run_through([("collatz", 2)], importlib.import_module("pipelines_elsewhere").Elsewhere)

    assert recorder.successful == [1]


# --- deaths


@pytest.mark.parametrize(("act", "how"), [("abort", "killed by SIGABRT"), ("leave", "exit code 5")])
async def test_a_death_among_two_hundred_fails_exactly_the_message_it_is_due_to(
    act: str, how: str, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orders: list[Order] = [("collatz", number) for number in range(1, 201)]
    orders[117] = (act, 5)
    recorder, pipeline = await run_through(orders, context=str(journal))

    assert recorder.failed == [(act, 5)]
    assert reasons(recorder) == [
        ("worker_died", f"the worker process died while handle_message ran for this message alone: {how}")
    ]
    assert sorted(recorder.successful) == sorted(collatz(number) for number in range(1, 201) if number != 118)
    assert events_logged(caplog) == ["a worker process died", "a worker process died", "a message failed"]
    assert len(noted(journal, act)) == 2
    assert outcomes(pipeline) == {"acked": 199, "rejected": 1}


async def test_a_message_that_kills_once_is_run_again_alone_and_stands(tmp_path: Path) -> None:
    orders: list[Order] = [("collatz", 2), ("abort_once", str(tmp_path / "died")), ("collatz", 4)]
    recorder, _ = await run_through(orders)

    assert recorder.failed == []
    assert len(recorder.successful) == 3


async def test_several_deadly_messages_fail_each_alone(journal: Path) -> None:
    orders: list[Order] = [("collatz", 2), ("abort", 1), ("abort", 2), ("collatz", 4), ("abort", 3)]
    recorder, pipeline = await run_through(orders, context=str(journal))

    assert sorted(recorder.failed) == [("abort", 1), ("abort", 2), ("abort", 3)]
    assert sorted(recorder.successful) == [1, 2]
    assert pipeline.stats().restarts == 0


async def test_a_process_that_dies_while_idle_is_replaced_and_no_message_pays(journal: Path) -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([("pid", None)]))
    pipeline = Far(producer=producer, context=str(journal))
    await soon(pipeline.start())
    await eventually(lambda: recorder.successful, timeout=DEADLINE, what="the first was handled")
    os.kill(recorder.successful[0], signal.SIGKILL)
    producer.feed.put(recorder.message(("pid", None)))
    producer.feed.end()
    await soon(pipeline.wait())

    first, second = recorder.successful
    assert first != second
    assert recorder.failed == []


async def test_when_no_process_can_start_messages_fail_with_the_reason_and_starts_are_spread(
    journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, _ = await run_through(
        [("keep", number) for number in range(4)],
        Broken,
        context=str(journal),
        processors=Processors(concurrency=1, max_demand=1, executor="process"),
    )
    sentence = "the worker process could not start; setup_worker raised ConnectionError: no database"

    assert reasons(recorder) == [("crashed", sentence)] * 4
    errors = [status.exception for status in failures(recorder)]
    assert all(isinstance(error, Unavailable) and isinstance(error.__cause__, ConnectionError) for error in errors)
    assert len(noted(journal, "setup_worker")) == 4
    pauses = [line["seconds"] for line in logged(caplog) if line["event"] == "a worker process could not start"]
    assert pauses[0] == 0.0
    assert len([pause for pause in pauses[1:] if pause > 0.0]) >= 2


@pytest.mark.parametrize("missing", ["a thread", "a descriptor"])
async def test_what_a_start_lacks_for_now_is_waited_for_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    started: list[int] = []
    popen, start = subprocess.Popen, threading.Thread.start
    refused = iter([True, True])

    def spawn(*arguments: Any, **options: Any) -> Any:
        if missing == "a descriptor" and next(refused, False):
            raise OSError(24, "Too many open files")
        made = popen(*arguments, **options)
        started.append(made.pid)
        return made

    def begin(thread: threading.Thread) -> None:
        if missing == "a thread" and thread.name.startswith("broadway-process") and next(refused, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(subprocess, "Popen", spawn)
    monkeypatch.setattr(threading.Thread, "start", begin)
    before = threading.active_count()
    recorder, _ = await run_through(
        [("keep", number) for number in range(4)],
        processors=Processors(concurrency=1, max_demand=1, executor="process"),
    )
    why = {
        "a thread": "OSError: [Errno 11] no thread can be started to wait for its exit",
        "a descriptor": "OSError: [Errno 24] Too many open files",
    }[missing]
    # BlockingIOError is what Python makes of that number.
    why = why.replace("OSError: [Errno 11]", "BlockingIOError: [Errno 11]")
    sentence = f"the worker process could not start; starting a process raised {why}"
    assert reasons(recorder) == [("crashed", sentence)] * 2
    assert all(isinstance(status.exception, Unavailable) for status in failures(recorder))
    assert sum(len(call.successful) for call in recorder.calls) == 2
    for pid in started:
        await until_gone(pid)
    await eventually(lambda: threading.active_count() <= before + 1, timeout=DEADLINE, what="its threads have ended")


async def test_a_process_that_dies_before_it_is_ready_fails_what_waits_with_the_reason() -> None:
    recorder, _ = await run_through([("keep", 1), ("keep", 2)], DeadOnArrival)

    assert set(reasons(recorder)) == {
        ("crashed", "the worker process could not start; starting raised RuntimeError: it died: exit code 9")
    }
    assert len(recorder.failed) == 2


# --- time-outs, pause and drain


async def test_an_overdue_message_fails_alone_and_its_process_is_killed(journal: Path) -> None:
    recorder = Recorder()
    orders: list[Order] = [("collatz", 2), ("block", None), ("collatz", 4), ("pid", None)]
    pipeline = Far(
        producer=MemoryProducer(recorder.messages(orders)),
        context=str(journal),
        processors=Processors(concurrency=1, max_demand=10, executor="process", timeout=5.0),
    )
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    ((blocked,),) = await until_noted(journal, "block")
    await clock.advance(4.9)
    assert is_alive(blocked)
    await clock.advance(0.2)
    await soon(pipeline.wait())

    assert reasons(recorder) == [
        ("timeout", "the callback did not finish within its time-out of 5 s; its worker process was killed")
    ]
    assert recorder.failed == [("block", None)]
    assert recorder.successful[:2] == [1, 2]
    assert recorder.successful[2] != int(blocked)
    assert not is_alive(blocked)


async def test_a_drain_that_runs_out_of_time_kills_and_what_was_finished_stands(journal: Path) -> None:
    recorder = ReturningRecorder()
    orders: list[Order] = [("collatz", 2), ("block", None), ("collatz", 4)]
    pipeline = Far(producer=ManualProducer(*recorder.messages(orders)), context=str(journal))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    ((blocked,),) = await until_noted(journal, "block")
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    report = await soon(stopping)

    assert not report.in_time
    assert recorder.successful == [1]
    assert sorted(recorder.returned) == [("block", None), ("collatz", 4)]
    await until_gone(blocked)
    recorder.check_once()
    check_books(pipeline)


async def test_a_pause_takes_back_at_once_what_the_process_has_not_begun(journal: Path, tmp_path: Path) -> None:
    recorder = ReturningRecorder()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    orders: list[Order] = [("wait", str(gate)), ("collatz", 2), ("collatz", 4)]
    pipeline = Far(producer=ManualProducer(*recorder.messages(orders)), context=str(journal))
    clock_of(pipeline)
    await soon(pipeline.start())
    await until_noted(journal, "wait")
    await soon(pipeline.pause())
    await soon(eventually(lambda: len(recorder.returned) == 2, timeout=DEADLINE, what="the rest went back"))

    assert recorder.returned == [("collatz", 2), ("collatz", 4)]
    assert recorder.successful == []
    gate.write_text("go")
    await soon(pipeline.stop())
    assert recorder.successful == [("wait", str(gate))]
    recorder.check_once()
    check_books(pipeline)


async def test_what_cannot_be_given_back_is_still_handled_after_a_stop(journal: Path, tmp_path: Path) -> None:
    recorder, returning = Recorder(), ReturningRecorder()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    messages = [
        recorder.message(("wait", str(gate))),
        returning.message(("collatz", 2)),
        recorder.message(("collatz", 4)),
    ]
    pipeline = Far(producer=ManualProducer(*messages), context=str(journal))
    clock_of(pipeline)
    await soon(pipeline.start())
    await until_noted(journal, "wait")
    stopping = asyncio.ensure_future(pipeline.stop())
    await soon(eventually(lambda: returning.returned, timeout=DEADLINE, what="one went back"))
    gate.write_text("go")
    report = await soon(stopping)

    assert report.in_time
    assert recorder.successful == [("wait", str(gate)), 2]
    assert returning.returned == [("collatz", 2)]


# --- batches


async def test_a_batch_runs_in_a_worker_process_and_its_messages_come_back(journal: Path) -> None:
    orders: list[Order] = [("collatz", 2), ("collatz", 4), ("pid", None)]
    recorder, _ = await run_through(orders, FarBatch, context=str(journal))

    assert recorder.successful[:2] == [1, 2]
    assert recorder.successful[2] != os.getpid()
    (settled,) = recorder.calls
    assert settled.successful[0].metadata["batch"] == ("default", "default", None, 3, "size")
    assert len(noted(journal, "setup_worker")) == 1


async def test_in_a_batch_what_does_not_pickle_or_is_not_returned_fails_alone() -> None:
    orders: list[Order] = [("keep", threading.Lock()), ("keep", Picky(os.getpid(), here=False)), ("forget", None)]
    recorder, _ = await run_through([*orders, ("keep", 4)], FarBatch)

    assert recorder.successful == [("keep", 4)]
    assert [cause for cause, _ in reasons(recorder)] == ["raised", "raised", "not_returned"]


async def test_a_batch_that_raises_fails_as_a_whole() -> None:
    recorder, _ = await run_through([("collatz", 2), ("raise", "value"), ("collatz", 4)], FarBatch)

    assert reasons(recorder) == [("raised", "ValueError: no good")] * 3


async def test_a_death_in_a_batch_fails_exactly_the_message_it_is_due_to(journal: Path) -> None:
    orders: list[Order] = [("collatz", 2), ("abort", None), ("collatz", 4)]
    recorder, _ = await run_through(orders, FarBatch, context=str(journal))

    assert recorder.failed == [("abort", None)]
    assert [cause for cause, _ in reasons(recorder)] == ["worker_died"]
    assert sorted(recorder.successful) == [1, 2]
    assert [words[1] for words in noted(journal, "batch")] == ["3", "1", "1", "1"]


async def test_an_overdue_batch_fails_as_a_whole_and_its_process_is_killed(journal: Path) -> None:
    recorder = Recorder()
    orders: list[Order] = [("collatz", 2), ("block", None), ("collatz", 4)]
    options = FarBatch.batchers["default"].model_copy(update={"timeout": 5.0})
    pipeline = FarBatch(
        producer=MemoryProducer(recorder.messages(orders)), context=str(journal), batchers={"default": options}
    )
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    ((blocked,),) = await until_noted(journal, "block")
    await clock.advance(5.0)
    await soon(pipeline.wait())

    sentence = "the callback did not finish within its time-out of 5 s; its worker process was killed"
    assert reasons(recorder) == [("timeout", sentence)] * 3
    assert not is_alive(blocked)


async def test_a_batch_that_is_cut_off_goes_back(journal: Path) -> None:
    recorder = ReturningRecorder()
    orders: list[Order] = [("keep", 1), ("block", None), ("keep", 2)]
    pipeline = FarBatch(producer=ManualProducer(*recorder.messages(orders)), context=str(journal))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    ((blocked,),) = await until_noted(journal, "block")
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(stopping)

    assert sorted(recorder.returned) == sorted(orders, key=str)
    await until_gone(blocked)


# --- what is refused


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(OptionsError) as refused:
        make()
    return str(refused.value)


def test_async_callbacks_are_refused() -> None:
    assert refusal(lambda: FarAsync(producer=MemoryProducer([]))) == (
        "processors.executor: 'process' takes plain functions, and FarAsync.handle_message is async; "
        "write `def handle_message`, or leave the executor out"
    )
    assert refusal(lambda: FarAsyncSetup(producer=MemoryProducer([]))) == (
        "processors.executor: 'process' takes plain functions, and FarAsyncSetup.setup_worker is async; "
        "write `def setup_worker`, or leave the executor out"
    )


def test_a_class_that_cannot_be_imported_is_refused() -> None:
    class Local(Far):
        pass

    where = f"{__name__}.test_a_class_that_cannot_be_imported_is_refused.<locals>.Local"
    assert refusal(lambda: Local(producer=MemoryProducer([]))) == (
        "processors.executor: 'process' needs a class that a worker process can import, and "
        f"{where} is defined inside a function; define it at the top of its module"
    )
    main = type("Main", (Far,), {"__module__": "__main__"})
    assert refusal(lambda: main(producer=MemoryProducer([]))) == (
        "processors.executor: 'process' needs a class that a worker process can import, and "
        "Main is defined in the program that was started; move it to a module that it imports"
    )
    assert refusal(lambda: HiddenClass(producer=MemoryProducer([]))) == (
        "processors.executor: 'process' needs a class that a worker process can import, and "
        "tests.pipeline.process_pipelines.Hidden is not the class that is found under this name; "
        "give it a name of its own in its module"
    )


def test_a_batcher_s_executor_is_named_by_its_path() -> None:
    class Local(FarBatch):
        pass

    assert refusal(lambda: Local(producer=MemoryProducer([]))).startswith("batchers.default.executor: 'process' needs")


async def test_a_context_that_does_not_pickle_is_refused_at_the_start() -> None:
    pipeline = Unsendable(producer=MemoryProducer([]))
    with pytest.raises(OptionsError) as refused:
        await soon(pipeline.start())

    assert str(refused.value) == (
        "context: expected something that can be pickled, for executor='process', got lock: "
        "TypeError: cannot pickle '_thread.lock' object; make in setup_worker() what cannot be sent to a worker process"
    )


# --- the end of the parent


@pytest.mark.parametrize("act", ["block", "keep"])
async def test_a_parent_that_is_killed_leaves_no_process(act: str, journal: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from broadway_py import Message
        from tests.pipeline.process_pipelines import Far
        from tests.pipeline.support import ManualProducer

        async def main():
            pipeline = Far(producer=ManualProducer(("{act}", None)), context={str(journal)!r})
            await pipeline.start()
            await pipeline.wait()

        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        try:
            ((pid, _),) = await until_noted(journal, "setup_worker")
            if act == "block":
                await until_noted(journal, "block")
        finally:
            parent.kill()
    await until_gone(pid)


# --- the wire


def test_frames_are_found_wherever_the_stream_is_cut() -> None:
    stream = frame(Kind.READY) + frame(Kind.RESULT, b"body", job=3, position=2) + frame(Kind.TAKEN, b"x" * 300)
    whole = [Frame(Kind.READY, 0, 0, b""), Frame(Kind.RESULT, 3, 2, b"body"), Frame(Kind.TAKEN, 0, 0, b"x" * 300)]

    for cut in range(len(stream) + 1):
        reader = FrameReader()
        assert [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])] == whole
    one_by_one = FrameReader()
    assert [each for byte in stream for each in one_by_one.feed(bytes([byte]))] == whole


def test_a_pipeline_without_processes_asks_nothing_of_its_class() -> None:
    class Local(Pipeline[Any]):
        def handle_message(self, message: Message[Any]) -> None:
            pass

    assert Local(producer=MemoryProducer([])).phase == "new"
