"""Sends bodies to a queue, for ``broadway send``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError, PublishError
from broadway_py.producers.sqs.dead_letters.letters import portions
from broadway_py.producers.sqs.requests.client import Client
from broadway_py.producers.sqs.requests.errors import Trouble
from broadway_py.producers.sqs.requests.patient import Failure, Requests
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.publisher import Outgoing
from broadway_py.request_counts import RequestCounts

__all__ = ["sending"]

_NOT_TEXT: Final = "it is not UTF-8 text, and SQS takes nothing else"
_NOT_REACHED: Final = "a message in front of it was not taken, and this queue keeps the order"


@asynccontextmanager
async def sending(options: SQSOptions) -> AsyncIterator[Callable[[Sequence[Outgoing]], Coroutine[Any, Any, None]]]:
    """Yields a function: ``await put(messages)`` returns after SQS has confirmed all messages.

    What is throttled, or has no answer, is sent again for a while. On a FIFO queue the key of a message is its group,
    and one without a key is a group of its own. There the messages are sent in their order, ten at once.

    Raises:
        ProducerError: SQS or the queue is not available.
        PublishError: it has not taken some of the messages. All others are confirmed.
    """
    client = Client(options, RequestCounts(), SYSTEM_CLOCK)
    requests = Requests(SYSTEM_CLOCK)
    try:
        url = await client.connect()

        async def put(messages: Sequence[Outgoing]) -> None:
            entries = {at: _entry(message, options) for at, message in enumerate(messages)}
            failed: dict[int, Failure | str] = {at: _NOT_TEXT for at, entry in entries.items() if entry is None}
            fit = [(at, entry) for at, entry in entries.items() if entry is not None]
            groups = [[fit[position] for position in group] for group in portions([entry for _, entry in fit])]
            send = partial(_send, client, requests, url)
            if options.is_fifo:
                for group in groups:
                    failed |= dict.fromkeys((at for at, _ in group), _NOT_REACHED) if failed else await send(group)
            else:
                for part in await asyncio.gather(*map(send, groups)):
                    failed |= part
            if failed:
                raise _not_sent(messages, failed, options)

        yield put
    finally:
        await client.close()


async def _send(
    client: Client, requests: Requests, url: str, group: Sequence[tuple[int, Mapping[str, Any]]]
) -> Mapping[int, Failure | str]:
    """Sends at most ten. Returns those that were not taken, and why."""
    failed = await requests.in_batch(partial(client.send, url), [entry for _, entry in group])
    return {group[position][0]: why for position, why in failed.items()}


def _not_sent(
    messages: Sequence[Outgoing], failed: Mapping[int, Failure | str], options: SQSOptions
) -> ProducerError | PublishError:
    first = failed[min(failed)]
    if isinstance(first, Trouble) and len(failed) == len(messages):
        return first
    if isinstance(first, Trouble):
        reason = str(first)
    elif first in {_NOT_TEXT, _NOT_REACHED}:
        reason = f"SQS queue {options.queue_name!r}: {first}"
    else:
        reason = (
            f"SQS queue {options.queue_name!r} did not take it ({first}); a body must be text that SQS allows, and no "
            "longer than the queue takes"
        )
    return PublishError(reason, unpublished=[messages[at] for at in sorted(failed)])


def _entry(message: Outgoing, options: SQSOptions) -> dict[str, Any] | None:
    """Returns *message* as SQS wants it; None: it is no text."""
    try:
        entry: dict[str, Any] = {"MessageBody": message.data.decode(), "MessageAttributes": {}}
    except UnicodeDecodeError:
        return None
    if options.is_fifo:
        entry["MessageDeduplicationId"] = uuid.uuid4().hex
        entry["MessageGroupId"] = message.key or entry["MessageDeduplicationId"]
    return entry
