"""The producer and the publisher of RabbitMQ. They need aio-pika: ``pip install 'broadway-py[rabbitmq]'``."""

from __future__ import annotations

try:
    import aio_pika as _aio_pika  # noqa: F401  # only to say what to install when it is missing
except ImportError as missing:
    raise ImportError("the rabbitmq producer needs aio-pika: pip install 'broadway-py[rabbitmq]'") from missing

from broadway_py.producers.rabbitmq.producer import RabbitMQProducer
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions, TlsOptions
from broadway_py.producers.rabbitmq.settings.queue_options import Binding, ConsumeOptions, DeclareOptions
from broadway_py.producers.rabbitmq.settings.sink_options import RabbitMQSinkOptions
from broadway_py.producers.rabbitmq.sink import RabbitMQPublisher, RabbitMQSink

__all__ = [
    "Binding",
    "ConsumeOptions",
    "DeclareOptions",
    "RabbitMQOptions",
    "RabbitMQProducer",
    "RabbitMQPublisher",
    "RabbitMQSink",
    "RabbitMQSinkOptions",
    "TlsOptions",
]
