"""The producer and the publisher of SQS queues. They need aiobotocore: ``pip install 'broadway-py[sqs]'``."""

from __future__ import annotations

try:
    import aiobotocore as _aiobotocore  # noqa: F401  # only to say what to install when it is missing
except ImportError as missing:
    raise ImportError("the sqs producer needs aiobotocore: pip install 'broadway-py[sqs]'") from missing

from broadway_py.producers.sqs.producer import SQSProducer
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.producers.sqs.settings.queue_options import SQSQueueOptions
from broadway_py.producers.sqs.sink import SQSPublisher, SQSSink

__all__ = ["SQSOptions", "SQSProducer", "SQSPublisher", "SQSQueueOptions", "SQSSink"]
