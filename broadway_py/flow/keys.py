"""The stable hash of keys: equal keys have the same one, in every process and on every machine."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from itertools import repeat
from numbers import Number
from typing import Any, Final, cast
from uuid import UUID
from zlib import crc32

from broadway_py.foreign import article, foreign_errors, is_a, text_of, type_name

__all__ = ["KeyHashes"]

#: The most keys of which the hash is remembered. More of them cost memory, and few flows have more.
_MOST_KEYS: Final = 100_000
_ONLY_TEXT: Final = {str}
#: The checksum of the tag of texts.
_TEXT_TAG: Final = crc32(b"s")
_FOUR_BYTES: Final = 0xFFFF_FFFF
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EXPECTED: Final = "text, bytes, a number, a UUID, a date, a datetime, an Enum, None, or a tuple of them"


class KeyHashes(dict[Hashable, int]):
    """The hash of keys by the key: ``hashes[key] % partitions`` is the partition that owns the key.

    It is :func:`zlib.crc32` of the key as bytes, with a tag for its type. So it is the same in each process, which
    Python's own hash of text and None is not. Numbers that are equal have the same hash, whatever their types are.

    The hashes of the last keys are remembered. A key that is not hashable raises Python's own TypeError;
    :meth:`hash_of` says more.

    Args:
        in_one_process: takes each hashable key: one of another type has the hash that Python gives it. Without this,
            such a key is refused, because other processes may have another hash for it.
        modulus: the hashes are those numbers modulo this one. With the number of partitions, ``hashes[key]`` is the
            partition.
    """

    __slots__ = ("_in_one_process", "_modulus")

    def __init__(self, *, in_one_process: bool, modulus: int = 2**32) -> None:
        super().__init__()
        self._in_one_process = in_one_process
        self._modulus = modulus

    def hash_of(self, key: Hashable) -> int:
        """Returns the hash of *key*.

        Raises:
            TypeError: the key has a type without a stable hash, or is not hashable.
        """
        try:
            return self[key]
        except foreign_errors() as error:
            if _is_hashable(key):
                raise
            raise TypeError(
                f"expected a key such as {_EXPECTED}, got {article(key)}, which is not hashable "
                f"({type_name(error)}: {text_of(error)})"
            ) from error

    def of_known(self, keys: list[Any]) -> list[int]:
        """Returns the hash of each of *keys*.

        Raises:
            TypeError: a key is not hashable, or has a type without a stable hash.
        """
        return list(map(self.__getitem__, keys))

    def of_new(self, keys: list[Any]) -> list[int]:
        """Returns the hash of each of *keys*. It is fast for texts that seldom come again, and remembers none of them.

        Raises:
            TypeError: a key is not hashable, or has a type without a stable hash.
        """
        if set(map(type, keys)) == _ONLY_TEXT:
            modulus = self._modulus
            try:
                # A checksum goes on from that of the tag.
                return [each % modulus for each in map(crc32, map(str.encode, keys), repeat(_TEXT_TAG))]
            except UnicodeEncodeError:  # half of a pair of surrogates
                pass
        return self.of_known(keys)

    def __missing__(self, key: Hashable) -> int:
        if len(self) >= _MOST_KEYS:
            self.clear()
        found = self[key] = self._computed(key) % self._modulus
        return found

    def _computed(self, key: Hashable) -> int:
        content = _bytes_of(key)
        if content is not None:
            return crc32(content)
        if is_a(key, tuple):
            # A tuple of another type, such as a named one, is equal to the plain one.
            parts = [self._computed(each).to_bytes(4, "big") for each in tuple.__iter__(cast("tuple[Any, ...]", key))]
            return crc32(b"t" + b"".join(parts))
        if self._in_one_process:
            return hash(key) & _FOUR_BYTES
        raise TypeError(
            f"expected a key of which each process has the same hash ({_EXPECTED}), got {article(key)}: "
            "return one of these from the key function, such as a field or the text of the key"
        )


def _is_hashable(key: Hashable) -> bool:
    try:
        hash(key)
    except foreign_errors():
        return False
    return True


def _bytes_of(key: Hashable) -> bytes | None:  # noqa: PLR0911  # one return for each type
    """Returns *key* as bytes with a tag for its type; None if it is a tuple, or of an unknown type."""
    if type(key) is int:
        # The same as below. Of other types, a flow has seldom as many different keys.
        return b"n" + key.to_bytes(key.bit_length() // 8 + 1, "big", signed=True)
    # The order matters: the members of some enums are equal to text or to a number.
    if is_a(key, str):
        return b"s" + str.encode(cast("str", key), errors="surrogatepass")
    if is_a(key, Number):
        return _bytes_of_number(key)
    if is_a(key, bytes):
        return b"b" + bytes(cast("bytes", key))
    if key is None:
        return b"0"
    if is_a(key, UUID):
        return b"u" + cast("UUID", key).bytes
    if is_a(key, datetime):
        return _bytes_of_moment(cast("datetime", key))
    if is_a(key, date):
        return b"d" + date.isoformat(cast("date", key)).encode()
    if is_a(key, Enum):
        return f"e{type_name(key)}.{cast('Enum', key).name}".encode()
    return None


def _bytes_of_number(key: Any) -> bytes:
    if key != key:  # noqa: PLR0124  # it is NaN
        return b"f"
    try:
        whole = int(key if is_a(key, int) else key.real)
    except OverflowError:  # it is infinite
        whole = 0
    if key == whole:
        return b"n" + whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)
    # Python's own hash of such a number depends only on its value.
    return b"f%d" % hash(key)


def _bytes_of_moment(key: datetime) -> bytes:
    # Datetimes of which only the fold differs are equal.
    key = key.replace(fold=0)
    if key.utcoffset() is None:
        return b"l" + key.isoformat().encode()
    return b"m%d" % ((key - _EPOCH) // _MICROSECOND)
