"""The types of keys and values of one aggregator: what can be stored, and what may change in place."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from broadway_py.error_text import name_of, place_of
from broadway_py.errors import DefinitionError, OptionsError
from broadway_py.foreign import article, foreign_errors
from broadway_py.state.codec import Codec, CodecError

__all__ = ["Types"]

_NEVER_CHANGE: Final = (
    int, float, complex, bool, str, bytes, type(None), Decimal, datetime, date, time, timedelta, UUID,
)  # fmt: skip


class Types:
    """Checks keys and values before they are stored.

    Args:
        acc_type: the type of the values.
        codec: writes and reads keys and values.
        initial: returns a value without messages.
    """

    def __init__(self, acc_type: Any, codec: Codec[Any, Any], initial: Callable[[], Any]) -> None:
        self._codec = codec
        self._initial = initial
        #: True if values of this type can be changed without a new object being made.
        self.may_change_in_place = not _never_changes(acc_type)

    def key_json(self, key: Any) -> str:
        """Returns *key* as JSON, for the ids of results."""
        return self._codec.key_text(key)

    def check_key(self, key: Any) -> None:
        """Check that *key* comes back from the store as it is.

        Raises:
            DefinitionError: it does not.
        """
        if self._codec.surely_stores(key):
            return  # this runs for each key of a window
        back = self._there_and_back(key, self._initial())
        if back is None or type(back[0]) is not type(key) or back[0] != key:
            raise DefinitionError(
                f"key() returned {article(key)}, which does not fit the type of the keys; return that type"
            )

    def check_value(self, key: Any, value: Any) -> None:
        """Check that a value of this kind comes back from the store.

        Raises:
            DefinitionError: it does not.
        """
        back = self._there_and_back(key, value)
        if back is None or type(back[3]) is not type(value):
            raise DefinitionError(
                f"add() returned {article(value)}, which does not fit the type of the accumulators; return that type"
            )

    def check_initial(self) -> None:
        """Check that ``initial()`` returns a value that comes back from the store as it was.

        Raises:
            OptionsError: it does not, or it raises.
        """
        try:
            initial = self._initial()
        except foreign_errors() as error:
            raise OptionsError(
                ("initial",), f"expected an accumulator, but it raised {name_of(error)} at {place_of(error)}"
            ) from error
        self._codec.check(initial)

    def _there_and_back(self, key: Any, value: Any) -> tuple[Any, int, int, Any] | None:
        """Returns what comes back from the store; None: it can be written, but not read again, such as None."""
        written = self._codec.dump([(key, 0, 0, value)])
        try:
            return self._codec.load(written)[0]
        except CodecError:
            return None


def _never_changes(kind: Any) -> bool:
    """Returns True if no value of the type *kind* can be changed in place."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType, tuple, frozenset):
        return all(one is Ellipsis or _never_changes(one) for one in get_args(kind))
    if not isinstance(kind, type):
        return False
    if kind in _NEVER_CHANGE or issubclass(kind, Enum):
        return True
    params: Any = getattr(kind, "__dataclass_params__", None)
    if params is None or not params.frozen:
        return False
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):
        return False
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]  # it has the parameters of a dataclass
    return all(_never_changes(hints[each.name]) for each in fields)
