"""A pipeline on a real RabbitMQ whose messages fail, and what became of them as the broker has it."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import aio_pika

from broadway_py import FailurePolicy, Message, Pipeline
from broadway_py.producers import RabbitMQProducer
from tests.support.erlang import binary
from tests.support.rabbitmq import RabbitMQ

#: Fast, and without a breaker: every message here fails.
QUICK: Final = FailurePolicy(attempts=4, backoff=(0.2, 5.0), breaker=None)


class Failing(Pipeline[bytes]):
    """Raises what its context says, and notes when it was given what."""

    failure: FailurePolicy | None = QUICK

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[bytes, list[float]] = defaultdict(list)
        self.attempts: dict[bytes, list[int | None]] = defaultdict(list)
        self.messages: list[Message[bytes]] = []

    async def handle_message(self, message: Message[bytes]) -> None:
        self.seen[message.data].append(time.monotonic())
        self.attempts[message.data].append(message.attempt)
        self.messages.append(message)
        if self.context is not None:
            self.context(message)


def raising(error: Exception) -> Callable[[Message[bytes]], None]:
    def fail(message: Message[bytes]) -> None:
        raise error

    return fail


def source(broker: RabbitMQ, queue: str = "work", **settings: Any) -> RabbitMQProducer:
    return RabbitMQProducer(queue, broker.url, **settings)


async def dead_letters(broker: RabbitMQ, queue: str = "work.dead") -> list[aio_pika.abc.AbstractIncomingMessage]:
    found = []
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        dead = await channel.declare_queue(queue, passive=True)
        while (letter := await dead.get(fail=False)) is not None:
            found.append(letter)
    return found


async def until_there(broker: RabbitMQ, queue: str, *, ready: int = 1) -> None:
    """Wait until *queue* has been made and holds so many messages."""
    await broker.until_ready(ready, queue, timeout=20)


async def queues(broker: RabbitMQ) -> list[str]:
    names = await broker._ask(
        f"[N || Q <- rabbit_amqqueue:list({binary(broker.vhost)}), {{_, _, _, N}} <- [element(2, Q)]]"
    )
    return re.findall(r'<<"([^"]*)">>', names)
