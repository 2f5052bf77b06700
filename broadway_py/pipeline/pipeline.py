"""``Pipeline``: the class that users subclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from broadway_py.aggregator import Aggregator, State
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.durations import timeout_of
from broadway_py.errors import (
    MessageFailed,
    OptionsError,
    PipelineNotRunning,
    gathered,
)
from broadway_py.message import BatchMode, Message
from broadway_py.options import Batcher, FailurePolicy, Processors, RateLimit
from broadway_py.pipeline.aggregator_options import (
    refuse_several_workers,
    warn_of_retries_that_come_late,
)
from broadway_py.pipeline.callbacks.definition import check_class, resolve_callbacks
from broadway_py.pipeline.lifecycle import LifeCycle, all_running
from broadway_py.pipeline.option_sources import (
    OPTION_NAMES,
    check_together,
    merged_options,
    refuse_shared_keys,
    resolve_options,
)
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.pipeline.runtime.build import Builder, meters_of
from broadway_py.pipeline.runtime.drain import DrainReport
from broadway_py.pipeline.runtime.live_changes import changed_limit, resize_pool, resized, set_paused
from broadway_py.pipeline.runtime.snapshot import take_snapshot
from broadway_py.pipeline.runtime.topology import topology_of
from broadway_py.pipeline.stats import PipelineState, PipelineStats
from broadway_py.pipeline.submit import Settled, Submitter
from broadway_py.producer_description import AnyProducer
from broadway_py.publisher import Sink

__all__ = ["DrainReport", "Pipeline", "Settled", "all_running"]

T = TypeVar("T")
R = TypeVar("R")


class Pipeline(Generic[T]):
    """Takes messages from producers through processors and batchers, and settles each message once.

    Subclass it and write the callbacks. Only ``handle_message`` is required. Each callback may be ``async def`` or
    plain ``def``; plain ones run in threads and never block the event loop::

        async def setup(self): ...                        # once per process, before the first message
        def setup_worker(self): ...                       # instead of setup in each worker process (executor="process")
        async def teardown(self): ...                     # once, after the last settlement, also if setup failed
        def partition_by(self, message): ...              # messages with the same key are handled in order
        async def prepare_messages(self, messages): ...   # once per chunk, before handle_message
        async def handle_message(self, message): ...
        async def handle_batch(self, messages, info): ... # required if there is a batcher
        async def handle_failed(self, messages): ...      # failed messages, just before they are settled

    Options are constructor arguments or class attributes. An argument replaces the attribute.

    Args:
        producer: one producer, or a list of producers with different names. Required.
        name: the name in logs, metrics and the daemon; default: the class's name.
        processors: how messages are handled; see :class:`Processors`.
        batchers: name -> :class:`Batcher`; none by default.
        batch_defaults: a :class:`Batcher` with the settings for every batcher that does not set its own.
        aggregators: name -> :class:`Aggregator`, a class or an object; none by default. Messages get there by
            ``message.batcher``, so no batcher may have the same name.
        state: the path of the file that keeps the windows, or a :class:`State`. Needed with aggregators. If the
            producer has ``partitions``, it is the path of a directory, with a file for each. ``"memory"`` keeps the
            windows in this process; it is refused if the messages of a source outlive the process.
        publishers: name -> a publisher, such as :class:`~broadway_py.producers.RabbitMQPublisher`; none by default.
            Callbacks publish with ``await self.publishers["out"].publish(…)``, which returns when it is confirmed.
        deduplicate_by: ``"id"``: a message whose id was handled before is acked, and not handled again. Or a plain
            function ``fn(message) -> text`` that names a message; in a class body it is a method. Needs *state*, which
            keeps the ids. With None, each delivery is handled.
        context: any object; the callbacks read it as ``self.context``.
        rate_limit: see :class:`RateLimit`; none by default.
        failure: what happens to failed messages; see :class:`FailurePolicy`. With None, the connector's own
            ``on_failure`` decides.
        partition_by: ``fn(message) -> key``, if it is not written as a method. Messages with equal keys are handled
            one after the other, in order. With None, any processor handles any message.
        ordered: with True, a failed message is tried again in place, and later messages with its key wait for it.
            Needs ``partition_by``. Needs a single process, unless each source gives all messages with one key to one
            worker.
        own: which partitions of the sources this process owns, or all workers of this daemon together: ``"0-3"`` or
            ``"0,2,5-7"``; ``"ordinal"``, the one with the number at the end of the host's name, as a StatefulSet gives
            it; ``"ordinal of 4"``, every fourth from that number on. None: all of them. Needs a producer with
            ``partitions``.
        transformer: ``fn(message)``, called on every message that a producer makes; it changes the message in place.
        schema: any type that pydantic's TypeAdapter takes; ``message.data`` is validated before ``prepare_messages``.
        shutdown_timeout: how many seconds a stop may take in all; default 25.
        max_restarts: how often stages may crash within *max_seconds* and be started again; default 3 in 5 seconds.
        max_seconds: see *max_restarts*.
        max_in_flight_bytes: payload bytes in flight at which fetching pauses; no limit by default. The limit is soft:
            messages that a source has prefetched, and one more list, may exceed it.
        fail_fast: with True, the first attempt of each producer to connect must succeed. The default False tries
            again.
        tracing: with True, messages, batches and received lists have spans of OpenTelemetry, and traces go on through
            the pipeline. Needs the extra ``otel``. Off by default.

    Raises:
        OptionsError: an option is wrong; the text begins with its path.
        DefinitionError: the class lacks a callback or misspells one.

    A pipeline runs once. Call its methods only in the event loop that started it; :meth:`request_stop` may be called
    from anywhere.
    """

    # These options may be replaced by subclasses, by settings or by constructor arguments.
    name: str
    producer: AnyProducer | Sequence[AnyProducer] | None = None
    processors: Processors = Processors()
    batchers: Mapping[str, Batcher] = {}  # never changed in place; a subclass replaces it
    aggregators: Mapping[str, Aggregator[Any, Any, Any] | type[Aggregator[Any, Any, Any]]] = {}  # the same
    state: State | str | PathLike[str] | None = None
    publishers: Mapping[str, Sink] = {}  # the same
    deduplicate_by: Any = None
    context: Any = None
    rate_limit: Any = None
    failure: FailurePolicy | None = FailurePolicy()
    partition_by: Any = None
    transformer: Any = None
    schema: Any = None
    shutdown_timeout: float = 25.0
    ordered: bool = False
    batch_defaults: Batcher | None = None
    own: str | None = None
    max_in_flight_bytes: int | None = None
    max_restarts: int = 3
    max_seconds: float = 5.0
    fail_fast: bool = False
    tracing: bool = False

    # Subclasses define these callbacks.
    setup: Any = None
    setup_worker: Any = None
    teardown: Any = None
    prepare_messages: Any = None
    handle_message: Any = None
    handle_batch: Any = None
    handle_failed: Any = None

    #: The source of time. Tests put a ``broadway_py.testing.FakeClock`` here before the start.
    clock: Clock = SYSTEM_CLOCK
    # The rate limit of all workers together, of which this pipeline has a part; None: it has all of its own.
    _whole_limit: RateLimit | None = None
    # Knows which messages have ended processes. A daemon's worker sets it before the start: it cannot be an argument,
    # because users write constructors of their own.
    _isolation: Any = None
    #: True: the sources are asked how many messages they hold. The daemon sets it.
    _counts_sources: bool = False
    # Chooses each delay of a retry between two bounds, as random.uniform does; None: that. A test kit sets it.
    _uniform: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, Pipeline, OPTION_NAMES)

    def __init__(self, **options: Any) -> None:
        resolved = resolve_options(self, options)
        for option, value in resolved.items():
            setattr(self, option, value)
        self.publishers = own_publishers = Publishers(resolved["publishers"])
        self._limit: RateLimit | None = resolved["rate_limit"]
        # The default is a single object, so any other object was given by the user.
        failure_is_given = self.failure is not Pipeline.failure
        self._sources, in_processes, definitions = check_together(
            self, resolved["producer"], failure_is_given=failure_is_given
        )
        # The sinks of aggregators, by the aggregator's name.
        self._emits_to = {
            name: one.options.emit_to for name, one in definitions.items() if one.options.emit_to is not None
        }
        warn_of_retries_that_come_late(self.name, definitions, self.failure)
        callbacks = resolve_callbacks(self, self.schema, self.transformer, has_batchers=bool(self.batchers))
        self._life_cycle = LifeCycle(
            self.name,
            callbacks,
            lambda threads: self._builder.run(threads, self._limit, self._isolation),
            publishers=own_publishers,
            let_publish=lambda: own_publishers.start(self.name, self.clock, self.context),
        )
        self._meters = meters_of(self.batchers, definitions)
        self._builder = Builder(
            self,
            self._sources,
            callbacks,
            definitions=definitions,
            in_processes=in_processes,
            meters=self._meters,
            publishers=own_publishers,
            failure_is_given=failure_is_given,
            request_stop=self._life_cycle.stop_wanted,
        )
        self._submitter = Submitter(self._life_cycle)

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        *,
        name: str,
        producer: AnyProducer | Sequence[AnyProducer] | None = None,
        path: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> Self:
        """Build a pipeline from a section of a config file, merged field by field over the class attributes.

        Args:
            settings: the section, without ``class`` and ``producer``.
            name: the pipeline's name if the section has no name of its own.
            producer: the producer built from the section; None keeps the class attribute.
            path: the place of the section in the file, for errors.
            share: (index, workers): says which of the owned partitions this worker reads, and which part of a rate
                limit with scope ``pipeline`` it gets.

        Raises:
            OptionsError: a setting is wrong; the error has the whole path.
        """
        try:
            options = merged_options(cls, settings)
        except OptionsError as refused:
            raise refused.under(*path) from None
        options.setdefault("name", name)
        if producer is not None:
            options["producer"] = producer
        wrong: list[OptionsError] = []
        if share[1] > 1 and options.get("ordered", cls.ordered):
            with gathered(wrong):
                refuse_shared_keys(options.get("producer", cls.producer), share[1], (*path, "ordered"))
        if options.get("aggregators", cls.aggregators):
            with gathered(wrong):
                refuse_several_workers(options.get("producer", cls.producer), share[1], (*path, "aggregators"))
        if options.get("deduplicate_by", cls.deduplicate_by) is not None:
            with gathered(wrong):
                path_of_ids = (*path, "deduplicate_by")
                refuse_several_workers(options.get("producer", cls.producer), share[1], path_of_ids, "deduplicate_by")
        limit = options.get("rate_limit", cls.rate_limit)
        is_divided = isinstance(limit, RateLimit) and limit.scope == "pipeline"
        if is_divided:
            options["rate_limit"] = limit.divided(*share)
        try:
            made = cls(**options)
        except OptionsError as refused:
            raise OptionsError.of([*wrong, refused.under(*path)]) from None
        except Exception:  # raised by a constructor that the user wrote
            if wrong:
                raise OptionsError.of(wrong) from None
            raise
        with gathered(wrong):
            try:
                made._sources.take_share(*share)
            except OptionsError as refused:
                raise refused.under(*path) from None
        if wrong:
            raise OptionsError.of(wrong)
        made._whole_limit = limit if is_divided else None
        return made

    # --- driving

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Run ``setup``, then start the stages. It does not wait for a broker: see :meth:`ready`.

        Raises:
            Exception: what ``setup`` raised (``teardown`` has run).
            PipelineNotRunning: the pipeline was started before; a pipeline runs once.
        """
        await self._life_cycle.start()

    async def ready(self, timeout: float | timedelta | None = None) -> None:
        """Wait until every producer is connected.

        Raises:
            TimeoutError: they were not connected within *timeout* seconds.
            PipelineNotRunning: the pipeline has stopped, or was not started.
        """
        await self._life_cycle.ready(timeout_of(timeout, "ready(timeout=…)"))

    async def stop(self, timeout: float | timedelta | None = None) -> DrainReport:
        """Drain the pipeline, and return when it has ended.

        The drain stops fetching, gives back the messages that were not started, finishes those that were, flushes the
        batches, settles everything and closes the sources. A second call joins the first.

        Args:
            timeout: seconds for the whole drain; default ``shutdown_timeout``.
        """
        self._life_cycle.refuse_inside("stop")
        return await self._life_cycle.stop(timeout_of(timeout, "stop(timeout=…)"))

    def request_stop(self) -> None:
        """Begin to drain and return at once. Callbacks, other threads and signal handlers may call this."""
        self._life_cycle.request_stop()

    def give_up(self) -> None:
        """Do the last steps of the drain now: cut off the running callbacks, give their messages back, close."""
        self._life_cycle.give_up()

    async def wait(self) -> None:
        """Wait until all sources have ended and every message is settled, or until the pipeline was stopped.

        Raises:
            PipelineCrashed: a stage crashed more often than ``max_restarts`` allows.
        """
        self._life_cycle.refuse_inside("wait")
        await self._life_cycle.wait()

    # --- feeding

    async def submit(
        self,
        data: Any,
        metadata: dict[str, Any] | None = None,
        batch_mode: BatchMode = "flush",
        timeout: float | timedelta | None = None,
    ) -> Message[T]:
        """Send one message through the pipeline and wait until it is settled.

        It comes from no source, so no source delivers it again: a message that fails is not retried, whatever the
        failure policy says, and there are no dead letters. ``broadway_py.testing.harness`` runs a pipeline on a broker
        in memory, with retries as in production.

        Returns:
            The message, as the callbacks left it.

        Raises:
            MessageFailed: the message failed; ``error.message.status`` says why.
            TimeoutError: it was not settled within *timeout* seconds; the pipeline still handles it.
            PipelineNotRunning: the pipeline does not run, or is draining.
        """
        async with self.clock.timeout(timeout_of(timeout, "submit(timeout=…)")):
            settled = await self._submitter.submit("submit", [data], metadata, batch_mode)
        if settled.failed:
            raise MessageFailed(settled.failed[0])
        return settled.successful[0]

    async def submit_batch(
        self, items: Sequence[Any], metadata: dict[str, Any] | None = None, batch_mode: BatchMode = "bulk"
    ) -> Settled:
        """Send *items* through the pipeline together, and wait until all are settled. None is retried, as in submit."""
        return await self._submitter.submit("submit_batch", items, metadata, batch_mode)

    async def push_messages(self, messages: Sequence[Message[Any]]) -> None:
        """Send messages into the pipeline, subject to rate limit and back-pressure.

        Returns when all messages were taken in, not when they are settled.

        Raises:
            PipelineNotRunning: the pipeline does not run, or is draining.
            ValueError: one of the messages is in a pipeline already.
        """
        await self._submitter.push(messages)

    # --- inspecting and changing

    @property
    def phase(self) -> PipelineState:
        """Returns what the pipeline does, such as ``running`` or ``draining``."""
        return self._life_cycle.state

    @property
    def is_running(self) -> bool:
        """Returns True from the start of the stages to their end, also while they drain."""
        return self._life_cycle.is_running

    def topology(self) -> dict[str, Any]:
        """Returns producers, processors, batchers, aggregators and publishers, with their names, as a plain dict."""
        return topology_of(
            self.name,
            self._sources.producers,
            self.processors,
            self.batchers,
            aggregators=self.aggregators,
            publishers=self.publishers,
        )

    def stats(self) -> PipelineStats:
        """Returns all figures at this moment."""
        run = self._life_cycle.run
        if run is None:
            return PipelineStats(self.name, self.phase, (), (), 0.0, 0, 0)
        return take_snapshot(self.name, self.phase, run, self._meters)

    def update_rate_limit(
        self, *, allowed_messages: int | None = None, interval: float | timedelta | None = None, reset: bool = False
    ) -> None:
        """Change the rate limit from the next interval on, or at once with ``reset=True``.

        Raises:
            OptionsError: a value is wrong, or the pipeline was built without a rate limit.
        """
        if self._limit is None:
            raise OptionsError(("rate_limit",), f"pipeline {self.name!r} was built without one; nothing to update")
        self._limit = changed_limit(self._limit, allowed_messages=allowed_messages, interval=interval)
        self.rate_limit = self._limit
        run = self._life_cycle.run
        if run is not None:
            if run.gate.rate is not None:
                run.gate.rate.update(self._limit.allowed_messages, self._limit.interval, reset=reset)
            for source in [*run.stages.sources, run.stages.submissions]:
                source.wake.set()

    def set_concurrency(self, *, processors: int) -> None:
        """Change the number of processors while the pipeline runs. Removed processors finish the messages they have.

        Raises:
            OptionsError: the number is not positive, or the processors are partitioned; then the processor of a key
                must not change.
            PipelineNotRunning: the pipeline does not run, or is draining.
        """
        run = self._life_cycle.needs_running("set_concurrency")
        if run.is_draining:
            raise PipelineNotRunning(f"set_concurrency(): pipeline {self.name!r} is draining")
        self.processors = resized(self.processors, processors, self.partition_by)
        resize_pool(run, self.processors, self.batchers, self._meters["processors"])

    @property
    def is_paused(self) -> bool:
        """Returns True between :meth:`pause` and :meth:`resume`."""
        run = self._life_cycle.run
        return run is not None and run.gate.paused

    async def pause(self) -> None:
        """Stop reading the sources. Messages that were not started are given back if their source takes them."""
        await set_paused(self._life_cycle.needs_running("pause"), paused=True)

    async def resume(self) -> None:
        """Read the sources again."""
        await set_paused(self._life_cycle.needs_running("resume"), paused=False)

    @property
    def _keeps_state(self) -> bool:
        """Returns True if it uses its ``state``."""
        return bool(self.aggregators) or self.deduplicate_by is not None

    def __repr__(self) -> str:
        if "_life_cycle" not in vars(self):
            # Its options were refused. Whoever prints the traceback with its variables prints this one, too.
            return f"<{type(self).__name__} not built>"
        return f"<{type(self).__name__} name={self.name!r} {self.phase}>"
