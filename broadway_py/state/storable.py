"""Decides whether values of a type come back from JSON as they were. Types whose values do not are refused."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Discriminator, JsonValue, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo

from broadway_py.errors import OptionsError
from broadway_py.state.json_kinds import (
    ANY_KIND,
    ARRAYS,
    EXAMPLES,
    KEYS_OF_OBJECTS,
    OBJECTS,
    SCALARS,
    JsonKind,
    JsonKinds,
    name_of,
)

__all__ = ["class_with_fields", "refuse_lossy"]


def refuse_lossy(annotation: Any, name: str, *, is_key: bool = False) -> None:
    """Checks a type, and all types in it.

    Args:
        annotation: the type.
        name: the first part of the paths in errors: ``"value"``, for example.
        is_key: whether equal values must have equal JSON, because the values are keys of windows.

    Raises:
        OptionsError: some of its values would not come back as they were. The path says where.
    """
    _Walk(is_key=is_key).kinds(annotation, _Place((name,)))


def class_with_fields(annotation: Any) -> type | None:
    """Returns the class of a type that is a dataclass, a pydantic model or a NamedTuple; None for other types."""
    kind = typing.get_origin(annotation) or annotation
    is_one = isinstance(kind, type) and not issubclass(kind, dict) and _has_fields(kind)
    return kind if is_one else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where in the type the walk is."""

    path: tuple[str, ...]
    #: The arguments of the generic class that is walked through.
    arguments: Mapping[Any, Any] = dataclasses.field(default_factory=dict)
    #: The settings of the innermost class that has its own: a pydantic model, for example. It does not get ours.
    owner: str | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def at(self, name: str) -> _Place:
        return dataclasses.replace(self, path=(*self.path, name))

    def refused(self, problem: str) -> OptionsError:
        return OptionsError(self.path, problem)


class _Walk:
    def __init__(self, *, is_key: bool) -> None:
        self._is_key = is_key
        self._seen: set[Any] = set()

    def kinds(self, annotation: Any, place: _Place) -> JsonKinds:
        """Returns what JSON values of the type may be."""
        if annotation is None:
            annotation = type(None)
        if annotation is JsonValue and not self._is_key:
            return ANY_KIND | {"null"}
        if isinstance(annotation, TypeVar):
            if annotation not in place.arguments:
                raise place.refused(f"{annotation} stands for any type: name the type")
            return self.kinds(place.arguments[annotation], place)
        if annotation is Any or annotation is object:
            raise place.refused(
                f"{name_of(annotation)} may be of any type, and JSON does not say which: name the type, or use "
                "pydantic.JsonValue for what JSON itself can say"
            )
        if isinstance(annotation, typing.NewType):
            return self.kinds(annotation.__supertype__, place)
        if _is_alias(annotation):
            return self.kinds(annotation.__value__, place)
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(annotation, origin, typing.get_args(annotation), place)
        if isinstance(annotation, type):
            return self._class(annotation, (), place)
        raise place.refused(f"JSON cannot say values of {name_of(annotation)}: use another type")

    def _generic(self, annotation: Any, origin: Any, arguments: tuple[Any, ...], place: _Place) -> JsonKinds:
        if _is_alias(origin):
            inner = dict(zip(origin.__type_params__, arguments, strict=False))
            return self.kinds(origin.__value__, dataclasses.replace(place, arguments=inner))
        if origin is typing.Annotated:
            members = typing.get_args(arguments[0])
            if _is_union(arguments[0]) and any(_discriminates(extra) for extra in arguments[1:]):
                return frozenset().union(*(self.kinds(member, place) for member in members))
            return self.kinds(arguments[0], place)
        if _is_union(annotation):
            return self._union(annotation, arguments, place)
        if origin is Literal:
            return self._constants(arguments, annotation, place)
        if isinstance(origin, type):
            return self._class(origin, arguments, place)
        raise place.refused(f"JSON cannot say values of {name_of(annotation)}: use another type")

    def _union(self, annotation: Any, members: Iterable[Any], place: _Place) -> JsonKinds:
        all_kinds: JsonKinds = frozenset()
        for member in members:
            kinds = self.kinds(member, place)
            if kinds & all_kinds:
                raise place.refused(
                    f"JSON does not say which type of {name_of(annotation)} a value has, because several of them are "
                    f"written as {' or '.join(sorted(kinds & all_kinds))}: use one type, or a field that tells the "
                    "classes apart (pydantic's discriminator)"
                )
            all_kinds |= kinds
        return all_kinds

    def _constants(self, values: Iterable[Any], annotation: Any, place: _Place) -> JsonKinds:
        found: set[JsonKind] = set()
        for value in values:
            constant = value.value if isinstance(value, Enum) else value
            if type(constant) not in {str, int, bool, type(None)}:
                raise place.refused(
                    f"the values of {name_of(annotation)} must be str, int, bool or None to come back from JSON"
                )
            found |= SCALARS[type(constant)]
        return frozenset(found)

    def _class(self, kind: type, arguments: tuple[Any, ...], place: _Place) -> JsonKinds:
        if kind in SCALARS:
            self._refuse_lossy_config(kind, place)
            return SCALARS[kind]
        if issubclass(kind, Enum):
            return self._constants(kind, kind, place)
        if kind in {*ARRAYS, *OBJECTS, tuple}:
            return self._container(kind, arguments, place)
        if kind is collections.deque:
            raise place.refused("a deque comes back without its maxlen: use a list")
        if kind.__module__ == "collections.abc" or kind is type:
            raise place.refused(
                f"several types are a {kind.__qualname__}, and JSON does not say which it was: name one, such as list "
                "or dict"
            )
        if not _has_fields(kind):
            return self._trusted(kind, place)
        parameters = getattr(kind, "__parameters__", ())
        inner = {name: place.arguments.get(given, given) for name, given in zip(parameters, arguments, strict=False)}
        if (kind, *inner.values()) not in self._seen:
            self._seen.add((kind, *inner.values()))
            self._fields(kind, dataclasses.replace(place, arguments=inner))
        return frozenset({"array" if issubclass(kind, tuple) else "object"})

    def _container(self, kind: type, arguments: tuple[Any, ...], place: _Place) -> JsonKinds:
        name = kind.__qualname__
        if self._is_key and kind is not tuple:
            raise place.refused(f"a {name} cannot be a key, or is not written in the same way each time: use a tuple")
        if not arguments:
            raise place.refused(f"JSON does not say what is in a {name}: write it, such as {EXAMPLES[kind]}")
        if kind in OBJECTS:
            self._key_of_object(arguments[0], place.at("[key]"))
            for value in arguments[1:]:
                self.kinds(value, place.at("[value]"))
            return frozenset({"object"})
        for index, item in enumerate(arguments):
            if item is not Ellipsis:
                self.kinds(item, place.at(f"[{index}]" if kind is tuple else "[item]"))
        return frozenset({"array"})

    def _key_of_object(self, annotation: Any, place: _Place) -> None:
        if isinstance(annotation, TypeVar):
            annotation = place.arguments.get(annotation, annotation)
        self.kinds(annotation, place)
        while isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        constants: Iterable[Any] = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            constants = [member.value for member in annotation]
        is_text = bool(constants) and all(isinstance(value, str) for value in constants)
        if not is_text and annotation not in KEYS_OF_OBJECTS:
            raise place.refused(
                f"{name_of(annotation)} does not come back as the key of a JSON object: use str or int, or keep a list "
                "of pairs"
            )

    def _fields(self, kind: type, place: _Place) -> None:
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except Exception as error:  # whatever the annotations of a user's class do
            raise OptionsError(place.path, f"the types in {kind.__qualname__} cannot be read: {error}") from error
        if issubclass(kind, BaseModel):
            inside = dataclasses.replace(place, owner=kind.__qualname__, config=kind.model_config)
            self._model(kind, inside)
            return
        config = getattr(kind, "__pydantic_config__", None)
        if config is not None:
            place = dataclasses.replace(place, owner=kind.__qualname__, config=config)
        names = hints
        if dataclasses.is_dataclass(kind):
            names = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
            for field in dataclasses.fields(kind):
                if not field.init:
                    raise place.at(field.name).refused("a field with init=False does not come back: use init=True")
        for name, annotation in names.items():
            self.kinds(_bare(annotation), place.at(name))

    def _model(self, kind: type[BaseModel], place: _Place) -> None:
        if kind.__private_attributes__:
            name = next(iter(kind.__private_attributes__))
            raise place.at(name).refused("a private attribute of a model is not stored: make it a field")
        if place.config.get("extra") == "allow":
            raise place.refused(
                f"{kind.__qualname__} allows extra fields, whose types nobody knows: leave out extra='allow'"
            )
        for name, field in kind.model_fields.items():
            if field.exclude:
                raise place.at(name).refused("a field with exclude=True is not stored: leave that out")
            annotation = field.annotation
            if field.discriminator is not None:
                annotation = typing.Annotated[annotation, Discriminator(field.discriminator)]  # type: ignore[assignment,arg-type]  # as a user writes it
            self.kinds(annotation, place.at(name))

    def _refuse_lossy_config(self, kind: type, place: _Place) -> None:
        if place.owner is None:
            return
        config = place.config
        if kind is float and config.get("ser_json_inf_nan") not in {"constants", "strings"}:
            raise place.refused(
                f"{place.owner} writes infinities and NaN as null: give it ConfigDict(ser_json_inf_nan='constants')"
            )
        ways = {config.get("ser_json_bytes"), config.get("val_json_bytes")}
        if kind is bytes and ways not in ({"base64"}, {"hex"}):
            raise place.refused(
                f"{place.owner} writes bytes as UTF-8, which not all of them are: give it "
                "ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
            )

    def _trusted(self, kind: type, place: _Place) -> JsonKinds:
        """Asks pydantic about a class that is not known here, such as a path or a class with its own schema."""
        try:
            TypeAdapter(kind)
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError) as error:
            raise place.refused(
                f"JSON cannot say values of {kind.__qualname__}: use a dataclass, a pydantic model, or a type such as "
                "int, str or list"
            ) from error
        return ANY_KIND


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def _discriminates(extra: Any) -> bool:
    return isinstance(extra, Discriminator) or (isinstance(extra, FieldInfo) and extra.discriminator is not None)


def _has_fields(kind: type) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, BaseModel)
        or (issubclass(kind, dict) and hasattr(kind, "__total__"))  # a TypedDict, of either module
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _is_alias(annotation: Any) -> bool:
    """Returns whether it is what ``type X = …`` makes, which Python 3.11 has from another module."""
    return type(annotation).__name__ == "TypeAliasType"


def _bare(annotation: Any) -> Any:
    """Returns the type of a field of a TypedDict without Required, NotRequired and ReadOnly, of either module."""
    while getattr(typing.get_origin(annotation), "_name", None) in {"Required", "NotRequired", "ReadOnly"}:
        (annotation,) = typing.get_args(annotation)
    return annotation
