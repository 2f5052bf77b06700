"""The names of attributes: those of the semantic conventions for messaging, and our own."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTEMPT",
    "BATCHER",
    "BATCH_TRIGGER",
    "BODY_SIZE",
    "CAUSE",
    "DELAY_S",
    "DESTINATION",
    "ERROR_TYPE",
    "FAILED_COUNT",
    "MESSAGE_COUNT",
    "MESSAGE_ID",
    "OPERATION_NAME",
    "OPERATION_TYPE",
    "PIPELINE",
    "SCHEMA_URL",
    "SYSTEM",
]

#: The version of the conventions that these names are from.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
ERROR_TYPE: Final = "error.type"

PIPELINE: Final = "broadway.pipeline"
#: Which delivery of the message it is.
ATTEMPT: Final = "broadway.message.attempt"
BATCHER: Final = "broadway.batcher"
#: What closed the batch.
BATCH_TRIGGER: Final = "broadway.batch.trigger"
#: How many messages of a batch have failed.
FAILED_COUNT: Final = "broadway.batch.failed_message_count"
#: Why a message failed.
CAUSE: Final = "broadway.failure.cause"
#: Seconds until a retry.
DELAY_S: Final = "broadway.retry.delay"
