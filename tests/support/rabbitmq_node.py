"""A RabbitMQ node of our own, as a process or in a container, for the length of a test run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.containers import Container
from tests.support.erlang import DISTRIBUTION, ErlangShell, NodeRefusedError
from tests.support.eventually import eventually_sync
from tests.support.ports import free_port

__all__ = [
    "PASSWORD",
    "USER",
    "ContainerNode",
    "LocalNode",
    "Node",
    "given_program",
    "parsed_version",
    "server_program",
    "version_of",
]

#: Where distributions put the program itself; the one in PATH may switch to another user and lose our environment.
_PROGRAMS: Final = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
#: Milliseconds of the time-out of consumers, and between two looks at it.
_TIMEOUTS: Final = ("consumer_timeout", "channel_tick_interval")
USER: Final = "tester"
#: The password of every connection in the tests: it must show up nowhere.
PASSWORD: Final = "canary-password"


def given_program() -> str | None:
    """The ``rabbitmq-server`` program that the environment names."""
    return os.environ.get("BROADWAY_TEST_RABBITMQ_SERVER") or None


def server_program() -> str | None:
    """The ``rabbitmq-server`` program that the environment names, or this machine's, if it has one and its Erlang."""
    program = given_program() or next(
        (path for path in _PROGRAMS if Path(path).exists()), shutil.which("rabbitmq-server")
    )
    return program if program is not None and shutil.which("erl", path=_path(program)) is not None else None


def version_of(program: str) -> str | None:
    """The version that lies beside the program, as Debian's packages lay it; None: only a running node can say."""
    prefix = Path(program).parent.parent
    places = ("lib", "lib/rabbitmq/lib", "usr/lib/rabbitmq/lib", "root/usr/lib/rabbitmq/lib")
    found = [folder.name for place in places for folder in (prefix / place).glob("rabbitmq_server-*")]
    return found[0].partition("-")[2] if found else None


def parsed_version(text: str) -> tuple[int, ...]:
    """``4.3.6``, or ``4.3.6-management``, as (4, 3, 6); what follows a plus, minus or tilde is left out."""
    return tuple(int(part) for part in re.split(r"[+~-]", text)[0].split("."))


def _tool(name: str, program: str) -> str:
    return shutil.which(name, path=_path(program)) or name


def _path(program: str) -> str:
    # An Erlang that was unpacked with the server lies beside it; another one may be too old for it.
    return f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


class Node(ABC):
    """A RabbitMQ of our own, with ports, files, cookie and epmd of its own. Nothing else is touched."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="broadway-rabbitmq-"))
        self.port = free_port()
        self._name = f"broadway_{os.getpid()}@localhost"
        self._version: tuple[int, ...] | None = None
        self._settings = self._prepare()
        self._shell: ErlangShell | None = None

    def _prepare(self) -> dict[str, str]:
        home = self.directory / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(uuid.uuid4().hex)
        cookie.chmod(0o400)
        (self.directory / "plugins").write_text("[rabbitmq_consistent_hash_exchange, rabbitmq_sharding].")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"default_user = {USER}\n"
            f"default_pass = {PASSWORD}\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        epmd = free_port(but=[self.port])
        return {
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port(but=[self.port, epmd])),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(DISTRIBUTION),
        }

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        self._launch()

        def up() -> bool:
            assert not self._ended(), f"rabbitmq-server ended: {self._log_tail()}"
            return self.ask("rabbit:is_running()") == "true"

        eventually_sync(up, timeout=60, what="the RabbitMQ node comes up", ignoring=NodeRefusedError)
        self._until_it_listens()

    def _until_it_listens(self) -> None:
        # It says that it is up a moment before.
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        eventually_sync(listens, timeout=60, what="the RabbitMQ node takes connections")

    @property
    def version(self) -> tuple[int, ...]:
        """Of the running node, such as (4, 3, 6): what differs between versions asks for it."""
        if self._version is None:
            self._version = parsed_version(self.ask("rabbit_misc:version()").strip('"'))
        return self._version

    def write_definitions(self) -> None:
        """Have what was declared written to the disk.

        The node has it in memory for up to two seconds, confirmed or not: :meth:`kill` would lose it (seen on 3.10.8).
        So it has the names of new quorum queues. One whose name is lost has no leader any more, and its messages are
        lost.
        """
        self.ask("mnesia:dump_log()")
        self.ask("[dets:sync(Table) || Table <- dets:all()]")

    @abstractmethod
    def _launch(self) -> None:
        """Start the server, and the shell that asks it; return before it is up."""

    @abstractmethod
    def _ended(self) -> bool:
        """Whether the server has ended by itself."""

    @abstractmethod
    def _log_tail(self) -> str:
        """The last of what the server wrote to standard output and error."""

    @abstractmethod
    def kill(self) -> None:
        """End the node at once, as a crash of its machine would."""

    def remove(self) -> None:
        """End everything that this object started, and delete its files."""
        self.kill()
        if self._shell is not None:
            self._shell.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, expression: str) -> str:
        """Evaluate an Erlang expression in the node."""
        assert self._shell is not None, "the node was not started yet"
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
    def largest_message(self, size: int) -> Iterator[None]:
        """Channels opened from now on take messages of at most *size* bytes."""
        before = self.ask("element(2, application:get_env(rabbit, max_message_size))")
        # 4.3 reads the setting once, at its start, and keeps it in a term of its own.
        kept = self.ask("persistent_term:get(max_message_size, none)")

        def change(largest: str) -> None:
            self.ask(f"application:set_env(rabbit, max_message_size, {largest})")
            if kept != "none":
                self.ask(f"persistent_term:put(max_message_size, {largest})")

        change(str(size))
        try:
            yield
        finally:
            change(before)

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
        # Into the node's own folder: of this machine's files one in a container sees no others.
        folder = Path(tempfile.mkdtemp(prefix="tls-", dir=self.directory))
        options = f'[{{certfile, "{shutil.copy(certificate, folder)}"}}, {{keyfile, "{shutil.copy(key, folder)}"}}'
        if clients_of is not None:
            options += f', {{cacertfile, "{shutil.copy(clients_of, folder)}"}}'
            options += ", {verify, verify_peer}, {fail_if_no_peer_cert, true}"
        # The broker starts Erlang's TLS with its first listener, and there was none in its settings.
        self.ask("rabbit_networking:ensure_ssl()")
        self.ask(f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}], 2)')
        try:
            yield port
        finally:
            self.ask(f'rabbit_networking:stop_tcp_listener({{"127.0.0.1", {port}}})')


class LocalNode(Node):
    """A node by the program ``rabbitmq-server`` of this machine."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self._environment = {**os.environ, "PATH": _path(program), **self._settings}
        self._server: subprocess.Popen[bytes] | None = None
        with (self.directory / "epmd.log").open("wb") as log:
            # Started by the node it would outlive us as a daemon.
            self._epmd = subprocess.Popen(
                [_tool("epmd", program), "-address", "127.0.0.1", "-relaxed_command_check"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _launch(self) -> None:
        if self._shell is None:
            erl = [_tool("erl", self._program)]
            self._shell = ErlangShell(erl, self._name, self._environment, self.directory / "shell.log")
        with (self.directory / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._program], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def _ended(self) -> bool:
        return self._server is None or self._server.poll() is not None

    def _log_tail(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End the process, and its group."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def remove(self) -> None:
        """End epmd, too."""
        super().remove()
        with self._epmd:
            self._epmd.kill()


class ContainerNode(Node):
    """A node in a container of *image*, whose files lie in a folder of this machine and so outlive the container.

    The image's own start is passed over: it gives the server to a user of its own, who may not read our files.
    """

    def __init__(self, image: str) -> None:
        super().__init__()
        self._image = image
        self._container: Container | None = None

    def _launch(self) -> None:
        if self._shell is not None:
            self._shell.close()  # it ended with the container it was in
        self._container = Container(
            self._image, environment=self._settings, folder=self.directory, run=["rabbitmq-server"]
        )
        erl = self._container.inside("erl", "--env", "ASKED_NODE")
        self._shell = ErlangShell(erl, self._name, os.environ, self.directory / "shell.log")

    def _ended(self) -> bool:
        return self._container is None or self._container.ended()

    def _log_tail(self) -> str:
        return self._container.log_tail() if self._container is not None else ""

    def kill(self) -> None:
        """End the container."""
        if self._container is not None:
            self._container.remove()
            self._container = None
