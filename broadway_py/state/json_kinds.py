"""Says what values of Python's own types are in JSON."""

from __future__ import annotations

import collections
import typing
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

__all__ = [
    "ANY_KIND",
    "ARRAYS",
    "EXAMPLES",
    "KEYS_OF_OBJECTS",
    "OBJECTS",
    "SCALARS",
    "JsonKind",
    "JsonKinds",
    "name_of",
]

#: What a JSON value can be. Numbers with and without a fraction or exponent are told apart.
JsonKind = Literal["null", "boolean", "integer", "float", "string", "array", "object"]
JsonKinds = frozenset[JsonKind]

#: Everything but null.
ANY_KIND: Final[JsonKinds] = frozenset({"boolean", "integer", "float", "string", "array", "object"})
TEXTS: Final = (str, bytes, Decimal, complex, datetime, date, time, timedelta, UUID)
#: The types that hold nothing else.
SCALARS: Final[Mapping[Any, JsonKinds]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer"}),
    float: frozenset({"float"}),
    **dict.fromkeys(TEXTS, frozenset[JsonKind]({"string"})),
}
ARRAYS: Final = (list, set, frozenset)
OBJECTS: Final = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
#: The keys of a JSON object are texts. Values of these types come back from a text.
KEYS_OF_OBJECTS: Final = (str, bytes, Decimal, datetime, date, time, timedelta, UUID, int, float, bool)


EXAMPLES: Final[Mapping[type, str]] = {
    list: "list[int]",
    set: "set[str]",
    frozenset: "frozenset[str]",
    tuple: "tuple[int, str]",
    dict: "dict[str, int]",
    collections.OrderedDict: "OrderedDict[str, int]",
    collections.defaultdict: "defaultdict[str, int]",
    collections.Counter: "Counter[str]",
}


def name_of(annotation: Any) -> str:
    """Returns a type as it is written, such as ``dict[str, int]``."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")
