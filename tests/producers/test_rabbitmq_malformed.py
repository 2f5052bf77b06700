"""Messages of the fast path whose properties do not decode: they fail alone, and only when somebody looks."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, Pipeline, Processors
from broadway_py.errors import MalformedMessage, ProducerError
from broadway_py.message import Failed
from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.poison.journal import SUSPECTED, Journal
from broadway_py.pipeline.processes.jobs import BatchJob
from broadway_py.producer import Producer
from broadway_py.producers.rabbitmq.connection.transport import CuttingReader
from broadway_py.producers.rabbitmq.deliveries.lazy_message import messages_of
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.settlements.ack_writer import DirectSettlements, encode
from broadway_py.producers.rabbitmq.settlements.acknowledger import RabbitMQAcknowledger
from broadway_py.producers.rabbitmq.settlements.ledger import Settlement, TagLedger
from broadway_py.producers.rabbitmq.wire.delivery_parser import Delivery, Ended
from broadway_py.testing.driving import copy_of
from tests.pipeline.support import finish
from tests.producers.amqp_bytes import OPENED, TUNED, delivery, with_properties

SENTENCE = "the properties of delivery 2 cannot be decoded (UnicodeDecodeError); correct its publisher"

HEADERS, MESSAGE_ID, TIMESTAMP, APP_ID = 1 << 13, 1 << 7, 1 << 6, 1 << 3


def table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def nested(depth: int) -> bytes:
    """A table in a table in a table."""
    content = b""
    for _ in range(depth):
        content = b"\x01aF" + table(content)
    return table(content)


#: Headers with an attempt of ours, a message id in Latin-1, and what sent it.
LATIN = with_properties(
    HEADERS | MESSAGE_ID | APP_ID, table(b"\x12x-broadway-attemptb\x03") + b"\x04caf\xe9" + b"\x04shop"
)


class Writes:
    """A stream writer and its transport in one."""

    def __init__(self) -> None:
        self.data = b""

    @property
    def transport(self) -> Writes:
        return self

    def write(self, data: bytes) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Post:
    """In place of the publisher: the broker confirms everything."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    async def publish(self, letters: Sequence[Letter]) -> list[ProducerError | None]:
        self.letters += letters
        return [None] * len(letters)

    async def declare(self, queue: str, arguments: Mapping[str, Any]) -> float:
        return float("inf")


class Stream(Producer):
    """The fast path on the bytes of a broker, and settlements as bytes; no client library between."""

    name = "rabbitmq"

    def __init__(self, stream: bytes, **settings: Any) -> None:
        self.options = RabbitMQOptions(queue="work", **settings)
        self.writes, self.post = Writes(), Post()
        #: Why messages could not be put away, each time.
        self.troubles: list[ProducerError | None] = []
        self._stream = stream
        self._came: list[Delivery] = []

    async def open(self) -> None:
        reader, ledger = CuttingReader(asyncio.get_running_loop()), TagLedger()
        reader.feed_data(TUNED + OPENED)
        reader.sink(1, self).add("ours")
        self._ledger = ledger
        writer = cast("asyncio.StreamWriter", self.writes)
        self._acknowledger = RabbitMQAcknowledger(
            ledger,
            DirectSettlements(1, ledger, writer, "amqp://here/"),
            Forwarder(
                self.options,
                self.context.failure,
                cast("Publisher", self.post),
                pipeline="orders",
                clock=self.context.clock,
                troubled=Troubled(),
            ),
            waiting=self.troubles.append,
            on_failure_is_given=self.options.on_failure_is_given,
        )
        reader.feed_data(self._stream)

    def came(self, deliveries: list[Delivery]) -> None:
        for found in deliveries:
            self._ledger.delivered(found[0])
        self._came += deliveries

    def ended(self, why: Ended) -> None:
        raise AssertionError(why)

    def cut_off(self, problem: str | None) -> None:
        raise AssertionError(problem)

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]] | None:
        taken, self._came = self._came[:demand], self._came[demand:]
        return (
            messages_of(taken, self._acknowledger, self.options, {"ours": "work"}, {"work": "work.retry.back"})
            if taken
            else None
        )


def three(broken: bytes = LATIN, *, exchange: str = "events") -> bytes:
    """Three deliveries; the properties of the second one are *broken*."""
    second = delivery(2, exchange=exchange, routing_key="new")
    return b"".join([*delivery(1, message_id="one"), second[0], broken, second[2], *delivery(3, message_id="three")])


def acks(*settlements: Settlement) -> bytes:
    return encode(1, list(settlements))


class Looking(Pipeline[bytes]):
    """Looks at the metadata of its messages in one of its callbacks."""

    processors = Processors(concurrency=1)
    failure = FailurePolicy(attempts=5, breaker=None)
    name = "orders"

    def __init__(self, where: str = "nowhere", **options: Any) -> None:
        self.where = where
        self.failures: dict[Any, Failed | None] = {}
        self.seen: list[Any] = []
        super().__init__(**options)

    def look(self, where: str, *messages: Message[bytes]) -> None:
        if where == self.where:
            for message in messages:
                _ = message.metadata

    async def prepare_messages(self, messages: list[Message[bytes]]) -> None:
        self.look("prepare_messages", *messages)

    async def handle_message(self, message: Message[bytes]) -> None:
        self.seen.append(message.acknowledgement.data.tag)
        self.look("handle_message", message)

    async def handle_failed(self, messages: list[Message[bytes]]) -> None:
        self.failures.update({message.acknowledgement.data.tag: message.status for message in messages})
        self.look("handle_failed", *messages)


class InBatches(Looking):
    batchers = {"default": Batcher(batch_size=3)}  # noqa: RUF012  # an option

    async def handle_batch(self, messages: list[Message[bytes]], info: BatchInfo) -> None:
        self.look("handle_batch", *messages)


def causes(pipeline: Looking) -> dict[Any, str]:
    return {tag: "" if status is None else status.cause for tag, status in pipeline.failures.items()}


def dead_letters(source: Stream) -> list[bytes]:
    """The letters that are dead letters."""
    return [letter.body for letter in source.post.letters if letter.queue == "work.dead"]


async def test_nobody_looks_and_it_passes_like_any_other() -> None:
    source = Stream(three())
    assert await finish(InBatches(producer=source)) == {"acked": 3}
    assert source.writes.data == acks(Settlement("ack", 3, multiple=True))
    assert source.post.letters == []


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (LATIN, "UnicodeDecodeError"),
        (with_properties(HEADERS, nested(560)), "RecursionError"),
        (with_properties(HEADERS, table(b"\x01aQ....")), "ValueError"),
        (with_properties(TIMESTAMP, b"\xff" * 8), "ValueError"),
        (with_properties(HEADERS, b""), "ValueError"),
        (with_properties(1, b""), "ValueError"),
    ],
    ids=["latin", "depth", "kind", "time", "missing", "flags"],
)
async def test_its_handler_looks_and_it_fails_alone(broken: bytes, error: str) -> None:
    source = Stream(three(broken))
    pipeline = Looking("handle_message", producer=source)
    assert await finish(pipeline) == {"acked": 2, "dead_lettered": 1}
    (status,) = pipeline.failures.values()
    assert status is not None
    assert (status.cause, status.reason) == ("invalid", SENTENCE.replace("UnicodeDecodeError", error))
    assert pipeline.seen == [1, 2, 3]
    assert source.troubles == []
    (letter,) = source.post.letters
    assert (letter.queue, letter.body) == ("work.dead", b"payload")
    headers = cast("dict[str, Any]", letter.properties.headers)
    assert headers["x-broadway-cause"] == "invalid"
    assert headers["x-broadway-exception"] == "MalformedMessage"
    assert (headers["x-broadway-exchange"], headers["x-broadway-routing-key"]) == ("events", "new")


@pytest.mark.parametrize("where", ["prepare_messages", "handle_batch"])
async def test_its_neighbours_in_one_call_come_again_and_it_does_not(where: str) -> None:
    source = Stream(three())
    pipeline = InBatches(where, producer=source)
    assert await finish(pipeline) == {"retried": 2, "dead_lettered": 1}
    assert causes(pipeline) == {1: "raised", 2: "invalid", 3: "raised"}
    neighbour = pipeline.failures[1]
    assert neighbour is not None
    assert neighbour.reason == f"another message of the same call is malformed: {SENTENCE}"
    assert [letter.queue for letter in source.post.letters if letter.queue != "work.dead"] != []
    assert len(dead_letters(source)) == 1


async def test_a_wrong_error_of_the_users_own_fails_all_that_the_call_was_given() -> None:
    class Own(InBatches):
        async def handle_batch(self, messages: list[Message[bytes]], info: BatchInfo) -> None:
            raise MalformedMessage("all of them")

    source = Stream(b"".join(delivery(1) + delivery(2)))
    assert await finish(Own(producer=source)) == {"dead_lettered": 2}


async def test_a_key_is_looked_for_and_it_fails_alone() -> None:
    source = Stream(three())
    keyed = Processors(concurrency=2, partition_by=lambda message: message.metadata.get("message_id"))
    pipeline = Looking(producer=source, processors=keyed)
    assert await finish(pipeline) == {"acked": 2, "dead_lettered": 1}
    assert causes(pipeline) == {2: "invalid"}


async def test_a_look_in_handle_failed_hinders_no_settlement() -> None:
    class Failing(Looking):
        async def handle_message(self, message: Message[bytes]) -> None:
            raise LookupError

    source = Stream(three())
    assert await finish(Failing("handle_failed", producer=source)) == {"retried": 3}


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create(2)
    yield journal
    journal.close()


@pytest.mark.parametrize("redelivered", [False, True])
@pytest.mark.parametrize("is_somebody_suspected", [False, True])
async def test_in_a_worker_that_keeps_a_journal_it_passes_too(
    journal: Journal, *, redelivered: bool, is_somebody_suspected: bool
) -> None:
    if is_somebody_suspected:
        journal.put(b"somebody else...", SUSPECTED, 1, -6)
    first = delivery(1, redelivered=redelivered)
    source = Stream(b"".join([first[0], LATIN, first[2]]))
    pipeline = InBatches(producer=source)
    pipeline._isolation = Isolation(journal, 0)
    assert await finish(pipeline) == {"acked": 1}
    assert pipeline.seen == [1]


async def test_it_cannot_go_to_another_process_and_fails_alone() -> None:
    source = copy_of(Stream(three()))
    await source.open()
    messages = list(await source.handle_demand(10) or [])
    job = BatchJob(messages, BatchInfo("default", "default", None, 3, "size"))
    assert job.unfinished() == [messages[0], messages[2]]
    status = messages[1].status
    assert status is not None
    assert (status.cause, status.reason) == ("invalid", SENTENCE)


async def test_what_decodes_of_it_is_kept_when_it_is_tried_again() -> None:
    class Failing(Looking):
        async def handle_message(self, message: Message[bytes]) -> None:
            if message.acknowledgement.data.tag == 2:
                raise LookupError

    source = Stream(three(exchange="work.retry.back"))
    assert await finish(Failing(producer=source)) == {"acked": 2, "retried": 1}
    (letter,) = source.post.letters
    assert (letter.properties.message_id, letter.properties.app_id) == (None, "shop")
    headers = cast("dict[str, Any]", letter.properties.headers)
    assert headers["x-broadway-attempt"] == 4


async def test_its_attempts_are_counted_and_end() -> None:
    class Failing(Looking):
        failure = FailurePolicy(attempts=3, breaker=None)

        async def handle_message(self, message: Message[bytes]) -> None:
            if message.acknowledgement.data.tag == 2:
                raise LookupError

    source = Stream(three(exchange="work.retry.back"))
    assert await finish(Failing(producer=source)) == {"acked": 2, "dead_lettered": 1}
