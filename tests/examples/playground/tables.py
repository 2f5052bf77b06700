"""The answers to the exercises by plain loops, and the numbers of the original file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from broadway_py.examples.playground.parser import Figures, Shipment, parse
from broadway_py.examples.playground.register import OWNERS

__all__ = ["BY_LOOPS", "ORIGINAL", "shipments_of"]


def shipments_of(path: Path) -> list[Shipment]:
    return [parse(line) for line in path.read_text("utf-8").splitlines()]


def figures_of(shipments: Sequence[Shipment]) -> Figures:
    reefers = [each.amount for each in shipments if each.container_type == "reef"]
    return Figures(len(shipments), sum(each.amount for each in shipments), sum(reefers))


def by_size(shipments: Sequence[Shipment]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for each in shipments:
        found[each.container_size] += each.amount
    return dict(found)


def denmark(shipments: Sequence[Shipment]) -> dict[str, int]:
    return {
        "to": sum(each.to == "Denmark" for each in shipments),
        "from_": sum(each.from_ == "Denmark" for each in shipments),
    }


def per_customer(shipments: Sequence[Shipment]) -> dict[str, Figures]:
    found = defaultdict(list)
    for each in shipments:
        found[OWNERS[each.booking_id[0]]].append(each)
    return {owner: figures_of(theirs) for owner, theirs in found.items()}


def count_windows(shipments: Sequence[Shipment]) -> dict[str, list[Figures]]:
    # range goes one window further than the last full one: that window is open at the end, and may be empty
    return {
        f"windows of {size}": [
            figures_of(shipments[first : first + size]) for first in range(0, len(shipments) + 1, size)
        ]
        for size in (100, 300, 1_000)
    }


#: By the name of the exercise: what a plain loop gives. Pairs are a mapping.
BY_LOOPS: Final[Mapping[str, Callable[[Sequence[Shipment]], Any]]] = {
    "total": lambda shipments: [figures_of(shipments).containers],
    "reefers": lambda shipments: [figures_of(shipments).reefers],
    "by_size": by_size,
    "by_type_and_size": lambda shipments: dict(
        Counter((each.container_type, each.container_size) for each in shipments)
    ),
    "denmark": denmark,
    "same_country": lambda shipments: sorted(each for each in shipments if each.to == each.from_),
    "per_customer": per_customer,
    "count_windows": count_windows,
}

_SHIPMENTS: Final = """34 37 35 36 31 36 41 47 50 42 39 45 43 37 40 33 38 33 40 43 39 39 34 31 39 38"""
_CONTAINERS: Final = """8186 10356 7146 9606 8867 7606 10178 10901 14225 10377 9767 13477 11583
9622 8812 8021 8235 8211 9773 11766 10111 9825 9124 7215 11050 8745"""
_OF_100: Final = "26674 25277 24309 23786 25101 25771 26062 23655 24109 28041 0"
_REEFERS_OF_100: Final = "10787 11831 10226 13445 14822 15654 12714 14333 11228 14739 0"


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


#: The same for the original's file.
ORIGINAL: Final[Mapping[str, Any]] = {
    "total": [252_785],
    "reefers": [129_779],
    "by_size": {"20": 126_259, "40": 126_526},
    "by_type_and_size": {("reef", "20"): 260, ("reef", "40"): 256, ("dry", "40"): 248, ("dry", "20"): 236},
    "denmark": {"to": 2, "from_": 6},
    "same_country": 4,
    "per_customer": {
        owner: (shipments, containers)
        for owner, shipments, containers in zip(
            OWNERS.values(), _numbers(_SHIPMENTS), _numbers(_CONTAINERS), strict=True
        )
    },
    "count_windows": {
        "windows of 100": list(
            zip([100] * 10 + [0], _numbers(_OF_100), _numbers(_REEFERS_OF_100), strict=True),
        ),
        "windows of 300": [(300, 76260, 32844), (300, 74658, 43921), (300, 73826, 38275), (100, 28041, 14739)],
        "windows of 1000": [(1000, 252785, 129779), (0, 0, 0)],
    },
    "fixed_windows": {
        "the file, windows of 1 s": [(1_582_284_844, (1000, 252785, 129779))],
        "the file, windows of a minute": [(1_582_284_840, (1000, 252785, 129779))],
    },
}
