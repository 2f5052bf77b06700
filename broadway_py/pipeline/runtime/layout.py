"""The stages of a pipeline, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broadway_py._core.ledger import Ledger
from broadway_py.message import Message
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.pipeline.stages.batch_processor import BatchProcessor
from broadway_py.pipeline.stages.batcher import BatcherStage
from broadway_py.pipeline.stages.processor import Processor
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.stages.stage import PipelineStage

__all__ = ["Stages"]


@dataclass(slots=True)
class Stages:
    """All stages that run, layer by layer."""

    sources: list[Source]
    #: The source of submitted messages; it runs as long as any other source.
    submissions: Source
    processors: list[Processor]
    batchers: list[BatcherStage]
    batch_processors: list[BatchProcessor]
    ledgers: list[Ledger]
    aggregators: list[AggregatorStage] = field(default_factory=list)
    #: The partition that each producer reads. Empty if the sources are not parted.
    partition_of: Mapping[str, int] = field(default_factory=dict)
    #: Into how many partitions the sources are parted, and which of them run here; None: they are not parted.
    partitions: int | None = None
    owned: tuple[int, ...] = ()
    #: The most messages of one partition that are in the pipeline; None: there is no such limit.
    most_of_partition: int | None = None
    #: Processors that set_concurrency took out and that finish the messages they have.
    retired: list[Processor] = field(default_factory=list)

    def take_unstarted(self) -> list[Message[Any]]:
        """Take out and return the messages that no callback has seen and that can be given back."""
        waiting = [message for source in [*self.sources, self.submissions] for message in source.take_unstarted()]
        return [*waiting, *(message for processor in self.handling() for message in processor.take_unstarted())]

    def handling(self) -> list[Processor]:
        """Returns the processors, also those that were taken out and have not finished."""
        return [*self.processors, *self.retired]

    def of_aggregators(self) -> list[PipelineStage]:
        """Returns the aggregators, and what hands out the late messages and the results of each."""
        late = [stage.late for stage in self.aggregators if stage.late is not None]
        return [*self.aggregators, *late, *(stage.emitter for stage in self.aggregators)]

    def all(self) -> list[PipelineStage]:
        """Returns all stages, from the first layer to the last."""
        return [
            *self.sources,
            self.submissions,
            *self.handling(),
            *self.batchers,
            *self.batch_processors,
            *self.of_aggregators(),
        ]
