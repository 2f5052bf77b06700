"""Finds what names a message, and whether it may have been delivered before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from typing import Any, Literal

from broadway_py._core.identity import child_identity, given_identity, identities_by_id, identity_by_id
from broadway_py._core.ledger import Run, runs_of
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
    #: The runs of :attr:`messages`; None: not known.
    runs: list[Run] | None = None


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
        runs = runs_of(messages)
        for _, first, until in runs:
            self._identify(messages[first:until], result)
        if not result.failed:
            result.runs = runs
        return result

    def _identify(self, messages: Sequence[Message[Any]], result: Identified) -> None:
        """Adds *messages*, which have one entry, to *result*."""
        producer = messages[0].producer
        usual = self._usual_lookup(producer)
        identities: list[bytes | None]
        # Messages with one entry were all spawned from the same message, or none of them was spawned.
        has_spawned = type(messages[0]._acknowledgement[2]) is Spawned
        if self._given is None and not has_spawned:
            identities = identities_by_id(messages, producer)
        else:
            messages, identities = self._name_each(messages, result)
        if None in identities:
            messages, identities = self._judge_nameless(messages, identities, usual, result)
        result.messages += messages
        result.identities += identities
        if usual == "marked":
            marks = _marks_of(messages, has_spawned=has_spawned)
            result.lookups += _lookups_of_marked(identities, marks, result)
        else:
            result.lookups += ["none" if identity is None else usual for identity in identities]

    def _name_each(
        self, messages: Sequence[Message[Any]], result: Identified
    ) -> tuple[list[Message[Any]], list[bytes | None]]:
        """Returns *messages* and their identities, without those for which the user's ``identity`` raises."""
        named: list[Message[Any]] = []
        identities: list[bytes | None] = []
        for message in messages:
            try:
                identity = self.of(message)
            except foreign_errors(cancellations=True) as error:
                message._status = raised(error)
                result.failed.append(message)
            else:
                named.append(message)
                identities.append(identity)
        return named, identities

    def _judge_nameless(
        self,
        messages: Sequence[Message[Any]],
        identities: Sequence[bytes | None],
        usual: Lookup,
        result: Identified,
    ) -> tuple[Sequence[Message[Any]], list[bytes | None]]:
        """Counts those without an identity. Returns *messages* and *identities*, without them if one is required."""
        nameless = [message for message, identity in zip(messages, identities, strict=True) if identity is None]
        # What is never delivered again need not be recognised.
        self.without_identity += len(nameless) if usual != "none" else 0
        if not self._required:
            self.uncertain += sum(map(self._may_repeat, nameless)) if usual != "none" else 0
            return messages, list(identities)
        for message in nameless:
            message._status = self._nameless()
        result.failed += nameless
        named = [message for message, identity in zip(messages, identities, strict=True) if identity is not None]
        return named, [identity for identity in identities if identity is not None]

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
            return _is_marked(message)
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


def _lookups_of_marked(
    identities: Sequence[bytes | None], marks: Sequence[bool], result: Identified
) -> Sequence[Lookup]:
    """Returns whether each message is looked up, where only those with one of *marks* are."""
    lookups: list[Lookup] = ["none"] * len(identities)
    for place in compress(count(), marks):
        identity = identities[place]
        if identity is not None:
            lookups[place] = "marked"
            result.marked.add(identity)
    return lookups


def _marks_of(messages: Sequence[Message[Any]], *, has_spawned: bool) -> list[bool]:
    """Returns :func:`_is_marked` of each of *messages*; an empty list if it is False for all of them."""
    if not has_spawned:
        try:
            marks = [message._acknowledgement[0].is_repeat(message._acknowledgement[2]) for message in messages]
            # An acknowledger of a user may return any object, which may raise here.
            return list(map(bool, marks)) if any(marks) else []
        except foreign_errors(cancellations=True):
            pass  # one by one, it turns out what is marked
    return [_is_marked(message) for message in messages]


def _is_marked(message: Message[Any]) -> bool:
    """Returns whether the source says that it may have delivered *message*, or the parent of a spawned one, before."""
    acknowledger, _, detail = message._acknowledgement
    while type(detail) is Spawned:
        acknowledger, _, detail = detail.parent._acknowledgement
    try:
        return acknowledger is not None and bool(acknowledger.is_repeat(detail))
    except foreign_errors(cancellations=True):
        return True  # a look that was not needed costs little; a repeat that nobody notices is counted twice
