"""What a test makes in the virtual host of the user's broker is noted, so that it can go again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiormq
import pytest

__all__ = ["Made", "noting"]


@dataclass
class Made:
    """Names of queues and exchanges."""

    queues: set[str] = field(default_factory=set)
    exchanges: set[str] = field(default_factory=set)


@contextmanager
def noting() -> Iterator[Made]:
    """Note what this process declares while the block runs: the test, or the pipeline that it tries out.

    There is no asking a broker for its queues over AMQP. What a process of its own declares is not noted.
    """
    made = Made()
    declare_queue, declare_exchange = aiormq.Channel.queue_declare, aiormq.Channel.exchange_declare

    async def queue_declare(channel: aiormq.Channel, queue: str = "", **options: Any) -> Any:
        if queue and not options.get("passive"):
            made.queues.add(queue)  # before: it may be made and the answer lost
        answer = await declare_queue(channel, queue, **options)
        if not options.get("passive"):
            made.queues.add(str(answer.queue))  # the broker may have chosen the name
        return answer

    async def exchange_declare(channel: aiormq.Channel, exchange: str = "", **options: Any) -> Any:
        if not options.get("passive"):
            made.exchanges.add(exchange)
        return await declare_exchange(channel, exchange, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiormq.Channel, "queue_declare", queue_declare)
        patch.setattr(aiormq.Channel, "exchange_declare", exchange_declare)
        yield made
