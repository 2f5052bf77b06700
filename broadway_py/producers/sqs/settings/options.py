"""The settings of an SQS producer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)

from broadway_py.conflict import Conflict
from broadway_py.errors import did_you_mean
from broadway_py.options import Duration, PositiveInt
from broadway_py.producers.sqs.settings.endpoint import host_of, is_url
from broadway_py.producers.sqs.settings.queue_options import QueueUrl, SQSQueueOptions

__all__ = [
    "MOST_VISIBILITY",
    "OUR_NAMES",
    "AttributeName",
    "Disposition",
    "SQSOptions",
    "read_disposition",
    "wire_name",
]

#: The longest time that SQS hides a message, in seconds: 12 hours after it was received. No request can exceed it.
MOST_VISIBILITY: Final = 43_200

AttributeName = Literal[
    "sender_id",
    "sent_timestamp",
    "approximate_receive_count",
    "approximate_first_receive_timestamp",
    "sequence_number",
    "message_deduplication_id",
    "message_group_id",
    "aws_trace_header",
]

_ATTRIBUTES: Final[tuple[str, ...]] = get_args(AttributeName)
_Action = Literal["ack", "noop", "nack", "dead_letter"]
_ACTIONS: Final[tuple[str, ...]] = get_args(_Action)
_Delay = Annotated[Duration, Field(ge=0, le=MOST_VISIBILITY)]
_SECONDS: Final = TypeAdapter(_Delay)


class Disposition(NamedTuple):
    """What happens to a message at the queue. *delay* is for ``nack``, in whole seconds."""

    action: _Action
    delay: int = 0


def read_disposition(value: object) -> Disposition:
    """Reads ``"ack"``, ``"noop"``, ``"nack"``, ``("nack", 30)`` or ``"dead_letter"``.

    Raises:
        ValueError: it is none of these, or the delay is not from 0 to 43200 seconds.
    """
    if isinstance(value, Disposition):
        return value
    if isinstance(value, str) and value in _ACTIONS:
        return Disposition(value)  # type: ignore[arg-type]  # mypy does not narrow by `in`
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and value[0] == "nack":
        try:
            delay = _SECONDS.validate_python(value[1])
        except ValidationError:
            raise ValueError("expected a delay from 0 to 43200 seconds after nack") from None
        return Disposition("nack", round(delay))
    raise ValueError("expected ack, noop, nack, [nack, seconds] or dead_letter")


def _whole(value: float) -> float:
    if not value.is_integer():
        raise ValueError("expected whole seconds, because SQS knows no others")
    return value


def _attribute_names(value: object) -> object:
    if value is None or value == "all":
        return value
    for name in _listed(value, f"expected 'all' or a list of names out of {', '.join(_ATTRIBUTES)}"):
        if name not in _ATTRIBUTES:
            hint = did_you_mean(name, _ATTRIBUTES) if isinstance(name, str) else ""
            raise ValueError(f"no such attribute: {name!r}; known here: {', '.join(_ATTRIBUTES)}{hint}")
    return value


def _message_attribute_names(value: object) -> object:
    if value is None or value == "all":
        return value
    for name in _listed(value, "expected 'all' or a list of names"):
        if not isinstance(name, str) or not name:
            raise ValueError("expected names that are non-empty text")
    return value


def _listed(value: object, expected: str) -> Sequence[object]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    raise ValueError(expected)


WholeSeconds = Annotated[Duration, AfterValidator(_whole)]
OnSettled = Annotated[
    Disposition,
    BeforeValidator(read_disposition, json_schema_input_type=_Action | tuple[Literal["nack"], _Delay]),
]


class SQSOptions(SQSQueueOptions):
    """All settings of an :class:`SQSProducer`."""

    impossible: ClassVar[Mapping[str, str]] = {
        "partitions": (
            "a queue of SQS has no partitions; leave this out, and with aggregators set workers: 1, so that one "
            "process reads the queue and has all keys"
        )
    }

    #: The producer's name in metrics, logs and ``message.producer``. None: the pipeline gives it one.
    name: str | None = None
    #: How many copies read the queue, each with its own receives and settlements. More max_polls cost less.
    concurrency: PositiveInt = 1
    #: The most messages of one receive: 1 to 10.
    max_number_of_messages: Annotated[int, Field(ge=1, le=10, strict=True)] = 10
    #: Seconds that a receive waits for the first message: 0 to 20. A stop waits that long for the receive of an idle
    #: queue.
    wait_time_seconds: Annotated[WholeSeconds, Field(ge=0, le=20)] = 20.0
    #: The most receives at the same time, for each copy. So many run only while they find messages.
    max_polls: Annotated[int, Field(ge=1, le=100, strict=True)] = 10
    #: Seconds for which a message is hidden from other readers: 0 to 43200. None: as the queue says. It is no limit for
    #: a handler: the visibility of a message is extended in time, up to the 12 hours of SQS.
    visibility_timeout: Annotated[WholeSeconds, Field(ge=0, le=MOST_VISIBILITY)] | None = None
    #: The least seconds from the start of a receive that found nothing to the next receive. On an idle queue it sets
    #: the number of requests if wait_time_seconds is less than this.
    receive_interval: Annotated[Duration, Field(ge=0)] = 1.0
    #: SQS's own attributes to add to ``message.metadata["attributes"]``; "all" for all.
    attribute_names: Annotated[tuple[AttributeName, ...] | Literal["all"] | None, BeforeValidator(_attribute_names)] = (
        None
    )
    #: The sender's attributes to add to ``message.metadata["message_attributes"]``; "all" for all; "x.*" for all that
    #: begin with "x.".
    message_attribute_names: Annotated[
        tuple[str, ...] | Literal["all"] | None, BeforeValidator(_message_attribute_names)
    ] = None
    #: What happens to a handled message: ack (it is deleted), noop (it is delivered again after its visibility
    #: timeout), nack (it is delivered again at once; with [nack, seconds] after that time).
    #: ``message.configure_ack(on_success=…)`` changes it for one message.
    on_success: OnSettled = Field("ack", validate_default=True)
    #: What happens to a failed message if the failure policy does not decide: as on_success, or dead_letter. If it is
    #: given, it overrides the default policy. ``message.configure_ack(on_failure=…)`` changes it for one message.
    on_failure: OnSettled = Field("noop", validate_default=True)
    #: URL or name of the queue that dead letters are sent to before they are deleted here. None: failed messages stay,
    #: and the redrive policy of the queue (if it has one) moves them after so many receives.
    dead_letter_queue: QueueUrl | None = None

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        letters = frozenset({"queue_url", "dead_letter_queue"})
        if self.on_success.action == "dead_letter":
            yield Conflict(
                ("on_success",),
                "expected ack, noop, nack or [nack, seconds], got dead_letter",
                frozenset({"on_success"}),
            )
        if self.on_failure.action == "dead_letter" and self.dead_letter_queue is None:
            yield Conflict(
                ("on_failure",),
                "dead_letter needs dead_letter_queue: name the queue, or leave on_failure out",
                frozenset({"on_failure", "dead_letter_queue"}),
            )
        if self.dead_letter_queue is not None and self.dead_letter_queue == self.queue_url:
            yield Conflict(
                ("dead_letter_queue",),
                "this is the queue itself, so its dead letters would come again for ever",
                letters,
            )
        host = self.host
        if (
            self.dead_letter_queue is not None
            and host is not None
            and is_url(self.dead_letter_queue)
            and (other := host_of(self.dead_letter_queue)) != host
        ):
            yield Conflict(
                ("dead_letter_queue",),
                f"its host is {other}, that of queue_url is {host}, and all requests go to one host: "
                "write both with the same host, or give dead_letter_queue by its name alone",
                letters | {"endpoint_url"},
            )
        yield from super().conflicts()

    @property
    def on_failure_is_given(self) -> bool:
        """Returns whether on_failure was given."""
        return "on_failure" in self.model_fields_set


def wire_name(name: str) -> str:
    """Returns SQS's name of an attribute: ``message_group_id`` becomes ``MessageGroupId``."""
    return {"aws_trace_header": "AWSTraceHeader"}.get(name, "".join(part.capitalize() for part in name.split("_")))


#: Our names by SQS's names.
OUR_NAMES: Final[Mapping[str, str]] = {wire_name(name): name for name in _ATTRIBUTES}
