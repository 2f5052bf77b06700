"""The text of the rows that count words: by Zipf's law (1.3 over 50,000), ten words of nine letters in a line.

It is made once for each number of words, and kept beside the code. Only the standard library is imported here: peers
run this module in environments of their own.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final

__all__ = ["check", "words_file"]

_DIRECTORY: Final = Path(__file__).parent.parent / ".cache" / "words"
_VOCABULARY: Final = 50_000
_SKEW: Final = 1.3
_WORDS_PER_LINE: Final = 10
#: Words that are made at once, so that the memory does not grow with the text.
_AT_ONCE: Final = 10_000


def words_file(words: int) -> Path:
    """The file with so many words; made now if it is not there."""
    path = _DIRECTORY / f"{words}.txt"
    if not path.exists():
        _DIRECTORY.mkdir(parents=True, exist_ok=True)
        unfinished = _DIRECTORY / f"{words}.{os.getpid()}"
        counts = _write(unfinished, words)
        _digest_file(path).write_text(_digest(counts), encoding="utf-8")
        unfinished.rename(path)
    return path


def check(path: Path, counted: Mapping[str, int] | Iterable[tuple[str, int]]) -> None:
    """Raises RuntimeError unless *counted* is how often each word is in the file, each word once."""
    pairs = list(counted.items() if isinstance(counted, Mapping) else counted)
    if _digest(dict(pairs)) != _digest_file(path).read_text(encoding="utf-8") or len(dict(pairs)) != len(pairs):
        total = sum(count for _, count in pairs)
        raise RuntimeError(f"expected the counts of {path.name}; got {len(pairs)} pairs, {total} words, which differ")


def _write(path: Path, words: int) -> Counter[str]:
    chance = random.Random(1)
    vocabulary = [f"w{number:08}" for number in range(_VOCABULARY)]
    weights = list(accumulate(1 / (rank**_SKEW) for rank in range(1, _VOCABULARY + 1)))
    counts: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as text:
        for first in range(0, words, _AT_ONCE):
            drawn = chance.choices(vocabulary, cum_weights=weights, k=min(_AT_ONCE, words - first))
            counts.update(drawn)
            for begin in range(0, len(drawn), _WORDS_PER_LINE):
                text.write(" ".join(drawn[begin : begin + _WORDS_PER_LINE]) + "\n")
    return counts


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".digest")


def _digest(counts: Mapping[str, int]) -> str:
    return hashlib.sha256(repr(sorted(counts.items())).encode()).hexdigest()
