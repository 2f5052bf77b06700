"""Pipelines whose callbacks run in worker processes, which import this module. A journal tells what happens there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn, Self

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors, ack_immediately

#: What a callback is to do with a message, and a value.
Order = tuple[str, Any]


def collatz(start: int) -> int:
    """Steps until one is reached: something to compute."""
    steps = 0
    while start != 1:
        start = start // 2 if start % 2 == 0 else 3 * start + 1
        steps += 1
    return steps


class Numbered(Exception):
    """Pickles, but does not unpickle by itself: the constructor wants more than ``args`` holds."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        super().__init__(text)


class Stuck(Exception):
    """Neither pickles nor can it be made without its lock."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("stuck here")

    def __new__(cls, text: str) -> Self:
        return super().__new__(cls, text)


def _refuse_in(pid: int, here: bool) -> Picky:
    if (os.getpid() == pid) is here:
        raise ValueError("not in this process")
    return Picky(pid, here=here)


class Picky:
    """Cannot be unpickled in the process *pid* (``here``), or anywhere else (not ``here``)."""

    def __init__(self, pid: int, *, here: bool) -> None:
        self.pid = pid
        self.here = here

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_in, (self.pid, self.here)


class Far(Pipeline[Any]):
    """Does what each message's data says; ``context`` is the path of the journal."""

    processors = Processors(concurrency=1, max_demand=10, min_demand=0, executor="process")
    failure = None

    def setup(self) -> None:
        self.note(f"setup {os.getpid()}")

    def setup_worker(self) -> None:
        self.note(f"setup_worker {os.getpid()} {self.name}")

    def note(self, line: str) -> None:
        if self.context is not None:
            with Path(self.context).open("a", encoding="utf-8") as journal:
                journal.write(f"{line}\n")

    def handle_message(self, message: Message[Any]) -> Any:
        act, value = message.data
        return getattr(self, f"do_{act}")(message, value)

    def do_collatz(self, message: Message[Any], value: int) -> None:
        message.data = collatz(value)

    def do_keep(self, message: Message[Any], value: Any) -> None:
        pass

    def do_delete(self, message: Message[Any], value: str) -> None:
        delattr(message, value)

    def do_pid(self, message: Message[Any], value: Any) -> None:
        message.data = os.getpid()

    def do_route(self, message: Message[Any], value: Any) -> Message[Any]:
        message.metadata["seen"] = [message.attempt, message.producer, message.size, message.raw, message.id]
        message.metadata.pop("old", None)
        message.batch_key = ("a", 1)
        message.batch_mode = "flush"
        message.batcher = None
        message.configure_ack(on_failure="drop")
        return message

    def do_raise(self, message: Message[Any], value: Any) -> None:
        if value == "value":
            raise ValueError("no good")
        if value == "numbered":
            raise Numbered(7, "seven")
        raise Stuck("for ever")

    def do_fail(self, message: Message[Any], value: str) -> None:
        message.data = "changed"
        message.fail(value)

    def do_return(self, message: Message[Any], value: Any) -> Any:
        return value

    def do_coroutine(self, message: Message[Any], value: Any) -> Any:
        return asyncio.sleep(0)

    def do_exit(self, message: Message[Any], value: int) -> None:
        sys.exit(value)

    def do_leave(self, message: Message[Any], value: int) -> None:
        self.note(f"leave {os.getpid()}")
        os._exit(value)

    def do_abort(self, message: Message[Any], value: Any) -> None:
        self.note(f"abort {os.getpid()}")
        os.abort()

    def do_abort_once(self, message: Message[Any], value: str) -> None:
        if not Path(value).exists():
            Path(value).touch()
            os.abort()

    def do_block(self, message: Message[Any], value: Any) -> None:
        self.note(f"block {os.getpid()}")
        threading.Event().wait()

    def do_wait(self, message: Message[Any], value: str) -> None:
        self.note(f"wait {os.getpid()}")
        with Path(value).open(encoding="utf-8") as pipe:
            pipe.read()

    def do_unsendable(self, message: Message[Any], value: Any) -> None:
        message.data = threading.Lock()

    def do_picky(self, message: Message[Any], value: int) -> None:
        message.data = Picky(value, here=True)

    def do_stop(self, message: Message[Any], value: Any) -> None:
        self.request_stop()

    def do_ack(self, message: Message[Any], value: Any) -> None:
        asyncio.run(ack_immediately(message))

    def do_print(self, message: Message[Any], value: str) -> None:
        print(value)

    def do_signal(self, message: Message[Any], value: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    def do_show(self, message: Message[Any], value: Any) -> None:
        message.data = repr(self)


class FarFamily(Far):
    """Children are made in a worker process and gathered here."""

    batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # never changed

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[tuple[Any, Any]] = []

    def do_spawn(self, message: Message[Any], value: int) -> None:
        for number in range(value):
            child = message.spawn(number, {"of": value})
            if value == 2 and number == 1:
                child.fail("not this one")

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        self.seen += [(message.data, message.metadata) for message in messages]


class FarBatch(Far):
    """Batches of three run in a worker process; messages do not."""

    processors = Processors(concurrency=1, max_demand=10, min_demand=0)
    batchers = {"default": Batcher(batch_size=3, batch_timeout=60.0, executor="process")}  # noqa: RUF012  # never changed

    def handle_message(self, message: Message[Any]) -> None:
        pass

    def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> Any:
        self.note(f"batch {os.getpid()} {info.size}")
        for message in messages:
            message.metadata["batch"] = (info.batcher, info.batch_key, info.partition, info.size, info.trigger)
            act, value = message.data
            if act == "forget":
                return [other for other in messages if other is not message]
            getattr(self, f"do_{act}")(message, value)
        return None


class Broken(Far):
    """Its worker processes cannot start."""

    def setup_worker(self) -> None:
        self.note("setup_worker")
        raise ConnectionError("no database")


class DeadOnArrival(Far):
    """Its worker processes die before they are ready."""

    def setup_worker(self) -> None:
        os._exit(9)


class Unsendable(Far):
    """Its setup makes what cannot go over."""

    def setup(self) -> None:
        self.context = threading.Lock()


class FarAsync(Far):
    """Cannot run in a process."""

    async def handle_message(self, message: Message[Any]) -> None:
        pass


class FarAsyncSetup(Far):
    """Cannot be set up in a process."""

    async def setup_worker(self) -> None:  # type: ignore[override]  # that is what is refused
        pass


class Hidden(Far):
    """Found under its name is another class."""


HiddenClass = Hidden


class Hidden(Far):  # type: ignore[no-redef]  # that is the point
    """The other class."""


class PublishesInProcess(Pipeline[Any]):
    """Publishes in a worker process, where it cannot."""

    processors = Processors(concurrency=1, executor="process")

    def handle_message(self, message: Message[Any]) -> Any:
        return self.publishers["out"].publish(message)
