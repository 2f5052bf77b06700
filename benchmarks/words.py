"""Words for benchmarks: the common ones are frequent, as in a text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

__all__ = ["LIST", "PARTITIONS", "lists_of_words"]

#: Words in a list.
LIST: Final = 5_000
PARTITIONS: Final = 4
_VOCABULARY: Final = 50_000
_SKEW: Final = 1.3
#: Different texts, which come again and again.
_TEXTS: Final = 20


def lists_of_words(count: int, *, seed: int = 1) -> Iterator[list[str]]:
    """Yields *count* words by Zipf's law (1.3 over 50,000), in lists of 5,000.

    A list is split off a text when it is wanted. So a word is a new object each time, as when it is read, and the
    memory does not grow with *count*.
    """
    chance = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(_VOCABULARY)]
    weights = [1 / (rank**_SKEW) for rank in range(1, _VOCABULARY + 1)]
    texts = [" ".join(chance.choices(vocabulary, weights, k=LIST)) for _ in range(_TEXTS)]
    for number in range(0, count, LIST):
        yield texts[number // LIST % _TEXTS].split(" ")[: count - number]
