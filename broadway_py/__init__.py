"""Broadway for Python: takes messages from a queue, runs them through a pipeline and settles each of them once."""

from __future__ import annotations

from importlib import import_module

# A name is imported only when it is first used, and this module itself imports almost nothing. There are two reasons:
# the command must be able to take signals before it starts imports that take a second; and ``run`` needs the extra
# [daemon], which a program that only embeds a pipeline does not need.
TYPE_CHECKING = False  # type checkers know this name; the module typing takes a while to load
if TYPE_CHECKING:
    from broadway_py import aggregates as aggregates
    from broadway_py._core.window.spec import Window
    from broadway_py.acknowledger import Acknowledger, CallerAcknowledger, NoopAcknowledger
    from broadway_py.aggregator import Aggregator, State, WindowResult
    from broadway_py.daemon.runner import run
    from broadway_py.errors import (
        BatchFailed,
        BroadwayError,
        CalledInsideCallback,
        DefinitionError,
        EventTimeError,
        FlowFailed,
        HandlerVerdict,
        MalformedMessage,
        MessageFailed,
        OptionsError,
        PipelineCrashed,
        PipelineNotRunning,
        ProducerError,
        PublishError,
        Reject,
        RetryLater,
        SettleError,
        SourceRefused,
        StageDown,
        Unavailable,
    )
    from broadway_py.flow import Flow
    from broadway_py.message import Acknowledgement, BatchInfo, Failed, Message
    from broadway_py.options import Batcher, Breaker, FailurePolicy, Processors, RateLimit
    from broadway_py.pipeline import DrainReport, Pipeline, PipelineStats, Settled, ack_immediately, all_running
    from broadway_py.producers.memory_sink import MemoryPublisher
    from broadway_py.producers.queue_sink import QueuePublisher, QueueSink
    from broadway_py.producers.rabbitmq import RabbitMQPublisher, RabbitMQSink
    from broadway_py.producers.sqs import SQSPublisher, SQSSink

__all__ = [
    "Acknowledgement",
    "Acknowledger",
    "Aggregator",
    "BatchFailed",
    "BatchInfo",
    "Batcher",
    "Breaker",
    "BroadwayError",
    "CalledInsideCallback",
    "CallerAcknowledger",
    "DefinitionError",
    "DrainReport",
    "EventTimeError",
    "Failed",
    "FailurePolicy",
    "Flow",
    "FlowFailed",
    "HandlerVerdict",
    "MalformedMessage",
    "MemoryPublisher",
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
    "PublishError",
    "QueuePublisher",
    "QueueSink",
    "RabbitMQPublisher",
    "RabbitMQSink",
    "RateLimit",
    "Reject",
    "RetryLater",
    "SQSPublisher",
    "SQSSink",
    "SettleError",
    "Settled",
    "SourceRefused",
    "StageDown",
    "State",
    "Unavailable",
    "Window",
    "WindowResult",
    "ack_immediately",
    "all_running",
    "run",
]

# The module that defines each name.
_HOMES = {
    "_core.window.spec": ("Window",),
    "acknowledger": ("Acknowledger", "CallerAcknowledger", "NoopAcknowledger"),
    "aggregates": (),
    "aggregator": ("Aggregator", "State", "WindowResult"),
    "errors": (
        "BatchFailed",
        "BroadwayError",
        "CalledInsideCallback",
        "DefinitionError",
        "EventTimeError",
        "FlowFailed",
        "HandlerVerdict",
        "MalformedMessage",
        "MessageFailed",
        "OptionsError",
        "PipelineCrashed",
        "PipelineNotRunning",
        "ProducerError",
        "PublishError",
        "Reject",
        "RetryLater",
        "SettleError",
        "SourceRefused",
        "StageDown",
        "Unavailable",
    ),
    "flow": ("Flow",),
    "message": ("Acknowledgement", "BatchInfo", "Failed", "Message"),
    "options": ("Batcher", "Breaker", "FailurePolicy", "Processors", "RateLimit"),
    "pipeline": ("DrainReport", "Pipeline", "PipelineStats", "Settled", "ack_immediately", "all_running"),
    "producers.memory_sink": ("MemoryPublisher",),
    "producers.queue_sink": ("QueuePublisher", "QueueSink"),
    "producers.rabbitmq": ("RabbitMQPublisher", "RabbitMQSink"),
    "producers.sqs": ("SQSPublisher", "SQSSink"),
    "daemon.runner": ("run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker that saw it would believe that this module has any name

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        elif name in _HOMES:  # so that ``broadway_py.errors`` and the others work without an import of their own
            value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
