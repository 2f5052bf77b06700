"""A source with partitions on a real RabbitMQ: each key in one of them, each of them with one reader at a time."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aio_pika
import pytest
from typer.testing import CliRunner, Result

from broadway_py import FailurePolicy, RabbitMQSink
from broadway_py.cli import app
from broadway_py.producers import RabbitMQProducer
from broadway_py.producers.rabbitmq.topology import partition_exchange
from broadway_py.publisher import Outgoing
from broadway_py.testing.driving import data, opened, refusal, settle, take
from tests.integration.failing_pipelines import Failing, dead_letters, queues, raising
from tests.pipeline.support import logged
from tests.support.erlang import binary
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]

#: More than ten, so that the order of the names is not that of the numbers.
PARTITIONS: Final = 12
KEYS: Final = [f"key-{number}" for number in range(100)]


def divided(broker: RabbitMQ, partitions: int = 3, **settings: Any) -> RabbitMQProducer:
    return RabbitMQProducer("work", broker.url, **{"partitions": partitions, "declare": "active", **settings})


async def publish(broker: RabbitMQ, keys: Iterable[str]) -> None:
    """One message for each key, by the exchange; returns when the broker has confirmed them."""
    await broker._connected()
    exchange = await broker.channel.get_exchange("work")
    for key in keys:
        await exchange.publish(aio_pika.Message(key.encode(), delivery_mode=2), routing_key=key)


async def taken_from(broker: RabbitMQ, partitions: int) -> dict[str, list[str]]:
    """What lies in the queue of each partition, without the help of the producer; the queues are empty afterwards."""
    await broker._connected()
    found: dict[str, list[str]] = defaultdict(list)
    for name in [f"work.{number}" for number in range(partitions)]:
        queue = await broker.channel.get_queue(name)
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found[name].append(message.body.decode())
    return found


@pytest.mark.faults
async def test_a_key_lies_in_one_partition_also_after_the_broker_was_restarted(rabbitmq: RabbitMQ) -> None:
    # The reader of one partition makes all of them: a key whose partition is missing would go to another one.
    async with opened(divided(rabbitmq, PARTITIONS).partition(7)):
        pass
    await publish(rabbitmq, KEYS * 2)
    before = await taken_from(rabbitmq, PARTITIONS)
    assert sorted(before) == sorted(f"work.{number}" for number in range(PARTITIONS))
    assert sorted(key for keys in before.values() for key in keys) == sorted(KEYS * 2)
    assert sum(len(set(keys)) for keys in before.values()) == len(KEYS), "a key lies in two partitions"

    assert rabbitmq.node is not None
    await rabbitmq.disconnect()
    await asyncio.to_thread(rabbitmq.node.stop_application)
    await asyncio.to_thread(rabbitmq.node.start_application)

    await publish(rabbitmq, KEYS * 2)
    assert await taken_from(rabbitmq, PARTITIONS) == before


async def test_the_sink_for_the_exchange_keeps_the_results_of_a_key_together(rabbitmq: RabbitMQ) -> None:
    whole = divided(rabbitmq)
    async with AsyncExitStack() as stack:
        copies = [await stack.enter_async_context(opened(whole.partition(index))) for index in range(3)]
        publisher = RabbitMQSink(rabbitmq.url, exchange="work").create("test")
        results = [Outgoing(data=key.encode(), key=key) for key in KEYS[:30] * 2]
        await publisher.publish(results, timeout=10.0)
        await publisher.close()

        seen: dict[bytes, set[int]] = defaultdict(set)
        waiting = [asyncio.create_task(_each(copy, index, seen)) for index, copy in enumerate(copies)]
        await eventually(lambda: len(seen) == 30, what="each key has come")
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
    assert {len(partitions) for partitions in seen.values()} == {1}
    assert set().union(*seen.values()) == {0, 1, 2}


async def test_lines_that_are_sent_lie_where_the_sink_puts_their_keys(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Also keys that are too long for a routing key."""
    keys = [*KEYS[:30], *(key + "x" * 250 for key in KEYS[30:40])]
    file = settings_file(tmp_path, rabbitmq, declare="active")
    lines = tmp_path / "lines"
    lines.write_text("".join(f'{{"key": "{key}"}}\n' for key in keys))
    words = ["send", str(file), "--key", "key", str(lines)]
    sent = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert (sent.exit_code, sent.stdout) == (0, "40 lines were put on the queue\n"), sent.output
    by_line = {queue: [json.loads(line)["key"] for line in found] for queue, found in await _all(rabbitmq)}

    publisher = RabbitMQSink(rabbitmq.url, exchange="work").create("test")
    await publisher.publish([Outgoing(data=key.encode(), key=key) for key in keys], timeout=10.0)
    await publisher.close()

    by_sink = dict(await _all(rabbitmq))
    assert sorted(by_line) == ["work.0", "work.1", "work.2"]
    assert {queue: sorted(found) for queue, found in by_line.items()} == {
        queue: sorted(found) for queue, found in by_sink.items()
    }


async def _all(broker: RabbitMQ) -> list[tuple[str, list[str]]]:
    return list((await taken_from(broker, 3)).items())


def settings_file(folder: Path, broker: RabbitMQ, **producer: object) -> Path:
    section = {
        "class": "tests.integration.failing_pipelines:Failing",
        "producer": {"kind": "rabbitmq", "queue": "work", "url": broker.url, "partitions": 3, **producer},
    }
    file = folder / "settings.json"
    file.write_text(json.dumps({"pipelines": {"shop": section}}))
    return file


async def _each(copy: Any, index: int, seen: dict[bytes, set[int]]) -> None:
    while True:
        messages = await take(copy, 1)
        for message in messages:
            seen[message.data].add(index)
        await settle(messages)


async def test_a_second_reader_stands_by_and_takes_over_when_the_connection_of_the_first_is_gone(
    rabbitmq: RabbitMQ,
) -> None:
    losses: list[Any] = []
    async with (
        opened(divided(rabbitmq, name="first").partition(1).for_order(), losses=losses) as first,
        opened(divided(rabbitmq, name="second").partition(1).for_order()) as second,
    ):
        await rabbitmq.publish([b"one", b"two"], queue="work.1")
        assert data(await take(first, 2)) == [b"one", b"two"]
        waiting = asyncio.create_task(take(second, 2))
        await rabbitmq.until("work.1", ready=0, unacked=2)
        assert not waiting.done()

        await rabbitmq._ask(
            f'[rabbit_networking:close_connection(P, "why") || P <- {rabbitmq._others()},'
            " [{_, Fields}] <- [rabbit_networking:connection_info(P, [client_properties])],"
            f" {{_, _, {binary('contract.first.1.0')}}} <- Fields], ok"
        )

        again = await waiting
        assert data(again) == [b"one", b"two"]
        assert [message.metadata["redelivered"] for message in again] == [True, True]
        await settle(again)
        await rabbitmq.until("work.1", ready=0, unacked=0)
    assert len(losses) == 1


@asynccontextmanager
async def failing(broker: RabbitMQ, **options: Any) -> AsyncIterator[Failing]:
    """A pipeline on partition 2."""
    pipeline = Failing(
        producer=divided(broker).partition(2), context=raising(ValueError()), **{"name": "shop", **options}
    )
    async with pipeline:
        await pipeline.ready(10)
        yield pipeline


async def test_a_retry_comes_back_to_its_partition_and_dead_letters_have_one_place(rabbitmq: RabbitMQ) -> None:
    failure = FailurePolicy(attempts=3, backoff=(0.2, 1.0), breaker=None)
    async with opened(divided(rabbitmq).partition(0)), failing(rabbitmq, failure=failure) as pipeline:
        await rabbitmq.publish([b"bad"], queue="work.2")
        await rabbitmq.until_ready(1, "work.dead", timeout=20)

    assert pipeline.attempts[b"bad"] == [1, 2, 3]
    assert {message.producer for message in pipeline.messages} == {"rabbitmq.2"}
    (letter,) = await dead_letters(rabbitmq)
    assert letter.headers["x-broadway-queue"] == "work.2"
    assert sorted(name for name in await queues(rabbitmq) if name.endswith(".dead")) == ["work.dead"]


async def test_dead_letters_are_listed_together_and_go_back_to_their_partitions(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    async with failing(rabbitmq, failure=FailurePolicy(attempts=1, breaker=None)):
        await rabbitmq.publish([b"bad"], queue="work.2")
        await rabbitmq.until_ready(1, "work.dead", timeout=20)
    file = settings_file(tmp_path, rabbitmq)

    listed = await dlq("ls", "--config", str(file))
    assert (listed.exit_code, len(listed.stdout.splitlines())) == (0, 2), listed.output
    assert (await dlq("ls", "--config", str(file), "--queue", "work")).stdout == listed.stdout
    strange = await dlq("ls", "--config", str(file), "--queue", "work.2")
    assert "--queue work.2: pipeline shop does not read it; it reads work" in strange.stderr

    done = await dlq("replay", "--config", str(file))
    assert (done.exit_code, done.stdout) == (0, "1 dead letter put back into the queue\n"), done.output
    await rabbitmq.until_ready(0, "work.dead")
    (message,) = await dead_letters(rabbitmq, "work.2")
    assert message.body == b"bad"


async def dlq(*words: str) -> Result:
    """Run the command in a thread, for it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["dlq", *words])


async def test_passive_declares_nothing_and_names_the_queue_that_is_missing(rabbitmq: RabbitMQ) -> None:
    whole = divided(rabbitmq, declare="passive")
    await rabbitmq.declare("work.0", **{"x-single-active-consumer": True})
    async with opened(whole.partition(0)) as copy:
        await rabbitmq.publish([b"one"], queue="work.0")
        await settle(await take(copy, 1))
    assert str(await refusal(whole.partition(1))) == (
        f"queue 'work.1' does not exist on {rabbitmq.where}; create it or set declare: active"
    )
    assert await queues(rabbitmq) == ["work.0"]


@pytest.mark.parametrize("plugin", ["switched off", "never there"])
async def test_a_broker_without_the_plugin_says_what_to_enable(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    kind = "x-modulus-hash"
    async with AsyncExitStack() as stack:
        if plugin == "switched off":
            await stack.enter_async_context(without_exchanges(rabbitmq, kind))
        else:
            kind = "x-unheard-of"
            monkeypatch.setattr(partition_exchange, "_BY_NAME", kind)
        assert str(await refusal(divided(rabbitmq).partition(0))) == (
            f"RabbitMQ at {rabbitmq.where} has no exchanges of type {kind}, which partitions need: run "
            "rabbitmq-plugins enable rabbitmq_sharding on each node, or use RabbitMQ 4.3 or newer, which has it built "
            "in"
        )


@asynccontextmanager
async def without_exchanges(broker: RabbitMQ, kind: str) -> AsyncIterator[None]:
    """No exchange of this *kind* can be declared."""
    found = await broker._ask(f"{{ok, M}} = rabbit_registry:lookup_module(exchange, '{kind}'), M")
    await broker._ask(f'rabbit_registry:unregister(exchange, <<"{kind}">>)')
    try:
        yield
    finally:
        await broker._ask(f'rabbit_registry:register(exchange, <<"{kind}">>, {found.strip()})')


async def test_an_exchange_of_another_type_is_named(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.channel.declare_exchange("work", "topic", durable=True)
    said = str(await refusal(divided(rabbitmq).partition(0)))
    assert said.startswith(f"exchange 'work' on {rabbitmq.where} does not divide messages into partitions: ")
    assert "current is 'topic'" in said
    assert said.endswith("; delete it, or give queue another name")


async def test_a_consistent_hash_exchange_is_used_with_a_warning_where_keys_move(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    await rabbitmq.channel.declare_exchange("work", "x-consistent-hash", durable=True)
    async with opened(divided(rabbitmq).partition(0)):
        await publish(rabbitmq, KEYS)
    found = await taken_from(rabbitmq, 3)
    assert sum(map(len, found.values())) == len(KEYS)
    warned = [line for line in logged(caplog) if "x-consistent-hash" in str(line)]
    assert bool(warned) == (rabbitmq.version < (4, 3))
