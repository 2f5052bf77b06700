"""Where messages come from and go to, as traces name it, and where they have their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from broadway_py.message import Message

__all__ = ["TracePlace", "TraceSource"]


class TracePlace(NamedTuple):
    """Where messages come from or go to, as spans name it. It holds no credentials."""

    #: What the place is, such as ``rabbitmq``. Where the semantic conventions of OpenTelemetry have a word, it is that.
    system: str
    #: The queue, exchange or topic. None: it has no name, or none that stays the same.
    destination: str | None


class TraceSource:
    """Says where the messages of a producer come from, and where they have their headers.

    Args:
        system: see :class:`TracePlace`.
        destination: the queue that all messages come from. None: it is not the same for all, or has no name.
    """

    def __init__(self, system: str, destination: str | None) -> None:
        self._place = TracePlace(system, destination)

    def place_of(self, message: Message[Any]) -> TracePlace:
        """Returns where *message* comes from."""
        return self._place

    def headers_of(self, message: Message[Any], fields: frozenset[str]) -> Mapping[str, Any]:
        """Returns the headers with which *message* came, or all its metadata if it has no ``headers`` there.

        Only those in *fields* are wanted. May raise: then the message counts as one without headers.
        """
        headers = message.metadata.get("headers")
        return headers if isinstance(headers, Mapping) else message.metadata
