"""The callbacks of a pipeline class, checked when the class is defined and when a pipeline object is made."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import PydanticInvalidForJsonSchema, TypeAdapter

from broadway_py.errors import DefinitionError

__all__ = ["CALLBACKS", "Callbacks", "check_class", "resolve_callbacks"]

#: Maps each callback to the parameters that it is called with.
CALLBACKS: Final[Mapping[str, tuple[str, ...]]] = {
    "setup": (),
    "setup_worker": (),
    "teardown": (),
    "prepare_messages": ("messages",),
    "handle_message": ("message",),
    "handle_batch": ("messages", "info"),
    "handle_failed": ("messages",),
    "partition_by": ("message",),
    "deduplicate_by": ("message",),
}


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The bound callbacks of one pipeline object; None for callbacks that it does not have."""

    setup: Callable[..., Any] | None
    teardown: Callable[..., Any] | None
    handle_message: Callable[..., Any]
    prepare_messages: Callable[..., Any] | None
    handle_batch: Callable[..., Any] | None
    handle_failed: Callable[..., Any] | None
    schema: TypeAdapter[Any] | None
    #: Names of fields in the schema. They may be shown; keys of a dict in the data may not.
    schema_names: frozenset[str]
    transformer: Callable[..., Any] | None
    #: True for each callback that is ``async def``; the others run in threads.
    is_async: Mapping[str, bool]


def check_class(cls: type, base: type, options: frozenset[str]) -> None:
    """Refuse a class that misspells a callback or an option, or defines a callback that cannot be called.

    Raises:
        DefinitionError: names the attribute, and the probable or expected form.
    """
    known = {*CALLBACKS, *options}
    for name, value in vars(cls).items():
        if name.startswith("_") or name in known or hasattr(base, name):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            raise DefinitionError(
                f"{cls.__module__}.{cls.__qualname__} defines {name!r}, which is not "
                f"{'a callback' if callable(value) else 'an option'} of a pipeline; "
                f"did you mean {close[0]!r}?"
            )
    for name, parameters in CALLBACKS.items():
        if name in vars(cls):
            _check_signature(cls, name, parameters)


def _check_signature(cls: type, name: str, parameters: tuple[str, ...]) -> None:
    callback = inspect.getattr_static(cls, name)
    if callback is None or (name == "deduplicate_by" and isinstance(callback, str)):
        return  # the value of a text is checked with the other options
    if not callable(callback) and not isinstance(callback, staticmethod | classmethod):
        raise DefinitionError(
            f"{cls.__module__}.{cls.__qualname__}.{name} must be a method, got {type(callback).__name__}"
        )
    if not inspect.isfunction(callback):
        return
    try:
        inspect.signature(callback).bind(None, *parameters)
    except TypeError:
        expected = ", ".join(("self", *parameters))
        raise DefinitionError(
            f"{cls.__module__}.{cls.__qualname__}.{name}{inspect.signature(callback)} cannot be called; "
            f"expected {name}({expected})"
        ) from None


def resolve_callbacks(
    pipeline: Any, schema: Any, transformer: Callable[..., Any] | None, *, has_batchers: bool
) -> Callbacks:
    """Returns the callbacks of *pipeline*, bound to it.

    Raises:
        DefinitionError: a required callback is missing.
    """
    name = f"{type(pipeline).__module__}.{type(pipeline).__qualname__}"
    bound = {callback: getattr(pipeline, callback, None) for callback in CALLBACKS}
    if bound["handle_message"] is None:
        raise DefinitionError(f"{name} has no handle_message; define `async def handle_message(self, message)`")
    if has_batchers and bound["handle_batch"] is None:
        raise DefinitionError(
            f"{name} has batchers but no handle_batch; define `async def handle_batch(self, messages, info)`"
        )
    adapter: TypeAdapter[Any] | None = None if schema is None else TypeAdapter(schema)
    return Callbacks(
        setup=bound["setup"],
        teardown=bound["teardown"],
        handle_message=bound["handle_message"],
        prepare_messages=bound["prepare_messages"],
        handle_batch=bound["handle_batch"],
        handle_failed=bound["handle_failed"],
        schema=adapter,
        schema_names=frozenset() if adapter is None else frozenset(_field_names(adapter)),
        transformer=transformer,
        is_async={key: inspect.iscoroutinefunction(value) for key, value in bound.items()},
    )


def _field_names(adapter: TypeAdapter[Any]) -> Iterator[str]:
    """Yields the property names of *adapter*'s JSON schema, at any depth, by name and alias.

    Yields nothing if it has no JSON schema.
    """
    for by_alias in (True, False):
        try:
            pending: list[Any] = [adapter.json_schema(by_alias=by_alias)]
        except PydanticInvalidForJsonSchema:
            return
        while pending:
            part = pending.pop()
            if isinstance(part, dict):
                yield from (name for name in part.get("properties", ()) if isinstance(name, str))
                pending.extend(part.values())
            elif isinstance(part, list):
                pending.extend(part)
