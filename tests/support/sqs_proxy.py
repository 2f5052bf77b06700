"""An HTTP proxy in front of SQS that answers, on demand, as AWS documents: throttled, refused, in part, late."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from tests.support.eventually import eventually

__all__ = [
    "DENIED",
    "EXPIRED",
    "INTERNAL",
    "OVER_LIMIT",
    "THROTTLED",
    "TOO_OLD",
    "UNKNOWN_KEY",
    "Answer",
    "Asked",
    "SQSProxy",
]

_JSON: Final = "application/x-amz-json-1.0"


@dataclass(frozen=True, slots=True)
class Answer:
    """An error of a whole request: the type that the JSON protocol names, the older code, the HTTP status."""

    type: str
    status: int = 400
    code: str | None = None


THROTTLED: Final = Answer("com.amazonaws.sqs#RequestThrottled", 400, "RequestThrottled;Sender")
OVER_LIMIT: Final = Answer("com.amazonaws.sqs#OverLimit", 403, "OverLimit;Sender")
INTERNAL: Final = Answer("com.amazon.coral.service#InternalFailure", 500)
EXPIRED: Final = Answer("com.amazon.coral.service#ExpiredTokenException", 403)
DENIED: Final = Answer("com.amazon.coral.service#AccessDeniedException", 400)
UNKNOWN_KEY: Final = Answer("com.amazon.coral.service#UnrecognizedClientException", 403)
TOO_OLD: Final = Answer("com.amazon.coral.service#InvalidSignatureException", 403)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came by: its action (ReceiveMessage), what it asked, and the access key that signed it."""

    action: str
    body: Mapping[str, Any]
    key: str

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """Those of a batch."""
        found: Sequence[Mapping[str, Any]] = self.body.get("Entries", ())
        return found


#: What a rule does with a request: an answer of its own, or None to let it pass.
Handler = Callable[[Asked], Awaitable[web.StreamResponse | None]]


@dataclass(slots=True)
class _Rule:
    action: str
    act: Handler
    #: How many requests it meets; None: all.
    left: int | None

    def meets(self, asked: Asked) -> bool:
        return asked.action.startswith(self.action) and self.left != 0


@dataclass(slots=True)
class _Shape:
    """How answers to receives are changed."""

    most: int | None = None
    double: int = 0
    corrupt: int = 0
    delay_s: float = 0.0
    lose: int = 0


class SQSProxy:
    """``async with SQSProxy(endpoint) as proxy:`` forwards what comes to ``proxy.endpoint``, until told else.

    Actions are named by their beginning: "DeleteMessage" means single ones and batches.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._rules: list[_Rule] = []
        self._shape = _Shape()
        self._redirects: dict[str, str] = {}
        self._lost: dict[str, bytes] = {}
        self._clock_off_s = 0.0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._session: aiohttp.ClientSession | None = None
        self._port = 0
        #: Requests under way, by action.
        self.open: dict[str, int] = {}
        #: Everything that was asked, in order.
        self.asked: deque[Asked] = deque(maxlen=100_000)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60), auto_decompress=False
        )
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, handler_cancellation=False, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._session.close()
        await self._runner.cleanup()

    # --- faults ---------------------------------------------------------------------------------------------------

    def fail(self, action: str, answer: Answer, *, times: int | None = None) -> None:
        """Answer *times* requests (None: all) with an error; SQS does not hear of them."""

        async def act(asked: Asked) -> web.StreamResponse:
            return _error(answer)

        self._rules.append(_Rule(action, act, times))

    def fail_entries(
        self, action: str, code: str, *, entries: int = 1, sender_fault: bool = False, times: int | None = 1
    ) -> None:
        """Name the first *entries* of *times* batches as failed; SQS hears of the others only."""

        async def act(asked: Asked) -> web.StreamResponse:
            failed = [
                {"Id": entry["Id"], "SenderFault": sender_fault, "Code": code, "Message": "made up"}
                for entry in asked.entries[:entries]
            ]
            rest = list(asked.entries[entries:])
            answer: dict[str, Any] = {"Successful": []}
            if rest:
                _, body = await self._forward(asked, {**asked.body, "Entries": rest})
                answer = json.loads(body)
            answer["Failed"] = [*answer.get("Failed", ()), *failed]
            return _answer(200, json.dumps(answer).encode())

        self._rules.append(_Rule(action, act, times))

    def cut(self, action: str, *, times: int | None = 1, after: bool = False) -> None:
        """End the connection instead of an answer; *after* SQS has done what was asked, or before."""

        async def act(asked: Asked) -> web.StreamResponse:
            if after:
                await self._forward(asked, asked.body)
            return _Cut()

        self._rules.append(_Rule(action, act, times))

    def hold(self, action: str, *, times: int | None = None) -> asyncio.Event:
        """Let requests wait until the event is set; then they pass."""
        gate = asyncio.Event()

        async def act(asked: Asked) -> None:
            await gate.wait()

        self._rules.append(_Rule(action, act, times))
        return gate

    def take_only(self, key: str) -> None:
        """Every request that another access key signed has an expired token."""

        async def act(asked: Asked) -> web.StreamResponse | None:
            return None if asked.key == key else _error(EXPIRED)

        self._rules.append(_Rule("", act, None))

    def receive_at_most(self, count: int | None) -> None:
        """Receives bring no more than this, as SQS often does although there are more."""
        self._shape.most = count

    def double(self, times: int = 1) -> None:
        """The next receives that bring messages bring each of them twice, as SQS may."""
        self._shape.double = times

    def corrupt(self, times: int = 1) -> None:
        """In the next receives that bring messages, the first one's body is not what was sent."""
        self._shape.corrupt = times

    def delay_receives(self, seconds: float) -> None:
        """Answers to receives come so much later than SQS gives them."""
        self._shape.delay_s = seconds

    def lose_receives(self, times: int = 1) -> None:
        """The next receives that bring messages end in a broken connection: the messages are in flight, unseen.

        Whoever asks again under the same ``ReceiveRequestAttemptId`` gets the same answer, as of AWS.
        """
        self._shape.lose = times

    def redirect(self, url: str, to: str) -> None:
        """Whoever names the queue at *url* means the one at *to*."""
        self._redirects[url] = to

    def set_clock(self, *, off_s: float) -> None:
        """The time in every answer is so many seconds later than that of this machine, or earlier."""
        self._clock_off_s = off_s

    def heal(self) -> None:
        """Let everything pass again."""
        self._clock_off_s = 0.0
        self._rules.clear()
        self._shape = _Shape()

    async def refuse(self) -> None:
        """Take no new connections; what is under way is cut."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in list(self._connections()):
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    def _connections(self) -> Sequence[Any]:
        assert self._runner is not None
        assert self._runner.server is not None
        return list(self._runner.server.connections)

    # --- watching -------------------------------------------------------------------------------------------------

    def requests(self, action: str) -> list[Asked]:
        """What came by, by the beginning of its name."""
        return [one for one in self.asked if one.action.startswith(action)]

    async def until_asked(self, action: str, count: int, *, timeout: float = 10.0) -> list[Asked]:
        """Wait until so many requests have come by."""
        await eventually(
            lambda: len(self.requests(action)) >= count,
            timeout=timeout,
            what=f"{count} requests {action} come by; so far: {[one.action for one in self.asked][-20:]}",
        )
        return self.requests(action)

    # --- the work -------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = json.loads(await request.read() or b"{}")
        key = request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        asked = Asked(action, body, key)
        self.asked.append(asked)
        self.open[action] = self.open.get(action, 0) + 1
        try:
            answer = await self._answered(asked)
        finally:
            self.open[action] -= 1
        if isinstance(answer, _Cut):
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable
        if self._clock_off_s:
            answer.headers["Date"] = formatdate(time.time() + self._clock_off_s, usegmt=True)
        return answer

    async def _answered(self, asked: Asked) -> web.StreamResponse:
        for rule in [one for one in self._rules if one.meets(asked)]:
            if rule.left is not None:
                rule.left -= 1
            answer = await rule.act(asked)
            if answer is not None:
                return answer
        if asked.action == "ReceiveMessage":
            return await self._receive(asked)
        return _answer(*await self._forward(asked, asked.body))

    async def _receive(self, asked: Asked) -> web.StreamResponse:
        shape, wanted = self._shape, asked.body
        attempt = asked.body.get("ReceiveRequestAttemptId")
        if attempt in self._lost:
            if shape.lose:
                shape.lose -= 1
                return _Cut()
            return _answer(200, self._lost.pop(attempt))
        if shape.most is not None:
            wanted = {**wanted, "MaxNumberOfMessages": min(shape.most, wanted.get("MaxNumberOfMessages", 1))}
        status, body = await self._forward(asked, wanted)
        if shape.delay_s:
            await asyncio.sleep(shape.delay_s)
        answer = json.loads(body)
        messages = answer.get("Messages") or []
        if not messages:
            return _answer(status, body)
        if shape.lose:
            shape.lose -= 1
            if attempt is not None:
                self._lost[attempt] = body
            return _Cut()
        if shape.double:
            shape.double -= 1
            answer["Messages"] = messages = [one for message in messages for one in (message, message)]
        if shape.corrupt:
            shape.corrupt -= 1
            messages[0] = {**messages[0], "Body": messages[0]["Body"] + "?"}
        return _answer(status, json.dumps(answer).encode())

    async def _forward(self, asked: Asked, body: Mapping[str, Any]) -> tuple[int, bytes]:
        assert self._session is not None
        headers = {
            "X-Amz-Target": f"AmazonSQS.{asked.action}",
            "Content-Type": _JSON,
            # LocalStack reads account and region out of it, and checks no signature.
            "Authorization": f"AWS4-HMAC-SHA256 Credential={asked.key}/20260101/eu-central-1/sqs/aws4_request, "
            "SignedHeaders=host, Signature=0",
        }
        if body.get("QueueUrl") in self._redirects:
            body = {**body, "QueueUrl": self._redirects[body["QueueUrl"]]}
        data = json.dumps(body)
        async with self._session.post(self._upstream, data=data, headers=headers) as answer:
            return answer.status, await answer.read()


class _Cut(web.Response):
    """Stands for a connection that breaks."""


def _answer(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type=_JSON)


def _error(answer: Answer) -> web.Response:
    headers = {} if answer.code is None else {"x-amzn-query-error": answer.code}
    body = json.dumps({"__type": answer.type, "message": "made up"}).encode()
    return web.Response(status=answer.status, body=body, content_type=_JSON, headers=headers)
