"""Runs the user's own pipeline on a broker in memory and on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from broadway_py.durations import seconds_of
from broadway_py.errors import PipelineNotRunning, did_you_mean
from broadway_py.foreign import article
from broadway_py.pipeline import DrainReport, Pipeline
from broadway_py.publisher import Outgoing
from broadway_py.testing.broker import Broker
from broadway_py.testing.callback_threads import CallbackThreadWatch
from broadway_py.testing.clock import FakeClock
from broadway_py.testing.exchange import Exchange
from broadway_py.testing.outcomes import DeadLetter, Ended, Left, Outcomes, story_of, warn_of_left
from broadway_py.testing.quiet import LIMIT_S, StillAtWork, place_of, settle, until_quiet

__all__ = ["Harness", "harness"]

P = TypeVar("P", bound=Pipeline[Any])


class Harness(Generic[P]):
    """Runs a pipeline in a test: ``async with harness(Orders) as h``.

    The producers are exchanged for a broker in memory. It keeps what it hands out until it is settled, counts attempts,
    waits before a retry, takes messages back, and has dead letters. So failures take the same way as in production. The
    publishers, and the sinks of aggregators, are exchanged for memory publishers, see :attr:`published`; those that are
    memory publishers stay. The file of the state is in a temporary directory, unless ``state=`` is given here.

    Time stands still, but in :meth:`advance`. The delay before a retry, which is random in production, is the longest
    possible one: with ``backoff=(1.0, 300.0)`` the second attempt comes after 1 s, the third one 2 s later, then 4 s.

    Leaving the block drains the pipeline, and warns (:class:`MessagesLeft`) if a message has no final outcome.

    Args:
        pipeline: the class of the pipeline, or a function that makes one from the options.
        patience: how many seconds of real time each call may wait for what is outside of the test (a thread, a socket).
        options: the options of the pipeline, as its constructor takes them.

    Raises:
        TypeError: *pipeline* is neither a class nor a function.
    """

    def __init__(self, pipeline: Callable[..., P], /, *, patience: float = LIMIT_S, **options: Any) -> None:
        if not callable(pipeline):
            raise TypeError(
                f"harness: expected the class of a pipeline, got {article(pipeline)}; give the class and its options: "
                "harness(Orders, context=…)"
            )
        #: The clock of the pipeline. What is slow in a test takes its time: ``await h.clock.sleep(30)``.
        self.clock = FakeClock()
        self.clock._settle = self._quiet
        self._make = pipeline
        self._given = options
        self._kept = frozenset(options)
        self._patience = patience
        self._broker = Broker(self.clock)
        self._pipeline: P | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._exchange: Exchange | None = None
        self._options: dict[str, Any] = {}
        self._threads: CallbackThreadWatch | None = None
        self._next_id = 1
        self._ids: set[str] = set()
        self._ended: Ended | None = None
        self._has_told_crash = False
        # The story up to the error of the test; None: there was none.
        self._story: str | None = None
        #: True from the entry to the exit of ``async with``.
        self.is_open = False

    @classmethod
    def from_settings(
        cls,
        file: str | PathLike[str] | Sequence[str | PathLike[str]],
        /,
        *,
        pipeline: str | None = None,
        environ: Mapping[str, str] | None = None,
        patience: float = LIMIT_S,
        **options: Any,
    ) -> Harness[Pipeline[Any]]:
        """Returns a harness for a pipeline of a settings file, which is checked as the daemon does.

        Args:
            file: the file, or several that are merged in their order.
            pipeline: the name of the pipeline in the file. It may be left out if there is only one.
            environ: the environment variables that the settings see. None: none at all, so that a test does not depend
                on where it runs.
            patience: see :class:`Harness`.
            options: options that replace those of the file.

        Raises:
            OptionsError: something is wrong with the settings. The text names file and line.
        """
        # Here, because most tests read no settings.
        from broadway_py.testing.settings_files import parts_of_files  # noqa: PLC0415  # the reason is above

        files = [file] if isinstance(file, str | PathLike) else list(file)
        made, found = parts_of_files([Path(each) for each in files], pipeline, environ or {})
        harness: Harness[Pipeline[Any]] = Harness(made, patience=patience, **{**found, **options})
        harness._kept = frozenset(options)
        return harness

    # --- the life

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "a harness needs an event loop of asyncio, and none runs. With anyio, let a fixture anyio_backend "
                'return "asyncio"'
            ) from None
        self._directory = tempfile.TemporaryDirectory(prefix="broadway-test-")
        self._threads = CallbackThreadWatch(self.clock)
        try:
            self._exchange = Exchange(self._broker, Path(self._directory.name))
            self._options = self._exchange.options(self._make, self._given, self._kept)
            await self._start()
        except BaseException:
            try:
                if self._pipeline is not None and self._pipeline.is_running:
                    await self._give_up()
            finally:
                self._directory.cleanup()
            raise
        self.is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                await self._give_up()
            elif self._ended is None:
                try:
                    ended = await self.stop()
                except BaseException:
                    await self._give_up()
                    raise
                # The warning names the line with ``async with``.
                warn_of_left(ended.left, stacklevel=2)
        finally:
            self.is_open = False
            self.clock.unblock_all()
            if self._directory is not None:
                self._directory.cleanup()

    async def _start(self) -> None:
        made = self._make(**self._options)
        made.clock = self.clock
        made._uniform = max
        self._pipeline = made
        self._ended = None
        await self._set_up(made)
        run = made._life_cycle.run
        if run is not None and self._threads is not None:
            self._threads.watch(run.services.threads)
        await self._quiet()

    async def _set_up(self, made: P) -> None:
        task = asyncio.ensure_future(made.start())
        try:
            await self._rest()
            if not task.done():
                place = place_of(made._life_cycle.task or task)
                raise StillAtWork(
                    f"setup of the pipeline does not end: {place} waits for something that never comes, or for time, "
                    "which stands still here"
                )
            task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=self._patience)

    async def stop(self, timeout: float | timedelta | None = None) -> Ended:
        """Drains the pipeline, as a stop of the daemon does. Open batches are flushed.

        What still waits for the clock then gets the time that a stop may take. A second call returns the same.

        Args:
            timeout: seconds for the drain; default ``shutdown_timeout``.

        Raises:
            PipelineCrashed: the pipeline has crashed.
            StillAtWork: something outside of the test takes too long.
        """
        if self._ended is None:
            report = await self._drain(timeout)
            self._ended = Ended(report.outcomes, report.in_time, tuple(self._broker.left()))
        await self._raise_crash()
        return self._ended

    async def _drain(self, timeout: float | timedelta | None) -> DrainReport:
        pipeline = self.pipeline
        limit_s = pipeline.shutdown_timeout if timeout is None else seconds_of(timeout, "stop(timeout=…)")
        stopping = asyncio.ensure_future(pipeline.stop(limit_s))
        try:
            await self._rest()
            if not stopping.done():
                # A handler waits for the clock. So much of it passes until it is cut off.
                self.clock._settle = self._rest
                await self.clock.advance(limit_s + 1.0)
            if not stopping.done():
                raise StillAtWork(
                    "the pipeline does not end: teardown, or something that a handler has started, waits for what "
                    "never comes"
                )
            return stopping.result()
        finally:
            self.clock._settle = self._quiet
            stopping.cancel()

    async def _give_up(self) -> None:
        """Ends a pipeline whose test has failed. It raises nothing: the error of the test is what should be told."""
        pipeline = self.pipeline
        self._story = self.story()
        # What is outside may be what the test has waited for in vain.
        self.clock._settle = settle
        stopping = asyncio.ensure_future(pipeline.stop())
        try:
            pipeline.give_up()
            with contextlib.suppress(StillAtWork):
                await self.clock.advance(pipeline.shutdown_timeout + 1.0)
            await asyncio.wait({stopping}, timeout=self._patience)
            if not stopping.done():
                pipeline._life_cycle.kill()
                await asyncio.wait({stopping}, timeout=self._patience)
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

    async def crash(self) -> None:
        """Lets the process die, and a new one start: a new pipeline, made from the same options.

        Nothing is settled any more. What the pipeline held has outcome ``unknown`` and comes again at once, and that
        delivery counted as an attempt. What waits for a retry still waits. The file of the state stays. ``teardown``
        does not run; ``setup`` of the new pipeline does.

        One thing differs from a real death: a handler that is cut off sees a ``CancelledError``, so its ``finally``
        blocks run.

        Raises:
            PipelineCrashed: the new pipeline has crashed.
            StillAtWork: something outside of the test takes too long.
        """
        old = self.pipeline
        self._broker.lose_all()
        old._life_cycle.kill()
        for _ in range(2):
            await self._rest()
            if old._life_cycle.is_over:
                break
            # Something waits for the clock, which must not move here.
            old._life_cycle.kill()
        await self._start()

    async def _quiet(self) -> None:
        await self._rest()
        await self._raise_crash()

    async def _rest(self) -> None:
        await until_quiet(self._patience, self._threads)

    async def _raise_crash(self) -> None:
        """Raises the error by which the pipeline has crashed, once."""
        if self._pipeline is not None and self._pipeline.phase == "crashed" and not self._has_told_crash:
            self._has_told_crash = True
            await self._pipeline.wait()

    # --- what a test does

    async def send(
        self,
        data: Any,
        *,
        id: str | None = None,  # noqa: A002  # it is what users call it
        key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        producer: str | None = None,
    ) -> str:
        """Puts a message into the broker, and returns its id when all has happened that can without time passing.

        A message may then have no outcome yet: in a batch that is not full, or before a checkpoint of its window.

        Args:
            data: the payload. Real brokers carry bytes, so text is sent as UTF-8, and what is neither as JSON: a dict,
                a data class, a pydantic model. If the pipeline's own producer brings objects of this process, as a
                MemoryProducer does, they are sent as they are.
            id: the id of the message (``message.id``); default ``"1"``, ``"2"``, … A publisher may use an id twice.
            key: its key, as ``metadata["key"]``. In a queue with partitions it chooses the partition.
            metadata: what the source says about the message.
            producer: the name of the producer that brings it. It may be left out if there is only one.

        Raises:
            PipelineCrashed: the pipeline has crashed.
            PipelineNotRunning: it was stopped.
            StillAtWork: something outside of the test takes too long.
            TypeError: *data* cannot be sent.
            ValueError: there is no such producer.
        """
        (sent,) = await self.send_batch(
            [data], ids=None if id is None else [id], keys=[key], metadata=metadata, producer=producer
        )
        return sent

    async def send_batch(
        self,
        items: Sequence[Any],
        *,
        ids: Sequence[str] | None = None,
        keys: Sequence[str | None] | None = None,
        metadata: Mapping[str, Any] | None = None,
        producer: str | None = None,
    ) -> list[str]:
        """Puts messages into the broker together, and waits as :meth:`send` does. Returns their ids.

        Args:
            items: the data of each message.
            ids: their ids, as many as *items*.
            keys: their keys, as many as *items*.
            metadata: the metadata of each of them.
            producer: as in :meth:`send`.

        Raises:
            PipelineCrashed: the pipeline has crashed.
            PipelineNotRunning: it was stopped.
            StillAtWork: something outside of the test takes too long.
            TypeError: *items* is no list, or has something that cannot be sent.
            ValueError: there are more or fewer *ids* or *keys* than *items*, or there is no such producer.
        """
        queue = self._queue(producer)
        self._refuse_stopped("send")
        payloads = self._exchanged.payloads_of(queue, items)
        for name, given in (("ids", ids), ("keys", keys)):
            if given is not None and len(given) != len(items):
                raise ValueError(
                    f"send_batch({name}=…): expected {len(items)} of them, one for each item, got {len(given)}"
                )
        names = [self._new_id() for _ in items] if ids is None else list(ids)
        for place, (name, payload) in enumerate(zip(names, payloads, strict=True)):
            key = None if keys is None else keys[place]
            told = {**(metadata or {}), "message_id": name, **({} if key is None else {"key": key})}
            self._ids.add(name)
            self._broker.put(queue, payload, told, key=key)
        await self._quiet()
        return names

    async def redeliver(self, message_id: str) -> None:
        """Lets the broker deliver a message once more, although it is at work or was settled, as any broker may.

        It waits as :meth:`send` does.

        Raises:
            PipelineCrashed: the pipeline has crashed.
            PipelineNotRunning: it was stopped.
            StillAtWork: something outside of the test takes too long.
            ValueError: no such message was sent.
        """
        self._refuse_stopped("redeliver")
        if self._broker.repeat(message_id) is None:
            raise ValueError(f"redeliver: no message {message_id!r} was sent{did_you_mean(message_id, self._ids)}")
        await self._quiet()

    async def advance(self, seconds: float | timedelta) -> None:
        """Lets time pass. Timers fire in their order, and all that a timer causes happens before the next one fires.

        Raises:
            PipelineCrashed: the pipeline has crashed.
            StillAtWork: something outside of the test takes too long.
            ValueError: the time is negative.
        """
        given = seconds_of(seconds, "advance(…)")
        if given < 0:
            raise ValueError(f"advance(…): expected 0 or more seconds, because time does not run back, got {given:g}")
        await self.clock.advance(given)

    # --- what a test sees

    @property
    def pipeline(self) -> P:
        """The pipeline. After :meth:`crash` it is another one.

        Raises:
            PipelineNotRunning: the harness was not entered.
        """
        if self._pipeline is None:
            raise PipelineNotRunning("the harness does not run: use it as `async with harness(Orders) as h:`")
        return self._pipeline

    @property
    def has_run(self) -> bool:
        """True once a pipeline was made."""
        return self._pipeline is not None

    @property
    def outcomes(self) -> Outcomes:
        """Message id -> the outcome of its last delivery: ``h.outcomes["a"] == "acked"``."""
        return Outcomes(self._broker.outcomes, lambda: {left.id: left for left in self._broker.left()})

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The messages that failed for good, in order."""
        return list(self._broker.dead_letters)

    @property
    def left(self) -> list[Left]:
        """The messages that have no final outcome now, with what each waits for."""
        return self._broker.left()

    @property
    def published(self) -> Mapping[str, Sequence[Outgoing]]:
        """What was published: by the name of the publisher, or of the aggregator whose results go to a sink."""
        return self._exchanged.published

    def story(self) -> str:
        """Returns a line for the outcome of each delivery, in the order in which they ended, and what is left.

        After a test that has failed it ends at the error of the test.
        """
        if self._story is not None:
            return self._story
        return story_of(self._broker.outcomes, self._broker.left())

    @property
    def _exchanged(self) -> Exchange:
        if self._exchange is None:
            raise PipelineNotRunning("the harness does not run: use it as `async with harness(Orders) as h:`")
        return self._exchange

    def _refuse_stopped(self, what: str) -> None:
        if self._ended is not None:
            raise PipelineNotRunning(
                f"{what}: the pipeline was stopped, so nobody would take the message; a new one starts with "
                "`async with` or h.crash()"
            )

    def _queue(self, producer: str | None) -> str:
        known = self._broker.queues
        if not known:
            raise PipelineNotRunning("the harness does not run: use it as `async with harness(Orders) as h:`")
        if producer is None and len(known) == 1:
            return known[0]
        if producer is None:
            raise ValueError(f"send: expected producer= with one of {', '.join(known)}, got none")
        if producer not in known:
            raise ValueError(
                f"send(producer={producer!r}): unknown; known: {', '.join(known)}{did_you_mean(producer, known)}"
            )
        return producer

    def _new_id(self) -> str:
        while str(self._next_id) in self._ids:
            self._next_id += 1
        self._ids.add(str(self._next_id))
        return str(self._next_id)


#: ``async with harness(Orders) as h``.
harness = Harness
