"""Lists the places that pipelines use: sources, sinks and state files, each with its path in the settings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from broadway_py.aggregator import State
from broadway_py.daemon.connect_check.state_files import examine_state
from broadway_py.daemon.pipelines.owners import owners_of
from broadway_py.daemon.settings.files import SettingPath
from broadway_py.daemon.settings.settings import Settings
from broadway_py.examination import Finding
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.settlement.failure_plans import plan_of
from broadway_py.producer import FailurePlan
from broadway_py.producer_description import ProducerDescription
from broadway_py.publisher import Sink
from broadway_py.written import opened

__all__ = ["Place", "places_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """A source, a sink or the state of a pipeline."""

    #: Where the settings name it.
    path: SettingPath
    #: Yields what it is like; the argument is the most seconds that each step may take.
    examine: Callable[[float], AsyncGenerator[Finding, None]]


def places_of(settings: Settings, built: Mapping[str, Pipeline[Any]]) -> list[Place]:
    """Returns the places of the pipelines *built* from *settings*, by their keys, in the order of the settings."""
    return [place for key, pipeline in built.items() for place in _places_of(settings, key, pipeline)]


def _places_of(settings: Settings, key: str, pipeline: Pipeline[Any]) -> Iterator[Place]:
    path: SettingPath = ("pipelines", key)
    # A source with partitions is examined as a whole.
    sources = pipeline._sources.whole
    is_list = isinstance(opened(settings.pipelines[key].get("producer")), list)
    for index, source in enumerate(sources.values()):
        place = (str(index),) if is_list else ()
        yield Place(
            (*path, "producer", *place), partial(_examine_source, source, pipeline.name, _plan(pipeline, source))
        )
    for name, sink in pipeline.publishers.items():
        yield Place((*path, "publishers", name), partial(_examine_sink, sink))
    for name, sink in pipeline._emits_to.items():
        yield Place((*path, "aggregators", name, "emit_to"), partial(_examine_sink, sink))
    state = pipeline.state
    if isinstance(state, State) and not state.is_memory and pipeline._keeps_state:
        of_workers = owners_of([pipeline], settings.workers).get(pipeline.name)
        owned = None if of_workers is None else [number for some in of_workers.values() for number in some]
        yield Place((*path, "state"), partial(examine_state, state.path, owned))


def _plan(pipeline: Pipeline[Any], source: ProducerDescription) -> FailurePlan | None:
    policy = pipeline.failure
    return None if policy is None else plan_of(policy, source, failure_is_given=policy is not Pipeline.failure)


def _examine_source(
    source: ProducerDescription, pipeline: str, plan: FailurePlan | None, timeout: float
) -> AsyncGenerator[Finding, None]:
    return source.examine(pipeline, plan, timeout=timeout)


def _examine_sink(sink: Sink, timeout: float) -> AsyncGenerator[Finding, None]:
    return sink.examine(timeout=timeout)
