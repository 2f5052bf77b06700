"""Who may control the pipelines over HTTP: with a token, without one, on this machine and from others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from broadway_py import Message, Pipeline
from broadway_py.cli import app
from broadway_py.daemon.http import access
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.daemon.settings.token_file import is_readable_by_others, read_token
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
TOKEN = "canary-71e9-open-sesame"
PAUSE = "/api/pipelines/orders/pause"
BY_ALL = "0.0.0.0"  # not loopback, which is what is tested

NO_TOKEN = (
    "control is refused, because other machines can reach this port and there is no token; set http.token_file to a "
    "file that holds one"
)
UNUSABLE = (
    "control is refused, because the token in the file of http.token_file cannot be used now; the log of the daemon "
    "says why"
)
MISSING = "control needs the token; send it in the header Authorization: Bearer TOKEN"
WRONG = "this is not the token of the daemon, which is in the file that http.token_file names"


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@asynccontextmanager
async def served(
    token_file: Path | None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[aiohttp.ClientSession, Pipeline[Any]]]:
    settings = Http(host=host, port=0, token_file=None if token_file is None else str(token_file))
    async with (
        Orders(producer=DummyProducer(), name="orders") as pipeline,
        serve(settings, LocalView([pipeline], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        await pipeline.ready(10)
        yield client, pipeline


async def asked(client: aiohttp.ClientSession, authorization: str | None, path: str = PAUSE) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    answer = await client.post(path, data="{}", headers=headers)
    assert (answer.status == 401) == (answer.headers.get("WWW-Authenticate") == "Bearer")
    return answer.status, (await answer.json()).get("error")


def lines(caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, Any]]:
    for record in caplog.records:
        if record.name == "broadway_py.daemon":
            assert isinstance(record.msg, dict)
            yield record.msg


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line["event"] for line in lines(caplog)]


# --- the rule


@pytest.mark.parametrize("host", ["127.0.0.1", BY_ALL])
async def test_with_the_token_control_is_carried_out(token_file: Path, host: str) -> None:
    async with served(token_file, host) as (client, pipeline):
        assert await asked(client, f"Bearer {TOKEN}") == (200, None)
        assert pipeline.is_paused
        assert await asked(client, f"bearer   {TOKEN}  ", "/api/pipelines/orders/resume") == (200, None)
        assert not pipeline.is_paused


@pytest.mark.parametrize("host", ["127.0.0.1", BY_ALL])
@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, MISSING),
        ("", MISSING),
        (TOKEN, MISSING),
        (f"Basic {TOKEN}", MISSING),
        ("Bearer", WRONG),
        ("Bearer ", WRONG),
        (f"Bearer {TOKEN[:-1]}", WRONG),
        (f"Bearer {TOKEN}x", WRONG),
        (f"Bearer {TOKEN.upper()}", WRONG),
        (f"Bearer {TOKEN} {TOKEN}", WRONG),
        (f"Bearer {TOKEN}\N{ZERO WIDTH SPACE}", WRONG),
        (f"Bearer {TOKEN},Bearer x", WRONG),
    ],
)
async def test_without_the_token_nothing_is_changed(
    token_file: Path, host: str, authorization: str | None, error: str
) -> None:
    async with served(token_file, host) as (client, pipeline):
        assert await asked(client, authorization) == (401, error)
        assert not pipeline.is_paused


async def test_a_token_beside_another_one_is_not_taken(token_file: Path) -> None:
    async with served(token_file) as (client, pipeline):
        headers = [
            ("Content-Type", "application/json"),
            ("Authorization", f"Bearer {TOKEN}"),
            ("Authorization", "Bearer x"),
        ]
        answer = await client.post(PAUSE, data="{}", headers=headers)
        assert (answer.status, await answer.json()) == (401, {"error": MISSING})
        assert not pipeline.is_paused


async def test_without_a_token_file_this_machine_may_control() -> None:
    async with served(None) as (client, pipeline):
        assert await asked(client, None) == (200, None)
        assert pipeline.is_paused


@pytest.mark.parametrize("authorization", [None, "Bearer ", f"Bearer {TOKEN}", "Bearer None"])
async def test_without_a_token_file_nobody_may_control_on_another_host(authorization: str | None) -> None:
    async with served(None, BY_ALL) as (client, pipeline):
        assert await asked(client, authorization) == (403, NO_TOKEN)
        assert not pipeline.is_paused


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/readyz", "/api/pipelines", "/api/access", "/page.css"])
@pytest.mark.parametrize("has_token", [True, False])
async def test_reading_is_open(token_file: Path, path: str, has_token: bool) -> None:
    async with served(token_file if has_token else None, BY_ALL) as (client, _):
        for method in ("GET", "HEAD"):
            assert (await client.request(method, path)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/none", "/livez", PAUSE, "/api/pipelines/none/pause"])
async def test_everything_but_reading_needs_the_token(token_file: Path, method: str, path: str) -> None:
    async with served(token_file) as (client, pipeline):
        answer = await client.request(method, path, data="{}", headers={"Content-Type": "application/json"})
        assert (answer.status, await answer.json()) == (401, {"error": MISSING})
        assert not pipeline.is_paused


@pytest.mark.parametrize(
    ("host", "has_token", "told"),
    [
        ("127.0.0.1", False, {"control": "open", "why": None}),
        ("127.0.0.1", True, {"control": "token", "why": None}),
        (BY_ALL, True, {"control": "token", "why": None}),
        (BY_ALL, False, {"control": "refused", "why": NO_TOKEN}),
    ],
)
async def test_a_client_can_ask_what_control_needs(
    token_file: Path, host: str, has_token: bool, told: dict[str, Any]
) -> None:
    async with served(token_file if has_token else None, host) as (client, _):
        assert await (await client.get("/api/access")).json() == told


# --- the file


async def test_a_new_token_is_taken_at_once(token_file: Path) -> None:
    async with served(token_file) as (client, pipeline):
        token_file.write_text("another-token-of-today")
        assert await asked(client, f"Bearer {TOKEN}") == (401, WRONG)
        assert not pipeline.is_paused
        assert await asked(client, "Bearer another-token-of-today") == (200, None)


async def test_a_file_that_went_away_refuses_control_until_it_is_back(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(token_file) as (client, pipeline):
        token_file.unlink()
        for _ in range(3):
            assert await asked(client, f"Bearer {TOKEN}") == (403, UNUSABLE)
        assert await (await client.get("/api/access")).json() == {"control": "refused", "why": UNUSABLE}
        assert not pipeline.is_paused
        token_file.write_text(TOKEN)
        assert await asked(client, f"Bearer {TOKEN}") == (200, None)
    assert events(caplog) == ["control over HTTP is refused until the token can be read"]
    (line,) = lines(caplog)
    assert line["reason"] == (
        f"http.token_file: the file {str(token_file)!r} cannot be read: No such file or directory; it must exist, hold "
        "a token, and be readable for the user of the daemon"
    )


MAKE = "make one with: openssl rand -hex 32"
NOT_ONE = (
    "expected one token of ASCII letters, digits and signs in the file '{file}', got a blank, a line break or another "
    "character; {make}"
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected a token of at least 16 characters in the file '{file}', got 0 characters; {make}"),
        (b"x\n", "expected a token of at least 16 characters in the file '{file}', got 1 character; {make}"),
        (
            b"canary-71e9-123 \r\n",
            "expected a token of at least 16 characters in the file '{file}', got 15 characters; {make}",
        ),
        (
            b"canary-71e9 1234567",
            NOT_ONE,
        ),
        (
            b"canary-71e9-1234567\ncanary-71e9-1234567",
            NOT_ONE,
        ),
        (
            "canary-71e9-üüüüüüüü".encode(),
            NOT_ONE,
        ),
        (b"canary-71e9" + b"x" * 1100, "expected a file that holds a token and nothing else, but '{file}' is too long"),
        (b"canary-71e9\xff\xffxxxxxxx", "the file '{file}' is not UTF-8 text: line 1, column 12 is not UTF-8 text"),
    ],
)
async def test_a_file_that_holds_no_token_is_refused_at_the_start(
    token_file: Path, content: bytes, problem: str
) -> None:
    token_file.write_bytes(content)
    with pytest.raises(OptionsError) as refused:
        async with served(token_file):
            pass
    assert str(refused.value) == f"http.token_file: {problem.format(file=token_file, make=MAKE)}"


async def test_a_file_that_is_missing_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as refused:
        async with served(tmp_path / "none"):
            pass
    assert str(refused.value) == (
        f"http.token_file: the file '{tmp_path}/none' cannot be read: No such file or directory; it must exist, hold a "
        "token, and be readable for the user of the daemon"
    )


def test_a_file_that_may_not_be_read_is_refused(token_file: Path) -> None:
    token_file.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read every file
        os.seteuid(65534)
    try:
        with pytest.raises(OptionsError) as refused:
            read_token(str(token_file))
    finally:
        os.seteuid(user)
    assert str(refused.value) == (
        f"the file '{token_file}' cannot be read: Permission denied; it must exist, hold a token, and "
        "be readable for the user of the daemon"
    )


def test_a_pipe_or_a_directory_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OptionsError) as refused:
            read_token(str(file))
        assert str(refused.value) == (f"expected a regular file that holds a token, but '{file}' is something else")


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(OptionsError) as refused:
        read_token("a\0b")
    assert str(refused.value) == ("the file 'a\\x00b' cannot be read: no file can have that name")
    assert not is_readable_by_others("a\0b")


@pytest.mark.parametrize("content", [TOKEN.encode("utf-16"), f"\ufeff{TOKEN}\r\n".encode(), f"  {TOKEN}\n\n".encode()])
def test_the_token_is_read_as_editors_save_it(token_file: Path, content: bytes) -> None:
    token_file.write_bytes(content)
    assert read_token(str(token_file)) == TOKEN


# --- the log


async def test_the_start_says_who_can_do_what(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(token_file):
        pass
    assert events(caplog) == []
    async with served(token_file, BY_ALL):
        pass
    (warned,) = events(caplog)
    assert warned == (
        "everybody who can reach the HTTP port can see the pipelines, and whoever has the token can control them; "
        "nothing is encrypted, so allow only a trusted network, or set http.host to 127.0.0.1"
    )
    caplog.clear()
    token_file.chmod(0o644)
    async with served(token_file):
        pass
    assert events(caplog) == ["every user of this machine can read the token for control; change the file's mode"]


async def test_wrong_tokens_are_counted_and_the_owner_is_not_locked_out(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(token_file) as (client, _):
        await asked(client, None)
        assert events(caplog) == []
        for number in range(30):
            assert await asked(client, f"Bearer guess-{number}") == (401, WRONG)
        assert await asked(client, f"Bearer {TOKEN}") == (200, None)
        assert events(caplog) == ["requests with a wrong token came to the HTTP port"]
    counts = [(line["count"], line["addresses"]) for line in lines(caplog)]
    assert counts == [(1, {"127.0.0.1": 1}), (29, {"127.0.0.1": 29})]


async def test_the_wrong_tokens_of_a_minute_are_told_at_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def counts() -> list[int]:
        return [line["count"] for line in lines(caplog)]

    monkeypatch.setattr(access, "MINUTE_S", 0.01)
    wrong = access._WrongTokens()
    for _ in range(5):
        wrong.note("192.0.2.1")
    assert counts() == [1]
    await eventually(lambda: counts() == [1, 4], what="the others are told")
    await eventually(lambda: wrong._quiet is None, what="a minute without any is over")
    wrong.note("192.0.2.1")
    assert counts() == [1, 4, 1]
    wrong.close()
    assert counts() == [1, 4, 1]


async def test_many_addresses_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    wrong = access._WrongTokens()
    for number in range(1000):
        wrong.note(f"192.0.2.{number}")
    wrong.note(None)
    wrong.close()
    *_, last = lines(caplog)
    addresses = last["addresses"]
    assert (len(addresses), addresses["others"], sum(addresses.values())) == (21, 980, 1000)


@pytest.mark.parametrize("authorization", [None, "Bearer x", f"Bearer {TOKEN}"])
async def test_the_token_is_nowhere_to_be_seen(
    token_file: Path, authorization: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with served(token_file, BY_ALL) as (client, pipeline):
        await asked(client, authorization)
        texts = [await (await client.get(path)).text() for path in ("/", "/metrics", "/api/pipelines", "/api/access")]
        texts += [repr(pipeline), repr(Http(token_file=str(token_file)))]
    assert "canary-71e9" not in "\n".join([*texts, caplog.text])


# --- the commands


def test_check_names_a_token_that_this_machine_does_not_have(tmp_path: Path) -> None:
    settings = tmp_path / "a.yaml"
    settings.write_text(
        f"pipelines: {{a: {{class: 'tests.daemon.pipelines:Finite'}}}}\nhttp:\n  token_file: {tmp_path}/none\n"
    )
    shown = CliRunner().invoke(app, ["check", str(settings)])
    assert (shown.exit_code, shown.stdout) == (0, "ok: 1 pipeline: a\n")
    assert shown.stderr == (
        f"broadway: {settings}:3: http.token_file: the file '{tmp_path}/none' cannot be read: No such file or "
        "directory; it must exist, hold a token, and be readable for the user of the daemon\n"
    )


def test_run_refuses_a_token_that_is_too_short_and_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary-71e9")
    settings = tmp_path / "a.yaml"
    settings.write_text(
        "pipelines: {a: {class: 'tests.daemon.pipelines:Finite'}}\n"
        f"http: {{port: 0, token_file: {tmp_path}/token}}\n"
    )
    for workers in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "broadway_py", "run", str(settings), "--workers", workers],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=ROOT,
        )
        assert ran.returncode == 2
        assert ran.stderr.endswith(
            f"broadway: {settings}:2: http.token_file: expected a token of at least 16 characters in the file "
            f"'{tmp_path}/token', got 11 characters; {MAKE}\n"
        )
        assert "canary-71e9" not in ran.stderr
