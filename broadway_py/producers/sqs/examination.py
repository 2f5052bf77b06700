"""What ``broadway check --connect`` asks SQS. No message is received, sent or deleted, and nothing is changed.

Permissions are tested by requests that SQS must refuse for another reason: receipt handles that no message has, a
message without a body, a receive that would wait for too long.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.examination import Finding, Level, counted
from broadway_py.producer import FailurePlan
from broadway_py.producers.sqs.requests.client import Client
from broadway_py.producers.sqs.requests.errors import Kind, Trouble, of_error, refused_request
from broadway_py.producers.sqs.requests.log_filter import hush
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.request_counts import RequestCounts

__all__ = ["examine_source", "examine_target"]

T = TypeVar("T")

#: From so many seconds on, a difference of the clocks is told, and is wrong. AWS refuses requests whose time differs by
#: 5 to 15 minutes.
_SOME_SKEW_S: Final = 30.0
_MOST_SKEW_S: Final = 300.0
_ASKED: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "RedrivePolicy",
    "VisibilityTimeout",
)
#: Troubles that end the examination of a queue: every other request would have them, too.
_PASSING: Final[frozenset[Kind]] = frozenset({"away", "busy"})


async def examine_source(
    options: SQSOptions, plan: FailurePlan | None, *, timeout: float, clock: Clock = SYSTEM_CLOCK
) -> AsyncGenerator[Finding, None]:
    """Yields what is found out about the queue in *options*, and about the places of its dead letters."""
    examined = _Queue(options, timeout, clock)
    async with aclosing(examined.findings(examined.source(plan))) as findings:
        async for finding in findings:
            yield finding
    if options.dead_letter_queue is None:
        return
    place = {
        "queue_url": options.dead_letter_queue,
        "dead_letter_queue": None,
        "endpoint_url": options.endpoint,
        "region": options.region_name,
    }
    dead = examine_target(options.model_copy(update=place), timeout=timeout, clock=clock)
    async with aclosing(dead) as findings:
        async for finding in findings:
            yield replace(finding, setting=("dead_letter_queue",)) if finding.setting == ("queue_url",) else finding


async def examine_target(
    options: SQSOptions, *, timeout: float, clock: Clock = SYSTEM_CLOCK
) -> AsyncGenerator[Finding, None]:
    """Yields what is found out about the queue in *options*, to which messages are sent."""
    examined = _Queue(options, timeout, clock)
    async with aclosing(examined.findings(examined.target())) as findings:
        async for finding in findings:
            yield finding


class _Queue:
    def __init__(self, options: SQSOptions, timeout: float, clock: Clock) -> None:
        hush()
        self._options = options
        self._timeout = timeout
        self._clock = clock
        self._client = Client(options, RequestCounts(), clock, answered=self._note_time)
        self._named = f"SQS queue {options.queue_name!r}"
        self._url = ""
        self._attributes: Mapping[str, str] = {}
        #: How many seconds the clock of this machine is ahead of that of SQS; None: it is not known.
        self._ahead_s: float | None = None

    def _note_time(self, headers: Mapping[str, str]) -> None:
        try:
            self._ahead_s = self._clock.wall() - parsedate_to_datetime(headers.get("date", "")).timestamp()
        except ValueError:
            return

    async def findings(self, part: AsyncGenerator[Finding, None]) -> AsyncGenerator[Finding, None]:
        """Yields what the clock and the queue are like, and then what *part* finds out. Closes the client."""
        try:
            async with aclosing(part):
                trouble = await self._connect()
                for finding in self._of_clock():
                    yield finding
                if trouble is not None:
                    # With a wrong clock AWS refuses every request, whatever the credentials are.
                    if not (self._is_clock_wrong and trouble.kind in ("refused", "expired")):
                        yield self._of(trouble)
                    return
                yield Finding("right", f"{self._named} is there: {self._shown()}")
                async for finding in part:
                    yield finding
        except Trouble as trouble:
            yield self._of(trouble)
        finally:
            await self._client.close()

    async def _connect(self) -> Trouble | None:
        """Asks for the queue. Returns why that did not work."""
        try:
            self._url = await self._ask("GetQueueUrl", self._client.connect())
            self._attributes = await self._ask("GetQueueAttributes", self._client.attributes(self._url, _ASKED))
        except Trouble as trouble:
            return trouble
        return None

    async def source(self, plan: FailurePlan | None) -> AsyncGenerator[Finding, None]:
        """Yields whether messages may be received and settled, and where SQS moves those that fail."""
        refused: list[Trouble] = []
        for trouble in (
            await self._tried("ReceiveMessage", self._client.try_to_receive(self._url)),
            await self._tried("DeleteMessage", self._client.delete(self._url, ["permission-test"])),
            await self._tried(
                "ChangeMessageVisibility", self._client.change_visibility(self._url, [("permission-test", 0)])
            ),
        ):
            if trouble is not None:
                refused.append(trouble)
                yield self._of(trouble)
        if not refused:
            yield Finding("right", f"{self._named}: these credentials may receive, delete and hide messages")
        policy = self._attributes.get("RedrivePolicy")
        if policy:
            yield await self._of_redrive(json.loads(policy))
        elif self._options.dead_letter_queue is None and plan is not None and "dead_letter" in plan.actions:
            yield Finding(
                "note",
                f"{self._named} has no redrive policy and dead_letter_queue is not set: a failed message comes again "
                "until its retention period ends",
            )

    async def target(self) -> AsyncGenerator[Finding, None]:
        """Yields whether messages may be sent."""
        message = {"MessageBody": ""}
        if self._options.is_fifo:
            message |= {"MessageGroupId": "permission-test", "MessageDeduplicationId": uuid.uuid4().hex}
        trouble = await self._tried("SendMessage", self._client.send(self._url, [message]))
        if trouble is not None:
            yield self._of(trouble)
        else:
            yield Finding("right", f"{self._named}: these credentials may send messages")

    async def _tried(self, request: str, attempt: Awaitable[Mapping[int, Kind] | None]) -> Trouble | None:
        """Returns the trouble of *attempt* if the permission for *request* is missing.

        Raises:
            Trouble: SQS is not available.
        """
        try:
            failed = await self._ask(request, attempt)
        except Trouble as trouble:
            if trouble.kind in _PASSING:
                raise
            return trouble if trouble.kind in ("refused", "expired", "gone") else None
        return refused_request(self._options, request) if "refused" in (failed or {}).values() else None

    async def _of_redrive(self, policy: Mapping[str, Any]) -> Finding:
        *_, account, name = str(policy.get("deadLetterTargetArn", "")).split(":")
        moved = f"after {policy.get('maxReceiveCount')} receives SQS moves a message to {name!r}"
        try:
            await self._ask("GetQueueUrl", self._client.url_of(name, account))
        except Trouble as trouble:
            if trouble.kind in _PASSING:
                raise
            if trouble.kind == "gone":
                return Finding(
                    "wrong",
                    f"{self._named}: {moved}, but there is no such queue; create it, or correct the redrive policy",
                    ("queue_url",),
                )
            return Finding("note", f"{self._named}: {moved}; these credentials may not look whether it exists")
        return Finding("right", f"{self._named}: {moved}, which is there")

    async def _ask(self, request: str, answer: Awaitable[T]) -> T:
        """Returns the *answer* to *request*. Raises Trouble, also if it takes too long."""
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError as error:
            raise of_error(error, request, self._options) from None

    def _shown(self) -> str:
        ready, hidden, visibility = (
            int(self._attributes.get(name, 0))
            for name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "VisibilityTimeout")
        )
        return f"{counted(ready, 'message')} ready, {hidden:,} in flight, visibility timeout {visibility} s"

    @property
    def _is_clock_wrong(self) -> bool:
        return self._ahead_s is not None and abs(self._ahead_s) >= _MOST_SKEW_S

    def _of_clock(self) -> list[Finding]:
        if self._ahead_s is None or abs(self._ahead_s) < _SOME_SKEW_S:
            return []
        off = timedelta(seconds=round(abs(self._ahead_s)))
        side = "ahead of" if self._ahead_s > 0 else "behind"
        return [
            Finding(
                "wrong" if self._is_clock_wrong else "note",
                f"{self._named}: the clock of this machine is {off} {side} that of SQS, and AWS refuses requests when "
                "they differ by some minutes; set the clock of this machine",
            )
        ]

    def _of(self, trouble: Trouble) -> Finding:
        level: Level = "away" if trouble.kind in _PASSING else "wrong"
        if trouble.kind == "gone":
            return Finding(level, str(trouble), ("queue_url",))
        if trouble.kind == "away" and self._options.endpoint_url is not None:
            return Finding(level, str(trouble), ("endpoint_url",))
        return Finding(level, str(trouble))
