"""Finds what names a message, and whether it may have been delivered before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from broadway_py._core.identity import child_identity, given_identity, identity_by_id
from broadway_py.errors import DefinitionError
from broadway_py.foreign import article, foreign_errors
from broadway_py.message import Failed, Message, Plain, Spawned, raised

__all__ = ["Identified", "Identifier"]

#: Why a message is looked up: every one of its source is; the source has marked it. Or it is not looked up.
Lookup = Literal["every", "marked", "none"]


@dataclass(slots=True, eq=False)
class Identified:
    """Messages with their identities."""

    messages: list[Message[Any]] = field(default_factory=list)
    #: The identity of each message. None: it has none.
    identities: list[bytes | None] = field(default_factory=list)
    #: Whether each message is looked up. Those without an identity are not.
    lookups: list[Lookup] = field(default_factory=list)
    #: The identities of the messages that are looked up because their source has marked them.
    marked: set[bytes] = field(default_factory=set)
    #: The identities to look for in the state file before :meth:`Identities.sort`. Mostly empty.
    wanted: set[bytes] = field(default_factory=set)
    #: Identities of marked messages that were held already.
    known: set[bytes] = field(default_factory=set)
    #: Messages that have failed. Their status says why.
    failed: list[Message[Any]] = field(default_factory=list)


class Identifier:
    """Names the messages of one aggregator. The arguments are those of ``Identities``."""

    def __init__(
        self,
        aggregator: str,
        *,
        looked_up: Collection[str],
        marking: Collection[str],
        identity: Callable[[Message[Any]], object] | None,
        required: bool,
    ) -> None:
        self._aggregator = aggregator
        self._looked_up = frozenset(looked_up)
        self._marking = frozenset(marking)
        self._given = identity
        self._required = required
        #: How many messages that may be delivered again had no identity.
        self.without_identity = 0
        #: How many of these may have been delivered before.
        self.uncertain = 0

    def identify(self, messages: Sequence[Message[Any]]) -> Identified:
        """Finds the identity of each of *messages*.

        A message fails if the user's ``identity`` raises for it, or if it has no identity and one is required.
        """
        result = Identified()
        of, given = self.of, self._given
        lookup: Lookup
        usual: Lookup = "none"
        producer: str | None = None
        entry: object = self  # the entry of no message
        for message in messages:
            # Messages that came in together have one entry.
            if message._ledger_entry is not entry:
                entry, producer = message._ledger_entry, message.producer
                usual = self._usual_lookup(producer)
            acknowledger, _, detail = message._acknowledgement
            if given is None and type(detail) is not Spawned:
                identity = identity_by_id(message, producer)
            else:
                try:
                    identity = of(message)
                except foreign_errors(cancellations=True) as error:
                    message._status = raised(error)
                    result.failed.append(message)
                    continue
            if identity is None:
                # What is never delivered again need not be recognised.
                self.without_identity += usual != "none"
                if self._required:
                    message._status = self._nameless()
                    result.failed.append(message)
                    continue
                self.uncertain += usual != "none" and self._may_repeat(message)
                lookup = "none"
            elif usual != "marked":
                lookup = usual
            elif _is_marked(acknowledger, detail):
                lookup = "marked"
                result.marked.add(identity)
            else:
                lookup = "none"
            result.messages.append(message)
            result.identities.append(identity)
            result.lookups.append(lookup)
        return result

    def of(self, message: Message[Any]) -> bytes | None:
        """Returns the 16 bytes that name *message*, the same for each delivery of it. None: nothing names it.

        A spawned message is named by its parent, and by its number among the children.

        Raises:
            Exception: the user's ``identity`` has raised.
            DefinitionError: it returned something else than text, bytes or None.
        """
        if self._given is not None:
            given = self._given(message)
            if given is None:
                return None
            if isinstance(given, str | bytes):
                return given_identity(given)
            raise DefinitionError(
                f"{self._aggregator}: identity() returned {article(given)}; expected text or bytes, the same for each "
                "delivery of the message, or None for a message without an identity"
            )
        spawned = message._acknowledgement[2]
        if type(spawned) is Spawned:
            parent = self.of(spawned.parent)
            return None if parent is None else child_identity(parent, spawned.number)
        return identity_by_id(message, message.producer)

    def _usual_lookup(self, producer: str | None) -> Lookup:
        if self._given is not None or producer in self._looked_up:
            return "every"
        return "marked" if producer in self._marking else "none"

    def _may_repeat(self, message: Message[Any]) -> bool:
        if message.producer in self._marking:
            acknowledger, _, detail = message._acknowledgement
            return _is_marked(acknowledger, detail)
        # A handler may have deleted the attribute.
        attempt = getattr(message, "attempt", None)
        return type(attempt) is int and attempt > 1

    def _nameless(self) -> Failed:
        return Failed(
            "invalid",
            Plain(
                f"aggregator {self._aggregator} requires an identity (require_identity), and this message has none: "
                "have its publisher set a message id, or write identity(message)"
            ),
        )


def _is_marked(acknowledger: Any, detail: object) -> bool:
    """Returns whether the source says that it may have delivered a message, or the parent of a spawned one, before."""
    while type(detail) is Spawned:
        acknowledger, _, detail = detail.parent._acknowledgement
    try:
        return acknowledger is not None and bool(acknowledger.is_repeat(detail))
    except foreign_errors(cancellations=True):
        return True  # a look that was not needed costs little; a repeat that nobody notices is counted twice
