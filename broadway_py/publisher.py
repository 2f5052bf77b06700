"""The interface through which messages leave a pipeline for another queue."""

from __future__ import annotations

import abc
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import PipelineNotRunning, PublishError
from broadway_py.examination import Finding, not_examined
from broadway_py.trace_place import TracePlace

__all__ = ["Given", "Outgoing", "Outlet", "Publisher", "Sink", "Unconfirmed"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outgoing:
    """A message to publish. Two of them are equal only if they are the same object."""

    #: The payload.
    data: bytes = field(repr=False)
    #: The name of the message, the same at each try. A place that knows it already may store it once only, and readers
    #: can recognise a repetition. None: it has no name.
    message_id: str | None = None
    #: What a place that stores a repetition once only recognises the message by. None: its *message_id*.
    dedup_id: str | None = field(default=None, repr=False)
    #: Messages of one key belong together: a place that keeps an order keeps it for each key. None: it has no key.
    key: str | None = field(default=None, repr=False)
    #: Texts that travel beside the payload, by name.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The media type of the payload, such as ``application/json``. A place without a field for it leaves it out.
    content_type: str | None = None
    #: Headers that say which trace the message belongs to. A place without room for them leaves them out.
    trace_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def all_headers(self) -> Mapping[str, str]:
        """The headers, and those that say which trace the message belongs to."""
        return {**self.trace_headers, **self.headers} if self.trace_headers else self.headers


class Unconfirmed:
    """The messages of one list that are not confirmed yet.

    Args:
        messages: all messages of the list.
    """

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self._messages = messages
        #: The messages to send, by their position in the list.
        self.waiting: dict[int, Outgoing] = dict(enumerate(messages))
        self._refused: dict[int, str] = {}
        self._names: dict[int, str] = {}
        #: Why the last try did not confirm all that waits. None: there was no such try.
        self.reason: str | None = None
        self._is_lasting = False

    @property
    def is_over(self) -> bool:
        """Returns whether another try is of no use: nothing waits, or somebody must first mend something."""
        return not self.waiting or self._is_lasting

    def name(self, position: int) -> str:
        """Returns the id of a message; if it has none, a random one that is the same at each try."""
        given = self._messages[position].message_id
        if given is not None:
            return given
        return self._names.setdefault(position, uuid.uuid4().hex)

    def confirm(self, position: int) -> None:
        """Notes that the place has confirmed a message."""
        self.waiting.pop(position, None)

    def refuse(self, position: int, reason: str) -> None:
        """Notes that the place will not take a message as it is, however often it is sent."""
        if self.waiting.pop(position, None) is not None:
            self._refused[position] = reason

    def fail(self, reason: str, *, position: int | None = None, lasting: bool = False) -> None:
        """Notes why messages wait after a try.

        Args:
            reason: why, in one sentence without data.
            position: the only message that it is about. None: all that wait.
            lasting: until somebody has mended something.
        """
        if lasting or not self._is_lasting:
            self.reason = reason
        self._is_lasting = self._is_lasting or lasting

    def error(self, otherwise: str) -> PublishError | None:
        """Returns the error of the whole list; None: all messages are confirmed.

        Args:
            otherwise: the reason, if no try has told one.
        """
        if not self.waiting and not self._refused:
            return None
        reason = (self.reason or otherwise) if self.waiting else next(iter(self._refused.values()))
        positions = sorted([*self.waiting, *self._refused])
        return PublishError(
            f"{len(positions)} of {len(self._messages)} messages were not confirmed: {reason}",
            unpublished=[self._messages[position] for position in positions],
            refused=[self._messages[position] for position in sorted(self._refused)],
        )


class Publisher(abc.ABC):
    """Publishes messages to one place. It is made by :meth:`Sink.create`, and used in one event loop.

    Calls of :meth:`publish` may run side by side. What is in the way (a missing broker, a lost connection) never ends
    it: the next call tries again.
    """

    #: Why the last try did not succeed, in one sentence without credentials. None: it did, or there was none.
    trouble: str | None = None

    @abc.abstractmethod
    async def open(self) -> None:
        """Connects, and checks that the place exists. This is optional: :meth:`publish` connects when it must.

        Raises:
            ProducerError: the place is not available, or refuses us.
        """

    @abc.abstractmethod
    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publishes *messages*. When it returns, the place has confirmed all of them and keeps them safe.

        It connects if that is needed. What fails for a reason that passes by itself is tried again with back-off until
        *timeout*. A message may arrive twice. Messages of one key arrive in the order of *messages*, if the place keeps
        an order and none of them had to be tried again.

        Args:
            messages: any number of them; none does nothing.
            timeout: seconds that the call may take.

        Raises:
            PublishError: some messages are not confirmed; it says which.
        """

    async def deliver(self, unconfirmed: Unconfirmed, *, timeout: float) -> None:
        """Publishes what waits in *unconfirmed*, as :meth:`publish` does, and notes there what becomes of each message.

        A publisher that knows the outcome of a message before the others should write this one, too, and note it at
        once: handlers wait for it. Without it, all outcomes are known when :meth:`publish` returns. *unconfirmed* may
        lose messages meanwhile, whose handlers wait no longer.
        """
        positions = list(unconfirmed.waiting)
        messages = list(unconfirmed.waiting.values())
        missing: set[int] = set()
        try:
            await self.publish(messages, timeout=timeout)
        except PublishError as error:
            self.trouble = str(error)
            refused = set(map(id, error.refused))
            missing = set(map(id, error.unpublished)) or set(map(id, messages))
            for position, message in zip(positions, messages, strict=True):
                if id(message) in refused:
                    unconfirmed.refuse(position, str(error))
            unconfirmed.fail(str(error), lasting=True)
        else:
            self.trouble = None
        for position, message in zip(positions, messages, strict=True):
            if id(message) not in missing:
                unconfirmed.confirm(position)

    @abc.abstractmethod
    async def close(self) -> None:
        """Gives up what is still being published, and ends the connection. Takes a few seconds at most.

        Raises nothing. A later :meth:`publish` raises PublishError. Closing twice does nothing.
        """


#: An option of ``publish_many``: one text for all items, or a function of an item.
Given = str | Callable[[Any], str | None] | None


class Outlet(Protocol):
    """What a running pipeline publishes by, under one name of its option ``publishers``."""

    def publish(
        self,
        call: str,
        items: Sequence[Any],
        *,
        key: Given,
        message_id: Given,
        headers: Mapping[str, str] | None,
        content_type: str | None,
        timeout: float | timedelta,
    ) -> Coroutine[Any, Any, None]:
        """Publishes *items*. *call* is the name of the method that the user called."""


class Sink(abc.ABC):
    """Describes a place to publish to. It does not change, so that classes and processes can share it.

    A pipeline has a copy of its own of each sink in its option ``publishers``. On this copy,
    ``self.publishers["out"]``, its callbacks call :meth:`publish`.
    """

    #: Set in the copy of a pipeline.
    _outlet: Outlet | None = None

    @property
    def trace_place(self) -> TracePlace:
        """The name of the place in traces. By default the system is named after the class, without ``Sink``."""
        return TracePlace(type(self).__name__.removesuffix("Sink").removesuffix("Publisher").lower(), None)

    @abc.abstractmethod
    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        """Returns a publisher, not connected yet.

        Args:
            name: who publishes, for the log and for the place, such as ``shop.revenue``.
            clock: measures time-outs and back-off.
        """

    def examine(self, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what ``broadway check --connect`` finds out about the place, each finding as soon as it is known.

        It connects, and looks whether the place is there and takes messages. It publishes and changes nothing. It may
        be cancelled at any time, and then closes its connections. By default it notes that the place was not examined.

        Args:
            timeout: the most seconds that each step may take.
        """
        return not_examined(self)

    def publish(
        self,
        data: Any,
        *,
        key: str | None = None,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        timeout: float | timedelta = 30.0,
    ) -> Coroutine[Any, Any, None]:
        """Publishes one message. Await it in an ``async def`` callback: when it returns, the place has confirmed it.

        What callbacks publish at the same time travels together. While too much is on its way, the call waits.

        Args:
            data: bytes, as they are; text, as UTF-8; a :class:`~broadway_py.message.Message`, whose ``data`` is
                published; anything else is written as JSON by pydantic.
            key: messages of one key belong together: the routing key at an exchange of RabbitMQ, the message group of a
                FIFO queue, the key in an embedded queue.
            message_id: the name of the message, the same if it is published again. An embedded queue and a FIFO queue
                store a second message with this name not at all. Default: of a Message, its id; then a repetition must
                also have the same payload, and come from the same message of the same pipeline.
            headers: texts that travel beside the payload, by name.
            content_type: the media type. Default: ``application/json`` for what is written as JSON, otherwise none.
            timeout: seconds (or a timedelta) that the call may take.

        Raises:
            PublishError: the message is not confirmed. If the place is not available, it is also an
                :class:`~broadway_py.errors.Unavailable`, so that the failure does not count as the message's own.
            DefinitionError: it was called outside the event loop of the pipeline, as in a plain ``def`` callback.
            PipelineNotRunning: no pipeline that has this publisher was started.
        """
        outlet = self._outlet_of("publish")
        return outlet.publish(
            "publish",
            (data,),
            key=key,
            message_id=message_id,
            headers=headers,
            content_type=content_type,
            timeout=timeout,
        )

    def publish_many(
        self,
        items: Iterable[T],
        *,
        key: str | Callable[[T], str | None] | None = None,
        message_id: Callable[[T], str | None] | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
        timeout: float | timedelta = 30.0,
    ) -> Coroutine[Any, Any, None]:
        """Publishes each of *items*, as :meth:`publish` does. When it returns, the place has confirmed all of them.

        Items of one key arrive in their order, if the place keeps an order and none of them had to be tried again.

        Args:
            items: any number of what :meth:`publish` takes.
            key: the key of all, or a function of an item.
            message_id: a function of an item that returns its name.
            headers: as of :meth:`publish`, for all.
            content_type: as of :meth:`publish`, for all.
            timeout: seconds (or a timedelta) that the whole call may take.

        Raises:
            PublishError: some are not confirmed. ``unpublished`` are those of *items* that are not, ``refused`` those
                among them that the place never takes as they are.
        """
        outlet = self._outlet_of("publish_many")
        return outlet.publish(
            "publish_many",
            tuple(items),
            key=key,
            message_id=message_id,
            headers=headers,
            content_type=content_type,
            timeout=timeout,
        )

    def _outlet_of(self, call: str) -> Outlet:
        if self._outlet is None:
            raise PipelineNotRunning(
                f"{call}(): a publisher works only while a pipeline runs that has it in its option publishers; call "
                f"self.publishers['out'].{call}(…) in a callback"
            )
        return self._outlet
