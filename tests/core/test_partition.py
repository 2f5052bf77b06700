"""Which consumer owns a key, within one process."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.partition import partition_in_process
from broadway_py.message import Message

keys = st.one_of(st.text(), st.binary(), st.integers(), st.booleans(), st.tuples(st.text(), st.integers()))


@given(keys, st.integers(1, 40))
def test_a_key_has_one_owner_among_those_there_are(key: Hashable, partitions: int) -> None:
    owner_of = partition_in_process(lambda message: message.data, partitions)

    owner = owner_of(Message(key))

    assert owner in range(partitions)
    assert owner_of(Message(key)) == owner


@pytest.mark.parametrize("keys", [(1, 1.0, True), (0, False, -0.0), ("a", "a"), ((1, 2), (1.0, 2.0))])
def test_keys_that_are_equal_have_the_same_owner(keys: tuple[Hashable, ...]) -> None:
    owner_of = partition_in_process(lambda message: message.data, 1000)

    assert len({owner_of(Message(key)) for key in keys}) == 1


def test_no_key_means_anywhere() -> None:
    assert partition_in_process(lambda _: None, 4)(Message("a")) is None


def test_what_the_users_function_raises_comes_out() -> None:
    owner_of = partition_in_process(lambda message: message.data["customer"], 4)

    with pytest.raises(KeyError):
        owner_of(Message({}))


def test_a_key_that_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(TypeError) as refused:
        partition_in_process(lambda message: message.data, 4)(Message(["a"]))

    assert str(refused.value) == (
        "partition_by returned a list, which is not hashable (TypeError: unhashable type: 'list'); "
        "expected a key such as text, a number, or a tuple of them"
    )
