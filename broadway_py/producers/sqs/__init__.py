"""The producer of SQS queues. It needs aiobotocore: ``pip install 'broadway-py[sqs]'``."""

from __future__ import annotations

try:
    import aiobotocore as _aiobotocore  # noqa: F401  # only to say what to install when it is missing
except ImportError as missing:
    raise ImportError("the sqs producer needs aiobotocore: pip install 'broadway-py[sqs]'") from missing

from broadway_py.producers.sqs.producer import SQSProducer
from broadway_py.producers.sqs.settings.options import SQSOptions

__all__ = ["SQSOptions", "SQSProducer"]
