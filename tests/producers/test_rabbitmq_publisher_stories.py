"""Random stories of a publisher: callers, answers, losses and cancellations in any order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from aiormq.exceptions import DeliveryError
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.retries import publisher as module
from broadway_py.producers.rabbitmq.retries.letters import Letter
from tests.producers.scripted_connections import SILENT, Line, Published, publisher
from tests.support.turns import turns

pytestmark = pytest.mark.faults

#: Ids that several messages have, and one for which each message gets its own.
names = st.sampled_from(["a", "b", "c", ""])
steps = st.one_of(
    st.tuples(st.just("call"), st.lists(names, min_size=1, max_size=6)),
    st.tuples(st.sampled_from(["confirm", "refuse", "cancel"]), st.integers(0, 9)),
    st.just(("lose", None)),
    st.just(("turn", None)),
)


class Call:
    """One caller: what it was told, and what it got in the end."""

    def __init__(self, number: int, ids: Sequence[str]) -> None:
        self.letters = [
            Letter("out", b"%d:%d" % (number, at), Basic.Properties(message_id=name)) for at, name in enumerate(ids)
        ]
        self.told: dict[int, ProducerError | None] = {}
        self.task: asyncio.Task[list[ProducerError | None]] | None = None

    def tell(self, position: int, outcome: ProducerError | None) -> None:
        if position in self.told or self.task is None or self.task.done():
            raise AssertionError("told twice, or after the end")
        self.told[position] = outcome


class Story:
    """A publisher that gets a new line at each connect, and what the broker knows."""

    def __init__(self) -> None:
        self.post = publisher()
        self.lines: list[Line] = []
        self.calls: list[Call] = []
        #: The bodies of messages that the broker has confirmed.
        self.kept: set[bytes] = set()
        #: What callbacks have raised.
        self.raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.raised.append(context))

    async def connect(self, *_: object, **__: object) -> Line:
        self.lines.append(Line(answer=lambda _: SILENT))
        return self.lines[-1]

    def waiting(self) -> list[tuple[Line, Published]]:
        """What the broker has not answered."""
        return [
            (line, message)
            for line in self.lines
            if not line.writer.is_closed
            for message in line.writer.published
            if not line.writer.confirmations[message.tag].done()
        ]

    def do(self, what: str, which: Any) -> None:
        waiting, callers = self.waiting(), [call for call in self.calls if call.task and not call.task.done()]
        match what:
            case "call":
                call = Call(len(self.calls), which)
                call.task = asyncio.ensure_future(self.post.publish(call.letters, call.tell))
                self.calls.append(call)
            case "confirm" if waiting:
                line, message = waiting[which % len(waiting)]
                self.kept.add(message.body)
                line.writer.tell(message.tag)
            case "refuse" if waiting:
                line, message = waiting[which % len(waiting)]
                line.writer.tell(message.tag, DeliveryError(None, Basic.Nack()))
            case "cancel" if callers:
                task = callers[which % len(callers)].task
                assert task is not None
                task.cancel()
            case "lose" if waiting:
                waiting[0][0].writer.end(ConnectionResetError())

    def check(self) -> None:
        assert self.raised == []
        on_their_way = Counter((id(line), message.properties.message_id) for line, message in self.waiting())
        assert all(count == 1 for count in on_their_way.values()), "two messages with one id are on their way"
        for line in self.lines:
            for number in range(len(self.calls)):
                positions = [
                    int(message.body.split(b":")[1])
                    for message in line.writer.published
                    if message.body.startswith(b"%d:" % number)
                ]
                assert positions == sorted(set(positions)), "a list was not written in its order"
        for call in self.calls:
            for position, outcome in call.told.items():
                assert outcome is not None or call.letters[position].body in self.kept, "not confirmed, but told so"

    async def end(self) -> None:
        """Confirm everything until all callers are done."""
        for _ in range(100):
            if all(call.task and call.task.done() for call in self.calls):
                break
            for line, message in self.waiting():
                self.kept.add(message.body)
                line.writer.tell(message.tag)
            await turns(5)
            self.check()
        for call in self.calls:
            assert call.task is not None
            assert call.task.done(), "a caller waits for ever"
            if not call.task.cancelled():
                assert call.told == dict(enumerate(call.task.result()))
        await self.post.close()
        assert all(line.ends for line in self.lines)


async def told(story: Sequence[tuple[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        running = Story()
        patch.setattr(module, "connect", running.connect)
        for what, which in story:
            if what == "turn":
                await turns(5)
            running.do(what, which)
            running.check()
        await running.end()


@given(st.lists(steps, max_size=30))
def test_nothing_is_called_confirmed_that_is_not_and_every_caller_gets_an_end(story: list[tuple[str, Any]]) -> None:
    asyncio.run(told(story))
