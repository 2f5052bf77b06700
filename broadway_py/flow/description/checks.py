"""Checks what users chain, when they chain it: functions and their arguments, options, demand, windows.

A DefinitionError begins with the method and its place in the chain, such as ``map 2``, and says what to write instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec
from math import inf
from typing import Any, Final, cast, get_args

from broadway_py._core.window.shape import positive_int
from broadway_py._core.window.spec import UNSET, Window
from broadway_py.errors import DefinitionError, OptionsError, did_you_mean
from broadway_py.flow.description.layers import DEFAULT_DEMAND, Demand
from broadway_py.flow.description.settings import RaySettings, Runner
from broadway_py.foreign import article, is_a, shown, type_name

__all__ = [
    "accumulator",
    "arguments_of",
    "demand",
    "flag",
    "function",
    "is_async",
    "key_function",
    "known",
    "not_async",
    "one_of",
    "plain_function",
    "progress",
    "ray_settings",
    "runner",
    "stages",
    "whole_number",
    "window",
]


#: What a runner needs -> the extra that installs it.
_NEEDED: Final[Mapping[Runner, Mapping[str, str]]] = {
    "processes": {"cloudpickle": "flow"},
    "ray": {"ray": "ray", "cloudpickle": "ray"},
}


def function(where: str, fn: object, *takes: str) -> None:
    """Checks that *fn* can be called with the arguments *takes*. It may be ``async def``.

    Raises:
        DefinitionError: it cannot.
    """
    expected = f"a function of ({', '.join(takes)})"
    if not callable(fn):
        raise DefinitionError(f"{where}: expected {expected}, got {article(fn)}{_written_as_function(fn, takes)}")
    if not _binds(fn, len(takes)):
        raise DefinitionError(f"{where}: expected {expected}, got {_described(fn)}")


def plain_function(where: str, fn: object, *takes: str) -> None:
    """Checks that *fn* can be called with the arguments *takes*, and is not ``async def``.

    Raises:
        DefinitionError: it cannot, or it is.
    """
    function(where, fn, *takes)
    not_async(where, fn, instead="write .map(fn) before it, where fn may be async")


def not_async(where: str, fn: object, *, instead: str) -> None:
    """Checks that the function *fn* is not ``async def``. *instead* says where such a function may be.

    Raises:
        DefinitionError: it is.
    """
    if is_async(fn):
        raise DefinitionError(f"{where}: expected a plain function, got async def {_name(fn)}; {instead}")


def key_function(where: str, key: object) -> None:
    """Checks that *key* is None, or a plain function of an element.

    Raises:
        DefinitionError: it is neither.
    """
    if key is not None:
        plain_function(f"{where}, key", key, "element")


def accumulator(where: str, init: object) -> None:
    """Checks that *init* is a plain function without arguments.

    Raises:
        DefinitionError: it is none. If it is a value, the text says how to write it as a function.
    """
    expected = "a function without arguments that returns a new accumulator"
    if not callable(init):
        is_empty = type(init) in _EMPTY and not init
        instead = type_name(init) if is_empty else f"lambda: {shown(init)}"
        raise DefinitionError(f"{where}, init: expected {expected}, got {shown(init)}; write {instead}")
    if not _binds(init, 0):
        raise DefinitionError(f"{where}, init: expected {expected}, got {_described(init)}")
    if is_async(init):
        raise DefinitionError(
            f"{where}, init: expected {expected}, got async def {_name(init)}; write a plain function"
        )


#: The types of which an empty one is what the type itself returns.
_EMPTY: Final = frozenset({bytearray, dict, list, set, tuple, str, bytes})


def arguments_of(where: str, fn: object, *most: str) -> int:
    """Returns how many of the arguments *most* the function *fn* takes, from 1: those that it cannot go without.

    Arguments with defaults do not count, because a default often binds a value to a lambda. ``*args`` takes all.

    Raises:
        DefinitionError: it is no function, or takes no such number.
    """
    choices = " or ".join(f"({', '.join(most[:count])})" for count in range(1, len(most) + 1))
    if not callable(fn):
        raise DefinitionError(f"{where}: expected a function of {choices}, got {article(fn)}")
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 1  # a built-in function that does not describe its arguments
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return len(most)
    positional = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    count = sum(each.default is each.empty for each in positional) or min(1, len(positional))
    if not 1 <= count <= len(most) or not _binds(fn, count):
        raise DefinitionError(f"{where}: expected a function of {choices}, got {_described(fn)}")
    return count


def is_async(fn: object) -> bool:
    """Returns True if *fn* is ``async def``, or an object whose ``__call__`` is."""
    call = getattr(type(fn), "__call__", None)  # noqa: B004  # the method is looked at, not whether there is one
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (fn, call))


def known(name: str, given: Mapping[str, object], names: Collection[str]) -> None:
    """Checks that each option of the method *name* is one of *names*.

    Raises:
        OptionsError: it is not.
    """
    for option in given:
        if option not in names:
            hint = did_you_mean(option, names)
            raise OptionsError((name, option), f"unknown option; known here: {', '.join(names)}{hint}")


def one_of(path: Iterable[str], value: object, choices: Collection[str]) -> None:
    """Checks that *value* is one of *choices*.

    Raises:
        OptionsError: it is not.
    """
    if not is_a(value, str) or value not in choices:
        *most, last = map(repr, choices)
        hint = did_you_mean(str(value), choices) if is_a(value, str) else ""
        raise OptionsError(tuple(path), f"expected {', '.join(most)} or {last}, got {shown(value)}{hint}")


def runner(value: object) -> Runner:
    """Returns the runner *value*.

    Raises:
        OptionsError: there is none of this name, or it needs a library that is not installed.
    """
    one_of(("using", "runner"), value, get_args(Runner))
    runner = cast("Runner", value)
    for library, extra in _NEEDED.get(runner, {}).items():
        if find_spec(library) is None:
            raise OptionsError(
                ("using", "runner"),
                f"{runner!r} needs {library}, which is not installed: pip install 'broadway-py[{extra}]'",
            )
    return runner


def ray_settings(address: object, resources: object, runtime_env: object, start_timeout: object) -> RaySettings:
    """Returns where Ray is, and what a worker needs there.

    Raises:
        OptionsError: a setting has no such value.
    """
    if address is not None and not (isinstance(address, str) and address):
        raise OptionsError(
            ("using", "address"), f'expected "auto", or the host and port of a cluster, got {shown(address)}'
        )
    if isinstance(start_timeout, bool) or not isinstance(start_timeout, int | float) or not 0 < start_timeout < inf:
        raise OptionsError(
            ("using", "start_timeout"), f"expected a number of seconds above 0, got {shown(start_timeout)}"
        )
    return RaySettings(address, _resources(resources), _runtime_env(runtime_env), start_timeout)


def _resources(value: object) -> dict[str, float]:
    path = ("using", "resources")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionsError(path, f'expected names with numbers, such as {{"GPU": 1}}, got {shown(value)}')
    for name, count in value.items():
        if not isinstance(name, str):
            raise OptionsError(path, f"expected a text as the name of a resource, got {shown(name)}")
        if name == "CPU":
            raise OptionsError((*path, name), "each worker has one CPU; workers= says how many there are")
        if isinstance(count, bool) or not isinstance(count, int | float) or not 0 < count < inf:
            raise OptionsError((*path, name), f"expected a number above 0, got {shown(count)}")
    return dict(value)


def _runtime_env(value: object) -> dict[str, Any]:
    path = ("using", "runtime_env")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionsError(path, f"expected a runtime environment of Ray, as a dict, got {shown(value)}")
    config = value.get("config")
    if isinstance(config, Mapping) and "setup_timeout_seconds" in config:
        raise OptionsError((*path, "config", "setup_timeout_seconds"), "leave it out; start_timeout= says it")
    return dict(value)


def progress(value: object) -> bool:
    """Returns *value*, which says whether a flow shows how far it is.

    Raises:
        OptionsError: it is neither True nor False, or this needs a library that is not installed.
    """
    shows = flag("using", "progress", value)
    if shows and find_spec("tqdm") is None:
        raise OptionsError(
            ("using", "progress"), "it needs tqdm, which is not installed: pip install 'broadway-py[flow]'"
        )
    return shows


def flag(name: str, option: str, value: object) -> bool:
    """Returns *value*, which must be True or False.

    Raises:
        OptionsError: it is neither.
    """
    if isinstance(value, bool):
        return value
    raise OptionsError((name, option), f"expected True or False, got {shown(value)}")


def whole_number(name: str, option: str, value: object) -> int:
    """Returns *value*, which must be a whole number of 1 or more.

    Raises:
        OptionsError: it is not.
    """
    try:
        return positive_int(option, value)
    except OptionsError as wrong:
        raise wrong.under(name) from None


def stages(where: str, value: object) -> int | None:
    """Returns the number of stages *value*; None: one for each processor.

    Raises:
        DefinitionError: it is no number of 1 or more.
    """
    if value is None:
        return None
    try:
        return positive_int("stages", value)
    except OptionsError:
        raise DefinitionError(
            f"{where}: stages must be a whole number of 1 or more, got {shown(value)}; "
            "leave it out for one stage for each processor"
        ) from None


def demand(name: str, most: object, least: object) -> Demand | None:
    """Returns the demand of a layer; None if it says nothing. The default of *least*, None, is half of *most*.

    Raises:
        OptionsError: they are no such numbers.
    """
    if most is UNSET and least is None:
        return None
    high = DEFAULT_DEMAND.max if most is UNSET else whole_number(name, "max_demand", most)
    if least is None:
        return Demand(high, high // 2)
    if isinstance(least, int) and not isinstance(least, bool) and 0 <= least < high:
        return Demand(high, least)
    raise OptionsError(
        (name, "min_demand"), f"expected a whole number of 0 or more, less than max_demand ({high}), got {shown(least)}"
    )


def window(where: str, value: object) -> Window:
    """Returns the window *value*; one of event time with the defaults of Flow.

    Raises:
        OptionsError: it is none, or it has a setting that is only for aggregators.
        DefinitionError: a function of it cannot be called.
    """
    name = where.partition(" ")[0]
    if not isinstance(value, Window):
        raise OptionsError((name, "window"), f"expected a window such as Window.count(10), got {article(value)}")
    if value.triggers.custom is not None:
        init, decides = value.triggers.custom
        accumulator(f"{where}, trigger", init)
        function(f"{where}, trigger", decides, "events", "state")
        not_async(f"{where}, trigger", decides, instead="nothing can be awaited there")
    if value.by is None:
        return value
    plain_function(f"{where}, window", value.by, "element")
    try:
        return value.in_flow()
    except OptionsError as wrong:
        raise wrong.under(name, "window") from None


def _binds(fn: Callable[..., Any], count: int) -> bool:
    """Returns True if *fn* takes *count* arguments, or does not say what it takes, as some built-in functions do."""
    try:
        inspect.signature(fn).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def _described(fn: Callable[..., Any]) -> str:
    """Returns the name and the parameters of *fn*, without their types."""
    signature = inspect.signature(fn)
    plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return f"{_name(fn)}{signature.replace(parameters=plain, return_annotation=signature.empty)}"


def _name(fn: object) -> str:
    return getattr(fn, "__name__", None) or type_name(fn)


def _written_as_function(fn: object, takes: tuple[str, ...]) -> str:
    """Returns a hint if *fn* is the name or number of a field, as the keys of other libraries are."""
    if takes == ("element",) and type(fn) in {str, int}:
        return f"; write operator.itemgetter({shown(fn)})"
    return ""
