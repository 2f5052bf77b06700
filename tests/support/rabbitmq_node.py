"""A RabbitMQ node of our own, as a process, for the length of a test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.erlang import ErlangShell, NodeRefusedError
from tests.support.eventually import eventually_sync

__all__ = ["PASSWORD", "USER", "Node", "free_port", "server_program"]

#: Where distributions put the program itself; the one in PATH may switch to another user and lose our environment.
_PROGRAMS: Final = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
#: Milliseconds of the time-out of consumers, and between two looks at it.
_TIMEOUTS: Final = ("consumer_timeout", "channel_tick_interval")
USER: Final = "tester"
#: The password of every connection in the tests: it must show up nowhere.
PASSWORD: Final = "canary-password"


def server_program() -> str | None:
    """The ``rabbitmq-server`` program of this machine, if it has one (and the Erlang to ask it things)."""
    if shutil.which("erl") is None:
        return None
    if given := os.environ.get("BROADWAY_TEST_RABBITMQ_SERVER"):
        return given
    return next((program for program in _PROGRAMS if Path(program).exists()), shutil.which("rabbitmq-server"))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """A ``rabbitmq-server`` of our own, with ports, files, cookie and epmd of its own. Nothing else is touched."""

    def __init__(self, program: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="broadway-rabbitmq-"))
        self.port = free_port()
        self._program = program
        self._name = f"broadway_{os.getpid()}@localhost"
        self._environment = self._prepare()
        self._server: subprocess.Popen[bytes] | None = None
        with (self.directory / "epmd.log").open("wb") as log:
            # Started by the node it would outlive us as a daemon.
            self._epmd = subprocess.Popen(
                ["epmd", "-address", "127.0.0.1", "-relaxed_command_check"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._shell = ErlangShell(self._name, self._environment, self.directory / "shell.log")

    def _prepare(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(uuid.uuid4().hex)
        cookie.chmod(0o400)
        (self.directory / "plugins").write_text("[rabbitmq_consistent_hash_exchange].")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"default_user = {USER}\n"
            f"default_pass = {PASSWORD}\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        return {
            **os.environ,
            "HOME": str(home),
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
        }

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        with (self.directory / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._program], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        server = self._server

        def up() -> bool:
            assert server.poll() is None, f"rabbitmq-server ended: {self._log_tail()}"
            return self.ask("rabbit:is_running()") == "true"

        eventually_sync(up, timeout=60, what="the RabbitMQ node comes up", ignoring=NodeRefusedError)
        self._until_it_listens()

    def _until_it_listens(self) -> None:
        # It says that it is up a moment before.
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        eventually_sync(listens, timeout=60, what="the RabbitMQ node takes connections")

    def write_definitions(self) -> None:
        """Have what was declared written to the disk.

        The node has it in memory for up to two seconds, confirmed or not: :meth:`kill` would lose it (seen on 3.10.8).
        """
        self.ask("mnesia:dump_log()")

    def kill(self) -> None:
        """End the node at once, as a crash of its machine would."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def remove(self) -> None:
        """End everything that this object started, and delete its files."""
        self.kill()
        self._shell.close()
        with self._epmd:
            self._epmd.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, expression: str) -> str:
        """Evaluate an Erlang expression in the node."""
        return self._shell.ask(expression)

    def stop_application(self) -> None:
        """Stop RabbitMQ inside its node, as ``rabbitmqctl stop_app`` does: connections end, the port is shut."""
        self.ask("rabbit:stop()")

    def start_application(self) -> None:
        """The way back from :meth:`stop_application`."""
        self.ask("rabbit:start()")
        self._until_it_listens()

    def suspend_listeners(self) -> None:
        """Take no new connections; the old ones live on."""
        self.ask("rabbit_maintenance:suspend_all_client_listeners()")

    def resume_listeners(self) -> None:
        """Take connections again."""
        self.ask("rabbit_maintenance:resume_all_client_listeners()")

    # --- settings of the running node, undone at the end of the block ------------------------------------------------

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Whoever publishes is blocked, as when the machine runs out of memory."""
        before = self.ask("vm_memory_monitor:get_vm_memory_high_watermark()")
        self.ask("vm_memory_monitor:set_vm_memory_high_watermark(0.0)")
        try:
            yield
        finally:
            self.ask(f"vm_memory_monitor:set_vm_memory_high_watermark({before})")

    @contextlib.contextmanager
    def consumer_timeout(self, seconds: float) -> Iterator[None]:
        """Channels opened from now on end when a delivery stays unsettled for longer; looked at each 200 ms."""
        before = {name: self.ask(f"element(2, application:get_env(rabbit, {name}))") for name in _TIMEOUTS}
        for name, milliseconds in zip(_TIMEOUTS, (round(seconds * 1000), 200), strict=True):
            self.ask(f"application:set_env(rabbit, {name}, {milliseconds})")
        try:
            yield
        finally:
            for name, value in before.items():
                self.ask(f"application:set_env(rabbit, {name}, {value})")

    @contextlib.contextmanager
    def tls_listener(self, certificate: Path, key: Path, *, clients_of: Path | None = None) -> Iterator[int]:
        """A port that speaks TLS, with this certificate.

        Args:
            certificate: of the broker, as a file.
            key: to it.
            clients_of: the authority whose certificate each client must show; None: no client need show one.
        """
        port = free_port()
        options = f'[{{certfile, "{certificate}"}}, {{keyfile, "{key}"}}'
        if clients_of is not None:
            options += f', {{cacertfile, "{clients_of}"}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}'
        # The broker starts Erlang's TLS with its first listener, and there was none in its settings.
        self.ask("rabbit_networking:ensure_ssl()")
        self.ask(f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}], 2)')
        try:
            yield port
        finally:
            self.ask(f'rabbit_networking:stop_tcp_listener({{"127.0.0.1", {port}}})')

    def _log_tail(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")[-2000:]
