"""Writes keys and accumulators as JSON, by their types, and reads them back as they were."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from broadway_py.errors import BroadwayError, OptionsError
from broadway_py.foreign import article, foreign_errors
from broadway_py.state.json_kinds import name_of
from broadway_py.state.storable import class_with_fields, refuse_lossy

__all__ = ["Codec", "CodecError"]

K = TypeVar("K")
A = TypeVar("A")

#: Infinities and NaN are written as such, which JSON proper does not have. Bytes need not be UTF-8.
_CONFIG: Final = ConfigDict(
    ser_json_inf_nan="constants",
    ser_json_bytes="base64",
    val_json_bytes="base64",
    allow_inf_nan=True,
)


_PLAIN_VALUES: Final = (int, float, bool, str)

#: Whole numbers with fewer bits than this are not long.
_PLAIN_BITS: Final = 64

#: A whole number with more digits than this is written as JSON, but no reader takes it back.
_MOST_DIGITS: Final = 4_300
_TOO_MANY_DIGITS: Final = re.compile(rb"\d{%d}" % (_MOST_DIGITS + 1))
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


class CodecError(BroadwayError):
    """A key or an accumulator cannot be stored, or stored bytes cannot be read. The text has no data of the user.

    *index* is the place of the accumulator in the list that was given, if it is known.
    """

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


class Codec(Generic[K, A]):
    """Writes accumulators of one aggregator: the key, two whole numbers, and the value of each.

    Values come back equal, and of the same types: NaN, infinities, bytes, Decimal, datetime, sets, dataclasses,
    NamedTuple, TypedDict and pydantic models. A datetime keeps its offset, and not the name of its zone. A value must
    have the type that is declared. An instance of a subclass is refused, except inside of another value: there, only
    the fields of the declared class are kept.

    Args:
        key_type: the type of the keys.
        value_type: the type of the values.

    Raises:
        OptionsError: the values of a type would not come back as they were. Its path begins with ``key`` or ``value``.
    """

    def __init__(self, key_type: Any, value_type: Any) -> None:
        self.key_name = name_of(key_type)
        self.value_name = name_of(value_type)
        refuse_lossy(key_type, "key", is_key=True)
        refuse_lossy(value_type, "value")
        # Most keys are of one of these types, which need no adapter.
        self._plain_key: type | None = key_type if key_type is int or key_type is str else None
        # The values of many aggregators are numbers, or text, and need none either.
        self._plain_value: type | None = value_type if value_type in _PLAIN_VALUES else None
        #: The class of the values, if it has fields of its own.
        self._fields_of = class_with_fields(value_type)
        # A list, because pydantic does not let a model alone have our config.
        self._keys: TypeAdapter[list[K]] = _adapter(list[key_type], "key")
        self._values: TypeAdapter[list[A]] = _adapter(list[value_type], "value")
        self._entries: TypeAdapter[list[tuple[K, int, int, A]]] = _adapter(
            list[tuple[key_type, int, int, value_type]],
            "value",
        )
        self._older: TypeAdapter[list[tuple[K, int, int, Any]]] = _adapter(
            list[tuple[key_type, int, int, Any]],
            "key",
        )

    def dump(self, entries: Sequence[tuple[K, int, int, A]], *, to_be_read: bool = True) -> bytes:
        """Returns *entries* as JSON.

        Args:
            entries: key, two whole numbers, and value of each.
            to_be_read: whether a value is refused that :meth:`load` could not read: it has a number of too many digits.

        Raises:
            CodecError: one of them cannot be stored. Its ``index`` says which, the first one if there are several.
        """
        if self._fields_of is not None:
            self._refuse_subclasses(entries)
        try:
            written = _written(self._entries, list(entries))
        except foreign_errors() as error:
            for index, entry in enumerate(entries):
                self._try(index, entry)
            raise CodecError("accumulators cannot be stored together, but each of them can alone") from error
        if len(written) > _MOST_DIGITS and to_be_read and _may_be_unreadable(written):
            self._refuse_long_numbers(entries)
        return written

    def load(self, blob: bytes) -> list[tuple[K, int, int, A]]:
        """Returns the entries in *blob*.

        Raises:
            CodecError: they are not of these types.
        """
        try:
            return self._entries.validate_json(blob, by_alias=False, by_name=True)
        except foreign_errors() as error:
            raise CodecError(
                f"stored accumulators cannot be read as keys of type {self.key_name} and values of type "
                f"{self.value_name}{_where(error)}: if the type was changed, raise the aggregator's version and write "
                "upgrade(version, value)"
            ) from error

    def load_older(self, blob: bytes) -> list[tuple[K, int, int, Any]]:
        """Returns the entries in *blob* with the values as plain JSON, for ``upgrade``.

        Raises:
            CodecError: the keys are not of their type.
        """
        try:
            return self._older.validate_json(blob, by_alias=False, by_name=True)
        except foreign_errors() as error:
            raise CodecError(
                f"stored accumulators cannot be read as keys of type {self.key_name}{_where(error)}: give the "
                "aggregator another name, or use another file"
            ) from error

    def key_text(self, key: K) -> str:
        """Returns *key* as JSON, without blanks.

        Raises:
            CodecError: it cannot be stored.
        """
        try:
            if type(key) is self._plain_key:
                return to_json(key).decode()
            return _written(self._keys, [key])[1:-1].decode()
        except foreign_errors() as error:
            raise CodecError(_unstorable("key", key, self.key_name)) from error

    def key_texts(self, keys: Sequence[K]) -> list[str]:
        """Returns each of *keys* as JSON, without blanks.

        Raises:
            CodecError: one of them cannot be stored.
        """
        if self._plain_key is int and set(map(type, keys)) == {int}:
            try:
                return list(map(str, keys))
            except ValueError:
                pass  # Python refuses to write a number of very many digits
        return list(map(self.key_text, keys))

    def are_plain(self, values: Sequence[A]) -> bool:
        """Returns True if :meth:`plain_texts` can write all *values*, and nobody can change one of them or a key."""
        if self._plain_key is None or self._plain_value is None or set(map(type, values)) != {self._plain_value}:
            return False
        if self._plain_value is str:
            return all(isinstance(value, str) and value.isascii() for value in values)
        return True

    def plain_texts(self, values: Sequence[A]) -> list[str]:
        """Returns each of the plain *values* as JSON.

        Raises:
            CodecError: one of them cannot be stored. Its ``index`` says which.
        """
        if self._plain_value is int:
            # Python itself refuses to write a number of very many digits, unless the program has changed this limit.
            if 0 < sys.get_int_max_str_digits() <= _MOST_DIGITS:
                try:
                    return list(map(str, values))
                except ValueError:
                    pass  # one of them is long
            texts = list(map(to_json, values))
            for index, text in enumerate(texts):
                if _is_unreadable(text):
                    raise CodecError(_too_long("value", self.value_name), index)
            return [text.decode() for text in texts]
        return [to_json(value, inf_nan_mode="constants").decode() for value in values]

    def surely_stores(self, key: K) -> bool:
        """Returns True if *key* comes back as it is, and there is no need to try: plain text, or a plain number."""
        if type(key) is not self._plain_key:
            return False
        return key.isascii() if isinstance(key, str) else isinstance(key, int) and key.bit_length() < _PLAIN_BITS

    def check(self, initial: A) -> None:
        """Stores the value *initial*, and compares it with what comes back.

        Raises:
            OptionsError: it cannot be stored, or it comes back as something else.
        """
        try:
            (back,) = self._values.validate_json(_written(self._values, [initial]), by_alias=False, by_name=True)
        except foreign_errors() as error:
            raise OptionsError(
                ("initial",), f"expected a value of type {self.value_name} that can be stored, got {article(initial)}"
            ) from error
        if not _is_same(initial, back):
            raise OptionsError(
                ("initial",),
                f"expected a value that comes back from JSON as it was, but {article(initial)} came back as "
                f"{article(back)} that differs: look at validators, serializers and fields that are not stored",
            )

    def _refuse_subclasses(self, entries: Sequence[tuple[K, int, int, A]]) -> None:
        for index, entry in enumerate(entries):
            if type(entry[3]) is not self._fields_of:
                raise CodecError(_unstorable("value", entry[3], self.value_name), index)

    def _refuse_long_numbers(self, entries: Sequence[tuple[K, int, int, A]]) -> None:
        for index, entry in enumerate(entries):
            if _is_unreadable(_written(self._entries, [entry])):
                is_key = _is_unreadable(_written(self._keys, [entry[0]]))
                part, name = ("key", self.key_name) if is_key else ("value", self.value_name)
                raise CodecError(_too_long(part, name), index)

    def _try(self, index: int, entry: tuple[K, int, int, A]) -> None:
        try:
            _written(self._entries, [entry])
        except foreign_errors() as error:
            key, _, _, value = entry
            try:
                self.key_text(key)
            except CodecError as wrong:
                raise CodecError(str(wrong), index) from wrong.__cause__
            raise CodecError(_unstorable("value", value, self.value_name), index) from error


def _adapter(annotation: Any, name: str) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=_CONFIG)
    except PydanticUserError as error:
        raise OptionsError((name,), f"pydantic cannot use the type {name_of(annotation)}: {error.message}") from error


def _written(adapter: TypeAdapter[Any], value: Any) -> bytes:
    # A value of another type than the declared one is an error and not a warning: it could not be read again.
    # Not `adapter.dump_json`, which does the same at twice the cost: this runs for each result.
    return adapter.serializer.to_json(value, warnings="error", round_trip=True, by_alias=False)


def _unstorable(part: str, value: object, name: str) -> str:
    return (
        f"a {part} cannot be stored as {name}: {article(value)} came, or something in it has another type than "
        "declared, or is text that UTF-8 cannot say"
    )


def _too_long(part: str, name: str) -> str:
    return (
        f"a {part} cannot be stored as {name}: it has a whole number of more than {_MOST_DIGITS:,} digits, which could "
        "not be read again"
    )


def _may_be_unreadable(written: bytes) -> bool:
    """Returns False if commas are so near to each other that no number between them has too many digits.

    This takes a hundredth of the time that writing takes.
    """
    at, last = 0, len(written) - _MOST_DIGITS
    while at < last:
        at = written.rfind(b",", at + 1, at + 1 + _MOST_DIGITS)
        if at < 0:
            return True
    return False


def _is_unreadable(written: bytes) -> bool:
    """Returns whether *written* has a number of too many digits. Digits in a text do not count."""
    return len(written) > _MOST_DIGITS and _TOO_MANY_DIGITS.search(_STRING.sub(b"", written)) is not None


def _where(error: BaseException) -> str:
    # Neither the place nor the message: both may have data in them.
    return f" ({error.errors()[0]['type']})" if isinstance(error, ValidationError) else ""


def _is_same(before: Any, after: Any) -> bool:
    if type(before) is not type(after) and (type(before), type(after)) != (int, float):
        return False
    factories = (getattr(before, "default_factory", None), getattr(after, "default_factory", None))
    # NaN does not equal itself, but is written in the same way.
    return factories[0] is factories[1] and (bool(before == after) or repr(before) == repr(after))
