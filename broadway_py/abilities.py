"""What an acknowledger can do besides ``ack``."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["ABILITIES", "Ability", "abilities_of"]

#: A method that an acknowledger may have, by its name.
Ability = Literal["configure", "release", "retry", "dead_letter"]

#: Every ability.
ABILITIES: Final[tuple[Ability, ...]] = get_args(Ability)

_NONE: Final[frozenset[Ability]] = frozenset()


def abilities_of(acknowledger: object) -> frozenset[Ability]:
    """Returns what *acknowledger* can do, as its class declares it.

    An object whose class declares nothing, because it is no subclass of ``Acknowledger``, can do what it has a method
    for. None, which settles nothing, can do nothing.
    """
    if acknowledger is None:
        return _NONE
    declared: object = getattr(type(acknowledger), "abilities", None)
    if isinstance(declared, frozenset):
        return declared
    return frozenset(ability for ability in ABILITIES if getattr(acknowledger, ability, None) is not None)
