"""Asks a producer how soon the messages of a lost reader are back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from broadway_py.durations import seconds_of
from broadway_py.error_text import name_of, text_of
from broadway_py.foreign import foreign_errors
from broadway_py.producer_description import ProducerDescription

__all__ = ["returns_within_s"]

#: How many seconds the messages of a lost reader may stay away if the producer says something that is not a duration.
_RETURN_S: Final = 60.0


def returns_within_s(description: ProducerDescription, *, process_died: bool, complain: Callable[..., object]) -> float:
    """Returns the seconds that the producer says, or a default if that is not a duration.

    Args:
        description: the producer.
        process_died: True: its process has ended. False: the connection was lost.
        complain: logs an error.
    """
    try:
        return seconds_of(description.returns_within(process_died=process_died), "returns_within()")
    except foreign_errors(cancellations=True) as wrong:
        complain(
            "the producer does not say how soon the messages of a lost connection return; waiting 60 s",
            exception=name_of(wrong),
            reason=text_of(wrong) if isinstance(wrong, ValueError) else None,
        )
        return _RETURN_S
