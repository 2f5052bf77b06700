"""Words for benchmarks: the common ones are frequent, as in a text."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["LIST", "PARTITIONS", "lists_of_words"]

#: Words in a list.
LIST: Final = 5_000
PARTITIONS: Final = 4
_VOCABULARY: Final = 50_000
_SKEW: Final = 1.3


def lists_of_words(count: int, *, seed: int = 1) -> list[list[str]]:
    """*count* words by Zipf's law (1.3 over 50,000), in lists of 5,000.

    A word is a new object each time, as when it is read.
    """
    chance = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(_VOCABULARY)]
    weights = [1 / (rank**_SKEW) for rank in range(1, _VOCABULARY + 1)]
    block = chance.choices(vocabulary, weights, k=min(count, 20 * LIST))
    text = " ".join(block)
    lists: list[list[str]] = []
    left = count
    while left:
        words = text.split(" ")
        for first in range(0, min(left, len(words)), LIST):
            part = words[first : first + min(LIST, left)]
            lists.append(part)
            left -= len(part)
            if not left:
                break
    return lists
