"""One opened copy, and the producer around it, with a client that only remembers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import pytest

from broadway_py import Pipeline, Processors
from broadway_py.message import Message
from broadway_py.producers import SQSProducer
from broadway_py.producers.sqs import session as sessions
from broadway_py.producers.sqs.deliveries.receive_attempts import Attempts
from broadway_py.producers.sqs.requests.client import QueueInfo
from broadway_py.producers.sqs.requests.errors import Trouble
from broadway_py.producers.sqs.session import Session
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.request_counts import RequestCounts
from broadway_py.testing import FakeClock, settle


class Answers:
    """Stands for the client: receives are answered with what was laid out, or wait for the end."""

    #: Those that were made, the newest last.
    made: ClassVar[list[Answers]]
    #: What the next ones are answered with, in turn.
    laid_out: ClassVar[deque[list[dict[str, Any]]]]
    #: What opening a further one raises.
    away: ClassVar[Trouble | None] = None
    #: What a delete raises.
    refusal: ClassVar[Trouble | None] = None

    def __init__(self, *_: object) -> None:
        self.made.append(self)
        self.changed: list[tuple[str, int]] = []
        self.is_open = False
        self.poll_ends = asyncio.Event()

    async def open(self, trace_fields: Collection[str]) -> QueueInfo:
        if self.away is not None:
            raise self.away
        self.is_open = True
        return QueueInfo("orders", "url", 30.0, True, None)

    async def receive(self, count: int, attempt_id: str | None = None) -> list[dict[str, Any]]:
        if self.laid_out:
            return self.laid_out.popleft()
        await self.poll_ends.wait()
        return [raw("late")]

    async def delete(self, url: str, handles: Sequence[str]) -> dict[int, str]:
        if self.refusal is not None:
            raise self.refusal
        return {}

    async def change_visibility(self, url: str, changes: Sequence[tuple[str, int]]) -> dict[int, str]:
        self.changed += changes
        return {}

    async def close(self) -> None:
        self.is_open = False


def raw(name: str, group: str | None = None) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": "1"} | ({} if group is None else {"MessageGroupId": group})
    return {"MessageId": name, "ReceiptHandle": f"h-{name}", "Body": name, "Attributes": attributes}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> type[Answers]:
    """The class of the clients that sessions make."""

    class Fresh(Answers):
        made: ClassVar[list[Answers]] = []
        laid_out: ClassVar[deque[list[dict[str, Any]]]] = deque()

    monkeypatch.setattr(sessions, "Client", Fresh)
    return Fresh


async def test_groups_that_fail_make_room_for_others(answers: type[Answers]) -> None:
    session = Session(
        SQSOptions(queue_url="orders.fifo", max_polls=1),
        FakeClock(),
        pipeline="pipeline",
        producer="sqs",
        capacity=100,
        attempts=Attempts(is_fifo=True),
        requests=RequestCounts(),
        trace_fields=(),
        lost=lambda _: None,
    )
    await session.open()
    # Ten may wait for one of their group when there is one receive; here eighteen do.
    answers.laid_out.extend([[raw(f"{group}{n}", group) for n in range(10)] for group in "ab"])
    heads: list[Message[bytes]] = []
    while len(heads) < 2:
        heads += await session.take(50)
    taking = asyncio.create_task(session.take(50))
    await settle()
    assert (session.acknowledger.groups.parked, taking.done()) == (18, False)
    answers.laid_out.append([raw("c0", "c")])

    await session.acknowledger.ack(None, [], heads)
    await settle()

    assert taking.done()
    assert [message.data for message in taking.result()] == [b"c0"]
    answers.made[0].poll_ends.set()
    await session.close()


class Idle(Pipeline[bytes]):
    async def handle_message(self, message: Message[bytes]) -> None:
        pass


async def test_a_stop_while_the_source_is_away_waits_for_what_the_lost_copy_still_does(
    answers: type[Answers],
) -> None:
    answers.laid_out.append([raw("first")])
    clock = FakeClock()
    pipeline = Idle(
        producer=SQSProducer("orders", region="eu-central-1"),
        processors=Processors(concurrency=1, max_demand=10),
        shutdown_timeout=20.0,
    )
    pipeline.clock = clock
    refusal = Trouble("refused", "SQS queue 'orders': AWS refused DeleteMessage (AccessDenied)")
    before = asyncio.all_tasks()
    answers.refusal = refusal
    await pipeline.start()
    await settle()
    answers.away = refusal
    await clock.advance(1.0)
    first = answers.made[0]
    assert pipeline.stats().producers[0].connections_lost == 1
    assert [client.is_open for client in answers.made] == [True]

    stopping = asyncio.create_task(pipeline.stop())
    await settle()
    assert not stopping.done()
    first.poll_ends.set()
    await settle()
    await clock.advance(0.1)
    await stopping

    assert ("h-late", 0) in first.changed
    assert [client.is_open for client in answers.made] == [False]
    assert asyncio.all_tasks() == before
