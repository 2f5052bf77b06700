"""Pipelines of the main job's tests. Each notes what it did in the file that its context names; the test counts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from tests.support.counter import HandledIds, message_id


class _Noting(Pipeline[Any]):
    """Opens the file."""

    async def setup(self) -> None:
        self.handled = HandledIds(Path(self.context["handled"]))

    async def teardown(self) -> None:
        self.handled.close()

    def note(self, *messages: Message[bytes]) -> None:
        self.handled.add(message_id(message.data) for message in messages)


class OneByOne(_Noting):
    """Notes each message as it is handled."""

    async def handle_message(self, message: Message[bytes]) -> None:
        self.note(message)


class InBatches(_Noting):
    """Notes each message as its batch is handled."""

    batchers = {"default": Batcher(batch_size=100, batch_timeout=0.5)}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[bytes]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.note(*messages)


class RaisesOnEveryTenth(_Noting):
    """Notes what it handled, which is what it did not raise for."""

    async def handle_message(self, message: Message[bytes]) -> None:
        if is_tenth(message_id(message.data)):
            raise RuntimeError("every tenth message fails")
        self.note(message)


def is_tenth(name: str) -> bool:
    """Whether :class:`RaisesOnEveryTenth` fails the message of this id."""
    return int(name) % 10 == 0


# --- handlers that never return: they note what they began ------------------------------------------------------------


class SleepsInThread(_Noting):
    """A plain function: the pipeline runs it in a thread."""

    def handle_message(self, message: Message[bytes]) -> None:
        self.note(message)
        time.sleep(1e6)


class SpinsInThread(_Noting):
    """A plain function that also competes for the interpreter."""

    def handle_message(self, message: Message[bytes]) -> None:
        self.note(message)
        while True:
            pass


class BlocksTheLoop(_Noting):
    """An async function that does not let anything else run."""

    async def handle_message(self, message: Message[bytes]) -> None:
        self.note(message)
        time.sleep(1e6)


class _Batching(_Noting):
    batchers = {"default": Batcher(batch_size=10, batch_timeout=0.1)}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[bytes]) -> None:
        pass


class SleepsInThreadWithBatch(_Batching):
    """The same in ``handle_batch``."""

    def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.note(*messages)
        time.sleep(1e6)


class SpinsInThreadWithBatch(_Batching):
    """The same in ``handle_batch``."""

    def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.note(*messages)
        while True:
            pass


class BlocksTheLoopWithBatch(_Batching):
    """The same in ``handle_batch``."""

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.note(*messages)
        time.sleep(1e6)


# --- a pipeline that fails in many ways, and quotes the payload in each -----------------------------------------------


class Secret(BaseModel):
    """How to fail, and what must be shown nowhere."""

    way: str
    word: str
    number: int = 0
    prices: dict[str, int] = {}


class FailsInManyWays(_Noting):
    """Does with each message what it asks for: one of :data:`WAYS`, or ``in …`` a callback."""

    schema = Secret
    # Chunks of one: what fails in prepare_messages fails alone.
    processors = Processors(concurrency=2, max_demand=1)
    batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # an option

    def partition_by(self, message: Message[Secret]) -> object:
        if b"in partition_by" in message.raw:
            raise KeyError(message.raw)
        return None

    async def prepare_messages(self, messages: Sequence[Message[Secret]]) -> None:
        for message in messages:
            if "in prepare_messages" in message.data.way:
                raise RuntimeError(f"cannot prepare {message.data!r}")

    async def handle_message(self, message: Message[Secret]) -> object:
        fail = WAYS.get(message.data.way)
        return None if fail is None else fail(message)

    async def handle_batch(self, messages: Sequence[Message[Secret]], info: BatchInfo) -> None:
        for message in messages:
            if "in handle_batch" in message.data.way:
                raise RuntimeError(f"cannot store {message.data.word}: {message.raw!r}")

    async def handle_failed(self, messages: Sequence[Message[Secret]]) -> None:
        for message in messages:
            if b"in handle_failed" in message.raw:
                raise LookupError(message.raw)


def _with_a_cause(message: Message[Secret]) -> None:
    try:
        int(message.data.word)
    except ValueError as error:
        raise RuntimeError(f"not a number: {message.data.word}") from error


def _in_a_group(message: Message[Secret]) -> None:
    word = message.data.word
    raise ExceptionGroup(f"several: {word}", [KeyError(word), ValueError(f"<{word}>")])


def _with_an_unknown_batcher(message: Message[Secret]) -> None:
    message.batcher = message.data.word


def _with_a_wrong_status(message: Message[Secret]) -> None:
    message.status = message.data.word  # type: ignore[assignment]  # that is the mistake


def _in_a_task_that_nobody_awaits(message: Message[Secret]) -> None:
    async def fail() -> None:
        raise ValueError(message.data.word)

    asyncio.get_running_loop().create_task(fail())
    raise RuntimeError(message.data.word)


def _in_a_thread_of_its_own(message: Message[Secret]) -> None:
    threading.Thread(target=int, args=(message.data.word,)).start()
    raise RuntimeError(message.data.word)


class _Chatty:
    def __init__(self, message: Message[Secret]) -> None:
        self._word = message.data.word

    def __repr__(self) -> str:
        return self._word


#: What may go wrong in ``handle_message``.
WAYS: Final[Mapping[str, Callable[[Message[Secret]], object]]] = {
    "with a number": lambda message: int(message.data.word),
    "with a key": lambda message: dict[str, str]()[message.data.word],
    "with a cause": _with_a_cause,
    "in a group": _in_a_group,
    "by saying so": lambda message: message.fail(f"cannot handle {message.data.word.upper()}, sorry"),
    "with an unknown batcher": _with_an_unknown_batcher,
    "with an unknown option": lambda message: message.configure_ack(**{message.data.word: "ack"}),
    "with an unknown value": lambda message: message.configure_ack(on_failure=message.data.word),
    "with a wrong status": _with_a_wrong_status,
    "by returning something else": _Chatty,
    "in a task that nobody awaits": _in_a_task_that_nobody_awaits,
    "in a thread of its own": _in_a_thread_of_its_own,
}
