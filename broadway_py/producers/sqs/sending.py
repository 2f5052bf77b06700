"""Sends bodies to a queue, for ``broadway send``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError
from broadway_py.producers.sqs.dead_letters.letters import portions
from broadway_py.producers.sqs.requests.client import Client
from broadway_py.producers.sqs.requests.errors import Kind
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.publisher import Outgoing
from broadway_py.request_counts import RequestCounts

__all__ = ["sending"]


@asynccontextmanager
async def sending(options: SQSOptions) -> AsyncIterator[Callable[[Sequence[Outgoing]], Awaitable[None]]]:
    """Yields a function: ``await put(messages)`` returns after SQS has confirmed all messages.

    On a FIFO queue the key of a message is its group. One without a key is a group of its own.

    Raises:
        ProducerError: SQS or the queue is not available, or did not accept a message.
    """
    client = Client(options, RequestCounts(), SYSTEM_CLOCK)
    try:
        url = await client.connect()

        async def put(messages: Sequence[Outgoing]) -> None:
            entries = [_entry(message, options) for message in messages]
            try:
                # With a TaskGroup, no request runs on after an error is reported.
                async with asyncio.TaskGroup() as tasks:
                    for positions in portions(entries):
                        tasks.create_task(_send(client, url, [entries[at] for at in positions], options))
            except* ProducerError as failed:
                raise failed.exceptions[0] from None

        yield put
    finally:
        await client.close()


async def _send(client: Client, url: str, entries: Sequence[dict[str, Any]], options: SQSOptions) -> None:
    failed: dict[int, Kind] = await client.send(url, entries)
    if failed:
        kinds = ", ".join(sorted(set(failed.values())))
        raise ProducerError(
            f"SQS queue {options.queue_name!r} did not take {len(failed)} of {len(entries)} messages ({kinds}); "
            "a body must be text that SQS allows, and no longer than the queue takes"
        )


def _entry(message: Outgoing, options: SQSOptions) -> dict[str, Any]:
    entry: dict[str, Any] = {"MessageBody": message.data.decode(), "MessageAttributes": {}}
    if options.is_fifo:
        entry["MessageDeduplicationId"] = uuid.uuid4().hex
        entry["MessageGroupId"] = message.key or entry["MessageDeduplicationId"]
    return entry
