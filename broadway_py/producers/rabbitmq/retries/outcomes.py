"""What became of the letters of one call of ``publish``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.retries.letters import Letter, named

__all__ = ["Away", "Outcomes", "Told"]

#: ``told(position, outcome)``
Told = Callable[[int, ProducerError | None], object]


class Away(ProducerError):
    """The publishing connection is gone. A new one may work."""


class Outcomes:
    """The outcome of each letter of a call.

    Args:
        letters: all letters of the call.
        told: called with the position of each letter and its outcome.
    """

    def __init__(self, letters: Sequence[Letter], told: Told | None) -> None:
        #: The letters without an outcome, by position. The second try of a letter has the same message id.
        self.open = {position: named(letter) for position, letter in enumerate(letters)}
        #: Why the last try of these has not ended with an outcome.
        self.missed: dict[int, Away] = {}
        #: For each letter why it may not have arrived, or None.
        self.reasons: list[ProducerError | None] = [None] * len(letters)
        #: The most bytes that the broker takes in a message, if it has refused one of these for its size.
        self.largest: int | None = None
        self._told = told

    def note(self, position: int, outcome: ProducerError | None) -> None:
        """Notes the outcome of a letter. The second time it does nothing."""
        if self.open.pop(position, None) is None:
            return
        self.reasons[position] = outcome
        if self._told is not None:
            self._told(position, outcome)

    def miss(self, away: Away) -> None:
        """Notes that nothing that is open could be sent."""
        self.missed = dict.fromkeys(self.open, away)

    def fail(self, reason: ProducerError) -> None:
        """Notes *reason* as the outcome of everything that is open."""
        for position in list(self.open):
            self.note(position, reason)

    def give_up(self) -> None:
        """Notes for everything that is open why the last try has missed it."""
        for position in list(self.open):
            self.note(position, self.missed[position])

    def end(self) -> None:
        """Ends the call: nothing is noted any more."""
        self.open.clear()
