"""Broadway for Python: messages from a queue through a pipeline, each of them settled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broadway_py.acknowledger import Acknowledger, CallerAcknowledger, NoopAcknowledger
from broadway_py.errors import (
    BatchFailed,
    BroadwayError,
    CalledInsideCallback,
    DefinitionError,
    HandlerVerdict,
    MalformedMessage,
    MessageFailed,
    OptionsError,
    PipelineCrashed,
    PipelineNotRunning,
    ProducerError,
    Reject,
    RetryLater,
    SettleError,
    SourceRefused,
    Unavailable,
)
from broadway_py.message import Acknowledgement, BatchInfo, Failed, Message
from broadway_py.options import Batcher, Breaker, FailurePolicy, Processors, RateLimit
from broadway_py.pipeline import DrainReport, Pipeline, PipelineStats, Settled, ack_immediately, all_running

if TYPE_CHECKING:
    from broadway_py.daemon.runner import run

__all__ = [
    "Acknowledgement",
    "Acknowledger",
    "BatchFailed",
    "BatchInfo",
    "Batcher",
    "Breaker",
    "BroadwayError",
    "CalledInsideCallback",
    "CallerAcknowledger",
    "DefinitionError",
    "DrainReport",
    "Failed",
    "FailurePolicy",
    "HandlerVerdict",
    "MalformedMessage",
    "Message",
    "MessageFailed",
    "NoopAcknowledger",
    "OptionsError",
    "Pipeline",
    "PipelineCrashed",
    "PipelineNotRunning",
    "PipelineStats",
    "Processors",
    "ProducerError",
    "RateLimit",
    "Reject",
    "RetryLater",
    "SettleError",
    "Settled",
    "SourceRefused",
    "Unavailable",
    "ack_immediately",
    "all_running",
    "run",
]


def __getattr__(name: str) -> Any:
    # The daemon's parts need the extra [daemon]; whoever only embeds a pipeline does not.
    if name == "run":
        from broadway_py.daemon.runner import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
