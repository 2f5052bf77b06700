"""Passwords and payloads appear in nothing that the daemon, its pages or its commands show, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from tests.integration.main_job_pipelines import WAYS, FailsInManyWays
from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.erlang import binary
from tests.support.main_job import Job, aside
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import USER

# What is looked at here is the same on every delivery path.
pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]

LOGIN: Final = "canary-login"
#: In a URL most of it is escaped; its beginning never is.
PASSWORD: Final = "canary-pass:w@rd/é%?#"
#: Every word of a payload that must not be shown begins like this.
WORD: Final = "canary-word"
PAGES: Final = (
    *("/", "/page/main.js", "/metrics", "/livez", "/readyz", "/api/pipelines", "/api/pipelines/main"),
    *("/api/settings", "/api/workers", "/api/history"),
)


@pytest.fixture
def url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The broker's URL, for a user with a password of its own."""
    node = rabbitmq.node
    assert node is not None
    login, actor, anything = binary(LOGIN), binary(USER), binary(".*")
    # The bytes of UTF-8 one by one: that is how the client sends them.
    password = "<<" + ",".join(map(str, PASSWORD.encode())) + ">>"
    node.ask(f"ok = rabbit_auth_backend_internal:add_user({login}, {password}, {actor})")
    node.ask(
        f"ok = rabbit_auth_backend_internal:set_permissions"
        f"({login}, {binary(rabbitmq.vhost)}, {anything}, {anything}, {anything}, {actor})"
    )
    try:
        host, port = rabbitmq.address
        netloc = f"{LOGIN}:{quote(PASSWORD, safe='')}@{host}:{port}"
        yield urlunsplit(urlsplit(rabbitmq.url)._replace(netloc=netloc))
    finally:
        node.ask(f"ok = rabbit_auth_backend_internal:delete_user({login}, {actor})")


def at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}"))


def payloads() -> list[bytes]:
    """One that fails in each way, and some that do not even get so far."""
    callbacks = ("partition_by", "prepare_messages", "handle_batch")
    ways = [*WAYS, *(f"in {one}" for one in callbacks), *(f"in {one} and in handle_failed" for one in callbacks)]
    told: list[object] = [{"way": way, "word": f"{WORD}-{index}-zählt"} for index, way in enumerate(ways)]
    told.append({"way": "with the schema", "word": WORD, "number": f"{WORD}-is-no-number"})
    told.append({"way": "with the schema", "word": {WORD: [WORD]}, f"{WORD}-key": WORD})
    told.append({"way": "with the schema", "word": WORD, "prices": {f"{WORD}-key": WORD}})
    bodies = [json.dumps(one, ensure_ascii=index % 2 == 0).encode() for index, one in enumerate(told)]
    return [*bodies, f"{WORD}, not JSON at all".encode(), f'{{"{WORD}": "é'.encode()]


def assert_no_canary(*texts: str) -> None:
    for text in texts:
        for canary in ("canary-pass", WORD):
            # Only what stands around it is shown: a failing test must be readable.
            at = text.casefold().find(canary)
            assert at < 0, f"…{text[max(0, at - 300) : at + 60]}…"


async def pages(running: Daemon) -> list[str]:
    return [(await aside(running.get, page))[1] for page in PAGES]


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_password_and_no_payload_is_shown_anywhere(
    tmp_path: Path, rabbitmq: RabbitMQ, url: str, workers: int
) -> None:
    await rabbitmq.declare_with_dead_letters()
    bodies = payloads()
    shown: list[str] = []
    async with FaultProxy(*rabbitmq.address) as proxy:
        await proxy.refuse()
        settings = Job(rabbitmq, tmp_path).settings(FailsInManyWays, url=at_port(url, proxy.port))
        options = ("--set", "log.level=debug", "--workers", str(workers))
        with daemon(tmp_path, settings, options=options) as running:
            await aside(running.until_logged, "the source is not available; trying again")
            shown += await pages(running)
            await proxy.accept()
            await aside(running.until_ready)
            await rabbitmq.publish(bodies, headers={"x-word": WORD}, correlation_id=WORD)
            await rabbitmq.until("work.dead", ready=len(bodies), unacked=0)
            proxy.reset()
            await aside(running.until_logged, "the source is not available; trying again", count=2)
            await aside(running.until_ready)
            shown += await pages(running)
            running.signal(signal.SIGUSR1)
            await aside(running.until_logged, "state: pipeline")
            assert (await aside(running.terminated))[0] == 0
    assert_no_canary(*shown, *running.lines)

    told = [line for line in running.log if line["event"] == "a message failed"]
    assert {line["cause"] for line in told} == {"raised", "failed", "invalid", "unknown_batcher"}
    # Where it does not fit is told by the names of the schema, never by those of the payload.
    assert {line["reason"] for line in told if line["cause"] == "invalid"} == {
        "does not fit the schema: number: int_parsing",
        "does not fit the schema: word: string_type",
        "does not fit the schema: prices.***: int_parsing",
        "does not fit the schema: the whole value: json_invalid",
    }
    assert "handle_failed raised an error; the messages are settled as they were before it" in {
        line["event"] for line in running.log
    }
    # Debug lines of the client library are among what was looked through.
    assert {"aiormq.connection", "broadway_py.pipeline"} <= {line["logger"] for line in running.log}


async def test_a_refused_login_shows_no_password(tmp_path: Path, rabbitmq: RabbitMQ, url: str) -> None:
    await rabbitmq.declare_with_dead_letters()
    wrong = url.replace("canary-pass", "canary-pass-that-is-wrong")
    settings = Job(rabbitmq, tmp_path).settings(FailsInManyWays, url=wrong)
    with daemon(tmp_path, settings, options=("--set", "log.level=debug")) as running:
        away = await aside(running.until_logged, "the source is not available; trying again")
        assert away["reason"] == (f"RabbitMQ at {rabbitmq.where} refused the login; check user and password in the url")
        answers = await pages(running)
        assert (await aside(running.terminated))[0] == 0
    assert_no_canary(*answers, *running.lines)


async def test_the_other_commands_show_no_password_and_no_payload(tmp_path: Path, rabbitmq: RabbitMQ, url: str) -> None:
    await rabbitmq.declare_with_dead_letters()
    job = Job(rabbitmq, tmp_path)
    lines = tmp_path / "lines"
    lines.write_text(f"{WORD}\n")
    async with FaultProxy(*rabbitmq.address) as proxy:
        await proxy.refuse()
        refused = job.settings(FailsInManyWays, url=at_port(url, proxy.port))
        assert await command("check", refused) == (0, "ok: 1 pipeline: main\n")
        assert (await command("topology", refused))[0] == 0
        assert (await command("topology", refused, "--json"))[0] == 0
        assert (await command("send", refused, lines))[0] == 1
    sound = job.settings(FailsInManyWays, url=url)
    assert await command("send", sound, lines) == (0, "1 line was put on the queue\n")
    for wrong in (url.replace("amqp", "ampq"), url.replace("://", ":/"), url.replace("127.0.0.1", "")):
        code, said = await command("check", job.settings(FailsInManyWays, url=wrong))
        assert code == 2
        assert "pipelines.main.producer.url: expected amqp://" in said
    assert (await command("check", sound, "--set", f"pipelines.main.producer.urll={url}"))[0] == 2
    assert (await command("run", sound, "--set", f"pipelines.main.producer.prefetch_count={url}"))[0] == 2


async def command(name: str, *arguments: object) -> tuple[int, str]:
    """Exit code and output of a command; neither canary is in it."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broadway_py", name, *map(str, arguments)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    assert_no_canary(said.decode())
    assert program.returncode is not None
    return program.returncode, said.decode()
