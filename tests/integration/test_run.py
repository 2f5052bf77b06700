"""``broadway_py.run``: the same machinery for a script of one's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

pytestmark = pytest.mark.integration

HEAD = """\
import asyncio, sys, time
from broadway_py import Pipeline, run
from broadway_py.producers import DummyProducer, MemoryProducer, Producer

class Orders(Pipeline):
    async def handle_message(self, message):
        message.batcher = None
"""


def script(folder: Path, body: str) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(HEAD + textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_it_returns_0_when_the_sources_have_ended(tmp_path: Path) -> None:
    process = script(tmp_path, "print('code', run(Orders(producer=MemoryProducer(range(5)))))")
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("code 0\n", 0)


def test_a_signal_drains_it_and_signals_are_as_before_afterwards(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        import signal
        before = signal.getsignal(signal.SIGINT)
        class Started(Orders):
            async def setup(self):
                print("started", flush=True)
        code = run(Started(producer=DummyProducer()), port=0)
        print("code", code, signal.getsignal(signal.SIGINT) is before)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("code 0 True\n", 0)
    assert "listening" in {json.loads(line)["event"] for line in err.splitlines()}


def test_a_pipeline_that_crashes_for_good_returns_1_after_the_others_have_drained(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        class Broken(Producer):
            async def handle_demand(self, demand):
                raise RuntimeError("-".join(["canary", "66aa"]))
        pipelines = [Orders(name="a", producer=Broken()), Orders(name="b", producer=DummyProducer())]
        sys.exit(run(*pipelines))
        """,
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    events = [json.loads(line) for line in err.splitlines()]
    assert "the pipeline crashed and does not restart; stopping the others" in [event["event"] for event in events]
    assert {event["pipeline"] for event in events if event["event"] == "drained"} == {"a", "b"}
    assert "canary-66aa" not in err


def test_a_source_that_must_connect_at_the_start_and_cannot_says_why_without_a_trace(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        from broadway_py import ProducerError
        class Away(Producer):
            async def open(self):
                try:
                    raise ConnectionRefusedError(111, "Connection refused")
                except OSError as error:
                    raise ProducerError("cannot reach the source: connection refused") from error
            async def handle_demand(self, demand):
                return []
        sys.exit(run(Orders(name="a", producer=Away(), fail_fast=True), port=0))
        """,
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    events = [json.loads(line) for line in err.splitlines()]
    sentence = "cannot reach the source: connection refused"
    assert [(one["event"], one["reason"]) for one in events if one["level"] in ("warning", "error")] == [
        ("the source is not available; not trying again", sentence),
        (
            "the pipeline crashed and does not restart; stopping the others",
            f"producer 'away' could not connect at the start: {sentence}",
        ),
    ]
    assert "Traceback" not in err
    assert not any("exception" in one for one in events)


def test_a_blocked_loop_makes_it_return_75(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        class Blocked(Orders):
            async def handle_message(self, message):
                print("blocked", flush=True)
                time.sleep(1e6)
        sys.exit(run(Blocked(producer=MemoryProducer([1]), shutdown_timeout=0.5)))
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "blocked\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=3)
    assert process.returncode == 75


def test_a_signal_while_it_imports_what_serves_http_drains_it(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        import os, signal
        class Finder:
            def find_spec(self, name, *_):
                if name == "aiohttp":
                    os.kill(os.getpid(), signal.SIGTERM)
        sys.meta_path.insert(0, Finder())
        print("code", run(Orders(producer=DummyProducer()), port=0), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        """,
    )
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("code 0 True\n", 0)
    assert "stopping" in [json.loads(line)["event"] for line in err.splitlines()]


def test_a_folder_for_metrics_of_several_processes_is_no_crash(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        import os
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/none"
        print("code", run(Orders(producer=MemoryProducer(range(5))), port=0))
        """,
    )
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("code 0\n", 0)
    assert "Traceback" not in err


def test_it_needs_a_pipeline(tmp_path: Path) -> None:
    process = script(tmp_path, "run()")
    _, err = process.communicate(timeout=30)
    assert err.splitlines()[-1] == "TypeError: run() takes at least one pipeline, got none"


def test_an_interrupt_that_a_handler_raises_itself_fails_its_message_alone(tmp_path: Path) -> None:
    # No Ctrl-C: that comes to the main thread, and the handlers run in another.
    process = script(
        tmp_path,
        """
        class Interrupting(Orders):
            failure = None
            async def handle_message(self, message):
                if message.data == 2:
                    raise KeyboardInterrupt
            async def handle_failed(self, messages):
                print([(message.data, message.status.cause) for message in messages], flush=True)
        sys.exit(run(Interrupting(producer=MemoryProducer(range(5)))))
        """,
    )
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("[(2, 'raised')]\n", 0)


# --- in an event loop of one's own

NOTING = """
import os, signal
from collections import Counter
from broadway_py import Acknowledgement, Acknowledger, Message, Processors

class Noting(Acknowledger):
    def __init__(self):
        self.acked, self.returned = [], []
    async def ack(self, ref, successful, failed):
        self.acked += [message.data for message in successful]
        assert not failed
    async def release(self, ref, messages):
        self.returned += [message.data for message in messages]

noting = Noting()
messages = [Message(number, None, Acknowledgement(noting)) for number in range(20)]

class Counted(Orders):
    processors = Processors(concurrency=2, max_demand=4)
    async def teardown(self):
        print("teardown")
    async def handle_message(self, message):
        if message.data == 9:
            await self.interrupt()

async def main():
    async with Counted(producer=MemoryProducer(messages)) as pipeline:
        await pipeline.wait()

# A test run in the background of a shell would pass on that it ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    asyncio.run(main())
except BaseException as ended:
    print(type(ended).__name__)
assert max(Counter(noting.acked + noting.returned).values()) == 1, "nothing is settled twice"
open_ones = {message.data for message in messages if message._ledger_entry and not message.settled}
print(sorted(open_ones), 9 in noting.acked, 9 in noting.returned)
"""


@pytest.mark.parametrize(
    ("interrupt", "acked"),
    [("raise KeyboardInterrupt", False), ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(0.1)", True)],
    ids=["raised", "ctrl-c"],
)
def test_an_interrupt_passes_through_and_loses_nothing(tmp_path: Path, interrupt: str, acked: bool) -> None:
    process = script(
        tmp_path,
        NOTING.replace("asyncio.run(main())", "Counted.interrupt = interrupt\n    asyncio.run(main())").replace(
            "async def main", f"async def interrupt(self):\n    {interrupt}\n\nasync def main"
        ),
    )
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == ["teardown", "KeyboardInterrupt", f"[] {acked} {not acked}"], err
