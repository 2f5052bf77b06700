"""The message that travels through a pipeline, and the types that describe its state and outcome."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, TypeVar, get_args

from broadway_py.abilities import abilities_of
from broadway_py.error_text import MOST_TEXT, clipped, name_of, text_of
from broadway_py.foreign import article, foreign_errors, is_a, shown, type_name
from broadway_py.foreign import text_of as text_of_value

__all__ = [
    "NOOP",
    "Acknowledgement",
    "BatchInfo",
    "BatchMode",
    "BatchTrigger",
    "Cause",
    "Failed",
    "Message",
    "Outcome",
    "Plain",
    "Spawned",
    "fill_gaps",
    "gaps_in",
    "messages_of",
    "place_of_reason",
    "plain_reason",
    "raised",
]

T = TypeVar("T")

BatchMode = Literal["bulk", "flush"]
BatchTrigger = Literal["size", "bytes", "timeout", "flush"]

#: Why a message failed. The set is closed because the cause is a metric label.
Cause = Literal[
    "raised",  # a callback raised
    "failed",  # the handler called message.fail(reason)
    "timeout",  # the handler took longer than its time-out
    "invalid",  # the payload does not fit the schema
    "not_returned",  # a callback returned a list without it
    "unknown_batcher",  # message.batcher names no batcher of this pipeline
    "cancelled",  # the callback was cancelled, but not by the library
    "late",  # its window has closed
    "future_event_time",  # its time stamp is too far in the future
    "crashed",  # the stage that held it crashed
    "stopped",  # still unfinished at the end of the drain
    "worker_died",  # it killed the process that handled it
]

_CAUSES: Final[frozenset[object]] = frozenset(get_args(Cause))

#: How a delivery ended. Each delivery has exactly one outcome.
Outcome = Literal["acked", "retried", "dead_lettered", "rejected", "dropped", "returned", "unknown"]


class Plain(str):
    """A reason written by the library. It quotes no message and no error, so it may be shown everywhere."""

    __slots__ = ()


class _Said(str):
    """A reason that a handler has given, with the place in the code where it did so."""

    __slots__ = ("place",)

    place: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a message failed: a cause from a closed set, a sentence, and the exception if there was one.

    Raises:
        ValueError: *cause* is not a known cause.
        TypeError: *reason* is not text, or *exception* is not an exception.
    """

    cause: Cause
    reason: str = ""
    exception: BaseException | None = None

    def __post_init__(self) -> None:
        if not is_a(self.cause, str) or self.cause not in _CAUSES:
            raise ValueError(f"Failed: cause takes one of {', '.join(get_args(Cause))}; got {shown(self.cause)}")
        if not is_a(self.reason, str):
            raise TypeError(f"Failed: reason takes a str, got {article(self.reason)}")
        if self.exception is not None and not is_a(self.exception, BaseException):
            raise TypeError(f"Failed: exception takes an exception or None, got {article(self.exception)}")

    def __getattr__(self, name: str) -> str:
        # Called only for a missing attribute: raised() does not set the reason.
        if name != "reason":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        reason = _text_of_raised(self.exception)
        object.__setattr__(self, "reason", reason)
        return reason

    def __repr__(self) -> str:
        # The reason and the text of the exception may quote the payload, so neither is shown.
        error = f", {name_of(self.exception)}" if self.exception is not None else ""
        return f"Failed({self.cause}{error})"

    __str__ = __repr__


_REASON: Final[Any] = Failed.__dict__["reason"]


def raised(error: BaseException) -> Failed:
    """Returns the status of a message whose callback raised *error*. The error's text is read only when needed."""
    failed = object.__new__(Failed)
    object.__setattr__(failed, "cause", "raised")
    object.__setattr__(failed, "exception", error)
    return failed


def plain_reason(failed: Failed) -> Plain | None:
    """Returns the reason if the library wrote it, else None. Does not read the text of an error."""
    try:
        reason = _REASON.__get__(failed, Failed)
    except AttributeError:
        return None
    return reason if isinstance(reason, Plain) else None


def place_of_reason(failed: Failed) -> str | None:
    """Returns the place in the code where the handler called ``message.fail``; None if it did not."""
    return failed.reason.place if isinstance(failed.reason, _Said) else None


def _text_of_raised(error: BaseException | None) -> str:
    return "" if error is None else f"{name_of(error)}: {text_of(error)}"


class Acknowledgement(NamedTuple):
    """Who settles a message, and with which data.

    Messages with equal *acknowledger* and *ref* are settled in one call. *data* belongs to the acknowledger and has no
    effect on the grouping. An acknowledger of ``None`` settles nothing.
    """

    acknowledger: Any
    ref: Hashable = None
    data: Any = None


NOOP: Final = Acknowledgement(None)


class Spawned(NamedTuple):
    """The acknowledgement data of a message that a handler has spawned: where it comes from."""

    parent: Message[Any]
    #: Its position among the children of *parent*, from 0, in the order of the ``spawn`` calls.
    number: int


# The states of a settlement. A claim is taken without waiting, and only the holder of the claim settles.
OPEN: Final = 0
CLAIMED: Final = 1
SETTLED: Final = 2


_SIZED: Final = (bytes, str, bytearray, memoryview)
#: Common types without a size. Looking here is faster than finding out that they are none of the above.
_WITHOUT_SIZE: Final[frozenset[type]] = frozenset({int, float, bool, type(None), dict, list, tuple})


def _size_of(payload: Any) -> int:
    try:
        if isinstance(payload, str):
            return len(payload.encode(errors="surrogatepass"))
        if isinstance(payload, memoryview):
            return payload.nbytes
        return len(payload) if isinstance(payload, _SIZED) else 0
    except foreign_errors():
        return 0  # an object that only claims to be text, or that raises when it is examined


class Message(Generic[T]):
    """One delivery: its data, its metadata, and how to settle it.

    One stage at a time owns a message and may change it in place. It is not safe to share a message between threads.

    Args:
        data: the payload; replaced by the parsed object when the pipeline has a ``schema``.
        metadata: what the source says about the message, in a dict that no other message uses (default: empty).
        acknowledgement: who settles the message; :data:`NOOP` when no source needs to be told.
    """

    __slots__ = (
        "_acknowledgement",
        "_at_work",
        "_batch_mode",
        "_children",
        "_identity",
        "_ledger_entry",
        "_settlement",
        "_size",
        "_status",
        "_trace",
        "attempt",
        "batch_key",
        "batcher",
        "data",
        "metadata",
        "raw",
    )

    data: T
    raw: Any
    metadata: dict[str, Any]
    #: The number of this delivery of the message (1, 2, …); None if the source cannot tell.
    attempt: int | None
    #: The batcher that the message goes to after ``handle_message``; None: it is settled without a batch.
    batcher: str | None
    #: Messages of one batch share this key.
    batch_key: Hashable
    # Set only when a journal asks for it, see broadway_py._core.identity.
    _identity: bytes | None
    # Set only with deduplicate_by, see broadway_py.pipeline.deduplication.
    _at_work: Any
    # Set only in a pipeline with tracing, by its tracer.
    _trace: Any

    #: Attributes that a subclass computes when they are read. They are never missing.
    _read_when_asked: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        data: T,
        metadata: dict[str, Any] | None = None,
        acknowledgement: Acknowledgement = NOOP,
    ) -> None:
        self.data = data
        self.raw = data
        self.metadata = {} if metadata is None else metadata
        self.attempt = None
        self.batcher = "default"
        self.batch_key = "default"
        self._batch_mode: BatchMode = "bulk"
        self._status: Failed | None = None
        self._acknowledgement = acknowledgement
        self._settlement = OPEN
        self._ledger_entry: Any = None
        self._children: list[Message[Any]] | None = None
        self._size: int = 0 if type(data) in _WITHOUT_SIZE else _size_of(data)

    @property
    def size(self) -> int:
        """The size of the payload in bytes; 0 for objects that are not bytes or str. A producer may set it."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        if not is_a(size, int) or size < 0:
            raise TypeError(f"message.size takes a number of bytes, got {shown(size)}")
        if self._ledger_entry is not None:
            raise AttributeError("message.size cannot change in a pipeline, because the pipeline counts these bytes")
        self._size = size

    @property
    def batch_mode(self) -> BatchMode:
        """What closes this message's batch: size, bytes or time (``"bulk"``), or the end of its run (``"flush"``).

        A run is a series of neighbouring messages with one batch key and partition.
        """
        return self._batch_mode

    @batch_mode.setter
    def batch_mode(self, mode: BatchMode) -> None:
        if not is_a(mode, str) or mode not in ("bulk", "flush"):
            raise ValueError(f"batch_mode takes 'bulk' or 'flush', got {shown(mode)}")
        self._batch_mode = mode

    @property
    def status(self) -> Failed | None:
        """Why the message failed; None while it is ok."""
        return self._status

    @status.setter
    def status(self, status: Failed | None) -> None:
        if status is not None and not is_a(status, Failed):
            raise TypeError(f"message.status takes None or a Failed, got {type_name(status)}; use message.fail(reason)")
        self._status = status

    @property
    def ok(self) -> bool:
        """True while the message has not failed."""
        return self._status is None

    @property
    def settled(self) -> bool:
        """True once the acknowledger has been called for the message, or the message has been given back."""
        return self._settlement == SETTLED

    @property
    def producer(self) -> str | None:
        """The name of the producer that the message came from; None before a pipeline has taken it in."""
        return None if self._ledger_entry is None else str(self._ledger_entry.producer)

    @property
    def acknowledgement(self) -> Acknowledgement:
        """Who settles this message, and with which data."""
        return self._acknowledgement

    @property
    def id(self) -> str | None:
        """The id that the source gave the message (``metadata["message_id"]``), for logs; None if there is none."""
        found = self._named()
        return None if found is None else text_of_value(found)

    def _named(self) -> object:
        # A handler may have replaced or deleted the metadata.
        try:
            metadata: Any = self.metadata
        except AttributeError:
            return None
        if type(metadata) is dict or is_a(metadata, dict):
            return dict.get(metadata, "message_id")
        return None

    def spawn(self, data: Any, metadata: dict[str, Any] | None = None, batcher: str | None = None) -> Message[Any]:
        """Makes a child of this message and returns it. Call it in ``prepare_messages`` or ``handle_message``.

        The child goes straight to *batcher* (None: the batcher of this message). The rate limit and ``handle_message``
        do not apply to it. This message itself goes no further: it is acked when all its children are acked, and it
        fails when any of them fails. If it fails before its children are sent, they are not sent.

        Raises:
            TypeError: *metadata* is not a dict, or *batcher* is not a name.
        """
        if metadata is not None and not is_a(metadata, dict):
            raise TypeError(f"spawn: expected metadata as a dict or None, got {article(metadata)}")
        if batcher is not None and not is_a(batcher, str):
            raise TypeError(f"spawn: expected the name of a batcher or None, got {article(batcher)}")
        child: Message[Any] = Message(data, metadata)
        child.batcher = self.batcher if batcher is None else batcher
        child.attempt = self.attempt
        if self._children is None:
            self._children = []
        self._children.append(child)
        return child

    def detached(self) -> Message[T]:
        """Returns a new object for the same delivery. The pipeline no longer uses this one.

        Needed when a handler cannot be stopped: what it still writes to its message then has no effect.
        """
        gaps = fill_gaps(self)
        # A handler may have replaced the metadata by something that is not a dict.
        metadata = dict(self.metadata) if is_a(self.metadata, dict) else self.metadata
        other: Message[T] = Message(self.data, metadata, self._acknowledgement)
        other.raw, other._size, other.attempt = self.raw, self._size, self.attempt
        other.batcher, other.batch_key, other._batch_mode = self.batcher, self.batch_key, self._batch_mode
        other._status, other._ledger_entry = self._status, self._ledger_entry
        other._settlement, self._settlement = self._settlement, SETTLED
        if (at_work := getattr(self, "_at_work", None)) is not None:
            other._at_work = at_work
        if (trace := getattr(self, "_trace", None)) is not None:
            other._trace = trace
        for name in gaps:
            delattr(other, name)  # the code that settles the message decides what a missing attribute means
        return other

    def fail(self, reason: str) -> None:
        """Marks the message as failed. It goes to ``handle_failed`` and is settled as failed; nothing is raised."""
        said = _Said(clipped(text_of_value(reason), MOST_TEXT))
        caller = sys._getframe(1)
        said.place = f"{caller.f_code.co_filename.rsplit('/', 1)[-1]}:{caller.f_lineno} {caller.f_code.co_name}"
        self._status = Failed("failed", said)

    def configure_ack(self, **options: Any) -> None:
        """Changes how this one message will be settled. Its acknowledger defines the options.

        Raises:
            TypeError: the acknowledger takes no options.
            ValueError: the acknowledger does not know the option or the value.
        """
        acknowledger, ref, data = self._acknowledgement
        if "configure" not in abilities_of(acknowledger):
            name = "the no-op acknowledger" if acknowledger is None else type(acknowledger).__name__
            raise TypeError(
                f"configure_ack({', '.join(options)}): {name} takes no options; "
                "remove the call, or use a producer whose acknowledger has configure()"
            )
        self._acknowledgement = Acknowledgement(acknowledger, ref, acknowledger.configure(ref, data, options))

    def __repr__(self) -> str:
        # The data is never shown, because a repr often ends up in a log.
        state = "ok" if self._status is None else repr(self._status)
        name = self.id
        name = name if name is None else clipped(name, 200)
        return f"<Message id={name!r} producer={self.producer!r} size={self._size} {state}>"


def messages_of(items: Iterable[T], acknowledgement: Acknowledgement) -> list[Message[T]]:
    """Makes a message without metadata of each of *items*.

    It sets what the constructor sets. Without a call for each message this takes three quarters of the time.
    """
    messages: list[Message[T]] = []
    new, append, sizeless = Message.__new__, messages.append, _WITHOUT_SIZE
    for item in items:
        message: Message[T] = new(Message)
        message.data = message.raw = item
        message.metadata = {}
        message.attempt = None
        message.batcher = message.batch_key = "default"
        message._batch_mode = "bulk"
        message._status = None
        message._acknowledgement = acknowledgement
        message._settlement = OPEN
        message._ledger_entry = None
        message._children = None
        message._size = 0 if type(item) in sizeless else _size_of(item)
        append(message)
    return messages


#: The attributes that a callback may change, and so can delete, each with a function that makes its default.
_CHANGEABLE: Final[Mapping[str, Callable[[], Any]]] = {
    "data": lambda: None,
    "raw": lambda: None,
    "metadata": dict,
    "attempt": lambda: None,
    "batcher": lambda: None,
    "batch_key": lambda: "default",
}
_SLOTS: Final[Mapping[str, Any]] = {name: vars(Message)[name] for name in _CHANGEABLE}


def gaps_in(message: Message[Any]) -> list[str]:
    """Returns the names of the attributes that a callback has deleted from *message*."""
    gaps: list[str] = []
    for name, slot in _SLOTS.items():
        try:
            slot.__get__(message)
        except AttributeError:
            if name not in message._read_when_asked:
                gaps.append(name)
    return gaps


def fill_gaps(message: Message[Any]) -> list[str]:
    """Sets each attribute that a callback has deleted from *message* to its default. Returns their names."""
    gaps = gaps_in(message)
    for name in gaps:
        setattr(message, name, _CHANGEABLE[name]())
    return gaps


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """The facts that ``handle_batch`` gets about its batch."""

    batcher: str
    batch_key: Hashable
    #: The index of the partition; None if the batcher has no ``partition_by``.
    partition: int | None
    #: The number of messages in the batch.
    size: int
    #: What closed the batch.
    trigger: BatchTrigger
