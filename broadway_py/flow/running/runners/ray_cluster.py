"""The connection of this program to Ray. It has at most one, which all its flows share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

import ray
from ray._private.state import actors  # without a dashboard, nothing public tells where an actor is to be

from broadway_py.clock import Clock
from broadway_py.flow.description.explain import Cluster
from broadway_py.flow.description.settings import RaySettings
from broadway_py.flow.running.runners.ray_errors import reason_of, told_failure
from broadway_py.flow.running.runners.ray_watch import Endpoint

__all__ = [
    "Connected",
    "Node",
    "address_of",
    "described",
    "environment_of",
    "head_of_cluster",
    "needs_of",
    "node_label",
    "node_of_actor",
    "nodes_of_cluster",
    "place_of_cluster",
    "resources_text",
]

T = TypeVar("T")

_ADDRESS: Final = "RAY_ADDRESS"
_LOCAL: Final = "local"
_REPORTS_USE: Final = "RAY_USAGE_STATS_ENABLED"
#: What a runtime environment may send from this machine, and what belongs to it.
_SENT: Final = ("working_dir", "py_modules")
_OF_SENT: Final = "excludes"
#: Seconds from one try to reach a cluster to the next one, and the most seconds that a connection to it may take.
_AGAIN_S: Final = 1.0
_REACH_S: Final = 2.0


class _Keeper:
    """The thread that connects, asks and disconnects, one after the other.

    It lives as long as the connection: Linux ends the processes that Ray starts with the thread that started them.
    """

    def __init__(self) -> None:
        #: How many flows use a connection that a flow has made. Only the thread changes it.
        self.users = 0
        #: The runtime environment that went over with that connection, if it has something of this machine.
        self.sent: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._is_running = False

    def do(self, job: Callable[[], object]) -> None:
        """Has the thread call *job*, which does not raise."""
        with self._lock:
            self._jobs.put(job)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="flow.ray", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._jobs.get()()
            with self._lock:
                if not self.users and self._jobs.empty():
                    self._is_running = False
                    return


_keeper: Final = _Keeper()


def node_label(address: str, node_id: str) -> str:
    """Returns what a node is called: its address, with the beginning of Ray's name for it."""
    return f"{address} ({node_id[:6]})"


def needs_of(settings: RaySettings) -> dict[str, float]:
    """Returns what each worker needs."""
    return {"CPU": 1, **settings.resources}


def resources_text(found: Mapping[str, float], needs: Iterable[str]) -> str:
    """Returns how much there is in *found* of what workers need, as text."""
    return ", ".join(f"{name} {found.get(name, 0):g}" for name in needs)


def described(settings: RaySettings) -> Cluster:
    """Returns where the workers of a flow would be, and what each needs. The nodes are told if Ray is connected."""
    needs = needs_of(settings)
    nodes = None
    if ray.is_initialized():
        cluster: Any = ray  # its types leave this one out
        nodes = [
            f"{node_label(each['NodeManagerAddress'], each['NodeID'])} with {resources_text(each['Resources'], needs)}"
            for each in cluster.nodes()
            if each["Alive"]
        ]
    return Cluster(place_of_cluster(address_of(settings)), resources_text(needs, needs), nodes)


def address_of(settings: RaySettings) -> str:
    """Returns the address of the cluster; "local" is a Ray of its own on this machine."""
    return settings.address or os.environ.get(_ADDRESS) or _LOCAL


def environment_of(settings: RaySettings, *, without_local: bool = False) -> dict[str, Any]:
    """Returns the runtime environment for Ray; *without_local*: without what is sent from this machine.

    To install what it says belongs to the start of the workers.
    """
    environment = dict(settings.runtime_env)
    if without_local:
        for name in _local_parts(settings):
            del environment[name]
            environment.pop(_OF_SENT, None)
    if environment:
        given = environment.get("config", {})
        environment["config"] = {**given, "setup_timeout_seconds": max(1, round(settings.start_timeout))}
    return environment


def _local_parts(settings: RaySettings) -> list[str]:
    """Returns what of the runtime environment is sent from this machine: directories, files and modules."""
    found = {name: settings.runtime_env[name] for name in _SENT if settings.runtime_env.get(name)}
    return [
        name
        for name, value in found.items()
        if any("://" not in str(each) for each in (value if isinstance(value, list | tuple) else [value]))
    ]


def place_of_cluster(address: str) -> str:
    """Returns where the cluster is, as text. If this program is connected, it is the cluster of the connection."""
    if ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
    return _place(address)


def _place(address: str) -> str:
    return "the Ray of its own on this machine" if address == _LOCAL else f"the cluster at {address}"


class Node(NamedTuple):
    """A node of the cluster that this program is connected to."""

    #: Ray's name for it.
    node_id: str
    #: What errors call it.
    label: str


def nodes_of_cluster() -> dict[Endpoint, Node]:
    """Returns the nodes that live, as far as Ray knows, by where their raylets take connections. It may block."""
    cluster: Any = ray  # its types leave this one out
    return {
        Endpoint(each["NodeManagerAddress"], each["NodeManagerPort"]): Node(
            each["NodeID"], node_label(each["NodeManagerAddress"], each["NodeID"])
        )
        for each in cluster.nodes()
        if each["Alive"]
    }


def head_of_cluster() -> Endpoint:
    """Returns where the head of the cluster takes connections."""
    return _endpoint(ray.get_runtime_context().gcs_address)


def node_of_actor(handle: Any) -> str:
    """Returns Ray's name for the node that has an actor, or that is to start it; "": none was chosen. It may block."""
    node: str = actors(handle._actor_id.hex()).get("Address", {}).get("NodeID", "")
    return node


def _has_port(address: str) -> bool:
    return "://" not in address and address.rpartition(":")[2].isdecimal()


def _are_the_same(asked: str, connected: str) -> bool:
    """Returns whether *asked* may be the cluster at *connected*. A machine may have several names."""
    if _endpoint(asked).port != _endpoint(connected).port:
        return False
    try:
        hosts = [{each[4][0] for each in socket.getaddrinfo(*_endpoint(one))} for one in (asked, connected)]
    except OSError:
        return True  # Ray has its own ways to find it
    return bool(hosts[0] & hosts[1]) or any(ip_address(each).is_loopback for found in hosts for each in found)


def _endpoint(address: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    return Endpoint(host.strip("[]"), int(port))


class _RefusedError(Exception):
    """The connection that this program has cannot be used for a flow."""


class Connected:
    """What a flow holds while it uses Ray.

    Args:
        settings: where the cluster is, and what its workers need.
        processors: how many a Ray of its own has.
    """

    def __init__(self, settings: RaySettings, processors: int) -> None:
        self.address: Final = address_of(settings)
        self._settings = settings
        self._processors = processors
        # Whether this flow counts among the users.
        self._is_user = False
        # Whether a call of the thread has not ended.
        self._is_connecting = False
        self._is_left = False
        #: Nothing that is asked of the cluster has an answer any more.
        self.is_dead = False

    async def begin(self, timeout: float, clock: Clock) -> None:
        """Connects, unless this program is connected.

        Args:
            timeout: seconds.
            clock: for waits.

        Raises:
            FlowFailed: there is no such cluster, it refuses this program, or the program is connected to another one.
        """
        failed: BaseException | None = None
        try:
            async with clock.timeout(timeout):
                while not self._is_user:
                    self._is_connecting = True
                    failed = await self._try()
                    self._is_connecting = False
                    if failed is None:
                        return
                    await clock.sleep(_AGAIN_S)
        except TimeoutError as error:
            reason = "it does not answer" if failed is None else reason_of(failed)
            told = f"ray: expected {place_of_cluster(self.address)} within {timeout:g} s: {reason}"
            raise told_failure("ray", told, failed or error) from failed

    async def _try(self) -> OSError | None:
        """Connects. Returns why it may be tried again."""
        try:
            return await _in_thread(self._connect)
        except Exception as error:  # Ray raises many kinds, for instance if its versions differ
            self._is_connecting = False
            refused = isinstance(error, _RefusedError)
            told = str(error) if refused else f"cannot connect to {_place(self.address)}: {reason_of(error)}"
            raise told_failure("ray", f"ray: {told}", error) from error

    def ask(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Returns the future result of *call*, which asks the cluster. It is not called after the end of the flow.

        Ray would connect again, by itself. All such calls have ended when the connection does.
        """

        def unless_left() -> T:
            if self._is_left:
                raise ConnectionAbortedError
            return call()

        return _in_thread(unless_left)

    def end(self) -> asyncio.Future[None] | None:
        """Ends the connection with the last flow that uses it, if a flow has made it.

        Returns:
            What is to be waited for. None: nothing, because to connect may take long, and so may to leave a cluster
            that is dead. The connection ends after it.
        """
        self._is_left = True
        ended = _in_thread(self._release)
        return None if self._is_connecting or self.is_dead else ended

    # --- in the thread

    def _connect(self) -> OSError | None:
        if self._is_left:
            return None
        if ray.is_initialized():
            self._refuse_another()
            self._is_user = _keeper.users > 0
        else:
            try:
                self._reach()
                with _without_reports():
                    self._init()
            except OSError as error:
                return error
            self._is_user = True
        _keeper.users += self._is_user
        return None

    def _refuse_another(self) -> None:
        """Raises an error if the connection that there is leads elsewhere, or was made without what is to be sent."""
        connected = ray.get_runtime_context().gcs_address
        asked = self._settings.address
        if asked is not None and _has_port(asked) and not _are_the_same(asked, connected):
            raise _RefusedError(
                f"expected the cluster at {asked}, but this program is connected to the one at {connected}: "
                "end what uses that first, or leave address= out"
            )
        if (local := _local_parts(self._settings)) and not self._is_sent():
            raise _RefusedError(
                f"using.runtime_env.{local[0]} is sent from this machine when the program connects to Ray, and it is "
                "connected already: give it to ray.init(), or use a URI"
            )

    def _is_sent(self) -> bool:
        return _keeper.users > 0 and _keeper.sent == dict(self._settings.runtime_env)

    def _reach(self) -> None:
        # If nobody answers, Ray tries for a minute, and this thread could not serve another flow meanwhile.
        if _has_port(self.address):
            socket.create_connection(_endpoint(self.address), _REACH_S).close()

    def _init(self) -> None:
        options: dict[str, Any] = {"logging_level": logging.ERROR}
        _keeper.sent = None
        if _local_parts(self._settings):
            # Ray sends nothing from this machine with an actor.
            options["runtime_env"] = environment_of(self._settings)
            _keeper.sent = dict(self._settings.runtime_env)
        if self.address == _LOCAL:
            options |= {"num_cpus": self._processors, "include_dashboard": False}
        ray.init(self.address, **options)

    def _release(self) -> None:
        if self._is_user:
            self._is_user = False
            _keeper.users -= 1
            if not _keeper.users:
                ray.shutdown()


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Keeps a Ray that is started from reporting its use, unless the user wants it."""
    before = os.environ.get(_REPORTS_USE)
    os.environ.setdefault(_REPORTS_USE, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_REPORTS_USE]


def _in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Returns the future result of *call*, which blocks. It runs on if nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001  # who waits raises it again
            tell(outcome.set_exception, error)
        else:
            tell(outcome.set_result, value)

    def tell(set_: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if outcome.done() else set_(value))

    _keeper.do(run)
    return outcome
