"""Publishes to a queue of SQS, standard or FIFO."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.examination import Finding
from broadway_py.producers.publishing import ConnectingSink, SinkConnection, Unconfirmed
from broadway_py.producers.sqs.dead_letters.letters import portions, weight_of
from broadway_py.producers.sqs.examination import examine_target
from broadway_py.producers.sqs.requests.client import Client
from broadway_py.producers.sqs.requests.errors import Kind, Trouble
from broadway_py.producers.sqs.requests.log_filter import hush
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.producers.sqs.settings.queue_options import SQSQueueOptions
from broadway_py.producers.sqs.trace_attributes import MOST_ATTRIBUTES, LeftOut, attribute, fitting
from broadway_py.publisher import Outgoing
from broadway_py.request_counts import RequestCounts
from broadway_py.trace_place import TracePlace

__all__ = ["MESSAGE_ID", "SQSPublisher", "SQSSink"]

#: The message attribute with the id of a message. SQS gives each message an id of its own, also a repetition.
MESSAGE_ID: Final = "message_id"
#: The most bytes of a message. The queue may take less.
_LONGEST: Final = 1024 * 1024
#: The requests that run at the same time. Those to a FIFO queue run one after the other.
_REQUESTS: Final = 10
#: What SQS takes as a message group and as a deduplication id.
_NAME: Final = re.compile(r"[!-~]{1,128}")
#: Troubles that pass by themselves. The others last until somebody has mended something.
_PASSING: Final[frozenset[Kind]] = frozenset({"away", "busy"})


class SQSPublisher(ConnectingSink):
    """Publishes to a queue of SQS, standard or FIFO.

    ::

        publishers = {"out": SQSPublisher("invoices", region="eu-central-1")}

    ``emit_to`` of an aggregator takes one, too.

    Messages are sent ten at a time, and fewer when they are large. The payload must be UTF-8 text. The headers of a
    message and its id become message attributes; there may be ten. On a FIFO queue the key of a message becomes its
    message group, and its id the deduplication id, so that a repetition within five minutes is stored once. On a
    standard queue a repetition is a second message with the same attribute ``message_id``.

    Args:
        queue_url: the queue's URL, or its name.
        region: such as ``eu-central-1``; default: from the URL, or as AWS programs find it.
        endpoint_url: the address of SQS, if it is not AWS.
        profile: a profile of the AWS config files.

    Raises:
        OptionsError: a setting is wrong.
    """

    def __init__(
        self,
        queue_url: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
    ) -> None:
        given = {"queue_url": queue_url, "region": region, "endpoint_url": endpoint_url, "profile": profile}
        self._given = {name: value for name, value in given.items() if value is not None}
        self.options = SQSQueueOptions(**self._given)

    @property
    def place(self) -> str:
        """Returns the name of the queue."""
        return f"SQS queue {self.options.queue_name!r}"

    @property
    def trace_place(self) -> TracePlace:
        """Returns the queue."""
        return TracePlace("aws_sqs", self.options.queue_name)

    def connection(self, name: str, clock: Clock) -> SinkConnection:
        """Returns what sends to the queue. SQS does not need the *name*."""
        # The client asks for the settings of a producer. It only sends, so the others do not matter.
        return _SQSConnection(SQSOptions(**self._given), clock)

    def examine(self, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what the queue, the permission to send and this machine's clock are like."""
        return examine_target(SQSOptions(**self._given), timeout=timeout)


#: The name of it as a sink of an aggregator.
SQSSink = SQSPublisher


class _SQSConnection(SinkConnection):
    def __init__(self, options: SQSOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._place = f"SQS queue {options.queue_name!r}"
        self._traces = LeftOut(options.queue_name, clock)
        self._client: Client | None = None
        self._url = ""
        self._connecting = asyncio.Lock()
        # Lists to a FIFO queue are sent one after the other, in their order.
        self._turn: asyncio.Lock | nullcontext[None] = asyncio.Lock() if options.is_fifo else nullcontext()
        self._is_closed = False

    async def open(self) -> None:
        """Connects, and checks that the queue exists.

        Raises:
            ProducerError: SQS or the queue is not available, or AWS refuses us.
        """
        try:
            client = await self._connected()
            await client.look(self._url)
        except Trouble as trouble:
            raise trouble.as_loss() from None

    async def send(self, unconfirmed: Unconfirmed) -> None:
        """Sends what waits.

        Raises:
            ProducerError: SQS is not available, or AWS refuses us.
        """
        entries = dict(self._entries(unconfirmed))
        if not entries:
            return
        try:
            client = await self._connected()
        except Trouble as trouble:
            raise trouble.as_loss() from None
        positions = list(entries)
        batches = (
            {positions[at]: entries[positions[at]] for at in portion} for portion in portions(list(entries.values()))
        )
        async with self._turn, asyncio.TaskGroup() as tasks:
            for _ in range(1 if self._options.is_fifo else _REQUESTS):
                tasks.create_task(self._send_each(client, batches, unconfirmed))

    async def _send_each(
        self, client: Client, batches: Iterator[Mapping[int, dict[str, Any]]], unconfirmed: Unconfirmed
    ) -> None:
        """Sends one batch after the other. Several of these share the *batches*."""
        for batch in batches:
            kinds = await self._sent(client, batch, unconfirmed)
            if "wrong" in kinds and len(batch) > 1:
                # SQS may refuse one of them, or all together. Sent one by one, it becomes clear which.
                for position, entry in batch.items():
                    if position in unconfirmed.waiting:
                        await self._sent(client, {position: entry}, unconfirmed)
            if self._options.is_fifo and batch.keys() & unconfirmed.waiting.keys():
                # What failed will be tried again. Later messages of its group must not overtake it.
                return

    async def _sent(self, client: Client, batch: Mapping[int, dict[str, Any]], unconfirmed: Unconfirmed) -> set[Kind]:
        """Sends *batch* in one request, and notes the outcomes. Returns the kinds of trouble."""
        positions = list(batch)
        try:
            failed = await client.send(self._url, list(batch.values()))
        except Trouble as trouble:
            kind: Kind = "wrong" if trouble.kind == "stale" else trouble.kind
            failed = dict.fromkeys(range(len(positions)), kind)
            unconfirmed.fail(str(trouble), lasting=kind not in {*_PASSING, "wrong"})
        else:
            if failed:
                self._note(failed, unconfirmed)
        for at, position in enumerate(positions):
            if at not in failed:
                unconfirmed.confirm(position)
            elif failed[at] == "wrong" and len(positions) == 1:
                waiting = unconfirmed.waiting.get(position)
                bare = None if waiting is None else _without_trace(batch[position], waiting)
                if bare is not None:
                    # The queue may take less than SQS does.
                    self._traces.note(1)
                    return await self._sent(client, {position: bare}, unconfirmed)
                unconfirmed.refuse(
                    position,
                    f"{self._place} does not accept a message of {weight_of(batch[position])} bytes: it is longer than "
                    "the queue takes, or has characters that SQS does not allow",
                )
        return set(failed.values())

    def _note(self, failed: Mapping[int, Kind], unconfirmed: Unconfirmed) -> None:
        kinds = set(failed.values()) - {"wrong"}
        if kinds:
            text = f"{self._place} did not take {len(failed)} messages ({', '.join(sorted(kinds))})"
            if "refused" in kinds:
                text += "; allow sqs:SendMessage on the queue"
            unconfirmed.fail(text, lasting=not kinds <= _PASSING)

    def _entries(self, unconfirmed: Unconfirmed) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields each message as SQS takes it, and refuses those that it never takes."""
        for position, message in list(unconfirmed.waiting.items()):
            try:
                entry = _entry(message, unconfirmed.name(position) if self._options.is_fifo else None)
            except UnicodeError:
                unconfirmed.refuse(position, f"{self._place} takes UTF-8 text only, but a message has other bytes")
                continue
            attributes = entry["MessageAttributes"]
            if not message.data:
                unconfirmed.refuse(position, f"{self._place} takes no message without a payload")
            elif len(attributes) > MOST_ATTRIBUTES:
                unconfirmed.refuse(
                    position,
                    f"{self._place} takes {MOST_ATTRIBUTES} attributes at most, but a message has "
                    f"{len(attributes)}, its id included",
                )
            elif (weight := weight_of(entry)) > _LONGEST:
                unconfirmed.refuse(
                    position, f"{self._place} takes {_LONGEST} bytes at most, but a message has {weight}"
                )
            else:
                if message.trace_headers:
                    self._add_trace(message, attributes, _LONGEST - weight)
                yield position, entry

    def _add_trace(self, message: Outgoing, attributes: dict[str, Any], room_bytes: int) -> None:
        """Adds the trace of *message*, as far as there is room. The message goes out all the same."""
        wanted = {name: value for name, value in message.trace_headers.items() if name not in attributes}
        found = fitting(wanted, len(attributes), room_bytes)
        attributes.update((name, attribute(value)) for name, value in found.items())
        if len(found) < len(wanted):
            self._traces.note(1)

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._is_closed:
                raise Trouble("away", f"{self._place}: the sink is closed")
            if self._client is None:
                hush()
                client = Client(self._options, RequestCounts(), self._clock)
                try:
                    self._url = await client.connect()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        """Closes every connection. Requests that still run fail."""
        self._is_closed = True
        async with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            await client.close()


def _entry(message: Outgoing, name: str | None) -> dict[str, Any]:
    """Returns *message* as SQS takes it. *name*: its id, or one made up for it; None: the queue is no FIFO queue."""
    headers = dict(message.headers)
    if message.message_id is not None:
        headers[MESSAGE_ID] = message.message_id
    entry: dict[str, Any] = {
        "MessageBody": message.data.decode(),
        "MessageAttributes": {name: attribute(value) for name, value in headers.items()},
    }
    if name is not None:
        entry["MessageDeduplicationId"] = _name(message.dedup_id or name)
        # Without a key, it is a group of its own.
        entry["MessageGroupId"] = _name(message.key or name)
    return entry


def _without_trace(entry: Mapping[str, Any], message: Outgoing) -> dict[str, Any] | None:
    """Returns *entry* without what was added of the trace of *message*; None: nothing was."""
    attributes: Mapping[str, Any] = entry["MessageAttributes"]
    added = {name for name in message.trace_headers if name in attributes and name not in message.headers}
    if not added:
        return None
    return {**entry, "MessageAttributes": {name: one for name, one in attributes.items() if name not in added}}


def _name(text: str) -> str:
    """Returns *text* as SQS takes it: as it is, or a digest of it."""
    if _NAME.fullmatch(text):
        return text
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
