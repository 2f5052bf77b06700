"""What the daemon says when the world around it is not as it should be, and what it never says."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

CANARY = "canary-9c41"


def settings(folder: Path, producer: str, *, handler: str = "Recorder", more: str = "") -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:{handler}
    producer: {producer}
    context: {{file: {folder}/handled}}
{more}"""
    )
    return path


def reasons(running: Daemon) -> list[str]:
    found: list[str] = json.loads(running.get("/readyz")[1])["pipelines"]["orders"]["reasons"]
    return found


def until_reason(running: Daemon, part: str) -> str:
    def matching() -> list[str]:
        return [reason for reason in reasons(running) if part in reason]

    eventually_sync(matching, timeout=30, what=f"/readyz says {part!r}")
    return matching()[0]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_broker_that_is_away_is_tried_again_and_readyz_says_why(tmp_path: Path) -> None:
    port = closed_port()
    producer = f"{{kind: rabbitmq, queue: orders, url: 'amqp://guest:{CANARY}@127.0.0.1:{port}/'}}"
    with daemon(tmp_path, settings(tmp_path, producer, more="log: {level: debug}\n")) as running:
        reason = until_reason(running, "refused")
        assert reason == (
            f"rabbitmq: cannot reach amqp://***@127.0.0.1:{port}/: connection refused; "
            "check host and port, and whether the broker runs"
        )
        assert running.get("/readyz")[0] == 503
        assert running.get("/livez")[0] == 200
        assert running.total("broadway_connection_up", pipeline="orders") == 0
        assert running.terminated()[0] == 0
    assert CANARY not in "\n".join(running.lines)


def test_a_queue_file_that_cannot_be_made_is_tried_again_and_readyz_says_why(tmp_path: Path) -> None:
    producer = f"{{kind: queue, path: {tmp_path}/none/q.db, queue: orders}}"
    with daemon(tmp_path, settings(tmp_path, producer)) as running:
        reason = until_reason(running, "none/q.db")
        assert reason == (
            f"queue: queue file {tmp_path}/none/q.db: its directory {tmp_path}/none does not exist: "
            "create it, or choose another path"
        )
        (tmp_path / "none").mkdir()
        running.until_ready()
        assert running.terminated()[0] == 0


def test_a_secret_is_read_from_its_file_and_again_at_each_connect(tmp_path: Path) -> None:
    first, second = closed_port(), closed_port()
    secret = tmp_path / "url"
    secret.write_text(f"amqp://guest:{CANARY}@127.0.0.1:{first}/\n")
    file = settings(tmp_path, "{kind: rabbitmq, queue: orders}")
    environ = {"BROADWAY_PIPELINES__ORDERS__PRODUCER__URL_FILE": str(secret)}
    with daemon(tmp_path, file, environ=environ) as running:
        until_reason(running, f":{first}/")
        secret.write_text(f"amqp://guest:{CANARY}@127.0.0.1:{second}/\n")
        until_reason(running, f":{second}/")
        assert running.terminated()[0] == 0
    assert CANARY not in "\n".join(running.lines)


async def test_no_payload_is_shown_anywhere(tmp_path: Path) -> None:
    async with Queue(tmp_path / "q.db", "orders") as queue:
        await queue.put_many([f"{CANARY}-{index}" for index in range(20)])
    producer = f"{{kind: queue, path: {tmp_path}/q.db, queue: orders}}"
    file = settings(tmp_path, producer, handler="Raiser", more="log: {level: debug}\n")
    with daemon(tmp_path, file) as running:
        running.until_ready()
        eventually_sync(
            lambda: running.total("broadway_messages_failed_total", cause="raised") == 20, what="all have failed"
        )
        shown = [running.get(path)[1] for path in ("/", "/metrics", "/readyz", "/livez", "/api/pipelines")]
        running.signal(signal.SIGUSR1)
        running.until_logged("state: pipeline")
        assert running.terminated()[0] == 0
    assert "a message failed" in [line["event"] for line in running.log]
    assert CANARY not in "\n".join([*shown, *running.lines])


def test_sigusr1_writes_state_and_stacks_and_sighup_reloads(tmp_path: Path) -> None:
    file = settings(tmp_path, f"{{kind: queue, path: {tmp_path}/q.db, queue: orders}}")
    with daemon(tmp_path, file) as running:
        running.until_ready()
        running.signal(signal.SIGUSR1)
        assert running.until_logged("state: pipeline")["pipeline"] == "orders"
        stacks = {line["thread"]: line["stack"] for line in running.log if line["event"] == "state: thread"}
        assert "run_until_complete" in stacks["broadway-loop"]
        assert running.until_logged("state: task")["at"] is not None
        running.signal(signal.SIGHUP)
        assert running.until_logged("reloaded")["unchanged"] == 1
        assert running.terminated()[0] == 0


def test_ctrl_c_drains_without_a_traceback(tmp_path: Path) -> None:
    file = settings(tmp_path, f"{{kind: queue, path: {tmp_path}/q.db, queue: orders}}")
    with daemon(tmp_path, file) as running:
        running.until_ready()
        running.signal(signal.SIGINT)
        assert running.exit_code() == 0
    assert "Traceback" not in "\n".join(running.lines)


def test_a_pipeline_whose_setup_raises_is_a_crash(tmp_path: Path) -> None:
    file = settings(tmp_path, f"{{kind: queue, path: {tmp_path}/q.db, queue: orders}}", handler="RaisesInSetup")
    with daemon(tmp_path, file) as running:
        assert running.exit_code() == 1
    assert running.until_logged("the pipeline cannot start")["pipeline"] == "orders"


def test_sources_that_have_ended_end_the_daemon(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("pipelines: {a: {class: 'tests.daemon.pipelines:Finite'}}\nhttp: null\n")
    with daemon(tmp_path, file, options=("--set", "http=null")) as running:
        assert running.exit_code() == 0
