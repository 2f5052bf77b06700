"""Which partitions a process owns: what ``own`` says, and what a worker's share is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.ownership import owned_partitions, share_of
from broadway_py.errors import OptionsError


@pytest.mark.parametrize(
    ("own", "host", "owned"),
    [
        (None, "laptop", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("3", "laptop", (3,)),
        ("0-3", "laptop", (0, 1, 2, 3)),
        ("0,2,5-7", "laptop", (0, 2, 5, 6, 7)),
        (" 6 , 1 - 2, 1", "laptop", (1, 2, 6)),
        ("7-7", "laptop", (7,)),
        ("ordinal", "shop-2", (2,)),
        ("ordinal", "shop-2-7", (7,)),
        ("ordinal of 4", "shop-2", (2, 6)),
        ("ordinal of 4", "shop-0", (0, 4)),
        ("ordinal of 3", "shop-2", (2, 5)),
        (" ordinal  of 8", "shop7", (7,)),
        ("ordinal of 1", "shop-0", (0, 1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_own_names_partitions(own: str | None, host: str, owned: tuple[int, ...]) -> None:
    assert owned_partitions(own, 8, host) == owned


@pytest.mark.parametrize(
    "host", ["shop-5d4f8c7b9-xk2p4", "shop-5d4f8c7b9-bcdf4", "3f2a9c8b7d03", "shop-2.windows", "shop-"]
)
def test_a_random_name_has_no_number(host: str) -> None:
    # Deployments and containers have such names: some of them would own a partition by chance, and others none.
    with pytest.raises(OptionsError, match=f"and this host is called '{host}'"):
        owned_partitions("ordinal", 8, host)


@pytest.mark.parametrize("own", ["", "x", "1,", "-1", "1-", "1-2-3", "1.5", "0x1", "ordinal of", "ordinal of x", "²"])
def test_what_names_no_partitions_is_refused(own: str) -> None:
    with pytest.raises(OptionsError) as refused:
        owned_partitions(own, 8, "shop-1")
    assert str(refused.value) == (
        f"own: expected partitions such as 0-3 or 0,2,5-7, or ordinal, or ordinal of 4, got {own!r}"
    )


@pytest.mark.parametrize(
    ("own", "partitions", "host", "sentence"),
    [
        ("2-1", 8, "x", "own: expected the smaller number of a range first, got '2-1'"),
        ("0-8", 8, "x", "own: '0-8' names the partition 8, but the source has 0 to 7"),
        ("1", 1, "x", "own: '1' names the partition 1, but the source has only the partition 0"),
        (
            "ordinal",
            8,
            "laptop",
            (
                "own: 'ordinal' takes the number at the end of the host's name, such as 2 of shop-2, and this host is "
                "called 'laptop'; use it in a StatefulSet, set HOSTNAME to try it, or list the partitions, such as 0-3"
            ),
        ),
        (
            "ordinal",
            4,
            "shop-4",
            (
                "own: the host 'shop-4' has the number 4, but the source has 0 to 3; run 4 replicas at most, or raise "
                "partitions"
            ),
        ),
        (
            "ordinal of 2",
            4,
            "shop-2",
            (
                "own: the host 'shop-2' has the number 2, which is none of the 2 that 'ordinal of 2' counts from 0; "
                "give the number of replicas"
            ),
        ),
        (
            "ordinal of 8",
            4,
            "shop-5",
            (
                "own: nothing is left for the host 'shop-5': 8 replicas share 4 partitions; run 4 replicas at most, or "
                "raise partitions"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(own: str, partitions: int, host: str, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        owned_partitions(own, partitions, host)
    assert str(refused.value) == sentence


@given(partitions=st.integers(1, 64), hosts=st.integers(1, 8), workers=st.integers(1, 8))
def test_each_partition_has_one_owner(partitions: int, hosts: int, workers: int) -> None:
    shares = []
    for host in range(min(hosts, partitions)):
        owned = owned_partitions(f"ordinal of {hosts}", partitions, f"shop-{host}")
        count = min(workers, len(owned))
        shares += [share_of(owned, index, count) for index in range(count)]
    assert sorted(one for share in shares for one in share) == list(range(partitions))
    assert all(shares)


def test_worker_i_of_w_owns_each_wth_partition() -> None:
    assert [share_of(range(6), index, 4) for index in range(4)] == [(0, 4), (1, 5), (2,), (3,)]
    assert share_of((1, 5, 7), 1, 2) == (5,)


@pytest.mark.parametrize(
    ("owned", "sentence"),
    [
        (
            (0, 1),
            (
                "3 workers share 2 partitions, so one of them would have nothing to do; set workers: 2 or less, or "
                "raise partitions"
            ),
        ),
        (
            (5,),
            (
                "3 workers share 1 partition, so one of them would have nothing to do; set workers: 1 or less, or "
                "raise partitions"
            ),
        ),
    ],
)
def test_more_workers_than_partitions_are_refused(owned: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        share_of(owned, 0, 3)
    assert str(refused.value) == sentence
