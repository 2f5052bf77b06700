"""Makes the settings that the HTTP port shows: all of them with their defaults, as they hold, without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from pydantic import BaseModel

from broadway_py.daemon.settings.settings import Settings
from broadway_py.options import INHERIT
from broadway_py.pipeline import Pipeline

__all__ = ["HIDDEN", "shown_settings"]

#: What stands for a secret.
HIDDEN: Final = "***"

# In this order. ``rate_limit`` is told with the figures, because it is shared by the workers and may change.
_OPTIONS: Final = (
    "processors",
    "batchers",
    "state",
    "deduplicate_by",
    "partition_by",
    "ordered",
    "failure",
    "max_in_flight_bytes",
    "shutdown_timeout",
    "max_restarts",
    "max_seconds",
    "fail_fast",
    "own",
    "tracing",
)


def shown_settings(pipelines: Iterable[Pipeline[Any]], settings: Settings | None) -> dict[str, Any]:
    """Returns the settings of the process and of *pipelines*, as JSON can represent them.

    A setting that the log never shows, such as a password or a URL with one, is ``***``. Code is shown as its type.

    Args:
        pipelines: the pipelines, built.
        settings: where they come from; None: a program has made them.
    """
    of_pipelines = {pipeline.name: _of_pipeline(pipeline) for pipeline in pipelines}
    if settings is None:
        return {"pipelines": of_pipelines}
    return {
        "workers": settings.workers,
        "http": _plain(settings.http),
        "log": _plain(settings.log),
        "pipelines": of_pipelines,
    }


def _of_pipeline(pipeline: Pipeline[Any]) -> dict[str, Any]:
    producers = pipeline._sources.producers_of_daemon
    return {
        "class": _name_of(type(pipeline)),
        "producers": {name: _connector(producer) for name, producer in producers.items()},
        **{name: _plain(getattr(pipeline, name)) for name in _OPTIONS},
        "aggregators": {name: _name_of(_class_of(one)) for name, one in pipeline.aggregators.items()},
        "publishers": {name: _connector(one) for name, one in pipeline.publishers.items()},
        "context": None if pipeline.context is None else _type_of(pipeline.context),
    }


def _connector(one: object) -> dict[str, Any]:
    """Returns the settings of a producer or a publisher. Of those that users write, only the class is known."""
    # A producer that is made by a program is described by one of ours.
    one = getattr(one, "_producer", one)
    options = getattr(one, "options", None)
    # Only our own models are known to mark their secrets.
    is_ours = isinstance(options, BaseModel) and type(options).__module__.startswith("broadway_py.")
    shown = _plain(options) if is_ours else {}
    return {"class": _name_of(_class_of(one)), **shown}


def _class_of(one: object) -> type:
    return one if isinstance(one, type) else type(one)


def _name_of(of: type) -> str:
    return f"{of.__module__}:{of.__qualname__}"


def _type_of(value: object) -> str:
    return f"({type(value).__name__})"


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if value is INHERIT:
        return "as the pipeline says"
    if isinstance(value, BaseModel):
        shown = {name: field.repr for name, field in type(value).model_fields.items()}
        return {name: _shown(getattr(value, name), is_shown=is_shown) for name, is_shown in shown.items()}
    if is_dataclass(value):
        return {field.name: _shown(getattr(value, field.name), is_shown=field.repr) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _name_of(value) if isinstance(value, type) else _type_of(value)


def _shown(value: object, *, is_shown: bool) -> Any:
    return _plain(value) if is_shown or value is None else HIDDEN


def _key(key: object) -> str:
    return _name_of(key) if isinstance(key, type) else str(key)
