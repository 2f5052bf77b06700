"""A real SQS for tests: LocalStack as a process or container of our own, or an endpoint that the environment names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.support.containers import Container
from tests.support.eventually import PATIENCE, eventually, eventually_sync
from tests.support.ports import free_port

__all__ = [
    "CREDENTIALS",
    "REGION",
    "SQS",
    "LocalStack",
    "LocalStackContainer",
    "LocalStackProcess",
    "Queue",
    "given_endpoint",
    "localstack_program",
]

REGION: Final = "eu-central-1"
#: The credentials of every request in the tests: the secret must show up nowhere.
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "AKIATESTACCESSKEYID1",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-access-key",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
#: LocalStack, which ends when its standard input does: a test that hangs takes with it whoever would have ended it.
_PROGRAM: Final = """
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("localstack.runtime.main", run_name="__main__", alter_sys=True)
"""
_ROOT: Final = Path(__file__).resolve().parents[2]


def given_endpoint() -> str | None:
    """The SQS that the user runs, from ``BROADWAY_TEST_SQS_URL``: its endpoint, such as http://127.0.0.1:4566."""
    return os.environ.get("BROADWAY_TEST_SQS_URL") or None


def localstack_program() -> Path | None:
    """The Python of the environment that ``get_localstack.sh`` makes, if it is complete."""
    directory = _ROOT / ".cache" / "localstack"
    return directory / "bin" / "python" if (directory / ".complete").exists() else None


class LocalStack(ABC):
    """A LocalStack of our own that serves SQS alone, on a port of its own. Nothing else is touched."""

    def __init__(self) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        #: What it reads of its environment.
        self._settings: Final = {
            "SERVICES": "sqs",
            "EAGER_SERVICE_LOADING": "0",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DISABLE_EVENTS": "1",
            "GATEWAY_LISTEN": self.endpoint.removeprefix("http://"),
        }

    def start(self) -> None:
        """Start it and wait until it answers. What it held before is gone."""
        self._launch()

        def up() -> bool:
            assert not self._ended(), f"LocalStack ended: {self._log_tail()}"
            with urllib.request.urlopen(f"{self.endpoint}/_localstack/health", timeout=5) as answer:  # noqa: S310  # ours
                return b'"sqs": "' in answer.read()

        eventually_sync(up, timeout=90, what="LocalStack answers", ignoring=(urllib.error.URLError, OSError))

    @abstractmethod
    def _launch(self) -> None:
        """Start it, and return before it is up."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether it has ended by itself."""

    @abstractmethod
    def _log_tail(self) -> str:
        """The last of what it wrote to standard output and error."""

    @abstractmethod
    def remove(self) -> None:
        """End it, and delete its files."""


class LocalStackProcess(LocalStack):
    """A process of *python*, the Python of its environment."""

    def __init__(self, python: Path) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="broadway-localstack-"))
        self._python = python
        self._server: subprocess.Popen[bytes] | None = None

    def _launch(self) -> None:
        environment = {**os.environ, **self._settings, "FILESYSTEM_ROOT": str(self.directory)}
        environment.pop("PYTHONPATH", None)
        with (self.directory / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._python, "-c", _PROGRAM],
                env=environment,
                stdin=subprocess.PIPE,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _ended(self) -> bool:
        return self._server is None or self._server.poll() is not None

    def _log_tail(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")[-2000:]

    def remove(self) -> None:
        """End the process, and its group."""
        if self._server is not None:
            with self._server, contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


class LocalStackContainer(LocalStack):
    """A container of *image*."""

    def __init__(self, image: str) -> None:
        super().__init__()
        self._image = image
        self._container: Container | None = None

    def _launch(self) -> None:
        # In this machine's network it must leave the port of DNS alone.
        self._container = Container(self._image, environment={**self._settings, "DNS_ADDRESS": "0"})

    def _ended(self) -> bool:
        return self._container is None or self._container.ended()

    def _log_tail(self) -> str:
        return self._container.log_tail() if self._container is not None else ""

    def remove(self) -> None:
        """End the container."""
        if self._container is not None:
            self._container.remove()
            self._container = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages of one queue, from SQS's mouth."""

    ready: int
    held: int


@dataclass
class Queue:
    """One queue of a test's own, seen from outside."""

    client: Any = field(repr=False)
    name: str
    url: str

    async def send(self, bodies: Sequence[bytes | str], **more: Any) -> list[str]:
        """Put *bodies* in, in order, each confirmed; their message ids. FIFO queues: give ``group=``."""
        group = more.pop("group", None)
        ids: list[str] = []
        for start in range(0, len(bodies), 10):
            entries = []
            for position, body in enumerate(bodies[start : start + 10]):
                text = body.decode() if isinstance(body, bytes) else body
                entry = {"Id": str(position), "MessageBody": text, **more}
                if self.name.endswith(".fifo"):
                    entry["MessageGroupId"] = group or "group"
                    entry["MessageDeduplicationId"] = uuid.uuid4().hex
                entries.append(entry)
            answer = await self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed"), answer["Failed"]
            by_id = {one["Id"]: one["MessageId"] for one in answer["Successful"]}
            ids += [by_id[entry["Id"]] for entry in entries]
        return ids

    async def counts(self) -> Counts:
        """Ready and in flight, at this moment."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        ready, held = (int(answer["Attributes"][name]) for name in names)
        return Counts(ready, held)

    async def until(self, *, ready: int, held: int, timeout: float = PATIENCE) -> None:
        """Wait until it counts so many messages.

        In three looks one after the other: LocalStack counts a message nowhere while it hands it over.
        """
        wanted = Counts(ready, held)
        looks = 0

        async def seen() -> bool:
            nonlocal looks
            looks = looks + 1 if await self.counts() == wanted else 0
            return looks == 3

        async def last() -> Counts:
            return await self.counts()

        try:
            await eventually(seen, timeout=timeout, what=f"queue {self.name} counts {wanted}")
        except AssertionError:
            raise AssertionError(f"queue {self.name} counts {await last()}, not {wanted}") from None

    async def take(self, count: int = 10, **more: Any) -> list[dict[str, Any]]:
        """Receive up to *count* messages as another consumer would."""
        asked = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], **more}
        answer = await self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=count, **asked)
        return answer.get("Messages") or []

    async def set(self, **attributes: str) -> None:
        """Change attributes of the queue."""
        await self.client.set_queue_attributes(QueueUrl=self.url, Attributes=attributes)

    async def delete(self) -> None:
        """Delete it, with all that is in it."""
        await self.client.delete_queue(QueueUrl=self.url)


@dataclass
class SQS:
    """What one test sees of SQS: queues with names of its own."""

    endpoint: str
    client: Any = field(repr=False)
    _queues: list[Queue] = field(default_factory=list, repr=False)

    async def queue(self, name: str = "work", *, fifo: bool = False, **attributes: str) -> Queue:
        """A new queue, whose name begins with *name*."""
        full = f"{name}-{uuid.uuid4().hex[:12]}" + (".fifo" if fifo else "")
        if fifo:
            attributes = {"FifoQueue": "true", **attributes}
        return await self.named(full, attributes)

    async def named(self, name: str, attributes: Mapping[str, str] = {}) -> Queue:
        """The queue of exactly this *name*, made if it is not there."""
        answer = await self.client.create_queue(QueueName=name, Attributes=dict(attributes))
        # LocalStack's own URL names a host that does not resolve; SQS reads the path alone.
        path = answer["QueueUrl"].split("/", 3)[3]
        queue = Queue(self.client, name, f"{self.endpoint}/{path}")
        self._queues.append(queue)
        return queue

    async def remove(self) -> None:
        """Delete the queues of this test."""
        for queue in self._queues:
            # A test may have deleted it.
            with contextlib.suppress(self.client.exceptions.QueueDoesNotExist):
                await queue.delete()


@asynccontextmanager
async def sqs_at(endpoint: str) -> AsyncIterator[SQS]:
    """SQS at *endpoint*, with a client apart from that of what is tested."""
    config = AioConfig(max_pool_connections=20, read_timeout=30)
    async with get_session().create_client("sqs", region_name=REGION, endpoint_url=endpoint, config=config) as client:
        found = SQS(endpoint, client)
        try:
            yield found
        finally:
            async with asyncio.timeout(30):
                await found.remove()
