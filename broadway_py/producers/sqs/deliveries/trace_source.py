"""Says to traces from which queue a message came, and with which headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broadway_py.message import Message
from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.trace_place import TraceSource

__all__ = ["SQSTraceSource"]


class SQSTraceSource(TraceSource):
    """Reads the headers from the message attributes, whichever of them the settings ask for.

    Args:
        queue: the name of the queue.
    """

    def __init__(self, queue: str) -> None:
        super().__init__("aws_sqs", queue)

    def headers_of(self, message: Message[Any], fields: frozenset[str]) -> Mapping[str, Any]:
        """Returns the texts among the message attributes that are in *fields*."""
        receipt: SQSReceipt = message.acknowledgement.data
        return {name: parts.get("StringValue") for name, parts in receipt.attributes.items() if name in fields}
