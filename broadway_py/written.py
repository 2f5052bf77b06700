"""Settings that were given as text. The field that a setting is for decides its type, not the look of the text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Self, Union, get_args, get_origin

import yaml

__all__ = ["PlainYaml", "Written", "has_written", "kinds_of", "looked_at", "opened", "parse_value", "read_as"]


class PlainYaml(yaml.SafeLoader):
    """A YAML loader as people expect it: ``on``, ``no``, ``1:30`` and ``2024-01-01`` are text."""


_LOOSE_TAGS: Final = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"}
PlainYaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LOOSE_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainYaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
PlainYaml.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)


class Written(str):
    """A setting as it was written in a variable, an option or a file.

    A field for text takes it as it is, whatever it looks like. A field for numbers, switches, lists or sections reads
    it as YAML. If *plain* is true, a field that takes any type reads it as YAML too.
    """

    __slots__ = ("plain",)
    plain: bool

    def __new__(cls, text: str, *, plain: bool = True) -> Self:
        """Makes one from *text*, unchanged."""
        made = super().__new__(cls, text)
        made.plain = plain
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain if self.plain else _not_plain, (str(self),)


def _plain(text: str) -> Written:
    return Written(text)


def _not_plain(text: str) -> Written:
    return Written(text, plain=False)


class _Leaves(PlainYaml):
    """A loader that leaves numbers and switches inside lists and mappings as text: their own fields decide the type."""


def _leaf(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_scalar(node)
    return Written(text) if node.style is None else text


for _kind in ("bool", "int", "float", "str"):
    _Leaves.add_constructor(f"tag:yaml.org,2002:{_kind}", _leaf)


def parse_value(text: str) -> Any:
    """Returns *text* with the type that it has in a YAML file.

    Text that is not a number, true, false, null, a list or a mapping stays exactly as it is, because a password may
    hold ``#`` or ``: ``.
    """
    return _parsed(text, PlainYaml)


def _parsed(text: str, loader: type[PlainYaml]) -> Any:
    try:
        value = yaml.load(text, loader)  # noqa: S506  # both are SafeLoaders
    except (yaml.YAMLError, RecursionError, ValueError):
        return str(text)
    if isinstance(value, str):
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        return str(value) if quoted else str(text)
    if isinstance(value, Mapping) and not text.lstrip().startswith("{"):
        return str(text)
    if isinstance(value, list) and not text.lstrip().startswith("["):
        return str(text)
    return str(text) if value is None and text.strip() not in {"null", "~"} else value


def opened(value: Any) -> Any:
    """Returns *value*, read as YAML if it is :class:`Written`. For places where a section, a list or null may be."""
    if not isinstance(value, Written):
        return value
    if value.lstrip().startswith(("{", "[")):
        return _parsed(value, _Leaves)
    return parse_value(value)


def looked_at(value: Any) -> Any:
    """Returns *value* with each :class:`Written` in it typed by its look. For use where no field decides the type."""
    if isinstance(value, Written):
        return parse_value(value) if value.plain else str(value)
    if isinstance(value, Mapping):
        return {looked_at(key): looked_at(item) for key, item in value.items()}
    if isinstance(value, list):
        return [looked_at(item) for item in value]
    return value


def has_written(value: Any) -> bool:
    """Returns whether *value* holds a :class:`Written`. It may be deeply nested, or hold itself."""
    seen: set[int] = set()
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Written):
            return True
        if isinstance(one, Mapping | list) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
    return False


def read_as(annotation: Any, value: Any, *, otherwise: bool = False) -> Any:
    """Returns *value* with each :class:`Written` in it read for *annotation*, the type of its field.

    *otherwise* gives the second reading, for a value whose first reading was refused: as YAML if the field is for text,
    else as text. A value for a nested model is left to that model.
    """
    kinds = kinds_of(annotation)
    if isinstance(value, Written):
        return _read(kinds, value, otherwise=otherwise)
    if isinstance(value, Mapping):
        if any(_is_model(kind) for kind in kinds):
            return value
        inner = next((get_args(kind)[1] for kind in kinds if _holds(kind, Mapping) and len(get_args(kind)) == 2), Any)
        return {str(key): read_as(inner, item, otherwise=otherwise) for key, item in value.items()}
    if isinstance(value, list):
        return [read_as(_item(kinds, index), item, otherwise=otherwise) for index, item in enumerate(value)]
    return value


def _read(kinds: Sequence[Any], value: Written, *, otherwise: bool) -> Any:
    if not kinds:
        return str(value) if otherwise else looked_at(value)
    inside = opened(value)
    holds_more = isinstance(inside, list | Mapping) and any(
        _holds(kind, Mapping if isinstance(inside, Mapping) else Sequence) for kind in kinds
    )
    if holds_more and not otherwise:
        return read_as(Union[tuple(kinds)], inside)  # noqa: UP007  # of kinds that are known only now
    if all(map(_is_text, kinds)) != otherwise:
        return str(value)
    # Empty text in place of a number means null, as in YAML.
    return looked_at(inside) if value else None


def kinds_of(annotation: Any) -> list[Any]:
    """Returns the types that a field takes, without None. An empty list means any type, or an unknown one."""
    while get_origin(annotation) is Annotated or hasattr(annotation, "__value__"):
        # ``__value__`` belongs to a named type (Python 3.12: type X = …).
        annotation = annotation.__value__ if hasattr(annotation, "__value__") else get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        each = [kinds_of(one) for one in get_args(annotation) if one is not NoneType]
        return [] if not all(each) else [kind for kinds in each for kind in kinds]
    return [] if annotation in (Any, object) or isinstance(annotation, str) else [annotation]


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_fields")


def _holds(kind: Any, container: type) -> bool:
    origin = _origin(kind)
    if container is Mapping and _is_model(kind):
        return True
    return isinstance(origin, type) and issubclass(origin, container) and not issubclass(origin, str | bytes)


def _item(kinds: Sequence[Any], index: int) -> Any:
    for kind in kinds:
        if _holds(kind, Sequence) or _origin(kind) in (set, frozenset):
            items = get_args(kind)
            if _origin(kind) is tuple and items and items[-1] is not ...:
                return items[index] if index < len(items) else Any
            return items[0] if items else Any
    return Any


def _is_text(kind: Any) -> bool:
    """Returns whether *kind* is text, one of several words, or a list of these."""
    origin = _origin(kind)
    if origin is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    if not isinstance(origin, type):
        return False
    if _holds(kind, Sequence):
        inner = [kinds_of(item) for item in get_args(kind) if item is not ...]
        return bool(inner) and all(kinds and all(map(_is_text, kinds)) for kinds in inner)
    if issubclass(origin, Enum):
        return all(isinstance(member.value, str) for member in origin)
    return issubclass(origin, str | PurePath)
