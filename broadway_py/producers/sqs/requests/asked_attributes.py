"""Chooses the attributes that a receive asks for: those of the settings, and those that we need ourselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from broadway_py.producers.sqs.settings.options import SQSOptions, wire_name

__all__ = ["asked_attributes", "asked_message_attributes"]

#: What we need ourselves: attempts, the group on FIFO queues, and what dead letters must keep.
_OURS: Final = ("ApproximateReceiveCount",)
_OURS_FIFO: Final = (*_OURS, "MessageGroupId")
_OURS_TO_SEND: Final = (*_OURS_FIFO, "AWSTraceHeader")


def asked_attributes(options: SQSOptions) -> list[str]:
    """Returns the SQS attributes that a receive asks for."""
    if options.attribute_names == "all":
        return ["All"]
    ours = _OURS_TO_SEND if options.dead_letter_queue is not None else _OURS_FIFO if options.is_fifo else _OURS
    return list(dict.fromkeys([*ours, *map(wire_name, options.attribute_names or ())]))


def asked_message_attributes(options: SQSOptions, trace_fields: Collection[str] = ()) -> list[str]:
    """Returns the senders' attributes that a receive asks for. *trace_fields* are those that tell a trace."""
    if options.message_attribute_names == "all" or options.dead_letter_queue is not None:
        return ["All"]  # a dead letter keeps all its attributes
    return list(dict.fromkeys([*(options.message_attribute_names or ()), *sorted(trace_fields)]))
