"""Renewal of credentials, and errors that the client library raises without a class of their own."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from botocore.exceptions import ClientError

from broadway_py.producers.sqs.requests import client as clients
from broadway_py.producers.sqs.requests.client import Client
from broadway_py.producers.sqs.requests.errors import Trouble
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.request_counts import RequestCounts
from broadway_py.testing import FakeClock, settle

URL = "https://sqs.eu-central-1.amazonaws.com/1/orders"


class Library:
    """Stands for both clients of one generation."""

    def __init__(self, error: Exception | None, gates: list[asyncio.Event]) -> None:
        self._error = error
        self._gates = gates

    async def receive_message(self, **_: object) -> dict[str, Any]:
        if self._gates:
            await self._gates.pop(0).wait()
        if self._error is not None:
            raise self._error
        return {}


class Renewing(Client):
    """The first generation's requests fail with *error*, each once its gate is open; later ones' work."""

    def __init__(self, error: Exception, gates: list[asyncio.Event]) -> None:
        super().__init__(SQSOptions(queue_url=URL), RequestCounts(), FakeClock())
        self.made = 0
        self._error = error
        self._gates = gates

    async def _new_generation(self) -> clients._Generation:
        self.made += 1
        library = Library(self._error, self._gates) if self.made == 1 else Library(None, [])
        return clients._Generation(AsyncExitStack(), library, library)


async def test_a_request_that_fails_late_with_old_credentials_is_made_again_with_the_renewed_ones() -> None:
    expired = ClientError({"Error": {"Code": "ExpiredToken"}}, "ReceiveMessage")
    quick, slow = asyncio.Event(), asyncio.Event()
    client = Renewing(expired, [quick, slow])
    await client.connect()
    receives = [asyncio.create_task(client.receive(10)) for _ in range(2)]
    await settle()
    quick.set()
    await settle()
    assert (receives[0].done(), client.made) == (True, 2)
    slow.set()

    assert await asyncio.gather(*receives) == [[], []]
    assert client.made == 2
    await client.close()


def expired() -> dict[str, str]:
    passed = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    return {"access_key": "a", "secret_key": "b", "token": "c", "expiry_time": passed.isoformat()}


async def refreshed() -> dict[str, str]:
    return expired()


async def garbled() -> dict[str, str]:
    raise ValueError("Expecting value: line 1 column 1 (char 0)")


@pytest.mark.parametrize(("refresh", "name"), [(refreshed, "RuntimeError"), (garbled, "ValueError")])
async def test_credentials_that_cannot_be_renewed_are_said_to_be_the_trouble(refresh: Any, name: str) -> None:
    """The library's own code raises here what it raises to us: classes that say nothing of credentials."""
    credentials = AioRefreshableCredentials.create_from_metadata(expired(), refresh, "custom-process")

    class Stale(Library):
        async def receive_message(self, **_: object) -> dict[str, Any]:
            await credentials.get_frozen_credentials()
            raise AssertionError

    class Unrenewed(Client):
        async def _new_generation(self) -> clients._Generation:
            library = Stale(None, [])
            return clients._Generation(AsyncExitStack(), library, library)

    client = Unrenewed(SQSOptions(queue_url=URL), RequestCounts(), FakeClock())
    await client.connect()
    with pytest.raises(Trouble) as caught:
        await client.receive(10)
    assert str(caught.value) == (
        f"SQS queue 'orders': the AWS credentials could not be read or renewed ({name}); "
        "check credential_process, the profile, and this machine's clock"
    )
    assert caught.value.kind == "expired"
    await client.close()


async def test_a_credential_process_that_is_not_there_is_no_broken_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {tmp_path}/gone\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client = Client(SQSOptions(queue_url=URL), RequestCounts(), FakeClock())
    with pytest.raises(Trouble) as caught:
        await client.connect()
    assert str(caught.value) == (
        "SQS queue 'orders': the AWS credentials could not be read or renewed (FileNotFoundError); "
        "check credential_process, the profile, and this machine's clock"
    )
    assert caught.value.kind == "expired"
    await client.close()


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), "away", "the connection broke during ReceiveMessage"),
        (KeyError("body"), "wrong", "ReceiveMessage could not be made (KeyError)"),
    ],
)
async def test_any_other_error_of_the_library_is_a_trouble_too(error: Exception, kind: str, what: str) -> None:
    client = Renewing(error, [])
    await client.connect()
    with pytest.raises(Trouble) as caught:
        await client.receive(10)
    assert (str(caught.value), caught.value.kind) == (f"SQS queue 'orders': {what}", kind)
    await client.close()
