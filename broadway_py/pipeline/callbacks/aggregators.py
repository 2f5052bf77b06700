"""The aggregators of a pipeline: what the classes of the user and the settings come to, checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, get_args, get_origin

from broadway_py._core.window.shape import Global, Session
from broadway_py._core.window.spec import UNSET, Window
from broadway_py.aggregator import METHODS, WINDOW_SETTINGS, Aggregator, AggregatorOptions, AggregatorSettings
from broadway_py.errors import OptionsError, gathered
from broadway_py.foreign import article, is_a, shown
from broadway_py.state.codec import Codec

__all__ = ["AggregatorDefinition", "define", "settings_of"]

#: Types whose values are not hashable, so that they cannot be keys.
_NO_KEYS: Final = (list, dict, set, bytearray)


@dataclass(frozen=True, slots=True)
class AggregatorDefinition:
    """One aggregator of a pipeline, as it runs: its parts are checked, and settings of files are in them."""

    name: str
    #: An object of this pipeline alone, with ``name`` and ``context`` set. The context is set again when the pipeline
    #: starts, because ``setup`` may have replaced it.
    aggregator: Aggregator[Any, Any, Any]
    #: The window with all its settings, as :meth:`Window.in_aggregator` returns it.
    window: Window
    key_type: Any
    #: The type of ``message.data``. It is not checked.
    data_type: Any
    acc_type: Any
    #: Writes and reads keys and accumulators.
    codec: Codec[Any, Any]
    version: int
    options: AggregatorOptions
    #: The names of the methods that the class has.
    written: frozenset[str]

    def has(self, name: str) -> bool:
        """Returns True if the class has the method *name*, such as ``"merge"``."""
        return name in self.written


def settings_of(aggregator: Aggregator[Any, Any, Any]) -> AggregatorSettings:
    """Returns the settings of *aggregator*: what its constructor got, else its attributes.

    Raises:
        OptionsError: an attribute is wrong; the path is its name.
    """
    attributes = {name: getattr(aggregator, name) for name in AggregatorSettings.model_fields}
    given = {name: value for name, value in {**attributes, **aggregator._given}.items() if value is not UNSET}
    return AggregatorSettings(**given)


def define(name: str, aggregator: Aggregator[Any, Any, Any], context: object) -> AggregatorDefinition:
    """Returns the definition of *aggregator*, and gives it its name, its context and its options.

    Raises:
        OptionsError: something about it is wrong; the path begins with an attribute or a method.
    """
    wrong: list[OptionsError] = []
    written = frozenset(one for one in METHODS if getattr(type(aggregator), one) is not getattr(Aggregator, one))
    settings = AggregatorSettings()
    window: Any = None
    types: Any = None
    with gathered(wrong):
        settings = settings_of(aggregator)
    with gathered(wrong):
        window = _window(aggregator, settings, written)
    with gathered(wrong):
        types = _types(type(aggregator))
    with gathered(wrong):
        _check_version(aggregator.version)
    if "emit" not in written and settings.emit_to is None:
        wrong.append(
            OptionsError(
                ("emit",),
                "required, but missing: nobody would take the results; write `async def emit(self, results)`, or set "
                "emit_to, such as QueueSink('var/out.db', 'results')",
            )
        )
    if wrong:
        raise OptionsError.of(wrong)
    options = AggregatorOptions(
        **{one: getattr(settings, one) for one in AggregatorOptions.model_fields if one in settings.model_fields_set}
    )
    aggregator.name = name
    aggregator.context = context
    for one in AggregatorOptions.model_fields:
        setattr(aggregator, one, getattr(options, one))
    (key, data, acc), codec = types
    return AggregatorDefinition(name, aggregator, window, key, data, acc, codec, aggregator.version, options, written)


def _window(aggregator: Aggregator[Any, Any, Any], settings: AggregatorSettings, written: frozenset[str]) -> Window:
    given: object = getattr(aggregator, "window", None)
    if given is None:
        raise OptionsError(
            ("window",), "required, but missing; give the class a window, such as Window.fixed('1m', by=…, delay='10s')"
        )
    if not isinstance(given, Window):
        raise OptionsError(
            ("window",), f"expected a Window, such as Window.fixed('1m', by=…, delay='10s'), got {article(given)}"
        )
    changes = {name: getattr(settings, name) for name in WINDOW_SETTINGS & settings.model_fields_set}
    # None means no limit for two of them. Of the others it means that nothing was set.
    changes = {
        name: value for name, value in changes.items() if value is not None or name in ("max_ahead", "idle_timeout")
    }
    wrong: list[OptionsError] = []
    if given.by is None:
        wrong += [
            OptionsError(
                (name,),
                f"only a window of event time has this setting, and a {given.kind} window is none; leave it out",
            )
            for name in sorted(changes)
        ]
    elif inspect.iscoroutinefunction(given.by):
        wrong.append(
            OptionsError(
                ("window", "by"),
                "expected a plain function, got async def: it runs between two messages, where nothing may wait; "
                "write a plain function, and do what must wait in handle_message",
            )
        )
    if isinstance(given.shape, Global):
        wrong.append(
            OptionsError(
                ("window",),
                "expected a window that ends, got Window.global_(): it would give no result before the source ends; "
                "choose another kind, such as Window.calendar('day', tz='UTC', by=…, delay='10s')",
            )
        )
    if isinstance(given.shape, Session) and "merge" not in written:
        wrong.append(
            OptionsError(
                ("merge",),
                "required for sessions, but missing: a message between two sessions makes them one; write "
                "`def merge(self, a, b)`, which returns both accumulators as one",
            )
        )
    made = given
    try:
        made = (given if given.by is None else replace(given, **changes)).in_aggregator()
    except OptionsError as refused:
        wrong.append(refused.under("window"))
    if wrong:
        raise OptionsError.of(wrong)
    return made


def _check_version(version: object) -> None:
    if not is_a(version, int) or is_a(version, bool) or int(version) < 1:  # type: ignore[call-overload]  # is_a says it
        raise OptionsError(("version",), f"expected a whole number of 1 or more, got {shown(version)}")


def _types(cls: type[Aggregator[Any, Any, Any]]) -> tuple[tuple[Any, Any, Any], Codec[Any, Any]]:
    """Returns the types of key, data and accumulator that *cls* or a base class of it names, and the codec for them.

    Raises:
        OptionsError: they are missing, or cannot be stored. The path is empty, or begins with ``key`` or ``value``.
    """
    found = _arguments(cls, {})
    if found is None or _is_open(found[0]) or _is_open(found[2]):
        raise OptionsError(
            (),
            "expected the types of key, data and accumulator, which say how windows are stored, as in "
            f"class {cls.__name__}(Aggregator[str, Order, int]), got a class without them",
        )
    key = get_origin(found[0]) or found[0]
    if key in _NO_KEYS:
        raise OptionsError(
            (), f"expected a key type that is hashable, such as str, int or a tuple of them, got {key.__name__}"
        )
    # It refuses types whose values do not come back from JSON as they were.
    return found, Codec(found[0], found[2])


def _arguments(cls: type, known: Mapping[Any, Any]) -> tuple[Any, Any, Any] | None:
    """Returns the arguments of ``Aggregator[…]`` among the bases of *cls*, with its type variables replaced by *known*.

    Returns None if it is a base without arguments.
    """
    # The attribute is inherited: a class whose bases are plain has none of its own.
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if not isinstance(origin, type) or not issubclass(origin, Aggregator):
            continue
        given = [_replaced(one, known) for one in get_args(base)]
        if origin is Aggregator:
            return (given[0], given[1], given[2]) if len(given) == 3 else None
        parameters = getattr(origin, "__parameters__", ())
        return _arguments(origin, dict(zip(parameters, given, strict=False)))
    return None


def _is_open(argument: Any) -> bool:
    """Returns whether *argument* is a type variable, or has one in it."""
    return isinstance(argument, TypeVar) or (not isinstance(argument, type) and bool(_open_in(argument)))


def _open_in(argument: Any) -> tuple[Any, ...]:
    found: tuple[Any, ...] = getattr(argument, "__parameters__", ())
    return found


def _replaced(argument: Any, known: Mapping[Any, Any]) -> Any:
    """Returns *argument*, such as ``K`` or ``list[K]``, with its type variables replaced by *known*."""
    if isinstance(argument, TypeVar):
        return known.get(argument, argument)
    if not _is_open(argument):
        return argument
    return argument[tuple(known.get(one, one) for one in _open_in(argument))]
