"""Creates the running copies of one producer, each with the settings of its moment."""

from __future__ import annotations

from broadway_py.producer import Producer, ProducerContext
from broadway_py.producer_description import ProducerDescription

__all__ = ["Copies"]


class Copies:
    """The copies of one producer. All sources of the producer share this object.

    Args:
        description: what the user gave.
    """

    def __init__(self, description: ProducerDescription) -> None:
        #: The description in use. It changes when a file with a setting has another content at a connect.
        self.description = description

    def create(self, context: ProducerContext) -> Producer:
        """Returns a new copy with *context*, not yet opened."""
        self.description = self.description.renewed()
        copy = self.description.create()
        # Not copy.bind(): a producer may have a method of this name for its own purposes, such as binding a socket.
        Producer.bind(copy, context)
        return copy
