"""The interface through which messages leave a pipeline for another queue."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broadway_py.clock import SYSTEM_CLOCK, Clock

__all__ = ["Outgoing", "Publisher", "Sink"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outgoing:
    """A message to publish. Two of them are equal only if they are the same object."""

    #: The payload.
    data: bytes = field(repr=False)
    #: The name of the message, the same at each try. A place that knows it already may store it once only, and readers
    #: can recognise a repetition. None: it has no name.
    message_id: str | None = None
    #: Messages of one key belong together: a place that keeps an order keeps it for each key. None: it has no key.
    key: str | None = field(default=None, repr=False)
    #: Texts that travel beside the payload, by name.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The media type of the payload, such as ``application/json``. A place without a field for it leaves it out.
    content_type: str | None = None


class Publisher(abc.ABC):
    """Publishes messages to one place. It is made by :meth:`Sink.create`, and used in one event loop.

    Calls of :meth:`publish` may run side by side. What is in the way (a missing broker, a lost connection) never ends
    it: the next call tries again.
    """

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

    @abc.abstractmethod
    async def close(self) -> None:
        """Gives up what is still being published, and ends the connection. Takes a few seconds at most.

        Raises nothing. A later :meth:`publish` raises PublishError. Closing twice does nothing.
        """


class Sink(abc.ABC):
    """Describes a place to publish to. It does not change, so that classes and processes can share it."""

    @abc.abstractmethod
    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        """Returns a publisher, not connected yet.

        Args:
            name: who publishes, for the log and for the place, such as ``shop.revenue``.
            clock: measures time-outs and back-off.
        """
