"""``Pipeline``: what users subclass."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from broadway_py._core.restarts import Restarts
from broadway_py.acknowledger import CallerAcknowledger
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import (
    BatchFailed,
    CalledInsideCallback,
    MessageFailed,
    OptionsError,
    PipelineNotRunning,
)
from broadway_py.message import BatchMode, Message
from broadway_py.options import INHERIT, Batcher, FailurePolicy, Processors, RateLimit, load
from broadway_py.pipeline.breaker import BreakerGuard
from broadway_py.pipeline.build import batcher_names, build, named_producers, resize, share_capacity
from broadway_py.pipeline.definition import check_class, resolve_callbacks
from broadway_py.pipeline.failure_desk import FailureDesk
from broadway_py.pipeline.processes import CallbackProcesses, layers_in_processes
from broadway_py.pipeline.processor import Processor
from broadway_py.pipeline.runtime import DrainReport, Runtime, Stages, announce
from broadway_py.pipeline.settings import OPTION_NAMES, merged_options, resolve_options
from broadway_py.pipeline.snapshot import take_snapshot
from broadway_py.pipeline.source import Gate
from broadway_py.pipeline.stats import PipelineState, PipelineStats
from broadway_py.pipeline.topology import topology_of
from broadway_py.pipeline.worker import Meter, Shared
from broadway_py.producer import Producer
from broadway_py.stage import Wake

__all__ = ["DrainReport", "Pipeline", "Settled", "all_running"]

T = TypeVar("T")
R = TypeVar("R")

_LAST_WORD_S = 0.1

_running: weakref.WeakSet[Pipeline[Any]] = weakref.WeakSet()


def all_running() -> list[str]:
    """Names of the pipelines that run in this process."""
    return sorted(pipeline.name for pipeline in list(_running) if pipeline.is_running)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a submitted batch, in the order of settlement."""

    successful: list[Message[Any]]
    failed: list[Message[Any]]

    def raise_for_failed(self) -> None:
        """Raise :class:`BatchFailed` if any failed."""
        if self.failed:
            raise BatchFailed(self.failed, len(self.successful) + len(self.failed))


def _set_fields(options: Processors) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.model_fields_set}


async def _all_opened(runtime: Runtime) -> None:
    for source in runtime.stages.sources:
        await source.opened.wait()


class Pipeline(Generic[T]):
    """Takes messages from producers through processors and batchers, and settles each of them once.

    Subclass it and write the callbacks; all but ``handle_message`` are optional, and each may be ``async def`` or plain
    ``def`` (plain ones run in threads and never block the event loop)::

        async def setup(self): ...                        # once per process, before the first message
        def setup_worker(self): ...                       # instead, in each worker process (executor="process")
        async def teardown(self): ...                     # once, after the last settlement, also if setup failed
        def partition_by(self, message): ...              # messages of one key are handled in order
        async def prepare_messages(self, messages): ...   # once per chunk, before handle_message
        async def handle_message(self, message): ...
        async def handle_batch(self, messages, info): ... # required as soon as there is a batcher
        async def handle_failed(self, messages): ...      # failed messages, just before they are settled

    Options are constructor arguments or class attributes; an argument replaces the attribute.

    Args:
        producer: one, or a list of producers with distinct names. Required.
        name: for logs, metrics and the daemon; default: the class's name.
        processors: how messages are handled; see :class:`Processors`.
        batchers: name -> :class:`Batcher`; none by default.
        batch_defaults: a :class:`Batcher` whose settings count for every batcher that does not say otherwise.
        context: anything; the callbacks read it as ``self.context``.
        rate_limit: see :class:`RateLimit`; none by default.
        failure: what becomes of failed messages; see :class:`FailurePolicy`. None: what the connector's own
            ``on_failure`` says.
        partition_by: ``fn(message) -> key``, when it is not written as a method. Messages with equal keys are handled
            one after the other, in order; None: anywhere.
        ordered: True: a failed message is tried again in place, and later ones of its key wait for it. Needs
            ``partition_by``, and a single process.
        transformer: ``fn(message)``, called on every message a producer makes; changes it in place.
        schema: anything pydantic's TypeAdapter takes; ``message.data`` is validated before ``prepare_messages``.
        shutdown_timeout: seconds that a stop may take in all; default 25.
        max_restarts: how many crashes of stages in *max_seconds* are mended; default 3 in 5 seconds.
        max_seconds: see *max_restarts*.
        max_in_flight_bytes: payload bytes in flight at which fetching pauses; none by default. Soft: what a source has
            prefetched, and one list more, may come on top.
        fail_fast: True: the first connect of each producer must succeed; default False, which goes on trying.

    Raises:
        OptionsError: an option is wrong; its path comes first in the text.
        DefinitionError: the class lacks a callback or misspells one.

    A pipeline runs once. Its methods are for the event loop it was started in, except :meth:`request_stop`.
    """

    # Class attributes: overridden in subclasses, by settings or by constructor arguments.
    name: str
    producer: Producer | Sequence[Producer] | None = None
    processors: Processors = Processors()
    batchers: Mapping[str, Batcher] = {}  # never changed; a subclass replaces it
    context: Any = None
    rate_limit: Any = None
    failure: FailurePolicy | None = FailurePolicy()
    partition_by: Any = None
    transformer: Any = None
    schema: Any = None
    shutdown_timeout: float = 25.0
    ordered: bool = False
    batch_defaults: Batcher | None = None
    max_in_flight_bytes: int | None = None
    max_restarts: int = 3
    max_seconds: float = 5.0
    fail_fast: bool = False

    # Callbacks: a subclass defines them.
    setup: ClassVar[Any] = None
    setup_worker: ClassVar[Any] = None
    teardown: ClassVar[Any] = None
    prepare_messages: ClassVar[Any] = None
    handle_message: ClassVar[Any] = None
    handle_batch: ClassVar[Any] = None
    handle_failed: ClassVar[Any] = None

    #: Where time comes from; tests put a ``broadway_py.testing.FakeClock`` here before the start.
    clock: Clock = SYSTEM_CLOCK

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, Pipeline, OPTION_NAMES)

    def __init__(self, **options: Any) -> None:
        resolved = resolve_options(self, options)
        for option, value in resolved.items():
            setattr(self, option, value)
        if self.ordered and self.partition_by is None:
            raise OptionsError(("ordered",), "needs partition_by, which says what must stay in order; got none")
        self._limit: RateLimit | None = resolved["rate_limit"]
        self._producers = named_producers(resolved["producer"])
        self._callbacks = resolve_callbacks(self, self.schema, self.transformer, has_batchers=bool(self.batchers))
        self._in_processes = layers_in_processes(self, self.processors, self.batchers)
        self._state: PipelineState = "new"
        self._runtime: Runtime | None = None
        self._gate = Gate(None)
        self._breaker_moved = Wake()
        self._root: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_set_up: asyncio.Future[None] | None = None
        layers = ["processors", *(f"{kind}:{key}" for key in self.batchers for kind in ("batcher", "batch_processors"))]
        self._meters = {layer: Meter() for layer in layers}

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        *,
        name: str,
        producer: Producer | Sequence[Producer] | None = None,
        path: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> Self:
        """Build one from a config file's section, merged field by field over the class attributes.

        Args:
            settings: the section, without ``class`` and ``producer``.
            name: the pipeline's name unless the section has its own.
            producer: built from the section; None leaves the class attribute.
            path: where the section stands, for errors.
            share: (index, workers): this worker's part of a rate limit of scope ``pipeline``.

        Raises:
            OptionsError: with the whole path.
        """
        try:
            options = merged_options(cls, settings)
        except OptionsError as wrong:
            raise wrong.under(*path) from None
        options.setdefault("name", name)
        if producer is not None:
            options["producer"] = producer
        if share[1] > 1 and options.get("ordered", cls.ordered):
            raise OptionsError(
                (*path, "ordered"),
                f"a key must have one owner, but {share[1]} workers read the same source; set workers: 1, or leave "
                "ordered off",
            )
        limit = options.get("rate_limit", cls.rate_limit)
        if isinstance(limit, RateLimit) and limit.scope == "pipeline":
            options["rate_limit"] = limit.divided(*share)
        try:
            return cls(**options)
        except OptionsError as wrong:
            raise wrong.under(*path) from None

    # --- driving

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Run ``setup``, then start the stages. Does not wait for a broker: see :meth:`ready`.

        Raises:
            Exception: what ``setup`` raised (``teardown`` has run).
            PipelineNotRunning: it was started before; a pipeline runs once.
        """
        if self._state != "new":
            raise PipelineNotRunning(f"pipeline {self.name!r} was started before; a pipeline runs once, make a new one")
        self._state = "starting"
        self._loop = asyncio.get_running_loop()
        self._is_set_up = self._loop.create_future()
        # The one task without a group around it: stop() and __aexit__ wait for it.
        self._root = self._loop.create_task(self._main(self._is_set_up), name=f"{self.name}.pipeline")
        try:
            await asyncio.shield(self._is_set_up)
        except asyncio.CancelledError:
            self._root.cancel()
            await asyncio.wait({self._root})
            raise

    async def _main(self, is_set_up: asyncio.Future[None]) -> None:
        shared = Shared(self.name, self._callbacks, self.clock, self.context, self._failure_desk())
        try:
            runtime = await self._set_up(shared, is_set_up)
            if runtime is None:
                return
            _running.add(self)
            try:
                await runtime.run()
            finally:
                _running.discard(self)
                self._state = "stopped" if runtime.crash is None else "crashed"
                await self._own_callback(shared, "teardown")
        finally:
            shared.threads.close()

    async def _set_up(self, shared: Shared, is_set_up: asyncio.Future[None]) -> Runtime | None:
        """Run ``setup`` and build the stages; None when that failed, which the caller of ``start`` is told."""
        try:
            await self._own_callback(shared, "setup")
            self._runtime = self._build(shared)
        except BaseException as error:
            self._state = "stopped"
            stopped = isinstance(error, asyncio.CancelledError)
            try:
                await self._own_callback(shared, "teardown")
            finally:
                is_set_up.set_exception(
                    PipelineNotRunning(f"pipeline {self.name!r} was stopped during its setup") if stopped else error
                )
                # Whoever called start() may be gone.
                is_set_up.exception()
            if isinstance(error, Exception) or stopped:
                return None
            raise
        self._state = "running"
        announce(shared, self.topology())
        is_set_up.set_result(None)
        return self._runtime

    def _failure_desk(self) -> FailureDesk | None:
        if self.failure is None:
            return None
        return FailureDesk(
            self.failure,
            self.clock,
            breaker_moved=self._breaker_moved.set,
            request_stop=self._stop_wanted,
            ordered=self.ordered,
        )

    def _build(self, shared: Shared) -> Runtime:
        if self._in_processes:
            shared.processes = CallbackProcesses(self, self._in_processes, self._stop_wanted)
        stages, self._gate = build(
            shared,
            self._producers,
            self.processors,
            self.batchers,
            rate_limit=self._limit,
            partition_by=self.partition_by,
            fail_fast=self.fail_fast,
            meters=self._meters,
            max_in_flight_bytes=self.max_in_flight_bytes,
        )
        restarts = Restarts(self.max_restarts, self.max_seconds)
        return Runtime(shared, stages, restarts, self.shutdown_timeout, self._guard(shared, stages))

    def _guard(self, shared: Shared, stages: Stages) -> BreakerGuard | None:
        if shared.desk is None or shared.desk.breaker is None:
            return None
        return BreakerGuard(
            self.name,
            shared.desk.breaker,
            [*stages.sources, stages.submissions],
            take_unstarted=stages.take_unstarted,
            gate=self._gate,
            settler=shared.settler,
            clock=self.clock,
            wake=self._breaker_moved,
        )

    async def _own_callback(self, shared: Shared, name: str) -> None:
        callback = getattr(self, name)
        if callback is None:
            return
        if self._callbacks.is_async[name]:
            await callback()
        else:
            await shared.threads.run(callback)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until every producer is connected.

        Raises:
            TimeoutError: not within *timeout* seconds.
            PipelineNotRunning: it has stopped, or not started.
        """
        runtime = self._needs_runtime("ready")
        if not self.is_running:
            raise runtime.crash or PipelineNotRunning(f"ready(): pipeline {self.name!r} is {self.state}")
        opened = asyncio.ensure_future(_all_opened(runtime))
        ended = asyncio.ensure_future(self._ended())
        try:
            async with self.clock.timeout(timeout):
                await asyncio.wait({opened, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                raise runtime.crash or PipelineNotRunning(f"pipeline {self.name!r} stopped before it was ready")
        finally:
            opened.cancel()
            ended.cancel()

    async def stop(self, timeout: float | None = None) -> DrainReport:
        """Drain: stop fetching, give back what was not started, finish what was, flush, settle, close.

        Args:
            timeout: seconds for all of it; default ``shutdown_timeout``. A second call joins the first.
        """
        self._refuse_inside("stop")
        if self._root is None:
            self._state = "stopped"
        self._stop_wanted(timeout)
        await self._ended()
        return DrainReport({}, in_time=True) if self._runtime is None else self._runtime.report()

    def request_stop(self) -> None:
        """Begin to drain and return at once. For callbacks, other threads and signal handlers."""
        if self._loop is not None:
            # A loop that has closed has nothing left to stop.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop_wanted)

    def _stop_wanted(self, timeout: float | None = None) -> None:
        if self._runtime is not None:
            self._runtime.request_stop(timeout)
        elif self._root is not None:
            # Still in setup(), which may wait for something that never comes.
            self._root.cancel()

    def give_up(self) -> None:
        """Do the last steps of the drain now: cut off what runs, give it back, close."""
        if self._runtime is not None:
            self._runtime.give_up()
        elif self._root is not None:
            self._root.cancel()

    async def wait(self) -> None:
        """Wait until all sources have ended and everything is settled, or until the pipeline was stopped.

        Raises:
            PipelineCrashed: a stage crashed more often than ``max_restarts`` allows.
        """
        self._refuse_inside("wait")
        runtime = self._needs_runtime("wait")
        await self._ended()
        if runtime.crash is not None:
            raise runtime.crash

    async def _ended(self) -> None:
        if self._root is not None:
            await asyncio.wait({self._root})
            if not self._root.cancelled() and (error := self._root.exception()) is not None:
                raise error

    # --- feeding

    async def submit(
        self,
        data: Any,
        metadata: dict[str, Any] | None = None,
        batch_mode: BatchMode = "flush",
        timeout: float | None = None,
    ) -> Message[T]:
        """Send one message through the pipeline and wait until it was settled.

        Returns:
            The message, as the callbacks left it.

        Raises:
            MessageFailed: it failed; ``error.message.status`` says why.
            TimeoutError: not settled within *timeout* seconds (it travels on).
            PipelineNotRunning: the pipeline does not run, or is draining.
        """
        self._refuse_inside("submit")
        async with self.clock.timeout(timeout):
            settled = await self._unless_ended("submit", self._submit("submit", [data], metadata, batch_mode))
        if settled.failed:
            raise MessageFailed(settled.failed[0])
        return settled.successful[0]

    async def submit_batch(
        self, items: Sequence[Any], metadata: dict[str, Any] | None = None, batch_mode: BatchMode = "bulk"
    ) -> Settled:
        """Send *items* through the pipeline, together, and wait until all were settled."""
        self._refuse_inside("submit_batch")
        return await self._unless_ended("submit_batch", self._submit("submit_batch", items, metadata, batch_mode))

    async def _unless_ended(self, call: str, work: Coroutine[Any, Any, R]) -> R:
        """Do *work*; a pipeline that ends without an answer must not leave its caller waiting."""
        doing = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self._ended())
        try:
            await asyncio.wait({doing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                # What the end settled last is being told in this very turn.
                await asyncio.wait({doing}, timeout=_LAST_WORD_S)
            if doing.done():
                return doing.result()
            raise PipelineNotRunning(f"{call}(): pipeline {self.name!r} ended before the outcome was known")
        finally:
            for task in (doing, ended):
                task.cancel()

    async def _submit(
        self, call: str, items: Sequence[Any], metadata: dict[str, Any] | None, batch_mode: BatchMode
    ) -> Settled:
        caller = CallerAcknowledger(len(items))
        messages: list[Message[Any]] = []
        for item in items:
            message = Message(item, dict(metadata or {}), caller.acknowledgement())
            message.batch_mode = batch_mode
            messages.append(message)
        await self._push(call, messages)
        return Settled(*await caller.settled())

    async def push_messages(self, messages: Sequence[Message[Any]]) -> None:
        """Hand messages in, through rate limit and back-pressure; returns when all are in, not when they are settled.

        Raises:
            PipelineNotRunning: the pipeline does not run, or is draining.
            ValueError: one of them is in a pipeline already.
        """
        self._refuse_inside("push_messages")
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"push_messages: expected Message objects, got {type(message).__name__}")
            if message._receipt is not None:
                raise ValueError(f"push_messages: {message!r} is in a pipeline already")
        await self._unless_ended("push_messages", self._push("push_messages", messages))

    async def _push(self, call: str, messages: Sequence[Message[Any]]) -> None:
        runtime = self._needs_runtime(call)
        source = runtime.stages.submissions
        await source.opened.wait()
        if runtime.draining or source.copy is None:
            raise PipelineNotRunning(f"{call}(): pipeline {self.name!r} is {self.state} and takes nothing in")
        await source.copy.push(messages)

    # --- inspecting and changing

    @property
    def state(self) -> PipelineState:
        """Where it is in its life."""
        runtime = self._runtime
        if self._state == "running" and runtime is not None:
            if runtime.draining:
                return "draining"
            if self._gate.paused:
                return "paused"
        return self._state

    @property
    def is_running(self) -> bool:
        """True between :meth:`start` and the end, draining included."""
        return self._state == "running"

    def topology(self) -> dict[str, Any]:
        """Producers, processors and batchers, with their names and concurrency, as a plain dict."""
        return topology_of(self.name, self._producers, self.processors, self.batchers)

    def stats(self) -> PipelineStats:
        """Every figure of this moment."""
        if self._runtime is None:
            return PipelineStats(self.name, self.state, (), (), 0.0, 0, 0)
        return take_snapshot(self.name, self.state, self._runtime, self._gate, self._meters)

    def update_rate_limit(
        self, *, allowed_messages: int | None = None, interval: float | None = None, reset: bool = False
    ) -> None:
        """Change the rate limit: from the next interval on, or at once with ``reset=True``.

        Raises:
            OptionsError: a value is wrong, or the pipeline was built without a rate limit.
        """
        if self._limit is None:
            raise OptionsError(("rate_limit",), f"pipeline {self.name!r} was built without one; nothing to update")
        changes = {"allowed_messages": allowed_messages, "interval": interval}
        self._limit = RateLimit(
            **{**self._limit.model_dump(), **{key: value for key, value in changes.items() if value is not None}}
        )
        self.rate_limit = self._limit
        if self._gate.rate is not None:
            self._gate.rate.update(self._limit.allowed_messages, self._limit.interval, reset=reset)
        if self._runtime is not None:
            for source in [*self._runtime.stages.sources, self._runtime.stages.submissions]:
                source.wake.set()

    def set_concurrency(self, *, processors: int) -> None:
        """Change the number of processors while the pipeline runs. Those taken away finish what they have.

        Raises:
            OptionsError: not a positive number, or the processors are partitioned: a key's owner must not change.
            PipelineNotRunning: the pipeline does not run, or is draining.
        """
        runtime = self._needs_running("set_concurrency")
        if runtime.draining:
            raise PipelineNotRunning(f"set_concurrency(): pipeline {self.name!r} is draining")
        options = load(Processors, {**_set_fields(self.processors), "concurrency": processors}, ("processors",))
        key_of = self.partition_by if options.partition_by is INHERIT else options.partition_by
        if key_of is not None:
            raise OptionsError(
                ("processors", "concurrency"),
                "cannot change while the pipeline runs, because partition_by gives each key to one processor by their "
                "number; stop the pipeline and start it with the new one",
            )
        self.processors = options
        names, meter = batcher_names(self.batchers), self._meters["processors"]
        fresh = resize(
            runtime.stages,
            lambda index: Processor(runtime.shared, index, meter, names, options.timeout),
            options,
        )
        for processor in fresh:
            runtime.start_worker(processor)
        share_capacity(runtime.stages.sources, options, self.batchers)

    @property
    def is_paused(self) -> bool:
        """True between :meth:`pause` and :meth:`resume`."""
        return self._gate.paused

    async def pause(self) -> None:
        """Stop reading the sources, and give back what was not started where the source takes it back."""
        runtime = self._needs_running("pause")
        self._gate.paused = True
        await self._tell_sources(runtime)
        await runtime.shared.settler.give_back_aside(runtime.stages.take_unstarted())

    async def resume(self) -> None:
        """Read the sources again."""
        runtime = self._needs_running("resume")
        self._gate.paused = False
        await self._tell_sources(runtime)

    async def _tell_sources(self, runtime: Runtime) -> None:
        async with asyncio.TaskGroup() as group:
            for source in runtime.stages.sources:
                group.create_task(source.set_paused(paused=self._gate.closed))
        runtime.stages.submissions.wake.set()

    def _needs_runtime(self, call: str) -> Runtime:
        if self._runtime is None:
            raise PipelineNotRunning(f"{call}(): pipeline {self.name!r} is {self.state}; start it first")
        return self._runtime

    def _needs_running(self, call: str) -> Runtime:
        runtime = self._needs_runtime(call)
        if not self.is_running:
            raise PipelineNotRunning(f"{call}(): pipeline {self.name!r} is {self.state}")
        return runtime

    def _refuse_inside(self, call: str) -> None:
        task = asyncio.current_task()
        if task is not None and (task is self._root or (self._runtime is not None and self._runtime.owns(task))):
            raise CalledInsideCallback(call)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} {self.state}>"
