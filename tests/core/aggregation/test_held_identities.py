"""Identities that the next checkpoint makes durable: they are found at any time, and kept in order."""

from __future__ import annotations

from broadway_py._core.aggregation.held_identities import HeldIdentities

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


def test_what_was_added_is_found_also_after_a_look() -> None:
    held = HeldIdentities()
    held.add([ONE])

    assert ONE in held
    assert TWO not in held

    held.add(iter([TWO]))

    assert TWO in held
    assert ONE in held
    assert held.joined() == ONE + TWO
    assert list(held) == [ONE, TWO]


def test_what_was_removed_is_not_found_and_not_stored() -> None:
    held = HeldIdentities()
    held.add([ONE, TWO, ONE])
    assert TWO in held

    held.remove({ONE, THREE})

    assert ONE not in held
    assert TWO in held
    assert held.joined() == TWO

    held.add([THREE])

    assert THREE in held
    assert held.joined() == TWO + THREE
