"""The interface through which the outcome of a message reaches its source."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from broadway_py.abilities import ABILITIES, Ability, FoundAbilities
from broadway_py.foreign import shown
from broadway_py.message import Acknowledgement, Message, Outcome

__all__ = [
    "Acknowledger",
    "CallerAcknowledger",
    "Configures",
    "DeadLetters",
    "NoopAcknowledger",
    "Releases",
    "Retries",
]


class Acknowledger(abc.ABC):
    """Settles messages at their source.

    The pipeline makes one call per (acknowledger, ref) and round. It has already claimed every message that it passes,
    so an acknowledger never sees a message twice. A subclass may also have these methods, its *abilities*:

    * ``configure(ref, data, options) -> data`` for ``message.configure_ack(...)`` (see :class:`Configures`);
    * ``async release(ref, messages)``: gives messages back without a decision. This costs no attempt if the broker can
      do so (see :class:`Releases`). Without this method, a stopping pipeline finishes the messages that it has not
      started yet;
    * ``async retry(ref, messages_and_delays)``: has messages delivered again after a delay in seconds (see
      :class:`Retries`);
    * ``async dead_letter(ref, messages)``: keeps messages safe elsewhere, then removes them from the source (see
      :class:`DeadLetters`).

    A subclass may declare its abilities, as in ``abilities = frozenset({"release"})``. The pipeline calls no others.

    Raises:
        TypeError: a subclass declares an ability that is unknown, or for which it has no method.
    """

    #: The names of the methods above that the pipeline may call. If a subclass does not declare them, its objects can
    #: do what its base classes can do, and what they have a method for, also one that was set on the object.
    abilities: ClassVar[frozenset[Ability]] = frozenset()

    #: True: the settings of the source say what :meth:`ack` does with a failed message (``on_failure=``).
    on_failure_is_given: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "abilities" in vars(cls):
            _check_abilities(cls)
        else:
            withheld = frozenset(ability for ability in ABILITIES if _withholds(cls, ability))
            found = FoundAbilities(
                ability for ability in ABILITIES if ability not in withheld and getattr(cls, ability, None) is not None
            )
            found.withheld = withheld
            cls.abilities = found

    @abc.abstractmethod
    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Tells the source the outcome of the messages. It must try both lists, also when the first one raises.

        Raises:
            SettleError: some messages could not be settled; the others were settled.
            Exception: the outcome of all of them is unknown. The pipeline does not try again.
        """

    def outcome_of_failed(self, data: Any) -> Outcome:
        """Returns the outcome that :meth:`ack` gives a failed message with acknowledgement data *data*.

        The pipeline uses it for its counts.
        """
        return "rejected"

    def dead_letters_go_to(self, data: Any) -> str | None:
        """Returns where ``dead_letter`` keeps a message with acknowledgement data *data*, for the log.

        None means that the place has no name.
        """
        return None

    def is_repeat(self, data: Any) -> bool:
        """Returns whether the source may have delivered the message with acknowledgement data *data* before.

        It is asked only if the producer's ``marks_repeats`` is True, for each message that goes to an aggregator. False
        promises that the message was never delivered before, not even to a process that died or gave it back. By
        default it returns True, which is always right, but costs time.
        """
        return True

    def on_failure_is_configured(self, data: Any) -> bool:
        """Returns whether ``configure_ack`` has set what :meth:`ack` does with a failed message with data *data*."""
        return False


def _withholds(made: type[Acknowledger], ability: Ability) -> bool:
    """Returns whether *made* inherits the method for *ability* from a class that does not declare the ability.

    If several base classes have this method and declare their abilities, the first one in the order of inheritance
    counts.
    """
    method = getattr(made, ability, None)
    for base in made.__mro__[1:]:
        if (
            method is not None
            and issubclass(base, Acknowledger)
            and not isinstance(base.abilities, FoundAbilities)
            and getattr(base, ability, None) is method
        ):
            return ability not in base.abilities
    return False


def _check_abilities(made: type[Acknowledger]) -> None:
    declared: object = made.abilities
    if not isinstance(declared, frozenset) or not declared <= frozenset(ABILITIES):
        raise TypeError(
            f"{made.__qualname__}.abilities: expected a frozenset of {', '.join(ABILITIES)}, got {shown(declared)}"
        )
    for ability in ABILITIES:
        if ability in declared and not callable(getattr(made, ability, None)):
            raise TypeError(
                f"{made.__qualname__}.abilities names {ability}, but the class has no method {ability}(): "
                "write the method, or leave the name out"
            )


class Configures(Protocol):
    """An acknowledger whose messages take ``configure_ack(...)``."""

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        """Returns the new acknowledgement data. Raises ValueError for an unknown option or value."""


class Releases(Protocol):
    """An acknowledger that can give messages back without a decision."""

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Gives *messages* back to the source, so that any consumer can take them. Raises as ``ack`` does."""


class Retries(Protocol):
    """An acknowledger that can have a message delivered again later."""

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Has each message delivered again, as the next attempt, once its delay (in seconds) has passed."""


class DeadLetters(Protocol):
    """An acknowledger with a place for messages that have failed for good."""

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Stores *messages* safely elsewhere *before* it removes them from the source. ``message.status`` says why."""


class NoopAcknowledger(Acknowledger):
    """Settles nothing. It is for sources that need no answer."""

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Does nothing."""


class CallerAcknowledger(Acknowledger):
    """Hands the settled messages to the code that waits in :meth:`settled`. Used by ``submit`` and by tests.

    Args:
        expected: how many messages carry this acknowledger.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.successful: list[Message[Any]] = []
        self.failed: list[Message[Any]] = []
        #: The options of the ``configure_ack`` calls, in order.
        self.configured: list[Mapping[str, Any]] = []
        self._done = asyncio.Event()
        if expected == 0:
            self._done.set()

    def acknowledgement(self, data: Any = None) -> Acknowledgement:
        """Returns the acknowledgement that each of the expected messages must carry."""
        return Acknowledgement(self, id(self), data)

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Keeps the messages for the caller, in the order in which they were settled."""
        self.successful.extend(successful)
        self.failed.extend(failed)
        if len(self.successful) + len(self.failed) >= self.expected:
            self._done.set()

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        """Notes the options and returns *data* unchanged."""
        self.configured.append(dict(options))
        return data

    async def settled(self) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Waits until every expected message is settled. Returns the successful ones and the failed ones."""
        await self._done.wait()
        return self.successful, self.failed
