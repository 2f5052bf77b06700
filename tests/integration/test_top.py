"""``broadway top`` on a real terminal, and a real daemon that it shows."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.eventually import eventually_sync
from tests.support.ports import free_port
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.integration

SETTINGS = """\
pipelines:
  orders: &orders
    class: tests.daemon.pipelines:Plain
    producer: {kind: queue, path: q.db, queue: a}
  returns: *orders
  away:
    class: tests.daemon.pipelines:Plain
    producer: {kind: rabbitmq, queue: q, url: "amqp://127.0.0.1:1/"}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("top")
    (folder / "a.yaml").write_text(SETTINGS)
    with daemon(folder, folder / "a.yaml") as found:
        assert found.url
        eventually_sync(lambda: "cannot reach" in found.get("/readyz")[1], what="the source is away")
        yield found


def top(*arguments: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "broadway_py", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    return done.returncode, done.stdout, done.stderr


def test_it_shows_chooses_opens_pauses_and_leaves_the_terminal_clean(running: Daemon) -> None:
    with on_terminal("top", "--url", running.url) as shown:
        shown.until(
            "3 pipelines, 1 not ready",
            "> orders",
            "    rabbitmq: cannot reach amqp://127.0.0.1:1/: connection refused",
            "j k choose   enter open   p pause or resume   q quit",
        )
        shown.press("j")
        shown.until("> returns")
        shown.press("\x1b[A")
        shown.until("> orders")
        shown.press("\x1b[B")
        shown.until("> returns")
        shown.press("\r")
        shown.until("stages", "batch processors slow", "esc back")
        shown.press("p")
        shown.until("pause returns in all workers? y: yes, any other key: no")
        shown.press("n")
        shown.until("nothing was changed")
        assert json.loads(running.get("/api/pipelines/returns")[1])["state"] == "running"
        shown.press("p")
        shown.until("pause returns in all workers?")
        shown.press("y")
        shown.until("paused returns")
        assert json.loads(running.get("/api/pipelines/returns")[1])["state"] == "paused"
        shown.press("\x1b")
        shown.until("> returns  paused")
        shown.press("p")
        shown.until("resume returns in all workers?")
        shown.press("y")
        shown.until("resumed returns")
        assert json.loads(running.get("/api/pipelines/returns")[1])["state"] == "running"
        shown.press("q")
        assert (shown.exit_code(), shown.is_clean()) == (0, True)


@pytest.mark.parametrize(
    ("end", "code"), [("\x03", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["ctrl-c", "sigterm", "sighup"]
)
def test_however_it_ends_the_terminal_is_clean(running: Daemon, end: str | signal.Signals, code: int) -> None:
    with on_terminal("top", "--url", running.url) as shown:
        shown.until("> orders")
        if isinstance(end, str):
            shown.press(end)
        else:
            shown.process.send_signal(end)
        assert (shown.exit_code(), shown.is_clean()) == (code, True)
        assert "Traceback" not in shown.written


def test_it_ends_with_its_terminal(running: Daemon) -> None:
    with on_terminal("top", "--url", running.url) as shown:
        shown.until("> orders")
        shown.hang_up()
        assert shown.process.wait(30) != 0


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(running: Daemon) -> None:
    with on_terminal("top", "--url", running.url) as shown:
        shown.until("> orders")
        shown.press("\x1a")
        shown.until_stopped()
        assert shown.is_clean()
        shown.process.send_signal(signal.SIGCONT)
        shown.until("> orders")
        assert not shown.is_clean()
        shown.press("q")
        assert (shown.exit_code(), shown.is_clean()) == (0, True)


def test_it_follows_the_size_of_the_terminal(running: Daemon) -> None:
    with on_terminal("top", "--url", running.url) as shown:
        shown.until("> orders")
        shown.resize(10, 40)
        shown.until("j k choose   enter open   p pause or re~")
        shown.resize(10, 140)
        shown.until("check host and port, and whether the broker runs")


def test_without_colours_it_has_none(running: Daemon) -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    with on_terminal("top", "--url", running.url) as shown:
        shown.until("not ready", "q quit")
        assert colours.search(shown.written)
    with on_terminal("top", "--url", running.url, environ={"NO_COLOR": "1"}) as shown:
        shown.until("not ready", "q quit")
        assert not colours.search(shown.written)


def test_a_daemon_that_goes_away_and_comes_back_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "pipelines: {orders: {class: tests.daemon.pipelines:Plain, producer: {kind: queue, path: q.db, queue: a}}}\n"
    )
    port = free_port()
    options = ("--set", f"http.port={port}")
    gone = f"no daemon answers at http://127.0.0.1:{port}: is it running?"
    with on_terminal("top", "--url", f"http://127.0.0.1:{port}", size=(24, 130)) as shown:
        shown.until(gone)
        with daemon(tmp_path, tmp_path / "a.yaml", options=options):
            shown.until("> orders")
        shown.until(gone, "old; the daemon is asked again every second", "> orders")
        with daemon(tmp_path, tmp_path / "a.yaml", options=options):
            page = shown.until("1 pipeline, all ready", "q quit")
            while gone in page:  # the old figures
                page = shown.until("1 pipeline, all ready", "q quit")
        shown.press("q")
        assert (shown.exit_code(), shown.is_clean()) == (0, True)


def test_a_daemon_with_a_token_is_paused_with_the_token_only(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("canary-token-of-sixteen\n")
    token.chmod(0o600)
    (tmp_path / "a.yaml").write_text(
        "http: {token_file: token}\n"
        "pipelines: {orders: {class: tests.daemon.pipelines:Plain, producer: {kind: queue, path: q.db, queue: a}}}\n"
    )
    with daemon(tmp_path, tmp_path / "a.yaml") as found:
        for words, notice in (((), "wants a token: name the file that holds it"), (("--token-file", token), "paused")):
            with on_terminal("top", "--url", found.url, *words, size=(24, 160)) as shown:
                shown.until("> orders", "running")
                shown.press("p")
                shown.until("pause orders in all workers?")
                shown.press("y")
                shown.until(notice)
                assert "canary" not in shown.written
        assert json.loads(found.get("/api/pipelines/orders")[1])["state"] == "paused"


@contextmanager
def answering(body: object) -> Iterator[str]:
    """A server that answers every request with *body*: its URL."""
    raw = json.dumps(body).encode()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                with visitor:
                    visitor.recv(65536)
                    visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)


STRANGE = {"version": "9", "pipelines": [{"name": "orders", "producers": [{"latency": {"buckets": []}}]}]}


def test_after_an_error_the_terminal_is_clean_and_the_sentence_is_on_it() -> None:
    with answering(STRANGE) as url, on_terminal("top", "--url", url, size=(24, 200)) as shown:
        assert (shown.exit_code(), shown.is_clean()) == (1, True)
        assert shown.after.strip() == (
            f"broadway: the daemon at {url} answers in a form that this version of broadway does not know: "
            "install the same version on both sides"
        )


def test_another_program_at_the_address_is_one_sentence() -> None:
    with answering({"hello": 1}) as url:
        assert top("--url", url) == (
            1,
            "",
            (
                f"broadway: another program than a broadway daemon answers at {url}: "
                "check http.host and http.port of the settings, or the address in --url\n"
            ),
        )


def test_on_a_pipe_it_prints_once(running: Daemon) -> None:
    code, out, err = top("--url", running.url)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("broadway 0.")
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["pipeline", "state"],
        ["orders", "running"],
        ["returns", "running"],
    ]
    assert "\x1b" not in out


def test_json_is_one_object_for_each_pipeline(running: Daemon) -> None:
    code, out, err = top("--url", running.url, "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["name"], one["state"], one["ready"]) for one in found] == [
        ("orders", "running", True),
        ("returns", "running", True),
        ("away", "not ready", False),
    ]
    assert found[0]["settled_per_second"] == 0.0


def test_wrong_options_are_one_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"http: {{port: {free_port()}}}\n{SETTINGS}")
    assert top("a.yaml", "--url", "http://h/") == (2, "", "broadway: top: give settings files or --url, not both\n")
    assert top("--url", "h") == (
        2,
        "",
        "broadway: --url: expected the address of a daemon, such as http://127.0.0.1:8080\n",
    )
    assert top("--url", "http://h/", "--token-file", "/nosuch") == (
        2,
        "",
        (
            "broadway: --token-file: the file '/nosuch' cannot be read: No such file or directory; it must exist, hold "
            "a token, and be readable for the user of the daemon\n"
        ),
    )
    code, out, err = top(str(tmp_path / "a.yaml"), "--once")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"broadway: no daemon answers at http://127\.0\.0\.1:\d+: is it running\? "
        r"its address is http\.host and http\.port of the settings\n",
        err,
    )
