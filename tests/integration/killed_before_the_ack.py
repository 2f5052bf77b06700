"""A program that fails a message and is killed as soon as its dead letter is confirmed, before the ack."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from broadway_py import FailurePolicy
from broadway_py.errors import ProducerError
from broadway_py.message import Message
from broadway_py.producers import RabbitMQProducer
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder
from tests.integration.failing_pipelines import Failing, raising

_dead_letter = Forwarder.dead_letter


async def dead_letter_and_die(
    self: Forwarder, failed: Sequence[Message[Any]], *, cause: str | None = None
) -> list[ProducerError | None]:
    """What is confirmed is never acked."""
    reasons = await _dead_letter(self, failed, cause=cause)
    assert reasons == [None]
    os.kill(os.getpid(), signal.SIGKILL)
    return reasons


async def main() -> None:
    """The program."""
    Forwarder.dead_letter = dead_letter_and_die  # type: ignore[method-assign]  # that is what this program is for
    policy = FailurePolicy(attempts=1)
    pipeline = Failing(producer=RabbitMQProducer("work", sys.argv[1]), context=raising(ValueError()), failure=policy)
    async with pipeline:
        await pipeline.wait()


if __name__ == "__main__":
    asyncio.run(main())
