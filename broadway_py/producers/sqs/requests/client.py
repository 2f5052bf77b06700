"""Requests to SQS, with two connection pools, credentials that can be renewed, and a count of requests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiobotocore
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from broadway_py.clock import Clock
from broadway_py.producers.sqs.requests.asked_attributes import asked_attributes, asked_message_attributes
from broadway_py.producers.sqs.requests.errors import Kind, Trouble, entry_kind, of_error
from broadway_py.producers.sqs.settings.endpoint import is_url
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.request_counts import RequestCounts

__all__ = ["DELAYED", "READY", "REDRIVE", "Client", "QueueInfo"]

#: The names of attributes of a queue: how many messages wait, how many are delayed, and its redrive policy.
READY: Final = "ApproximateNumberOfMessages"
DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
REDRIVE: Final = "RedrivePolicy"

T = TypeVar("T")

#: Seconds until the connection must be made.
_CONNECT_S: Final = 5.0
#: Seconds for an answer, in addition to the time that a receive waits for messages.
_ANSWER_S: Final = 10.0
#: The most settlements at the same time.
_SETTLEMENTS: Final = 10
#: The least seconds between two attempts to read the credentials again.
_RENEW_S: Final = 5.0
#: A receipt handle that no message has.
_PROBE: Final = "permission-probe"
_USER_AGENT: Final = f"broadway-py aiobotocore/{aiobotocore.__version__}"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """What is known of the queue after opening it."""

    #: The queue's name, for the log and for errors.
    name: str
    url: str
    #: The visibility timeout, in seconds.
    visibility_s: float
    #: Whether the queue has a redrive policy, so that SQS moves messages after so many receives; None: we may not read
    #: that.
    has_redrive: bool | None
    dead_letter_url: str | None


#: The loaders with AWS's description of SQS, of the first session of each data path. With them, a further client costs
#: 3 ms of the event loop instead of 80.
_loaders: Final[dict[str | None, Any]] = {}


def _session(profile: str | None) -> AioSession:
    """Returns a session that reads its own credentials, but shares the descriptions of SQS."""
    session = AioSession(profile=profile)
    path = session.get_config_variable("data_path")
    session.register_component("data_loader", _loaders.setdefault(path, session.get_component("data_loader")))
    return session


def _read_descriptions(loader: Any) -> None:
    """Loads what a client of SQS needs into the loader's cache. The library's own warm-up loads three more kinds."""
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data_with_path(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sqs", kind, api_version=None)


class _Generation:
    """Two clients with the same credentials. They are closed after their last request has ended."""

    def __init__(self, stack: AsyncExitStack, polls: Any, settlements: Any) -> None:
        self.polls = polls
        self.settlements = settlements
        self.stack = stack
        self.running = 0
        self.is_old = False

    async def leave(self) -> None:
        self.running -= 1
        if self.is_old and self.running == 0:
            await self.stack.aclose()


class Client:
    """Makes all requests of one copy. Each raises :class:`Trouble`, and none is tried again here.

    Receives have their own connection pool, because a long poll must never delay a delete.

    Args:
        options: where the queue is.
        counts: counts the requests.
        clock: tells when credentials may be read again.
        answered: called with the headers of each answer. None: nobody needs them.
    """

    def __init__(
        self,
        options: SQSOptions,
        counts: RequestCounts,
        clock: Clock,
        *,
        answered: Callable[[Mapping[str, str]], object] | None = None,
    ) -> None:
        self._options = options
        self._counts = counts
        self._clock = clock
        self._answered = answered
        self._generation: _Generation | None = None
        self._renewing = asyncio.Lock()
        self._renewed_at = float("-inf")
        self._receive: dict[str, Any] = {}

    # --- opening and closing --------------------------------------------------------------------------------------

    async def open(self, trace_fields: Collection[str] = ()) -> QueueInfo:
        """Makes the clients and checks that the queue exists and that we may delete from it.

        Receives ask for the message attributes *trace_fields*, too.
        """
        options = self._options
        url = await self.connect()
        dead_letter_url = None if options.dead_letter_queue is None else await self.url_of(options.dead_letter_queue)
        queue_info = await self._queue_info(url, dead_letter_url)
        self._receive = {"QueueUrl": url, "WaitTimeSeconds": int(options.wait_time_seconds)}
        self._receive["MessageSystemAttributeNames"] = asked_attributes(options)
        if wanted := asked_message_attributes(options, trace_fields):
            self._receive["MessageAttributeNames"] = wanted
        if options.visibility_timeout is not None:
            self._receive["VisibilityTimeout"] = int(options.visibility_timeout)
        if options.on_success.action == "ack":
            # No message has this handle. The call only checks the permission: better now than after the work.
            await self.delete(url, [_PROBE])
        return queue_info

    async def connect(self) -> str:
        """Makes the clients only. Returns the queue's URL."""
        self._generation = await self._new_generation()
        return await self.url_of(self._options.queue_url)

    async def look(self, url: str) -> None:
        """Checks that the queue exists. We must be allowed to read its attributes."""
        asked = {"QueueUrl": url, "AttributeNames": ["QueueArn"]}
        await self._settlement("other", "GetQueueAttributes", "get_queue_attributes", asked)

    async def counts(self, url: str) -> Mapping[str, str]:
        """Returns SQS's approximate numbers of messages of a queue, and its redrive policy if it has one."""
        return await self.attributes(url, (READY, DELAYED, REDRIVE))

    async def url_of_arn(self, arn: str) -> str:
        """Returns the URL of the queue that *arn* names, such as ``arn:aws:sqs:eu-central-1:000000000000:orders``."""
        account, name = arn.split(":")[-2:]
        return await self.url_of(name, account)

    async def url_of(self, queue: str, account: str | None = None) -> str:
        """Returns the URL of *queue*, which may be one; a name is looked up, in another *account* if it is given."""
        if is_url(queue):
            return queue
        owner = {} if account is None else {"QueueOwnerAWSAccountId": account}
        answer = await self._settlement("other", "GetQueueUrl", "get_queue_url", {"QueueName": queue, **owner})
        return str(answer["QueueUrl"])

    async def attributes(self, url: str, names: Sequence[str]) -> Mapping[str, str]:
        """Returns these attributes of the queue, as far as it has them."""
        asked = {"QueueUrl": url, "AttributeNames": list(names)}
        answer = await self._settlement("other", "GetQueueAttributes", "get_queue_attributes", asked)
        found: Mapping[str, str] = answer.get("Attributes", {})
        return found

    async def try_to_receive(self, url: str) -> None:
        """Asks for a receive that SQS refuses: nobody may wait that long, nor ask for so many.

        Raises:
            Trouble: of the kind ``refused`` if the permission is missing, and otherwise of another kind.
        """
        asked = {"QueueUrl": url, "WaitTimeSeconds": 21, "MaxNumberOfMessages": 11, "VisibilityTimeout": 0}
        await self._settlement("other", "ReceiveMessage", "receive_message", asked)

    async def _queue_info(self, url: str, dead_letter_url: str | None) -> QueueInfo:
        asked = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout", REDRIVE]}
        given = self._options.visibility_timeout
        try:
            answer = await self._settlement("other", "GetQueueAttributes", "get_queue_attributes", asked)
        except Trouble as trouble:
            if trouble.kind != "refused" or given is None:
                raise
            # With visibility_timeout set, this permission is not needed.
            return QueueInfo(self._options.queue_name, url, given, None, dead_letter_url)
        found: Mapping[str, str] = answer.get("Attributes", {})
        visibility_s = float(found.get("VisibilityTimeout", 30)) if given is None else given
        has_redrive = bool(found.get(REDRIVE))
        return QueueInfo(self._options.queue_name, url, visibility_s, has_redrive, dead_letter_url)

    async def close(self) -> None:
        """Closes every connection. Requests that still run raise :class:`Trouble`."""
        generation, self._generation = self._generation, None
        if generation is not None:
            await generation.stack.aclose()

    async def _new_generation(self) -> _Generation:
        options = self._options
        async with AsyncExitStack() as stack:
            try:
                session = _session(options.profile)
                # In a thread, because the first time it would block the event loop for 40 ms.
                await asyncio.to_thread(_read_descriptions, session.get_component("data_loader"))
                polls = await stack.enter_async_context(
                    self._made(session, options.max_polls, options.wait_time_seconds + _ANSWER_S)
                )
                settlements = await stack.enter_async_context(self._made(session, _SETTLEMENTS, _ANSWER_S))
                self._watch(settlements)
            except Exception as error:  # noqa: BLE001  # reading credentials raises errors of no common class
                raise of_error(error, "the first request", options) from None
            return _Generation(stack.pop_all(), polls, settlements)

    def _made(self, session: AioSession, connections: int, answer_s: float) -> Any:
        options = self._options
        # A host in the settings already is a FIPS or dual-stack host, or is not. AWS_USE_FIPS_ENDPOINT and similar
        # settings choose a host, so they do not apply here, and the client library would raise an error for them.
        as_written = None if options.endpoint is None else False
        config = AioConfig(
            use_fips_endpoint=as_written,
            use_dualstack_endpoint=as_written,
            # One try: our own code decides how often and when to try again, where it is visible and does not block.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections,
            connect_timeout=_CONNECT_S,
            read_timeout=answer_s,
            # Saves a fifth of the processor time of a request. The parameters are our own.
            parameter_validation=False,
            user_agent=_USER_AGENT,
        )
        # Machines of AWS set AWS_REGION, but this client library only knows the other name.
        region = options.region_name or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        return session.create_client("sqs", region_name=region, endpoint_url=options.endpoint, config=config)

    def _watch(self, client: Any) -> None:
        told = self._answered
        if told is not None:
            client.meta.events.register("after-call.sqs", lambda http_response, **_: told(http_response.headers))

    # --- requests -------------------------------------------------------------------------------------------------

    async def receive(self, count: int, attempt_id: str | None = None) -> list[dict[str, Any]]:
        """Returns up to *count* messages as SQS describes them. Waits for the first as long as the settings say.

        On FIFO queues *attempt_id* names the receive: repeating it brings the messages of an answer that was lost.
        """
        arguments = {**self._receive, "MaxNumberOfMessages": count}
        if attempt_id is not None:
            arguments["ReceiveRequestAttemptId"] = attempt_id
        answer = await self._request("receive", "ReceiveMessage", lambda made: made.polls.receive_message(**arguments))
        messages: list[dict[str, Any]] = answer.get("Messages") or []
        self._counts.received(len(messages))
        return messages

    async def delete(self, url: str, handles: Sequence[str]) -> dict[int, Kind]:
        """Deletes at most ten. Returns those that were not deleted and why, by position."""
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)]
        return await self._batch("delete", "DeleteMessage", "delete_message_batch", url, entries)

    async def change_visibility(self, url: str, changes: Sequence[tuple[str, int]]) -> dict[int, Kind]:
        """Hides at most ten for so many seconds, or shows them (0). Returns the failed ones and why, by position."""
        entries = [
            {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": timeout}
            for number, (handle, timeout) in enumerate(changes)
        ]
        return await self._batch(
            "visibility", "ChangeMessageVisibility", "change_message_visibility_batch", url, entries
        )

    async def send(self, url: str, messages: Sequence[Mapping[str, Any]]) -> dict[int, Kind]:
        """Sends at most ten. Returns those not sent and why, by position (``wrong``: SQS refuses the message)."""
        entries = [{"Id": str(number), **message} for number, message in enumerate(messages)]
        failed = await self._batch("send", "SendMessage", "send_message_batch", url, entries)
        # A send has no receipt that could be stale, so an invalid parameter means the message.
        return {number: "wrong" if kind == "stale" else kind for number, kind in failed.items()}

    async def purge(self, url: str) -> None:
        """Deletes all messages of a queue. SQS allows it once a minute."""
        await self._settlement("other", "PurgeQueue", "purge_queue", {"QueueUrl": url})

    async def _batch(
        self, kind: str, action: str, method: str, url: str, entries: list[dict[str, Any]]
    ) -> dict[int, Kind]:
        self._counts.entries[kind] += len(entries)
        answer = await self._settlement(kind, action, method, {"QueueUrl": url, "Entries": entries})
        failed = {int(one["Id"]): entry_kind(one) for one in answer.get("Failed") or ()}
        if len(failed) + len(answer.get("Successful") or ()) < len(entries):
            # What an answer does not name counts as not done.
            named = {int(one["Id"]) for one in answer.get("Successful") or ()}
            failed.update((number, "away") for number in range(len(entries)) if number not in named | failed.keys())
        return failed

    async def _settlement(self, kind: str, action: str, method: str, arguments: Mapping[str, Any]) -> Any:
        return await self._request(kind, action, lambda made: getattr(made.settlements, method)(**arguments))

    async def _request(self, kind: str, action: str, call: Callable[[_Generation], Awaitable[T]]) -> T:
        used = self._opened()
        try:
            return await self._counted(kind, action, call, used)
        except Trouble as trouble:
            if trouble.kind != "expired" or not await self._renew(used):
                raise
        return await self._counted(kind, action, call, self._opened())

    def _opened(self) -> _Generation:
        if self._generation is None:
            raise Trouble("away", f"SQS queue {self._options.queue_name!r}: the producer is closed")
        return self._generation

    async def _counted(
        self, kind: str, action: str, call: Callable[[_Generation], Awaitable[T]], generation: _Generation
    ) -> T:
        generation.running += 1
        try:
            answer = await call(generation)
        except Exception as error:  # noqa: BLE001  # reading credentials raises errors of no common class
            if isinstance(error, RuntimeError) and self._generation is None:
                # aiohttp raises it if the session is closed during a request.
                raise Trouble("away", f"SQS queue {self._options.queue_name!r}: the producer is closed") from None
            trouble = of_error(error, action, self._options)
            self._counts.requests[kind, trouble.kind] += 1
            raise trouble from None
        finally:
            await generation.leave()
        self._counts.requests[kind, "ok"] += 1
        return answer

    async def _renew(self, used: _Generation) -> bool:
        """Reads the credentials again, for users who rotate them in a file.

        Returns True if there are others than the *used* ones, with which a request has failed.
        """
        async with self._renewing:
            if self._generation is not used:
                return self._generation is not None
            if self._clock.monotonic() - self._renewed_at < _RENEW_S:
                return False
            self._renewed_at = self._clock.monotonic()
            made = await self._new_generation()
            if self._generation is not used:  # closed meanwhile
                await made.stack.aclose()
                return False
            self._generation = made
            used.is_old = True
            if used.running == 0:
                await used.stack.aclose()
            return True
