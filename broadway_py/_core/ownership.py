"""Decides which partitions of the sources a process owns. Shares are fixed: nothing is negotiated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from broadway_py.errors import OptionsError

__all__ = ["owned_partitions", "share_of"]

_RANGE: Final = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", re.ASCII)
_ORDINAL: Final = re.compile(r"ordinal(?:\s+of\s+(\d+))?", re.ASCII)
# Pods of a Deployment and containers have random names, such as shop-5d4f8c7b9-xk2p4, and many end with a digit. So the
# number must follow a hyphen, or be the only one in the name.
_NUMBER_AT_THE_END: Final = re.compile(r"(?:.*-|[^\d-]*)(\d+)", re.ASCII)
_EXPECTED: Final = "expected partitions such as 0-3 or 0,2,5-7, or ordinal, or ordinal of 4"


def owned_partitions(own: str | None, partitions: int, host: str) -> tuple[int, ...]:
    """Returns the partitions that *own* names, in order; all of them if it is None.

    Args:
        own: numbers and ranges, such as ``"0,2,5-7"``. ``"ordinal"`` is the number at the end of *host*. ``"ordinal of
            4"`` is every fourth partition from that number on.
        partitions: how many there are.
        host: the name of this host.

    Raises:
        OptionsError: *own* cannot be read, or names what does not exist. The path is ``own``.
    """
    if own is None:
        return tuple(range(partitions))
    by_ordinal = _ORDINAL.fullmatch(own.strip())
    if by_ordinal is None:
        return _listed(own, partitions)
    ordinal = _ordinal_of(own, host)
    if by_ordinal[1] is None:
        if ordinal >= partitions:
            raise _refused(
                f"the host {host!r} has the number {ordinal}, but {_all_of(partitions)}; run {partitions} replicas at "
                "most, or raise partitions"
            )
        return (ordinal,)
    hosts = int(by_ordinal[1])
    if ordinal >= hosts:
        raise _refused(
            f"the host {host!r} has the number {ordinal}, which is none of the {hosts} that {own!r} counts from 0; "
            "give the number of replicas"
        )
    owned = tuple(range(ordinal, partitions, hosts))
    if not owned:
        raise _refused(
            f"nothing is left for the host {host!r}: {hosts} replicas share {partitions} partitions; run {partitions} "
            "replicas at most, or raise partitions"
        )
    return owned


def _listed(own: str, partitions: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in own.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise _refused(f"{_EXPECTED}, got {own!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise _refused(f"expected the smaller number of a range first, got {part.strip()!r}")
        if last >= partitions:
            raise _refused(f"{own!r} names the partition {last}, but {_all_of(partitions)}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _ordinal_of(own: str, host: str) -> int:
    number = _NUMBER_AT_THE_END.fullmatch(host)
    if number is None:
        raise _refused(
            f"{own!r} takes the number at the end of the host's name, such as 2 of shop-2, and this host is called "
            f"{host!r}; use it in a StatefulSet, set HOSTNAME to try it, or list the partitions, such as 0-3"
        )
    return int(number[1])


def _all_of(partitions: int) -> str:
    return "the source has only the partition 0" if partitions == 1 else f"the source has 0 to {partitions - 1}"


def _refused(problem: str) -> OptionsError:
    return OptionsError(("own",), problem)


def share_of(owned: Sequence[int], index: int, workers: int) -> tuple[int, ...]:
    """Returns which of the partitions *owned* by all workers of a daemon belong to the worker *index* of *workers*.

    Raises:
        OptionsError: there are more workers than partitions. It has no path.
    """
    if workers > len(owned):
        what = "partition" if len(owned) == 1 else "partitions"
        raise OptionsError(
            (),
            f"{workers} workers share {len(owned)} {what}, so one of them would have nothing to do; set workers: "
            f"{len(owned)} or less, or raise partitions",
        )
    return tuple(owned[index::workers])
