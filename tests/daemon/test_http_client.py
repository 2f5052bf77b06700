"""The client of the commands, against the real HTTP port and against what else may be at an address."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, Pipeline, Processors
from broadway_py.cli.http_client import DaemonAway, DaemonClient, DaemonError, address_of, pipeline_path
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http, read_settings
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer
from tests.support.ports import free_port

CANARY = "canary-77f2"
STRANGER = (
    "another program than a broadway daemon answers at URL (status STATUS): "
    "check http.host and http.port of the settings, or the address in --url"
)
ENDED = (
    "the connection to URL ended without an answer of a daemon: it stops or starts, or another program uses this port"
)


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next of *answers* and closes it: its URL, and the requests it got."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            for answer in answers:
                visitor, _ = server.accept()
                with visitor:
                    got.append(request_from(visitor))
                    visitor.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", got
        finally:
            thread.join(60)


def request_from(visitor: socket.socket) -> bytes:
    """The whole request: what is left unread would cut off the answer. One that is not HTTP is its first bytes."""
    got = visitor.recv(65536)
    while got.startswith((b"GET ", b"POST ")) and not (
        b"\r\n\r\n" in got and (got.endswith(b"{}") or b"Content-Length" not in got)
    ):
        got += visitor.recv(65536)
    return got


def http_answer(status: str, body: object, *headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + raw


def refused(ask: Callable[[], object]) -> DaemonError:
    with pytest.raises(DaemonError) as failed:
        ask()
    assert CANARY not in str(failed.value)
    return failed.value


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_asks_a_daemon_and_changes_it(host: str) -> None:
    async with (
        Orders(producer=DummyProducer(), name="a/b ?", processors=Processors(concurrency=1)) as pipeline,
        serve(Http(host=host, port=0), LocalView([pipeline], LagMeter())) as port,
    ):
        await pipeline.ready(10)
        client = DaemonClient(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}/")
        shown = await asyncio.to_thread(client.get, "/api/pipelines")
        assert [one["name"] for one in shown["pipelines"]] == ["a/b ?"]
        told = await asyncio.to_thread(client.post, pipeline_path("a/b ?", "pause"))
        assert told == {"pipeline": "a/b ?", "done": "pause", "heard": [0], "not_heard": {}}
        assert (await asyncio.to_thread(client.get, pipeline_path("a/b ?")))["state"] == "paused"
        with pytest.raises(DaemonError) as failed:
            await asyncio.to_thread(client.post, pipeline_path("nosuch", "pause"))
        assert failed.value.status == 404
        assert str(failed.value) == (
            f"the daemon at {client.url} refuses this (status 404): no pipeline 'nosuch'; known here: a/b ?"
        )
        with pytest.raises(DaemonError) as failed:
            await asyncio.to_thread(client.get, "/api/nosuch")
        assert str(failed.value) == (
            f"the daemon at {client.url} does not know /api/nosuch: it runs an older version; "
            "install the same version on both sides"
        )


def test_nobody_at_the_address_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    failed = refused(partial(DaemonClient(url, CANARY).get, "/api/pipelines"))
    assert isinstance(failed, DaemonAway)
    assert str(failed) == (
        f"no daemon answers at {url}: is it running? its address is http.host and http.port of the settings"
    )


def test_a_host_without_an_address_is_one_sentence() -> None:
    failed = refused(partial(DaemonClient("http://nosuch.invalid:8080").get, "/api/pipelines"))
    assert isinstance(failed, DaemonAway)
    assert str(failed) == (
        "no daemon answers at http://nosuch.invalid:8080: no address is known for the host 'nosuch.invalid'; "
        "check its name"
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            http_answer("401 Unauthorized", {"error": "a token is needed"}),
            "the daemon at URL does not accept this token: take the file that http.token_file of its settings names",
        ),
        (
            http_answer("403 Forbidden", {"error": "set http.token_file"}),
            "the daemon at URL does not allow this: set http.token_file",
        ),
        (
            http_answer("503 Service Unavailable", {"error": "worker 1: it is \u001b[31mstarting"}),
            "the daemon at URL could not do this now: worker 1: it is \\x1b[31mstarting",
        ),
        (
            http_answer("415 Unsupported Media Type", {"error": f"amqp://me:{CANARY}@broker"}),
            "the daemon at URL refuses this (status 415): amqp://***@broker",
        ),
        (
            http_answer("200 OK", b"<html>hello</html>"),
            STRANGER.replace("STATUS", "200"),
        ),
        (
            http_answer("404 Not Found", {"detail": "Not Found"}),
            STRANGER.replace("STATUS", "404"),
        ),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            ENDED,
        ),
        (
            b"",
            ENDED,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}",
            ENDED,
        ),
    ],
    ids=["401", "403", "503", "415", "html", "other-json", "ssh", "closed", "half"],
)
def test_each_other_answer_is_one_sentence(answer: bytes, sentence: str) -> None:
    with answering(answer) as (url, got):
        failed = refused(partial(DaemonClient(url, CANARY).post, "/api/reload"))
    assert str(failed) == sentence.replace("URL", url)
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert f"Authorization: Bearer {CANARY}".encode() in head.split(b"\r\n")
    assert b"Content-Type: application/json" in head.split(b"\r\n")
    assert body == b"{}"


def test_without_a_token_it_says_how_to_give_one() -> None:
    with answering(http_answer("401 Unauthorized", {"error": "a token is needed"})) as (url, got):
        failed = refused(partial(DaemonClient(url).post, "/api/reload"))
    assert str(failed) == f"the daemon at {url} wants a token: name the file that holds it with --token-file"
    assert b"Authorization" not in got[0]


def test_an_answer_that_does_not_come_ends_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        failed = refused(partial(DaemonClient(url, CANARY, timeout_s=0.05).get, "/api/pipelines"))
    assert isinstance(failed, DaemonAway)
    assert str(failed) == (
        f"the daemon at {url} did not answer within 0.05 s: it may be overloaded or blocked; see its log, and try again"
    )


def test_a_token_is_not_sent_to_the_place_that_an_answer_points_to() -> None:
    moved = http_answer("302 Found", b"", "Location: http://127.0.0.1:1/")
    with answering(moved) as (url, _):
        failed = refused(partial(DaemonClient(url, CANARY).get, "/api/pipelines"))
    assert str(failed) == (STRANGER.replace("STATUS", "302").replace("URL", url))


def test_an_address_that_does_not_speak_tls_is_one_sentence() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (url, _):
        secure = url.replace("http:", "https:")
        failed = refused(partial(DaemonClient(secure).get, "/api/pipelines"))
    assert str(failed) == f"{secure} does not speak TLS: the daemon itself serves http://, not https://"


def test_a_loopback_address_is_asked_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(http_answer("200 OK", {"version": "1"})) as (url, _):
        assert DaemonClient(url).get("/api/pipelines") == {"version": "1"}


def test_another_host_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(http_answer("200 OK", {"version": "1"})) as (proxy, got):
        monkeypatch.setenv("http_proxy", proxy)
        assert DaemonClient("http://daemon.invalid:8080/team").get("/api/pipelines") == {"version": "1"}
    assert got[0].startswith(b"GET http://daemon.invalid:8080/team/api/pipelines HTTP/1.1\r\n")


def test_a_wrong_proxy_is_one_sentence_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"http:{CANARY}")
    failed = refused(partial(DaemonClient("http://daemon.invalid:8080").get, "/api/pipelines"))
    assert str(failed) == (
        "http://daemon.invalid:8080 cannot be asked through the proxy of the environment, whose address is not valid: "
        "correct http_proxy, or name this host in no_proxy"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://127.0.0.1/",
        "http://",
        "http://h:0/",
        "http://h:70000/",
        "http://h:x/",
        "http://h/?a=1",
        "http://h/a b",
        "http://a b/",
        "http://[::1/",
        "http://h/\r\nX: y",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OptionsError, match=r"^expected the address of a daemon, such as http://127\.0\.0\.1:8080$"):
        DaemonClient(url)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(OptionsError) as failed:
        DaemonClient(f"http://me:{CANARY}@127.0.0.1:8080/")
    assert str(failed.value) == (
        "expected the address of a daemon, such as http://127.0.0.1:8080, without a password: "
        "name the file that holds the token with --token-file"
    )


@pytest.mark.parametrize("token", ["", f"{CANARY} two", f"{CANARY}\r\nX: y", f"{CANARY}é"])
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(OptionsError) as failed:
        DaemonClient("http://127.0.0.1:8080", token)
    assert str(failed.value) == "the token is not one line of visible ASCII characters without spaces"


def test_the_settings_name_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}-sixteen\r\n")
    settings = settings_with(f"{{token_file: {tmp_path / 'token'}}}", tmp_path)
    assert address_of(settings) == ("http://127.0.0.1:8080", f"{CANARY}-sixteen")
    (tmp_path / "token").unlink()
    with pytest.raises(OptionsError) as failed:
        address_of(settings)
    assert str(failed.value) == (
        f"http.token_file: the file {str(tmp_path / 'token')!r} cannot be read: No such file or directory; it must "
        "exist, hold a token, and be readable for the user of the daemon"
    )


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("{}", "http://127.0.0.1:8080"),
        ("{host: 0.0.0.0, port: 9000}", "http://127.0.0.1:9000"),
        ("{host: '::', port: 9000}", "http://[::1]:9000"),
        ("{host: daemon.example}", "http://daemon.example:8080"),
    ],
)
def test_the_settings_say_where_their_daemon_is(section: str, url: str, tmp_path: Path) -> None:
    assert address_of(settings_with(section, tmp_path)) == (url, None)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("null", "http: is null, so this daemon serves nothing and cannot be asked; give it a section"),
        (
            "{port: 0}",
            "http.port: is 0, so the system chose the port; give the address in the log line `listening` with --url",
        ),
    ],
)
def test_settings_without_an_address_are_told(section: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as failed:
        address_of(settings_with(section, tmp_path))
    assert str(failed.value) == sentence


def settings_with(section: str, folder: Path) -> Any:
    (folder / "a.yaml").write_text(f"http: {section}\npipelines: {{a: {{class: x:Y}}}}\n")
    return read_settings([folder / "a.yaml"], environ={})
