"""The SQS sink, on a client that is scripted, and the whole sentence for each wrong setting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import pytest

from broadway_py.errors import OptionsError, ProducerError, PublishError
from broadway_py.producers.sqs import SQSSink
from broadway_py.producers.sqs import sink as sinks
from broadway_py.producers.sqs.requests.errors import Kind, Trouble
from broadway_py.publisher import Outgoing, Publisher
from broadway_py.testing import FakeClock, settle

URL = "https://sqs.eu-central-1.amazonaws.com/1/out"

#: What a request ends with: failed entries by position, or trouble.
Answer = Mapping[int, Kind] | Trouble


class Client:
    """All clients in one. Answers are taken in order; after the last, everything is sent."""

    def __init__(self) -> None:
        self.requests: list[list[dict[str, Any]]] = []
        self.answers: list[Answer] = []
        #: What a connect ends with.
        self.refusals: list[Trouble] = []
        self.looked_for: list[str] = []
        self.connects = self.closes = 0
        #: Set: requests do not wait.
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most = 0

    def __call__(self, *_: object) -> Client:
        return self

    async def connect(self) -> str:
        self.connects += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return URL

    async def look(self, url: str) -> None:
        self.looked_for.append(url)

    async def send(self, url: str, entries: Sequence[dict[str, Any]]) -> Mapping[int, Kind]:
        assert url == URL
        self.requests.append(list(entries))
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Trouble):
            raise answer
        return answer

    async def close(self) -> None:
        self.closes += 1

    @property
    def bodies(self) -> list[list[str]]:
        return [[entry["MessageBody"] for entry in entries] for entries in self.requests]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(sinks, "Client", made)
    return made


def publisher(queue: str = "out", clock: FakeClock | None = None) -> Publisher:
    return SQSSink(queue, "eu-central-1").create("shop.revenue", clock or FakeClock())


def messages(count: int, **more: Any) -> list[Outgoing]:
    return [Outgoing(data=b"%d" % number, message_id=f"w{number}#1", **more) for number in range(count)]


async def failed(publishing: Awaitable[None]) -> PublishError:
    with pytest.raises(PublishError) as error:
        await publishing
    return error.value


async def test_a_message_has_its_id_and_its_headers_as_attributes(client: Client) -> None:
    post = publisher()
    await post.publish([Outgoing(data="ä".encode(), message_id="w#1", key="DE", headers={"x": "y"})], timeout=60.0)
    await post.close()

    assert client.requests == [
        [
            {
                "MessageBody": "ä",
                "MessageAttributes": {
                    "x": {"DataType": "String", "StringValue": "y"},
                    "message_id": {"DataType": "String", "StringValue": "w#1"},
                },
            }
        ]
    ]
    assert (client.connects, client.closes) == (1, 1)


async def test_on_a_fifo_queue_the_key_is_the_group_and_the_id_names_repetitions(client: Client) -> None:
    post = publisher("out.fifo")
    given = [
        Outgoing(data=b"0", message_id="w#1", key="DE"),
        Outgoing(data=b"1", message_id="w w#1", key="ä"),
        Outgoing(data=b"2"),
        Outgoing(data=b"3"),
    ]
    await post.publish(given, timeout=60.0)
    await post.close()

    ((plain, odd, *nameless),) = client.requests
    assert (plain["MessageGroupId"], plain["MessageDeduplicationId"]) == ("DE", "w#1")
    # SQS takes no spaces and no letters beyond ASCII there, so these are digests.
    assert odd["MessageGroupId"] == "cb4d3892d2cb5e6b1bd63f7e4247a02e"
    assert odd["MessageDeduplicationId"] == "e1f9c42b82f9f8cf7b731c776536e89e"
    assert len({entry["MessageGroupId"] for entry in nameless}) == 2
    assert len({entry["MessageDeduplicationId"] for entry in nameless}) == 2


async def test_ten_are_sent_at_a_time_and_fewer_when_they_are_large(client: Client) -> None:
    post = publisher()
    await post.publish(messages(23), timeout=60.0)
    large = [Outgoing(data=b"x" * 100_000) for _ in range(5)]
    await post.publish(large, timeout=60.0)
    await post.close()

    assert [len(entries) for entries in client.requests] == [10, 10, 3, 2, 2, 1]


async def test_requests_run_side_by_side_but_no_more_than_ten(client: Client) -> None:
    client.gate.clear()
    post = publisher()
    publishing = asyncio.ensure_future(post.publish(messages(200), timeout=60.0))
    await settle()
    client.gate.set()
    await publishing
    await post.close()

    assert (len(client.requests), client.most) == (20, 10)


async def test_on_a_fifo_queue_one_request_runs_at_a_time(client: Client) -> None:
    post = publisher("out.fifo")
    await post.publish(messages(30), timeout=60.0)
    await post.close()

    assert (len(client.requests), client.most) == (3, 1)


async def test_on_a_fifo_queue_nothing_overtakes_what_is_tried_again(client: Client) -> None:
    client.answers = [{9: "busy"}]
    clock = FakeClock()
    post = publisher("out.fifo", clock)
    publishing = asyncio.ensure_future(post.publish(messages(12, key="DE"), timeout=60.0))

    await clock.advance(1.0)

    await publishing
    await post.close()
    assert client.bodies == [[str(number) for number in range(10)], ["9", "10", "11"]]


async def test_entries_that_failed_are_sent_again_and_no_others(client: Client) -> None:
    client.answers = [{1: "busy", 2: "away"}]
    clock = FakeClock()
    post = publisher(clock=clock)
    publishing = asyncio.ensure_future(post.publish(messages(4), timeout=60.0))

    await clock.advance(1.0)

    await publishing
    await post.close()
    assert client.bodies == [["0", "1", "2", "3"], ["1", "2"]]


async def test_a_request_that_was_lost_is_sent_again(client: Client) -> None:
    client.answers = [Trouble("away", "SQS queue 'out': the connection broke during SendMessage")]
    clock = FakeClock()
    post = publisher(clock=clock)
    publishing = asyncio.ensure_future(post.publish(messages(2), timeout=60.0))

    await clock.advance(1.0)

    await publishing
    await post.close()
    assert client.bodies == [["0", "1"], ["0", "1"]]


async def test_when_the_time_is_over_the_error_says_why(client: Client) -> None:
    client.answers = [{0: "busy"}] * 1_000
    clock = FakeClock()
    post = publisher(clock=clock)
    given = messages(2)
    publishing = asyncio.ensure_future(post.publish(given, timeout=10.0))

    await clock.advance(10.0)

    error = await failed(publishing)
    await post.close()
    assert str(error) == "1 of 2 messages were not confirmed: SQS queue 'out' did not take 1 messages (busy)"
    assert (error.unpublished, error.refused) == (given[:1], [])


async def test_a_message_that_sqs_does_not_accept_is_found_and_the_others_are_sent(client: Client) -> None:
    client.answers = [Trouble("wrong", "SQS queue 'out': SQS did not accept SendMessage"), {}, {0: "wrong"}, {}]
    post = publisher()
    given = messages(3)

    error = await failed(post.publish(given, timeout=60.0))
    await post.close()

    assert client.bodies == [["0", "1", "2"], ["0"], ["1"], ["2"]]
    assert str(error) == (
        "1 of 3 messages were not confirmed: SQS queue 'out' does not accept a message of 21 bytes: it is longer than "
        "the queue takes, or has characters that SQS does not allow"
    )
    assert error.unpublished == error.refused == given[1:2]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Outgoing(data=b"\xff"), "SQS queue 'out' takes UTF-8 text only, but a message has other bytes"),
        (
            Outgoing(data=b"x" * (1024 * 1024 + 1)),
            "SQS queue 'out' takes 1048576 bytes at most, but a message has 1048577",
        ),
        (
            Outgoing(data=b"x", message_id="w#1", headers={f"h{number}": "y" for number in range(10)}),
            "SQS queue 'out' takes 10 attributes at most, but a message has 11, its id included",
        ),
    ],
    ids=["not text", "too long", "too many headers"],
)
async def test_what_sqs_never_takes_is_refused_without_a_request(client: Client, odd: Outgoing, reason: str) -> None:
    post = publisher()
    given = [*messages(1), odd]

    error = await failed(post.publish(given, timeout=60.0))
    await post.close()

    assert str(error) == f"1 of 2 messages were not confirmed: {reason}"
    assert error.unpublished == error.refused == [odd]
    assert client.bodies == [["0"]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Trouble("gone", "SQS queue 'out' does not exist"), "SQS queue 'out' does not exist"),
        ({0: "refused"}, "SQS queue 'out' did not take 1 messages (refused); allow sqs:SendMessage on the queue"),
    ],
    ids=["no queue", "not permitted"],
)
async def test_what_somebody_must_mend_is_told_at_once(client: Client, answer: Answer, reason: str) -> None:
    client.answers = [answer]
    post = publisher()
    given = messages(1)

    error = await failed(post.publish(given, timeout=60.0))
    await post.close()

    assert str(error) == f"1 of 1 messages were not confirmed: {reason}"
    assert (error.unpublished, error.refused) == (given, [])


async def test_open_looks_for_the_queue(client: Client) -> None:
    post = publisher()
    await post.open()
    await post.close()

    assert client.looked_for == [URL]


async def test_a_connect_that_failed_is_ended_and_tried_again(client: Client) -> None:
    client.refusals = [Trouble("away", "SQS queue 'out': SQS cannot be reached")]
    post = publisher()

    with pytest.raises(ProducerError, match=r"^SQS queue 'out': SQS cannot be reached$"):
        await post.open()
    assert client.closes == 1

    await post.publish(messages(1), timeout=60.0)
    await post.close()
    assert (client.connects, client.closes) == (2, 2)


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        SQSSink(**settings)
    return str(wrong.value)


def test_wrong_settings_are_refused_with_whole_sentences() -> None:
    expected = (
        "expected the URL of a queue, such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders, or its name"
    )
    assert complaint() == "queue_url: required, but missing"
    assert complaint(queue_url="no queue") == f"queue_url: {expected}"
    assert complaint(queue_url=URL, region="us-east-1") == (
        "region: got us-east-1, but the host in queue_url is in eu-central-1, and would refuse every request: "
        "leave region out, or correct one of the two"
    )
    assert complaint(queue_url="out", endpoint_url="here") == (
        "endpoint_url: expected http://host:port or https://host, without user and password"
    )


def test_the_place_is_shown() -> None:
    assert repr(SQSSink(URL)) == "<SQSPublisher SQS queue 'out'>"
