"""``Runnable``: how a flow is run, and how its results reach the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, Self, TypeVar, get_args, overload

from broadway_py.errors import DefinitionError
from broadway_py.flow.description import checks
from broadway_py.flow.description.chain import complete
from broadway_py.flow.description.explain import Processes, drawing
from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.settings import OnError, Runner, RunSettings
from broadway_py.flow.plan import plan_of
from broadway_py.flow.report import FlowReport
from broadway_py.flow.running import run as running
from broadway_py.flow.running.placement import files_of_workers
from broadway_py.flow.running.run import RunningFlow
from broadway_py.foreign import article
from broadway_py.machine import usable_processors
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.settings import SubscriptionOptions

__all__ = ["Runnable"]

T_co = TypeVar("T_co", covariant=True)

#: What the runner "ray" takes besides, with the defaults.
_RAY_OPTIONS: Final[Mapping[str, Any]] = {
    "address": None,
    "resources": None,
    "runtime_env": None,
    "start_timeout": 60,
}


@dataclass(frozen=True, eq=False, repr=False)  # without slots: Python 3.11 cannot make generic classes with them
class Runnable(Generic[T_co]):
    """A flow that is described completely. Nothing is kept between two runs; each begins anew.

    In a plain program, in a notebook, and inside a running event loop: iterate it, or call ``to_list`` or ``run``. The
    flow then runs in a thread with an event loop of its own, while the caller waits.

    In coroutines: ``async for``, ``to_list_async``, ``run_async``, ``start``, ``into_stages``. The flow then runs in
    the event loop of the caller.

    Elements come in the order in which stages emit them. If all layers have one stage, this is the order of the source.

    Raises:
        DefinitionError: by each method: a window has no effect.
        FlowFailed: while it runs: a function or a source has raised, and ``on_error`` does not say otherwise.
    """

    _layer: Layer
    #: How many methods have been chained; the source is not counted.
    _count: int
    #: None: ``using`` was not called.
    _settings: RunSettings | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}; the last stages are those of {self._layer.label!r}; see .explain()>"

    @overload
    def using(
        self,
        runner: Literal["tasks", "threads", "processes"] = "tasks",
        *,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: bool = False,
    ) -> Self: ...

    @overload
    def using(
        self,
        runner: Runner,
        *,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: bool = False,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        start_timeout: float = 60,
    ) -> Self: ...

    def using(
        self,
        runner: Runner = "tasks",
        *,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: bool = False,
        **others: Any,
    ) -> Self:
        """Returns the same flow, to be run in another way. It may stand anywhere in the chain; the last one counts.

        Args:
            runner: ``"tasks"``: all stages run in one event loop: for ``async`` functions that wait. ``"threads"``:
                the plain functions of each stage run in a thread of its own: for functions that block.
                ``"processes"``: the stages are dealt out to worker processes: for functions that compute. ``"ray"``:
                the same on the machines of a Ray cluster, where each worker is an actor with one CPU. With the last
                two, functions and elements must pickle. What the program defines goes over too.
            workers: how many stages a layer has that does not say it itself; of ``"processes"`` and ``"ray"`` also how
                many workers there are. None: one for each processor that this process may use.
            on_error: what an error of a function does. ``"raise"``: it ends the flow. ``"skip"``: the element is left
                out, and counted. ``"collect"``: it is also in the report.
            progress: whether it shows on the standard error how far it is: a bar on a terminal and in a notebook, and
                a line every 10 seconds elsewhere. It needs tqdm.
            others: with ``"ray"``, these; anything else is refused. ``address``: of the cluster, such as ``"auto"``;
                None: that of ``RAY_ADDRESS``, or a Ray of its own on this machine. If this program is connected to
                Ray already, that cluster is used. ``resources``: what each worker needs besides its CPU, such as
                ``{"GPU": 1}``. ``runtime_env``: a runtime environment of Ray for the workers. ``start_timeout``:
                seconds until all workers must be ready; 60.

        Raises:
            OptionsError: an option is wrong, or a library is not installed.
        """
        checks.known("using", others, ("workers", "on_error", "progress", *(_RAY_OPTIONS if runner == "ray" else ())))
        chosen = checks.runner(runner)
        checks.one_of(("using", "on_error"), on_error, get_args(OnError))
        most = None if workers is None else checks.whole_number("using", "workers", workers)
        ray = checks.ray_settings(**{**_RAY_OPTIONS, **others}) if chosen == "ray" else None
        return replace(self, _settings=RunSettings(chosen, most, on_error, checks.progress(progress), ray))

    def explain(self) -> str:
        """Returns a drawing of the flow, as text of several lines.

        It shows sources, layers, stages, what is exchanged by which key, where state lies, and what may surprise.
        """
        chosen = self._chosen
        workers = usable_processors().times(1) if chosen.workers is None else chosen.workers
        layer = complete(self._layer)
        if not chosen.has_workers:
            return drawing(layer, workers)
        plan = plan_of(layer, workers)
        read = files_of_workers(plan)
        cluster = None
        if chosen.ray is not None:
            from broadway_py.flow.running.runners.ray_cluster import described  # noqa: PLC0415  # it loads Ray

            cluster = described(chosen.ray)
        sources = [each.source for each in plan.sources if each.number in read]
        return drawing(layer, workers, Processes(sources, cluster))

    @property
    def _chosen(self) -> RunSettings:
        return self._settings or RunSettings()

    # --- while the caller waits

    def __iter__(self) -> Iterator[T_co]:
        return running.iterate(complete(self._layer), self._chosen)

    def to_list(self) -> list[T_co]:
        """Runs the flow, and returns its elements."""
        return running.to_list(complete(self._layer), self._chosen)

    def run(self) -> FlowReport:
        """Runs the flow for what its functions do. Returns what was counted. It keeps no elements."""
        return running.run(complete(self._layer), self._chosen)

    # --- in the event loop of the caller

    def __aiter__(self) -> AsyncIterator[T_co]:
        return running.aiterate(complete(self._layer), self._chosen)

    async def to_list_async(self) -> list[T_co]:
        """Runs the flow, and returns its elements."""
        return await running.to_list_async(complete(self._layer), self._chosen)

    async def run_async(self) -> FlowReport:
        """Runs the flow for what its functions do. Returns what was counted. It keeps no elements."""
        return await running.run_async(complete(self._layer), self._chosen)

    async def start(self) -> RunningFlow:
        """Starts the flow, and returns while it runs. It keeps no elements."""
        return running.start(complete(self._layer), self._chosen)

    async def into_stages(
        self, stages: Iterable[ConsumingStage[T_co] | tuple[ConsumingStage[T_co], Mapping[str, Any]]], /
    ) -> RunningFlow:
        """Starts the flow, and returns while it runs. Its elements are shared among the running *stages*.

        The stages live on when the flow has ended.

        Args:
            stages: stages that take events. Each may be a pair ``(stage, options)``, with the options of
                :func:`~broadway_py.stage.subscribe`.

        Raises:
            OptionsError: an option is wrong.
            DefinitionError: there is no stage, or one of them takes no events.
        """
        return running.start(complete(self._layer), self._chosen, _consumers(stages))


def _consumers(stages: object) -> list[tuple[ConsumingStage[Any], SubscriptionOptions]]:
    if not isinstance(stages, Iterable):
        raise DefinitionError(f"into_stages: expected a list of stages, got {article(stages)}")
    found = []
    for given in stages:
        stage, options = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
        if not isinstance(stage, ConsumingStage):
            raise DefinitionError(f"into_stages: expected stages that take events, got {article(stage)}")
        found.append((stage, SubscriptionOptions(**{"cancel": "transient", **options})))
    if not found:
        raise DefinitionError("into_stages: expected at least one stage, got none")
    return found
