"""Collects and checks ``aggregators`` and ``state``: class attributes, settings of a file, constructor arguments."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

from broadway_py.aggregator import MEMORY, Aggregator, AggregatorSettings, State
from broadway_py.errors import OptionsError, did_you_mean, gathered
from broadway_py.foreign import article
from broadway_py.log import logger
from broadway_py.options import FailurePolicy, load
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition, define
from broadway_py.pipeline.sources import is_parted
from broadway_py.producer_description import ProducerDescription
from broadway_py.state.partitions import refuse_another_number
from broadway_py.storage.errors import StorageError
from broadway_py.storage.places import network_file_system
from broadway_py.written import opened

__all__ = [
    "check_state",
    "checked_aggregators",
    "checked_state",
    "define_all",
    "merged_aggregators",
    "merged_state",
    "refuse_several_workers",
    "warn_of_retries_that_come_late",
]

log = logger("broadway_py.pipeline")

_EXPECTED: Final = "expected a subclass of Aggregator, or an object of one"


def checked_state(value: object) -> State | None:
    """Returns the option ``state`` as a :class:`State`; None if there is none.

    Raises:
        OptionsError: it is neither a path nor a State.
    """
    if value is None or isinstance(value, State):
        return value
    if not isinstance(value, str | PathLike):
        raise OptionsError(
            ("state",), f"expected the path of a file such as 'var/shop.db', or State(…), got {article(value)}"
        )
    try:
        return State(value)
    except OptionsError as refused:
        raise refused.under("state") from None


def checked_aggregators(value: object, batchers: Collection[str]) -> dict[str, Aggregator[Any, Any, Any]]:
    """Returns the option ``aggregators`` with an object for each name, which no other pipeline has.

    Args:
        value: what the user gave.
        batchers: the names of the batchers.

    Raises:
        OptionsError: something is not an aggregator, or has the name of a batcher.
    """
    if not isinstance(value, Mapping):
        raise OptionsError(("aggregators",), f"expected a dict of name -> Aggregator, got {article(value)}")
    made: dict[str, Aggregator[Any, Any, Any]] = {}
    wrong: list[OptionsError] = []
    for name, given in value.items():
        if not isinstance(name, str) or not name:
            wrong.append(OptionsError(("aggregators",), f"expected names as text, got {name!r}"))
            continue
        if name in batchers:
            wrong.append(
                OptionsError(
                    ("aggregators", name),
                    f"a batcher is called {name!r}, too, and message.batcher names both; give one of them another name",
                )
            )
        with gathered(wrong):
            made[name] = _own(given, ("aggregators", name))
    if wrong:
        raise OptionsError.of(wrong)
    return made


def _own(given: object, path: tuple[str, ...]) -> Aggregator[Any, Any, Any]:
    """Returns an object of the class *given*, or a copy of the object *given*."""
    if isinstance(given, Aggregator):
        return copy.copy(given)
    if not isinstance(given, type) or not issubclass(given, Aggregator):
        came = f"the class {given.__name__}" if isinstance(given, type) else article(given)
        raise OptionsError(path, f"{_EXPECTED}, got {came}")
    missing = sorted(given.__abstractmethods__)
    if missing:
        wrong = [
            OptionsError((*path, name), f"required, but missing; write `def {name}` in the class {given.__name__}")
            for name in missing
        ]
        raise OptionsError.of(wrong)
    try:
        return given()
    except TypeError as error:
        raise OptionsError(
            path, f"{_EXPECTED}, got the class {given.__name__}, which cannot be made without arguments: {error}"
        ) from error


def define_all(
    aggregators: Mapping[str, Aggregator[Any, Any, Any]],
    state: State | None,
    producers: Mapping[str, ProducerDescription],
    context: object,
) -> dict[str, AggregatorDefinition]:
    """Returns the definitions of *aggregators*, and checks that the state and the sources suit them.

    Raises:
        OptionsError: an aggregator is wrong, or the state or a source does not suit it.
    """
    if not aggregators:
        return {}
    wrong: list[OptionsError] = []
    made: dict[str, AggregatorDefinition] = {}
    for name, aggregator in aggregators.items():
        try:
            made[name] = define(name, aggregator, context)
        except OptionsError as refused:
            wrong += refused.under("aggregators", name).all()
    with gathered(wrong):
        check_state(
            state,
            producers,
            missing="required with aggregators, but missing: the file that keeps their windows, such as var/shop.db",
            kept="its windows",
        )
    for producer in producers.values():
        try:
            producer.check_windows()
        except OptionsError as refused:
            wrong += refused.under("producer").all()
    if wrong:
        raise OptionsError.of(wrong)
    return made


def check_state(state: State | None, producers: Mapping[str, ProducerDescription], *, missing: str, kept: str) -> None:
    """Check that there is a state, and that it suits the sources.

    Args:
        state: the option.
        producers: the sources, by name.
        missing: what is said if there is none.
        kept: what the state keeps of a source.

    Raises:
        OptionsError: there is none, or it does not suit them.
    """
    if state is None:
        raise OptionsError(("state",), missing)
    if state.is_memory:
        lasting = [name for name, producer in producers.items() if producer.outlives_process]
        if lasting:
            raise OptionsError(
                ("state",),
                f"expected the path of a file, got {MEMORY!r}: the messages of the source {lasting[0]!r} outlive this "
                f"process, and {kept} would not; choose a file such as var/shop.db",
            )
        return
    place = Path(state.path)
    directory = place.parent
    try:
        is_file, is_directory = place.is_file(), place.is_dir()
    except PermissionError:  # this user may not look into the directory: the start says so
        return
    parted = [producer.partitions for producer in producers.values() if producer.partitions is not None]
    if parted:
        if is_file:
            raise OptionsError(
                ("state",),
                f"expected a directory, with a file for each partition, got the file {state.path!r}; choose another "
                "path. The windows in the file stay there",
            )
        if is_directory:
            directory = place
            try:
                refuse_another_number(state.path, parted[0])
            except StorageError as refused:
                raise OptionsError(("state",), str(refused)) from refused
    elif is_directory:
        raise OptionsError(
            ("state",),
            f"expected the path of a file, got the directory {state.path!r}; choose a file such as "
            f"{str(place / 'state.db')!r}, or part the source (partitions), which needs a directory",
        )
    if directory.is_dir() and (kind := network_file_system(str(directory))) is not None:
        raise OptionsError(
            ("state",),
            f"expected a path on a disk of this machine, got {state.path!r} on a network file system ({kind}), where "
            "one process cannot tell what another does and the file would be damaged",
        )


def refuse_several_workers(producers: Any, workers: int, path: Sequence[str], what: str = "the aggregators") -> None:
    """Refuse aggregators in a daemon of several workers, unless each source has partitions.

    *what* is what the user can leave out instead.

    Raises:
        OptionsError: at *path*; several workers would read one source.
    """
    given = producers if isinstance(producers, list | tuple) else [producers]
    if workers > 1 and not all(is_parted(each) for each in given):
        raise OptionsError(
            path,
            f"a key must have one owner, but {workers} workers read the same source; set workers: 1, leave {what} out, "
            "or part the source (partitions), so that each worker owns some of the partitions",
        )


def warn_of_retries_that_come_late(
    pipeline: str, definitions: Mapping[str, AggregatorDefinition], policy: FailurePolicy | None
) -> None:
    """Log a warning for each aggregator whose windows may close before the last attempt of a failed message."""
    if policy is None:
        return
    first, most = policy.backoff
    last = sum(min(most, first * 2.0 ** min(attempt, 60)) for attempt in range(policy.attempts - 1))
    for name, definition in definitions.items():
        window = definition.window
        if window.by is None:
            continue
        delay, lateness, hold = (float(getattr(window, one)) for one in ("delay", "lateness", "hold_timeout"))
        if last > delay + lateness + hold:
            sentence = (
                f"a message of {name!r} that fails may come back for its last attempt {last:g} s after the first one, "
                f"but its windows wait for delay + lateness + hold_timeout = {delay + lateness + hold:g} s, so it may "
                "be late then: raise hold_timeout or lateness, or lower the attempts or the back-off of failure"
            )
            log.warning(sentence, pipeline=pipeline)


def merged_state(base: object, raw: object) -> State | None:
    """Returns the section ``state`` of a file, or the path that stands there, merged over *base*. ``null`` removes it.

    Raises:
        OptionsError: a setting is unknown or wrong.
    """
    raw = opened(raw)
    if raw is None:
        return None
    given = raw if isinstance(raw, Mapping) else {"path": raw}
    known: dict[str, Any] = {}
    with gathered([]):  # what is wrong with the class is said when the pipeline is made
        if (before := checked_state(base)) is not None:
            known = {name: getattr(before, name) for name in before.model_fields_set}
    return load(State, {**known, **given}, ("state",))


def merged_aggregators(base: object, raw: object) -> dict[str, Any]:
    """Returns the section ``aggregators`` of a file, merged over the aggregators *base* of the class by name.

    ``null`` removes one. A file cannot add any, because aggregators are code.

    Raises:
        OptionsError: a name is unknown, or a setting is unknown or wrong.
    """
    raw = opened(raw)
    if not isinstance(raw, Mapping):
        raise OptionsError(
            ("aggregators",), f"expected a section with one entry for each aggregator, got {article(raw)}"
        )
    merged: dict[str, Any] = dict(base) if isinstance(base, Mapping) else {}
    known = list(merged)
    wrong: list[OptionsError] = []
    for key, said in raw.items():
        name, value = str(key), opened(said)
        if name not in known:
            names = f"the class has {', '.join(known)}" if known else "the class has no aggregators"
            wrong.append(OptionsError(("aggregators", name), f"unknown aggregator; {names}{did_you_mean(name, known)}"))
        elif value is None:
            del merged[name]
        else:
            with gathered(wrong):
                merged[name] = _changed(merged[name], value, ("aggregators", name))
    if wrong:
        raise OptionsError.of(wrong)
    return merged


def _changed(given: object, raw: object, path: tuple[str, ...]) -> Aggregator[Any, Any, Any]:
    settings = load(AggregatorSettings, raw, path)
    made = _own(given, path)
    made._given = {**made._given, **{name: getattr(settings, name) for name in settings.model_fields_set}}
    return made
