"""Runs the stages of a plan in actors of Ray. The program has the sources that are not files, and the results."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayError

from broadway_py.clock import Clock
from broadway_py.flow.description.layers import FromFiles
from broadway_py.flow.description.settings import OnError, RaySettings
from broadway_py.flow.plan import Plan
from broadway_py.flow.report import StageReport
from broadway_py.flow.running.placement import PARENT, Placement, files_of_workers, workers_of
from broadway_py.flow.running.remote import Connect, Connection, RemoteEdges
from broadway_py.flow.running.runners.calls import MOST_OPEN, CallingConnection
from broadway_py.flow.running.runners.ray_cluster import (
    Connected,
    Node,
    environment_of,
    head_of_cluster,
    needs_of,
    node_of_actor,
    nodes_of_cluster,
    place_of_cluster,
    resources_text,
)
from broadway_py.flow.running.runners.ray_errors import is_death, lost_worker, reason_of, told_failure
from broadway_py.flow.running.runners.ray_watch import LOOK_S, Endpoint, Watch
from broadway_py.flow.running.runners.ray_worker import (
    MOST_BYTES,
    TURNS,
    About,
    FileStat,
    RayWorker,
    Versions,
    file_stat,
    versions_here,
)
from broadway_py.flow.running.runners.worker import Said, Share
from broadway_py.flow.running.runners.workers import Heard, file_ranges, packed_plan
from broadway_py.log import carried_setup, logger
from broadway_py.machine import usable_processors
from broadway_py.process.frames import Frame
from broadway_py.process.packed_errors import WorkerError

__all__ = ["ASKING", "RayWorkers"]

T = TypeVar("T")

#: Seconds that a worker may take to end after it was asked to; then it is killed. It may wait for a function of the
#: user.
_END_S: Final = 2.0
#: Seconds after which the log says what a flow waits for, and from one such line to the next one.
_PATIENCE_S: Final = 5.0
#: The most seconds until the program has left the cluster. It leaves it later, if it takes longer.
_LEAVE_S: Final = 10.0
#: Why a process of Ray is known to have ended.
_REFUSES: Final = "Ray's process there refuses connections"
#: How many calls that ask for something are open to each worker: while one answer comes, the next is on its way.
ASKING: Final = 2
#: Ray refuses further calls of one caller to one worker. This is never reached: there are the calls of the connection,
#: those that ask, one that begins or ends it, and one for each source of files, which asks for its next ranges.
_MOST_PENDING: Final = 2 * (MOST_OPEN + ASKING)


class RayWorkers:
    """The workers of one run, which are actors of Ray. Each has stages of every layer.

    Args:
        plan: what runs.
        most: the most workers.
        settings: where Ray is, and what a worker needs there.
        flow: the number of the run in this program.
        on_error: what an error of a user's function does.
        clock: for waits.
        stopped: called when a stage has ended.

    Raises:
        DefinitionError: something that goes to the workers does not pickle.
    """

    def __init__(
        self,
        plan: Plan,
        most: int,
        settings: RaySettings,
        *,
        flow: int,
        on_error: OnError,
        clock: Clock,
        stopped: Callable[[StageReport], object],
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._flow = flow
        self._clock = clock
        self._count = workers_of(plan, most)
        #: Which stages are in the program.
        self.placement = Placement(self._count, files=files_of_workers(plan) if self._count else ())
        self._packed, self._definitions = packed_plan(plan, on_error)
        #: What the workers have said.
        self.heard = Heard(self._count, stopped, self._is_awaited)
        self._connected = Connected(settings, max(self._count, usable_processors().times(1)))
        self._handles: list[Any] = []
        self._connections: dict[int, CallingConnection] = {}
        self._edges: RemoteEdges | None = None
        self._watching: asyncio.Task[None] | None = None
        # Each is done when its worker will give nothing more.
        self._endings: list[asyncio.Future[None]] = []
        # Worker -> how many calls that ask it for something are open.
        self._asking: Counter[int] = Counter()
        # Set if the call that closes is cancelled.
        self._cancelled: asyncio.CancelledError | None = None

    def _is_awaited(self) -> bool:
        return self._edges is None or self._edges.is_awaited

    # --- the start

    async def start(self) -> RemoteEdges:
        """Starts the workers, and waits until each is ready. Returns the edges to them.

        Raises:
            FlowFailed: there is no such cluster, it has no room for the workers, a worker cannot start or runs other
                versions, or a file cannot be read, or is another one there.
        """
        if not self._count:
            return RemoteEdges({}, self.heard.fail)
        ranges = file_ranges(self._plan, self.placement)
        deadline = self._clock.monotonic() + self._settings.start_timeout
        await self._connected.begin(self._settings.start_timeout, self._clock)
        self._watching = asyncio.create_task(self._watch(), name="flow.ray.watch")
        # It waits for the head, which may have died. Actors whose handles nobody takes end by themselves.
        made = self._connected.ask(self._made)
        try:
            done = await self._some_done([made], deadline - self._clock.monotonic())
            self._raise_failure()
            if not done:
                told = f"ray: {self._cluster()} has not answered within {self._settings.start_timeout:g} s"
                raise told_failure("ray", told, TimeoutError(told))
            self._handles = _result_of_start(made)
        finally:
            made.cancel()
        paths = sorted(self._paths())
        abouts = await self._answers([handle.about.remote(paths) for handle in self._handles], deadline)
        self.heard.nodes = [about.node for about in abouts]
        _check_versions(abouts)
        _check_files(paths, abouts)
        begun = [
            handle.begin.remote(
                Share(place, self._count, self._packed, self._definitions, ranges),
                {other: each for other, each in enumerate(self._handles) if other != place},
                carried_setup(),
            )
            for place, handle in enumerate(self._handles)
        ]
        connections: dict[int, Connect] = {place: partial(self._connect, place) for place in range(self._count)}
        self._edges = RemoteEdges(connections, self.heard.fail, self.heard.note_progress, most_bytes=MOST_BYTES)
        await self._answers(begun, deadline)
        loop = asyncio.get_running_loop()
        self._endings = [loop.create_future() for _ in self._handles]
        for place in range(self._count):
            for _ in range(ASKING):
                self._ask(place)
        return self._edges

    def _made(self) -> list[Any]:
        actor = _actor(self._settings, _MOST_PENDING + len(self.placement.files))
        return [actor.remote(self._flow, place) for place in range(self._count)]

    def _raise_failure(self) -> None:
        if self.heard.outcome.done():
            self.heard.outcome.result()

    def _paths(self) -> set[str]:
        return {
            path
            for planned in self._plan.sources
            if planned.number in self.placement.files and isinstance(planned.source, FromFiles)
            for path in planned.source.paths
        }

    async def _answers(self, calls: Iterable[Any], deadline: float) -> list[Any]:
        """Waits for the answer of each worker to the first call to it, or to a call that takes no time."""
        waiting = {asyncio.wrap_future(call.future()): place for place, call in enumerate(calls)}
        answers: dict[int, Any] = {}
        try:
            while waiting:
                left = deadline - self._clock.monotonic()
                done = await self._some_done(waiting, min(left, _PATIENCE_S))
                self._raise_failure()
                for each in done:
                    place = waiting.pop(each)
                    if (error := each.exception()) is not None:
                        told = f"ray: worker {place} could not start: {reason_of(error)}"
                        raise told_failure("ray", told, error) from error
                    answers[place] = each.result()
                if waiting and not done:
                    await self._wait_on(len(waiting), left - _PATIENCE_S)
        finally:
            for each in waiting:
                each.cancel()
        return [answers[place] for place in sorted(answers)]

    async def _some_done(self, waiting: Iterable[asyncio.Future[Any]], seconds: float) -> set[asyncio.Future[Any]]:
        try:
            async with self._clock.timeout(max(0.0, seconds)):
                done, _ = await asyncio.wait([*waiting, self.heard.outcome], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return set()
        return done - {self.heard.outcome}

    async def _wait_on(self, missing: int, left: float) -> None:
        """Says what the flow waits for.

        Raises:
            FlowFailed: it has waited long enough.
        """
        needs = needs_of(self._settings)
        told = f"{missing} of {self._count} workers are not ready yet; each needs {resources_text(needs, needs)}; "
        if (answer := await self._asked(_resources_of_cluster)) is None:
            told += f"{self._cluster()} does not answer"
        else:
            has, free = answer
            told += (
                f"{self._cluster()} has {resources_text(has, needs)}, of which {resources_text(free, needs)} are free"
            )
        if left <= 0:
            given_up = (
                f"ray: {told}; gave up after {self._settings.start_timeout:g} s: "
                "ask for fewer workers, add nodes, or set start_timeout"
            )
            raise told_failure("ray", given_up, TimeoutError(told))
        logger("broadway_py.flow").warning("a flow waits for workers", flow=self._flow, waits_for=told)

    def _connect(self, place: int, take: Callable[[Frame], object]) -> Connection:
        handle = self._handles[place]

        def hear(said: Frame) -> None:
            if said.kind == Said.LOST:
                lost = pickle.loads(said.body)  # noqa: S301  # from our own worker
                self._lost(lost.place, lost.reason, has_died=lost.has_died)
            elif said.kind >= Said.LEAVE:
                self.heard.take(place, said.kind, said.body)
            else:
                take(said)

        def call(number: int, data: bytes) -> asyncio.Future[None]:
            return asyncio.wrap_future(handle.take.remote(PARENT, number, data).future())

        def lost(error: BaseException) -> None:
            self._lost(place, reason_of(error), has_died=is_death(error))

        connection = self._connections[place] = CallingConnection(hear, call, lost)
        return connection

    # --- while it runs

    def _ask(self, place: int) -> None:
        """Asks a worker for what it has for the program."""
        self._asking[place] += 1
        asked = asyncio.wrap_future(self._handles[place].give.remote().future())
        asked.add_done_callback(partial(self._given, place))

    def _given(self, place: int, asked: asyncio.Future[Any]) -> None:
        self._asking[place] -= 1
        if asked.cancelled():
            return
        if (error := asked.exception()) is not None:
            self._end(place)
            self._lost(place, reason_of(error), has_died=is_death(error))
        elif (chunk := asked.result()) is not None:
            self._connections[place].arrived(*chunk)
            if self._handles:
                self._ask(place)
        elif not self._asking[place]:
            # The answers come in any order, so the last chunk may come after this.
            self._end(place)

    def _lost(self, place: int, reason: str, *, has_died: bool) -> None:
        self.heard.fail(lost_worker(place, self.heard.nodes[place], reason, has_died=has_died))

    def _cluster(self) -> str:
        return place_of_cluster(self._connected.address)

    async def _watch(self) -> None:
        """Ends the flow when the head of the cluster, or a node that it needs, has ended."""
        watch, head = Watch(), head_of_cluster()
        here = ray.get_runtime_context().get_node_id()
        nodes: dict[Endpoint, Node] = {}
        while True:
            gone = await watch.look([head, *nodes])
            lost = [nodes[each] for each in gone if each in nodes]
            # A head that has died does not answer, and the question would hold up others for a minute.
            if not self._endings and not watch.has_refused(head):
                nodes = await self._asked(nodes_of_cluster) or nodes
            if head in gone:
                self._connected.is_dead = True
                told = f"ray: the head of {self._cluster()} has died: {_REFUSES}"
                self.heard.fail(told_failure("ray", told, WorkerError(_REFUSES)))
                return
            if lost:
                await self._note_gone(lost, here)
            await self._clock.sleep(LOOK_S)

    async def _note_gone(self, gone: Iterable[Node], here: str) -> None:
        labels = {each.node_id: each.label for each in gone}
        if here in labels:
            told = f"ray: node {labels[here]}, which this program uses, has died: {_REFUSES}"
            self.heard.fail(told_failure("ray", told, WorkerError(_REFUSES)))
        for place, handle in enumerate(self._handles):
            if (label := labels.get(await self._asked(partial(node_of_actor, handle)) or "")) is not None:
                self.heard.fail(lost_worker(place, label, _REFUSES))

    async def _asked(self, call: Callable[[], T]) -> T | None:
        """Returns what the head of the cluster answers. None: nothing, or an error: perhaps it has died."""
        with contextlib.suppress(TimeoutError, RayError):
            async with self._clock.timeout(LOOK_S):
                return await self._connected.ask(call)
        return None

    async def run(self) -> None:
        """Waits until all workers have done their work.

        Raises:
            FlowFailed: a function of the user has failed, or a worker has died.
        """
        if self._count:
            await self.heard.outcome

    def ask_for_counts(self) -> None:
        """Asks the workers for what they have done so far. One that has not answered is not asked again."""
        for place in self.heard.to_ask() if len(self._connections) == self._count else ():
            self._connections[place].send(Said.COUNT)

    # --- the end

    async def close(self) -> None:
        """Ends the workers, and waits until they are gone, also if this call is cancelled meanwhile."""
        self.heard.end()
        if self._watching is not None:
            self._watching.cancel()
            await self._wait([self._watching], None)
        # At the end of a program, Ray may have disconnected before, which ends actors. A call would connect again.
        if ray.is_initialized():
            await self._end_actors()
        if self._edges is not None:
            self._edges.close()
        self._handles.clear()
        left, until = self._connected.end(), self._clock.monotonic() + _LEAVE_S
        while left is not None and not left.done() and (seconds := until - self._clock.monotonic()) > 0:
            await self._wait([left], seconds)
        if self._cancelled is not None:
            raise self._cancelled

    async def _end_actors(self) -> None:
        if self._endings:
            for connection in self._connections.values():
                connection.send(Said.LEAVE)
            await self._wait(self._endings, _END_S)
        # Who has ended in order may still have something to do at exit.
        exits = [asyncio.wrap_future(each.__ray_terminate__.remote().future()) for each in self._handles]
        if self._cancelled is None:
            await self._wait(exits, _END_S)
        for handle, gone in zip(self._handles, exits, strict=True):
            if not gone.done():
                ray.kill(handle, no_restart=True)
        await self._wait(exits, _END_S)
        for gone in exits:
            _note_result(gone)

    async def _wait(self, futures: list[asyncio.Future[Any]], seconds: float | None) -> None:
        # Not in tasks, which others could cancel: the end of an event loop cancels all tasks that it finds.
        if all(each.done() for each in futures):
            return
        try:
            async with self._clock.timeout(seconds):
                await asyncio.wait(futures)
        except TimeoutError:
            pass
        except asyncio.CancelledError as error:
            self._cancelled = error

    def _end(self, place: int) -> None:
        if not self._endings[place].done():
            self._endings[place].set_result(None)


def _note_result(call: asyncio.Future[Any]) -> None:
    """Takes the error of a call that nobody waits for any more."""
    if call.cancel() or call.cancelled():
        return
    call.exception()


# --- what a worker needs


def _resources_of_cluster() -> tuple[dict[str, float], dict[str, float]]:
    """Returns the resources of all nodes, and which of them are free."""
    cluster: Any = ray  # it types these without arguments
    return cluster.cluster_resources(), cluster.available_resources()


def _result_of_start(made: asyncio.Future[T]) -> T:
    """Returns what was made.

    Raises:
        FlowFailed: Ray has refused it.
    """
    if (error := made.exception()) is not None:
        told = f"ray: expected that workers can be made: {reason_of(error)}"
        raise told_failure("ray", told, error) from error
    return made.result()


def _actor(settings: RaySettings, most_pending: int) -> Any:
    """Returns the class of the workers, which makes one when it is called. It refuses more open calls of a caller."""
    others = dict(settings.resources)
    options: dict[str, Any] = {"num_gpus": others.pop("GPU", None), "memory": others.pop("memory", None)}
    # What is sent from here went over with the connection, and each worker has it from there.
    options["runtime_env"] = environment_of(settings, without_local=True) or None
    remote: Any = ray.remote  # its types leave some of the options out
    # A flow is not idempotent: what has died is neither started nor called again.
    return remote(
        num_cpus=1,
        resources=others,
        max_restarts=0,
        max_task_retries=0,
        max_pending_calls=most_pending,
        scheduling_strategy="SPREAD",
        concurrency_groups={TURNS: 1},
        **{name: value for name, value in options.items() if value is not None},
    )(RayWorker)


# --- what must be the same in the program and in the workers


def _check_versions(abouts: Iterable[About]) -> None:
    here = versions_here()
    for place, about in enumerate(abouts):
        if about.versions != here:
            told = (
                f"ray: expected the versions of this program, {_versions(here)}, in each worker; "
                f"worker {place} on node {about.node} has {_versions(about.versions)}; install the same there"
            )
            raise told_failure("ray", told, RuntimeError(told))


def _versions(versions: Versions) -> str:
    return f"Python {versions.python}, broadway_py {versions.broadway_py}, cloudpickle {versions.cloudpickle}"


def _check_files(paths: Iterable[str], abouts: Iterable[About]) -> None:
    for place, about in enumerate(abouts):
        for path, there in zip(paths, about.files, strict=True):
            here = file_stat(path)
            if here != there:
                told = (
                    f"from_files: expected {path} to be the same for this program and for each worker; "
                    f"here: {_stat(here)}; for worker {place} on node {about.node}: {_stat(there)}; "
                    "put it where every node sees it"
                )
                raise told_failure("from_files", told, OSError(told), place=path)


def _stat(found: FileStat | str) -> str:
    if isinstance(found, str):
        return found
    changed = datetime.fromtimestamp(found.modified_ns / 1e9, UTC)
    return f"{found.size:,} bytes, changed at {changed:%Y-%m-%d %H:%M:%S.%f} UTC"
