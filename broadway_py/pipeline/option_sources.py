"""Collects and checks the options of a pipeline: class attributes, settings of a file, constructor arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from broadway_py.errors import OptionsError, did_you_mean, gathered
from broadway_py.options import Batcher, FailurePolicy, Options, PlainOptions, Processors, RateLimit, load
from broadway_py.pipeline.aggregator_options import (
    checked_aggregators,
    checked_state,
    define_all,
    merged_aggregators,
    merged_state,
)
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.deduplication_options import (
    check_deduplication,
    checked_deduplicate_by,
    merged_deduplicate_by,
)
from broadway_py.pipeline.processes.callback_process import layers_in_processes
from broadway_py.pipeline.publisher_options import checked_publishers, merged_publishers
from broadway_py.pipeline.settlement.failure_plans import check_sources
from broadway_py.pipeline.sources import Sources, is_parted
from broadway_py.pipeline.stages.services import SUBMITTED
from broadway_py.pipeline.tracers import check_tracing
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.written import looked_at, opened, read_as

__all__ = [
    "OPTION_NAMES",
    "check_together",
    "merged_options",
    "named_producers",
    "refuse_shared_keys",
    "resolve_options",
]

#: The options that a constructor takes.
OPTION_NAMES: Final = frozenset(
    {
        "aggregators",
        "batch_defaults",
        "batchers",
        "context",
        "deduplicate_by",
        "fail_fast",
        "failure",
        "max_in_flight_bytes",
        "max_restarts",
        "max_seconds",
        "name",
        "ordered",
        "own",
        "partition_by",
        "processors",
        "producer",
        "publishers",
        "rate_limit",
        "schema",
        "shutdown_timeout",
        "state",
        "tracing",
        "transformer",
    }
)
#: The options that a settings file may set; the values of the others are code.
_IN_FILES: Final = OPTION_NAMES - {"partition_by", "producer", "schema", "transformer"}
#: Sections that ``null`` in a settings file removes.
_REMOVABLE: Final[Mapping[str, type[Options]]] = {
    "batch_defaults": Batcher,
    "failure": FailurePolicy,
    "rate_limit": RateLimit,
}
_SECTIONS: Final[Mapping[str, type[Options]]] = {"processors": Processors, **_REMOVABLE}
_PLAIN: Final = frozenset(PlainOptions.model_fields)
#: Merges the option of this name, as the class has it, and what a file says.
_MERGED_BY: Final[Mapping[str, Callable[[object, object], object]]] = {
    "aggregators": merged_aggregators,
    "deduplicate_by": merged_deduplicate_by,
    "publishers": merged_publishers,
    "state": merged_state,
}


def resolve_options(pipeline: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every option of *pipeline*, checked: the constructor's argument if given, else the class attribute.

    Raises:
        OptionsError: names the option, what was expected and what was given.
    """
    wrong = [
        OptionsError((name,), f"unknown option; known: {', '.join(sorted(OPTION_NAMES))}{_hint(name)}")
        for name in given
        if name not in OPTION_NAMES
    ]
    options: dict[str, Any] = {
        name: given[name] if name in given else getattr(pipeline, name, None) for name in OPTION_NAMES
    }
    options["name"] = options["name"] or type(pipeline).__name__
    if not isinstance(options["name"], str):
        wrong.append(OptionsError(("name",), f"expected text, got {type(options['name']).__name__}"))
    if options["producer"] is None:
        missing = "required, but missing; give producer=… or a class attribute `producer`"
        wrong.append(OptionsError(("producer",), missing))
    for name, model in _SECTIONS.items():
        if options[name] is not None or name not in _REMOVABLE:
            with gathered(wrong):
                _checked(options[name], model, (name,))
    with gathered(wrong):
        options["batchers"] = _checked_batchers(options["batchers"])
    with gathered(wrong):
        options["state"] = checked_state(options["state"])
    with gathered(wrong):
        options["deduplicate_by"] = checked_deduplicate_by(options["deduplicate_by"])
    with gathered(wrong):
        batchers = options["batchers"] if isinstance(options["batchers"], Mapping) else ()
        options["aggregators"] = checked_aggregators(options["aggregators"], batchers)
    with gathered(wrong):
        options["publishers"] = checked_publishers(options["publishers"])
    for name in ("partition_by", "transformer"):
        with gathered(wrong):
            _check_function(name, options[name])
    with gathered(wrong):
        options.update(PlainOptions(**{name: options[name] for name in _PLAIN}).model_dump())
    if not any(one.path[:1] in (("batchers",), ("batch_defaults",)) for one in wrong):
        with gathered(wrong):
            options["batchers"] = _with_defaults(options["batchers"], options["batch_defaults"])
    if wrong:
        raise OptionsError.of(wrong)
    return options


def check_together(
    pipeline: Any, producers: AnyProducer | Sequence[AnyProducer], *, failure_is_given: bool
) -> tuple[Sources, frozenset[str], dict[str, AggregatorDefinition]]:
    """Check that the options of *pipeline* fit together. Each option was already checked by itself.

    Returns:
        What the pipeline reads, the names of the layers whose callbacks run in worker processes, and the definitions of
        the aggregators by name.

    Raises:
        OptionsError: names the options that do not fit together.
    """
    named: dict[str, ProducerDescription] = {}
    sources: Sources | None = None
    in_processes: frozenset[str] = frozenset()
    definitions: dict[str, AggregatorDefinition] = {}
    wrong: list[OptionsError] = []
    if pipeline.ordered and pipeline.partition_by is None:
        needs = "needs partition_by, which says what must stay in order; got none"
        wrong.append(OptionsError(("ordered",), needs))
    if pipeline.tracing:
        with gathered(wrong):
            check_tracing()
    with gathered(wrong):
        named = named_producers(producers)
        check_sources(named.values(), pipeline.failure, failure_is_given=failure_is_given)
    with gathered(wrong):
        if named:
            # What another reader takes would be out of order, missing in the windows, or not known as handled.
            alone = bool(pipeline.ordered or pipeline.aggregators or pipeline.deduplicate_by)
            readers = {name: producer.for_order() for name, producer in named.items()} if alone else named
            sources = Sources(readers, pipeline.own)
    with gathered(wrong):
        in_processes = layers_in_processes(pipeline, pipeline.processors, pipeline.batchers)
    with gathered(wrong):
        definitions = define_all(pipeline.aggregators, pipeline.state, named, pipeline.context)
    with gathered(wrong):
        check_deduplication(pipeline.deduplicate_by, pipeline.state, named, pipeline.aggregators)
    if sources is None or wrong:
        raise OptionsError.of(wrong)
    return sources, in_processes, definitions


def named_producers(producers: AnyProducer | Sequence[AnyProducer]) -> dict[str, ProducerDescription]:
    """Returns the descriptions of the producers by name. A producer without a name is named after its class.

    Raises:
        OptionsError: two producers have the same name, or something is not a producer.
    """
    given: object = [producers] if isinstance(producers, AnyProducer) else producers
    if not isinstance(given, list | tuple) or not given:
        raise OptionsError(("producer",), f"expected a Producer or a list of them, got {type(producers).__name__}")
    named: dict[str, ProducerDescription] = {}
    wrong: list[OptionsError] = []
    for each in given:
        try:
            description = described(each)
        except OptionsError as refused:
            wrong.append(refused.under("producer"))
            continue
        name = description.called
        if name in named:
            wrong.append(
                OptionsError(("producer",), f"two producers are called {name!r}; give each a name= of its own")
            )
        if name == SUBMITTED:
            wrong.append(
                OptionsError(("producer",), f"the name {name!r} is taken by the pipeline itself; choose another")
            )
        named[name] = description
    if wrong:
        raise OptionsError.of(wrong)
    return named


def refuse_shared_keys(producers: Any, workers: int, path: Sequence[str]) -> None:
    """Refuse ``ordered`` if several workers could have messages with the same key at the same time.

    Raises:
        OptionsError: at *path*; a source does not give all messages with one key to one worker.
    """
    given = producers if isinstance(producers, list | tuple) else [producers]
    if not all(isinstance(each, AnyProducer) and (each.keeps_keys_apart or is_parted(each)) for each in given):
        raise OptionsError(
            path,
            f"a key must have one owner, but {workers} workers read the same source; set workers: 1, leave ordered "
            "off, part the source (partitions), or use an embedded queue with partitioned: true, whose messages are "
            "put with a key",
        )


def merged_options(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns constructor arguments from a section of a file, merged field by field over the attributes of *cls*.

    A ``null`` removes a batcher, or one of the sections that can be removed (such as ``rate_limit``).

    Raises:
        OptionsError: a setting is unknown or a value is wrong; all are listed with their paths.
    """
    merged: dict[str, Any] = {}
    wrong: list[OptionsError] = []
    for name, value in settings.items():
        try:
            merged[name] = _merged(cls, name, value)
        except OptionsError as refused:
            wrong += refused.all()
    try:
        checked = load(PlainOptions, {name: merged[name] for name in merged if name in _PLAIN})
        merged |= {name: getattr(checked, name) for name in checked.model_fields_set}
    except OptionsError as refused:
        wrong += refused.all()
    if wrong:
        raise OptionsError.of(wrong)
    return merged


def _merged(cls: type, name: str, value: object) -> object:
    if name not in _IN_FILES:
        known = sorted({*_IN_FILES, "class", "producer"})
        raise OptionsError((name,), f"unknown setting; known here: {', '.join(known)}{did_you_mean(name, known)}")
    base = getattr(cls, name, None)
    if name == "processors":
        return _over(base, Processors, value, (name,))
    if name in _REMOVABLE:
        value = opened(value)
        return None if value is None else _over(base, _REMOVABLE[name], value, (name,))
    if name == "batchers":
        return _over_batchers(base, opened(value))
    if name in _MERGED_BY:
        return _MERGED_BY[name](base, value)
    if name == "name":
        return read_as(str, value)
    return value if name in _PLAIN else looked_at(value)


def _over(base: object, model: type[Options], raw: object, path: tuple[str, ...]) -> Options:
    known = {}
    raw = opened(raw)
    if isinstance(base, BaseModel):
        known = {field: getattr(base, field) for field in base.model_fields_set}
    if isinstance(raw, Mapping):
        raw = {**known, **raw}
    return load(model, raw, path)


def _over_batchers(base: object, raw: object) -> dict[str, Batcher]:
    if not isinstance(raw, Mapping):
        raise OptionsError(("batchers",), f"expected a section with one entry for each batcher, got {raw!r}")
    merged: dict[str, Any] = dict(base) if isinstance(base, Mapping) else {}
    wrong: list[OptionsError] = []
    for key, said in raw.items():
        value = opened(said)
        if value is None:
            merged.pop(str(key), None)
            continue
        try:
            merged[str(key)] = _over(merged.get(str(key)), Batcher, value, ("batchers", str(key)))
        except OptionsError as refused:
            wrong += refused.all()
    if wrong:
        raise OptionsError.of(wrong)
    return merged


def _checked(value: object, model: type[Options], path: tuple[str, ...]) -> Any:
    if isinstance(value, model):
        return value
    raise OptionsError(path, f"expected {model.__name__}(…), got {type(value).__name__}")


def _checked_batchers(value: object) -> dict[str, Batcher]:
    if not isinstance(value, Mapping):
        raise OptionsError(("batchers",), f"expected a dict of name -> Batcher(…), got {type(value).__name__}")
    wrong: list[OptionsError] = []
    for name, batcher in value.items():
        if not isinstance(name, str) or not name:
            wrong.append(OptionsError(("batchers",), f"expected names as text, got {name!r}"))
            continue
        with gathered(wrong):
            _checked(batcher, Batcher, ("batchers", name))
    if wrong:
        raise OptionsError.of(wrong)
    return dict(value)


def _with_defaults(batchers: dict[str, Batcher], defaults: Batcher | None) -> dict[str, Batcher]:
    """Returns *batchers*, with *defaults* for the fields that a batcher does not set itself."""
    if defaults is None:
        return batchers
    common = {name: getattr(defaults, name) for name in defaults.model_fields_set}
    made: dict[str, Batcher] = {}
    wrong: list[OptionsError] = []
    for key, own in batchers.items():
        try:
            made[key] = Batcher(**{**common, **{name: getattr(own, name) for name in own.model_fields_set}})
        except OptionsError as refused:
            wrong += refused.under("batchers", key).all()
    if wrong:
        raise OptionsError.of(wrong)
    return made


def _check_function(name: str, value: Callable[..., Any] | None) -> None:
    if value is not None and not callable(value):
        raise OptionsError((name,), f"expected a function of one message, got {type(value).__name__}")


def _hint(name: str) -> str:
    return did_you_mean(name, OPTION_NAMES)
