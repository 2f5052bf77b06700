"""Names the messages of a pipeline with ``deduplicate_by``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from broadway_py._core.identity import given_identity, identities_by_id, identity_by_id
from broadway_py._core.settlement import drop
from broadway_py.foreign import article, foreign_errors, is_a
from broadway_py.message import Message
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.settlement.failures import failure_from

__all__ = ["BY_ID", "Naming"]

#: The value of ``deduplicate_by`` that means the id that the source has given a message.
BY_ID: Final = "id"


class Naming:
    """Finds what names a message over all its deliveries.

    Args:
        given: the user's function; None: the id that the source gave the message.
        room: gives the function a clean context.
    """

    def __init__(self, given: Callable[[Message[Any]], object] | None, room: CleanRoom) -> None:
        self._given = given
        self._room = room

    def names_of(self, messages: Sequence[Message[Any]], producer: str) -> list[bytes | None]:
        """Returns 16 bytes for each of *messages*, which came from *producer*. None: nothing names it.

        A message fails if it cannot be named because the function or its metadata raises.
        """
        if self._given is None:
            try:
                return identities_by_id(messages, producer)
            except foreign_errors():
                pass  # one by one, it turns out which of them it is
        return [self._name_of(message, producer) for message in messages]

    def _name_of(self, message: Message[Any], producer: str) -> bytes | None:
        try:
            return identity_by_id(message, producer) if self._given is None else self._given_to(message, self._given)
        except foreign_errors() as error:
            # An error in user code, or metadata that does not decode, fails only this message.
            if message._status is None:
                message._status = failure_from(error)
            return None

    def _given_to(self, message: Message[Any], function: Callable[[Message[Any]], object]) -> bytes | None:
        name = self._room.run(function, message)
        if name is None:
            return None
        if not is_a(name, str):
            drop(name)
            raise TypeError(
                f"deduplicate_by returned {article(name)}; expected text that is the same for each delivery of the "
                "message, or None for a message without an id; write deduplicate_by as a plain function"
            )
        return given_identity(str.__str__(name))
