"""The producers: where messages come from. A connector's library is imported only when its producer is made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from broadway_py.producer import Producer, ProducerContext
from broadway_py.producer_description import ProducerDescription

if TYPE_CHECKING:
    from broadway_py.producers.memory import DummyProducer, MemoryProducer
    from broadway_py.producers.queue import QueueProducer
    from broadway_py.producers.rabbitmq import RabbitMQProducer
    from broadway_py.producers.sqs import SQSProducer

__all__ = [
    "DummyProducer",
    "MemoryProducer",
    "Producer",
    "ProducerContext",
    "ProducerDescription",
    "QueueProducer",
    "RabbitMQProducer",
    "SQSProducer",
]

_HOMES = {
    "DummyProducer": "memory",
    "MemoryProducer": "memory",
    "QueueProducer": "queue",
    "RabbitMQProducer": "rabbitmq",
    "SQSProducer": "sqs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
