"""Tells what the settings come to: every value that counts, secrets hidden, and where each of them comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from broadway_py._core.window.spec import UNSET, Window
from broadway_py.aggregator import WINDOW_SETTINGS, Aggregator, AggregatorSettings
from broadway_py.daemon.logs.logs import mask_credentials
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.settings.files import Document, SettingPath
from broadway_py.daemon.settings.settings import Settings
from broadway_py.options import INHERIT, SECRET, Batcher, FailurePolicy, PlainOptions, Processors
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.callbacks.aggregators import define, settings_of
from broadway_py.producers import kinds, sink_kinds
from broadway_py.written import looked_at, opened

__all__ = ["Resolved", "resolved_settings"]

#: What stands for a secret.
_HIDDEN: Final = "***"
_LOGIN: Final = re.compile(r"(?<=://).*@")
_DEFAULT: Final = "default"
_NOTHING: Final = object()
_PLAIN: Final = tuple(PlainOptions.model_fields)
#: A window that says only what it must. Its other settings are the defaults.
_PLAIN_WINDOW: Final = Window.fixed(1, by=id, delay=0).in_aggregator()
_KINDS_OF_PRODUCERS: Final = {name: kind for kind, (_, name, _) in kinds.BUILT_IN.items()}
_KINDS_OF_SINKS: Final = {name: kind for kind, (_, name, _) in sink_kinds.BUILT_IN.items()}

#: The names of the values of a section, with what each comes to. Sections and lists may be inside.
_Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resolved:
    """One value that counts."""

    #: As JSON and YAML write it. Code is text in parentheses, a secret ``***``.
    value: Any
    #: The place: file and line, environment variable, ``--set``, the class, or "default".
    origin: str


def resolved_settings(settings: Settings) -> dict[str, Any]:
    """Returns the settings in the form of a settings file. Each value that is no section is a :class:`Resolved`.

    Raises:
        OptionsError: a pipeline cannot be built.
    """
    origins = Document({}, dict(settings.origins))
    pipelines = zip(settings.pipelines.items(), build_pipelines(settings), strict=True)
    workers = _place(origins, ("workers",)) if ("workers",) in settings.origins else _DEFAULT
    return {
        "pipelines": {key: _OnePipeline(origins, key, section, made).tree() for (key, section), made in pipelines},
        "workers": Resolved(settings.workers, workers),
        **{name: _whole(origins, name, getattr(settings, name)) for name in ("http", "log")},
    }


def _whole(origins: Document, name: str, model: BaseModel | None) -> Any:
    """Returns the section *name*, which no class can change. None: it is null."""
    if model is None:
        return Resolved(None, _place(origins, (name,)))
    given = model.model_fields_set
    return {
        field: Resolved(_plain(value, field), _place(origins, (name, field)) if field in given else _DEFAULT)
        for field, value in _values(model)
    }


class _OnePipeline:
    """Makes the section of one pipeline, from what the files say and what was built from it."""

    def __init__(self, origins: Document, key: str, section: Mapping[str, Any], made: Pipeline[Any]) -> None:
        self._origins = origins
        self._path: SettingPath = ("pipelines", key)
        self._section = section
        self._made = made
        self._class = f"class {type(made).__name__}"

    def tree(self) -> _Tree:
        """Returns the section."""
        made = self._made
        return {
            "class": self._of("class", f"{type(made).__module__}:{type(made).__qualname__}"),
            "name": self._of("name", made.name),
            "producer": self._producers(),
            "processors": self._model(made.processors, Processors(), "processors"),
            "batchers": self._batchers(),
            "publishers": self._publishers(),
            "aggregators": self._aggregators(),
            "state": self._removable("state", made.state),
            "deduplicate_by": self._of("deduplicate_by", _plain(made.deduplicate_by)),
            "rate_limit": self._removable("rate_limit", made._limit),
            "failure": self._removable("failure", made.failure, FailurePolicy()),
            **self._model(PlainOptions(**{name: getattr(made, name) for name in _PLAIN}), PlainOptions()),
            "context": self._context(),
        }

    def _place(self, *path: str) -> str:
        return _place(self._origins, (*self._path, *path))

    def _said(self, *path: str) -> Any:
        """Returns what the files, the environment and ``--set`` say at *path*, or :data:`_NOTHING`."""
        found: Any = self._section
        for part in path:
            found = opened(found)
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, Mapping) and part in found:
                found = found[part]
            else:
                return _NOTHING
        return found

    def _of(self, name: str, value: object) -> Resolved:
        """Returns the option *name*, which is no section."""
        if self._said(name) is not _NOTHING:
            return Resolved(value, self._place(name))
        return Resolved(value, self._class if _sets(type(self._made), name) else _DEFAULT)

    def _removable(self, name: str, model: object, defaults: BaseModel | None = None) -> Any:
        return self._model(model, defaults, name) if isinstance(model, BaseModel) else self._of(name, None)

    def _model(self, model: BaseModel, defaults: BaseModel | None, *path: str, of_class: str | None = None) -> _Tree:
        """Returns the section at *path*. What the files do not say, and is no default, comes from the class."""
        tree: _Tree = {}
        for name, value in _values(model):
            inner = None if defaults is None else getattr(defaults, name)
            if isinstance(value, BaseModel):
                tree[name] = self._model(value, inner, *path, name, of_class=of_class)
            elif self._said(*path, name) is not _NOTHING or (*path, name) == self._given_as_text():
                tree[name] = Resolved(_plain(value, name, is_shown=_is_shown(model, name)), self._place(*path, name))
            else:
                origin = _DEFAULT if self._is_default(model, defaults, name) else of_class or self._class
                tree[name] = Resolved(_plain(value, name, is_shown=_is_shown(model, name)), origin)
        return tree

    @staticmethod
    def _is_default(model: BaseModel, defaults: BaseModel | None, name: str) -> bool:
        field = type(model).model_fields[name]
        if field.is_required():
            return False
        default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        return bool(getattr(model, name) == default)

    def _given_as_text(self) -> tuple[str, ...]:
        """Returns the path of the setting that text stands for in the place of a section; empty: there is none."""
        state = opened(self._said("state"))
        return () if state is _NOTHING or isinstance(state, Mapping) else ("state", "path")

    def _batchers(self) -> Any:
        made = self._made
        defaults = made.batch_defaults
        # What holds for all batchers is not repeated: each of them shows it.
        tree: _Tree = {}
        for name, batcher in made.batchers.items():
            tree[name] = self._model(batcher, Batcher(), "batchers", name)
            for field in () if defaults is None else defaults.model_fields_set:
                own = type(made).batchers.get(name)
                if self._said("batchers", name, field) is _NOTHING and (
                    own is None or field not in own.model_fields_set
                ):
                    place = self._of_batch_defaults(field)
                    tree[name][field] = Resolved(tree[name][field].value, f"{place}, batch_defaults")
        return tree or self._of("batchers", {})

    def _of_batch_defaults(self, field: str) -> str:
        if self._said("batch_defaults", field) is _NOTHING:
            return self._class
        return self._place("batch_defaults", field)

    def _producers(self) -> Any:
        made = self._made.producer
        if not isinstance(made, list | tuple):
            return self._connector(made, _KINDS_OF_PRODUCERS, "producer")
        return [self._connector(one, _KINDS_OF_PRODUCERS, "producer", str(index)) for index, one in enumerate(made)]

    def _publishers(self) -> Any:
        sinks = self._made.publishers
        found = {name: self._connector(sinks[name], _KINDS_OF_SINKS, "publishers", name) for name in sinks}
        return found or self._of("publishers", {})

    def _connector(self, one: object, names: Mapping[str, str], *path: str) -> Any:
        """Returns the section of a producer or a sink. One that a file cannot describe is told by its class."""
        options, kind = getattr(one, "options", None), names.get(type(one).__name__)
        said = opened(self._said(*path))
        is_said = isinstance(said, Mapping)
        if kind is None or not isinstance(options, BaseModel):
            # Of the class of a plug-in only its arguments are known.
            return self._raw(said, *path) if is_said else Resolved(_of_code(one), self._class)
        tree = {"kind": Resolved(kind, self._place(*path, "kind") if is_said else self._class)}
        tree |= self._model(options, None, *path)
        for name, file in said.items() if is_said else ():
            if name.endswith("_file") and name not in tree:
                tree.pop(name.removesuffix("_file"), None)
                tree[name] = Resolved(_plain(looked_at(file)), self._place(*path, name))
        return tree

    def _raw(self, said: object, *path: str) -> Any:
        """Returns what the files say at *path*, where no field decides what it means."""
        said = looked_at(said)
        if isinstance(said, Mapping) and said:
            return {str(name): self._raw(value, *path, str(name)) for name, value in said.items()}
        return Resolved(_plain(said, path[-1]), self._place(*path))

    def _aggregators(self) -> Any:
        tree: _Tree = {}
        defaults = AggregatorSettings().model_copy(update=_window_settings(_PLAIN_WINDOW) | {"delay": None})
        for name, aggregator in self._made.aggregators.items():
            assert isinstance(aggregator, Aggregator)  # noqa: S101  # the pipeline has made an object of each class
            path, settings = ("aggregators", name), settings_of(aggregator)
            window = define(name, aggregator, self._made.context).window
            if window.by is not None:
                settings = settings.model_copy(update=_window_settings(window))
            section = self._model(settings, defaults, *path, of_class=f"class {type(aggregator).__name__}")
            if settings.emit_to is not None:
                section["emit_to"] = self._connector(settings.emit_to, _KINDS_OF_SINKS, *path, "emit_to")
            tree[name] = section
        return tree or self._of("aggregators", {})

    def _context(self) -> Any:
        said = self._said("context")
        if said is _NOTHING:
            return self._of("context", _plain(self._made.context))
        return self._raw(said, "context")


def _window_settings(window: Window) -> dict[str, Any]:
    return {name: getattr(window, name) for name in WINDOW_SETTINGS}


def _place(origins: Document, path: SettingPath) -> str:
    origin = origins.origin(path)
    return _DEFAULT if origin is None else origin.place


def _sets(made: type, name: str) -> bool:
    """Returns whether a class of the user sets the option *name*."""
    return any(name in vars(one) for one in made.__mro__ if issubclass(one, Pipeline) and one is not Pipeline)


def _values(model: BaseModel) -> list[tuple[str, Any]]:
    """Returns the settings of *model* that are set, or have a default."""
    found = [(name, getattr(model, name)) for name in type(model).model_fields]
    return [(name, value) for name, value in found if value is not UNSET and value is not INHERIT]


def _is_shown(model: BaseModel, name: str) -> bool:
    return bool(type(model).model_fields[name].repr)


def _plain(value: object, name: str = "", *, is_shown: bool | None = None) -> Any:
    """Returns *value* of the setting *name* as JSON can write it. A secret is hidden.

    *is_shown* says whether it may be shown, with all that is in it. None: its name decides, and the names in it.
    """
    decided = is_shown
    if is_shown is None:
        is_shown = not SECRET.search(name) or name.endswith("_file")
        decided = None if is_shown else False
    if value is None or isinstance(value, bool | int | float):
        return value if is_shown or value is None or isinstance(value, bool) else _HIDDEN
    if isinstance(value, str):
        return mask_credentials(value) if is_shown else _LOGIN.sub(f"{_HIDDEN}@", value) if "://" in value else _HIDDEN
    if isinstance(value, BaseModel):
        return {key: _plain(one, key, is_shown=is_shown and _is_shown(value, key)) for key, one in _values(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(one, _key(key), is_shown=decided) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, name, is_shown=decided) for one in value]
    return _of_code(value)


def _key(key: object) -> str:
    return f"{key.__module__}:{key.__qualname__}".removeprefix("builtins:") if isinstance(key, type) else str(key)


def _of_code(value: object) -> str:
    """Returns the name of what a settings file cannot say."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"({named.__module__}:{named.__qualname__})"
