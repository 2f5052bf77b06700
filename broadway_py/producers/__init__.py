"""Where messages come from, and where handlers publish to. A connector's library is imported only when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from broadway_py.producer import Producer, ProducerContext, SourceMessages
from broadway_py.producer_description import ProducerDescription

if TYPE_CHECKING:
    from broadway_py.producers.memory import DummyProducer, MemoryProducer
    from broadway_py.producers.memory_sink import MemoryPublisher
    from broadway_py.producers.queue import QueueProducer
    from broadway_py.producers.queue_sink import QueuePublisher, QueueSink
    from broadway_py.producers.rabbitmq import RabbitMQProducer, RabbitMQPublisher, RabbitMQSink
    from broadway_py.producers.sqs import SQSProducer, SQSPublisher, SQSSink

__all__ = [
    "DummyProducer",
    "MemoryProducer",
    "MemoryPublisher",
    "Producer",
    "ProducerContext",
    "ProducerDescription",
    "QueueProducer",
    "QueuePublisher",
    "QueueSink",
    "RabbitMQProducer",
    "RabbitMQPublisher",
    "RabbitMQSink",
    "SQSProducer",
    "SQSPublisher",
    "SQSSink",
    "SourceMessages",
]

_HOMES = {
    "DummyProducer": "memory",
    "MemoryProducer": "memory",
    "MemoryPublisher": "memory_sink",
    "QueueProducer": "queue",
    "QueuePublisher": "queue_sink",
    "QueueSink": "queue_sink",
    "RabbitMQProducer": "rabbitmq",
    "RabbitMQPublisher": "rabbitmq",
    "RabbitMQSink": "rabbitmq",
    "SQSProducer": "sqs",
    "SQSPublisher": "sqs",
    "SQSSink": "sqs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
