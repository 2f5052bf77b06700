"""Converts messages and results to bytes and back, for the way to a worker process and back.

Each message is pickled separately, so that an object that does not pickle affects only its own message.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

from broadway_py.abilities import Ability
from broadway_py.error_text import name_of, text_of
from broadway_py.foreign import article, foreign_errors
from broadway_py.message import NOOP, Acknowledgement, BatchMode, Failed, Message, Plain, gaps_in
from broadway_py.pipeline.settlement.failures import failure_from
from broadway_py.process.frames import dumps
from broadway_py.process.packed_errors import pack_error, unpack_error

__all__ = [
    "NotPicklable",
    "apply_result",
    "failed_result",
    "pack_message",
    "pack_result",
    "unpack_message",
]

#: Objects of these types cannot be changed in place. If the object is still the same, it is not sent back.
_UNCHANGING: Final = (bytes, str, int, float, bool, type(None))


class NotPicklable(Exception):
    """A message cannot be sent, or its result cannot come back. The text says what the problem is, and why."""


# --- messages, to the worker process


class _FarLedgerEntry:
    """Replaces the ledger entry of a message, which stays in the parent."""

    __slots__ = ("producer",)

    def __init__(self, producer: str) -> None:
        self.producer = producer

    @property
    def ledger(self) -> NoReturn:
        raise RuntimeError(
            "ack_immediately() was called in a worker process, but acknowledgers stay in the parent; "
            "call it in prepare_messages, or settle by the result of the callback"
        )


class _FarAcknowledger:
    """Replaces the acknowledger, which stays in the parent. It collects options, which the parent checks later."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"configure"})

    def configure(self, _ref: Hashable, data: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        return (*data, dict(options))


_FAR: Final = Acknowledgement(_FarAcknowledger(), None, ())


def pack_message(message: Message[Any]) -> tuple[bytes, tuple[Any, ...]]:
    """Returns *message* as bytes, without its acknowledgement, and the metadata keys that do not pickle and stay here.

    Raises:
        NotPicklable: its data, its batch key, or metadata that is not a dict do not pickle, or an attribute was
            deleted.
        MalformedMessage: its metadata does not decode.
    """
    try:
        return dumps(_parts(message, message.raw, message.metadata)), ()
    except foreign_errors(cancellations=True):
        return _pack_what_pickles(message)


def _parts(message: Message[Any], raw: Any, metadata: Any) -> tuple[Any, ...]:
    return (
        message.data,
        raw,
        metadata,
        message.attempt,
        message._size,
        message.producer,
        message.batcher,
        message.batch_key,
        message._batch_mode,
        message._acknowledgement.acknowledger is not None,
    )


def _pack_what_pickles(message: Message[Any]) -> tuple[bytes, tuple[Any, ...]]:
    if gaps := gaps_in(message):
        raise NotPicklable(f"message.{gaps[0]} was deleted; keep the attribute, or set it to another value")
    metadata: Any = message.metadata
    needed = [("data", message.data), ("batch_key", message.batch_key)]
    if not isinstance(metadata, dict):
        needed.append(("metadata", metadata))
        metadata = {}
    for what, value in needed:
        problem = _problem(value)
        if problem is not None:
            raise NotPicklable(
                f"expected {what} that can be pickled, for executor='process', got {article(value)}: {problem}; "
                "change it in prepare_messages, which runs in the parent"
            )
    over = {key: value for key, value in metadata.items() if _problem((key, value)) is None}
    raw = message.raw if _problem(message.raw) is None else None
    return dumps(_parts(message, raw, over)), tuple(key for key in metadata if key not in over)


def _problem(value: object) -> str | None:
    try:
        dumps(value)
    except foreign_errors(cancellations=True) as error:
        return _told(error)
    return None


def unpack_message(packed: bytes) -> Message[Any]:
    """Returns a message that looks as it did in the parent. Called in the worker process.

    Raises:
        Exception: any error of the user's ``__setstate__`` or constructor.
    """
    data, raw, metadata, attempt, size, producer, batcher, batch_key, batch_mode, has_acknowledger = pickle.loads(  # noqa: S301  # from our own parent
        packed
    )
    message: Message[Any] = Message(data, metadata, _FAR if has_acknowledger else NOOP)
    message.raw = raw
    message.attempt = attempt
    message._size = size
    message.batcher = batcher
    message.batch_key = batch_key
    message._batch_mode = batch_mode
    message._ledger_entry = None if producer is None else _FarLedgerEntry(producer)
    return message


# --- results, back to the parent


class _Content(NamedTuple):
    """The content of a message after the callback."""

    has_data: bool
    data: Any
    metadata: Any
    batcher: str | None
    batch_key: Hashable
    batch_mode: BatchMode
    #: The options of each call of ``configure_ack``.
    options: tuple[dict[str, Any], ...]
    #: Data, metadata, routing and status of the child of each call of ``spawn``.
    children: tuple[tuple[Any, ...], ...]


def pack_result(message: Message[Any], given: object, status: Failed | None, callback: str) -> bytes:
    """Returns the result of *callback* for *message*, whose data was *given* before. Called in the worker process.

    Never raises.
    """
    try:
        data = message.data
        has_data = data is not given or type(data) not in _UNCHANGING
        content = _Content(
            has_data,
            data if has_data else None,
            message.metadata,
            message.batcher,
            message.batch_key,
            message._batch_mode,
            message._acknowledgement.data or (),
            tuple(map(_child_parts, message._children or ())),
        )
        return dumps((_pack_failure(status), dumps(tuple(content))))
    except foreign_errors(cancellations=True) as error:
        if status is not None:
            return failed_result(status)
        for one in (message, *(message._children or ())):
            if gaps := gaps_in(one):
                sentence = f"{callback} deleted message.{gaps[0]}; keep the attribute, or set it to another value"
                return failed_result(Failed("raised", Plain(sentence), TypeError(sentence)))
        sentence = (
            f"{callback} left something in the message that cannot be pickled, so the message cannot come back from "
            f"the worker process: {_told(error)}"
        )
        return failed_result(Failed("raised", sentence, TypeError(sentence)))


def _child_parts(child: Message[Any]) -> tuple[Any, ...]:
    status = _pack_failure(child._status)
    return child.data, child.metadata, child.batcher, child.batch_key, child._batch_mode, status


def failed_result(status: Failed) -> bytes:
    """Returns the result of a message of which only *status* comes back."""
    return dumps((_pack_failure(status), None))


def _pack_failure(status: Failed | None) -> tuple[Any, ...] | None:
    if status is None:
        return None
    error = None if status.exception is None else pack_error(status.exception)
    return status.cause, status.reason, error


def apply_result(message: Message[Any], packed: bytes, left: tuple[Any, ...]) -> None:
    """Apply to *message* the changes that were made in the worker process. Called in the parent. Never raises.

    *left* are the metadata keys that were not sent.
    """
    failure: tuple[Any, ...] | None = None
    try:
        failure, content = pickle.loads(packed)  # noqa: S301  # from our own worker process
        if content is not None:
            _apply(message, _Content(*pickle.loads(content)), left)  # noqa: S301  # the same
    except foreign_errors(cancellations=True) as error:
        if failure is None:
            sentence = f"the result from the worker process cannot be unpickled: {_told(error)}"
            message._status = Failed("raised", sentence, error)
    if failure is not None:
        message._status = _unpack_failure(failure)


def _unpack_failure(failure: tuple[Any, ...]) -> Failed:
    cause, reason, error = failure
    return Failed(cause, reason, None if error is None else unpack_error(error))


def _apply(message: Message[Any], content: _Content, left: tuple[Any, ...]) -> None:
    if content.has_data:
        message.data = content.data
    if isinstance(content.metadata, dict) and isinstance(message.metadata, dict):
        kept = {key: message.metadata[key] for key in left if key in message.metadata}
        message.metadata.clear()
        message.metadata.update({**kept, **content.metadata})
    else:
        message.metadata = content.metadata
    message.batcher = content.batcher
    message.batch_key = content.batch_key
    message._batch_mode = content.batch_mode
    for data, metadata, batcher, batch_key, batch_mode, failure in content.children:
        child = message.spawn(data, metadata)
        child.batcher, child.batch_key, child._batch_mode = batcher, batch_key, batch_mode
        child._status = None if failure is None else _unpack_failure(failure)
    try:
        for options in content.options:
            message.configure_ack(**options)
    except foreign_errors() as error:
        # The acknowledger refuses the options, so this message fails.
        message._status = failure_from(error)


def _told(error: BaseException) -> str:
    return f"{name_of(error)}: {text_of(error)}"
