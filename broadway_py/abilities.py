"""What an acknowledger can do besides ``ack``."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["ABILITIES", "Ability", "FoundAbilities", "abilities_of"]

#: A method that an acknowledger may have, by its name.
Ability = Literal["configure", "release", "retry", "dead_letter"]

#: Every ability.
ABILITIES: Final[tuple[Ability, ...]] = get_args(Ability)

_NONE: Final[frozenset[Ability]] = frozenset()


class FoundAbilities(frozenset[Ability]):
    """The abilities of an acknowledger class that does not declare them: they were found by its methods.

    Its objects may have others, by a method that was set on the class or on one object later, or by ``__getattr__``.
    """

    #: The abilities that a base class has a method for, but does not declare.
    withheld: frozenset[Ability] = _NONE


def abilities_of(acknowledger: object) -> frozenset[Ability]:
    """Returns what *acknowledger* can do: what its class declares, or else what the object has a method for.

    None, which settles nothing, can do nothing.
    """
    if acknowledger is None:
        return _NONE
    declared: object = getattr(type(acknowledger), "abilities", None)
    withheld = _NONE
    if isinstance(declared, FoundAbilities):
        withheld = declared.withheld
    elif isinstance(declared, frozenset):
        return declared
    return frozenset(
        ability for ability in ABILITIES if ability not in withheld and getattr(acknowledger, ability, None) is not None
    )
