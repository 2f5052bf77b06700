"""The settings of a pipeline. They are checked once, as a whole; errors name the path. Then they are frozen."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import ErrorDetails

from broadway_py.conflict import Conflict
from broadway_py.durations import AS_TEXT, parse_seconds
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.foreign import article, is_a, shown
from broadway_py.machine import usable_processors
from broadway_py.written import has_written, kinds_of, opened, read_as

__all__ = [
    "INHERIT",
    "SECRET",
    "Batcher",
    "Breaker",
    "Duration",
    "FailurePolicy",
    "Options",
    "PlainOptions",
    "Processors",
    "RateLimit",
    "load",
]

#: The names of settings that may hold credentials.
SECRET: Final = re.compile(r"url|uri|pass|secret|token|key|user|credential|auth|header", re.IGNORECASE)
#: The types that YAML, TOML and JSON make of unquoted words that do not look like text.
_NO_TEXT: Final = (int, float, date, time)

_WrittenDuration = Annotated[float | str, WithJsonSchema({"type": ["number", "string"], "pattern": AS_TEXT})]
#: Seconds, as a float. A timedelta is accepted too, and config files may also say "500ms", "2s", "1m", "1h".
Duration = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=_WrittenDuration)]
PositiveDuration = Annotated[Duration, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1, strict=True)]


class _Inherit:
    """The value that means "as the pipeline says"."""

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final = _Inherit()

#: ``fn(message) -> key``. A message with key None may go to any partition.
PartitionBy = Callable[[Any], Any]


class _Clash(ValueError):
    """Carries :class:`Conflict` objects through pydantic."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        super().__init__(found[0].problem)
        self.found = found


class Options(BaseModel):
    """A section of settings. Wrong or unknown settings raise one :class:`OptionsError` with their paths.

    A setting given as text (:class:`~broadway_py.written.Written`) is converted to the type of its field.
    """

    #: Settings that others like it have, and this one cannot have: by their names, why, and what to do.
    impossible: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=False, hide_input_in_errors=True
    )

    def __init__(self, /, **settings: Any) -> None:
        model = type(self)
        written = {name for name, value in settings.items() if has_written(value)}
        given = {**settings, **{name: read_as(_annotation(model, name), settings[name]) for name in written}}
        try:
            super().__init__(**given)
        except ValidationError as invalid:
            before = invalid
        else:
            return
        refused = written & _wrong_fields(before)
        if not refused:
            raise _with_conflicts(model, given, before, explain(model, before)) from None
        given |= {name: read_as(_annotation(model, name), settings[name], otherwise=True) for name in refused}
        try:
            super().__init__(**given)
        except ValidationError as again:
            # If neither reading fits, the error of the first reading is reported.
            raise _with_conflicts(model, given, again, explain(model, again, refused, before)) from None

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the settings. All of them are reported in one error."""
        yield from ()

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if found := list(self.conflicts()):
            raise _Clash(found)
        return self


def _wrong_fields(invalid: ValidationError) -> set[str]:
    return {str(error["loc"][0]) for error in invalid.errors(include_url=False) if error["loc"]}


def _with_conflicts(
    model: type[BaseModel], given: Mapping[str, Any], invalid: ValidationError, found: OptionsError
) -> OptionsError:
    """Returns *found* and, with it, the conflicts among those settings of *given* that are valid by themselves."""
    wrong = _wrong_fields(invalid)
    rest = {name: value for name, value in given.items() if name not in wrong}
    if not wrong:
        return found  # the errors are the conflicts themselves
    try:
        # Not through the constructor, which would do all this again.
        model.__pydantic_validator__.validate_python(rest, self_instance=model.__new__(model))
    except ValidationError as again:
        clashes = [error.get("ctx", {}).get("error") for error in again.errors(include_url=False) if not error["loc"]]
        more = [
            OptionsError(one.path, one.problem)
            for clash in clashes
            if isinstance(clash, _Clash)
            for one in clash.found
            if not one.among & wrong
        ]
        return OptionsError.of([found, *more])
    return found


def _annotation(model: type[BaseModel], name: str) -> Any:
    field = model.model_fields.get(name)
    return Any if field is None else field.annotation


O = TypeVar("O", bound=Options)  # noqa: E741  # the usual name would hide what it is


def load(model: type[O], raw: object, path: Sequence[str] = ()) -> O:
    """Builds *model* from text settings, such as the section at *path* of a config file.

    Raises:
        OptionsError: settings are wrong; it has their whole paths.
    """
    raw = opened(raw)
    if not isinstance(raw, Mapping):
        raise OptionsError(path, f"expected a section of settings, got {type(raw).__name__}")
    try:
        return model(**{str(key): value for key, value in raw.items()})
    except OptionsError as wrong:
        raise wrong.under(*path) from None


def explain(
    model: type[BaseModel],
    invalid: ValidationError,
    refused: Collection[str] = (),
    before: ValidationError | None = None,
) -> OptionsError:
    """Returns one sentence for each error of pydantic, without showing a value that might be a secret.

    The errors about the fields in *refused* are taken from *before*.
    """
    errors = invalid.errors(include_url=False)
    if before is not None:
        still = {error["loc"][0] for error in errors if error["loc"] and error["loc"][0] in refused}
        errors = [error for error in errors if not error["loc"] or error["loc"][0] not in refused]
        errors += [error for error in before.errors(include_url=False) if error["loc"] and error["loc"][0] in still]
    found: dict[tuple[str, ...], OptionsError] = {}
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        path = tuple(str(part) for part in _place(error))
        # The field may have several types and none of them fits: the first error is enough.
        if path and len(kinds_of(_annotation(model, path[0]))) > 1 and any(one[0] == path[0] for one in found if one):
            continue
        further_in = error.get("ctx", {}).get("error")
        if isinstance(further_in, _Clash):
            # One setting may have several conflicts.
            for number, each in enumerate(further_in.found):
                found[*path, *each.path, f"#{number}"] = OptionsError((*path, *each.path), each.problem)
        elif isinstance(further_in, OptionsError):
            for one in further_in.under(*path).all():
                found.setdefault(one.path, one)
        else:
            found.setdefault(path, OptionsError(path, _sentence(model, error)))
    return OptionsError.of(found.values())


def _sentence(model: type[BaseModel], error: ErrorDetails) -> str:
    kind, place = error["type"], _place(error)
    if kind == "extra_forbidden":
        owner = _owner(model, place[:-1])
        if owner is not None and issubclass(owner, Options) and (why := owner.impossible.get(str(place[-1]))):
            return why
        known = sorted(owner.model_fields) if owner is not None else []
        return f"unknown setting; known here: {', '.join(known)}{did_you_mean(str(place[-1]), known)}"
    if kind == "missing":
        return "required, but missing"
    text = "expected true or false" if kind.startswith("bool_") else error["msg"]
    if kind == "string_type":
        text = "expected text"
    for lead in ("Value error, ", "Assertion failed, ", "Input should be "):
        if text.startswith(lead):
            text = text[len(lead) :]
            if lead == "Input should be ":
                text = f"expected {text}"
    quotes = _quotes(model, error) if place and ("text" in text or "path" in text) else ""
    # A value is shown only if its setting is clearly not a secret; settings with these names may hold credentials.
    if not place or any(SECRET.search(str(part)) for part in place):
        return f"{text}, got {article(error['input'])}{quotes}" if quotes else text
    return f"{text}, got {shown(error['input'])}{quotes}"


def _quotes(model: type[BaseModel], error: ErrorDetails) -> str:
    """Returns a hint for a field that expects text but got another type, such as a password of only digits.

    The value is not converted back to text, because its spelling is lost: it may have been ``0123``, ``1e5`` or
    ``1_000``.
    """
    kinds = kinds_of(_annotation(model, str(_place(error)[0])))
    if not kinds or not all(map(_is_plain_text, kinds)):
        return ""
    if is_a(error["input"], _NO_TEXT):
        return "; put quotes around it"
    items = error["input"]
    several = is_a(items, (list, tuple)) and any(is_a(one, _NO_TEXT) for one in items)
    return "; put quotes around each item that is not text" if several else ""


def _is_plain_text(kind: Any) -> bool:
    if get_origin(kind) in (tuple, list):
        return all(inner is ... or kinds_of(inner) == [str] for inner in get_args(kind))
    return kind is str


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    # pydantic appends "[key]" if the name of an entry is wrong, not its value.
    return tuple(part for part in error["loc"] if part != "[key]")


def _owner(model: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel] | None:
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        model = field.annotation
    return model


def _callable_or_none(value: object) -> object:
    if value is INHERIT or value is None or callable(value):
        return value
    raise ValueError("expected a function of one message that returns its key, or None")


class Processors(Options):
    """How messages reach ``handle_message``."""

    #: How many messages are handled at the same time. Default: two for each processor that this process may use
    #: (limited by its affinity and the quota of its control group).
    concurrency: PositiveInt = Field(default_factory=lambda: usable_processors().times(2))
    #: The most unfinished messages that a processor holds.
    max_demand: PositiveInt = 10
    #: A processor asks for more when it holds this many or fewer. None: half of max_demand.
    min_demand: Annotated[int, Field(ge=0, strict=True)] | None = None
    #: Messages with the same key go to the same processor, in order. Default: what the pipeline says.
    partition_by: Annotated[Any, BeforeValidator(_callable_or_none, json_schema_input_type=None)] = INHERIT
    #: Seconds that ``handle_message`` may take for one message. None: no limit.
    timeout: PositiveDuration | None = None
    #: Where a plain ``def handle_message`` runs: ``auto`` and ``thread`` in a thread, ``process`` in a worker process.
    executor: Literal["auto", "thread", "process"] = "auto"

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the settings."""
        if self.min_demand is not None and self.min_demand >= self.max_demand:
            yield Conflict(
                ("min_demand",),
                f"expected less than max_demand ({self.max_demand}), got {self.min_demand}: "
                "with it, a processor might never ask for messages again",
                frozenset({"min_demand", "max_demand"}),
            )

    @property
    def refill_at(self) -> int:
        """``min_demand``; half of ``max_demand`` if that is None."""
        return self.max_demand // 2 if self.min_demand is None else self.min_demand


#: ``fn(message, accumulator) -> ("emit" | "cont", accumulator)``
SplitFunction = Callable[[Any, Any], tuple[Literal["emit", "cont"], Any]]


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in function that does not describe its parameters
    return True


def _batch_size(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and callable(value[1]) and _takes_two(value[1]):
        return tuple(value)
    raise ValueError(
        "expected a positive whole number or (initial, fn), with fn(message, acc) -> ('emit' | 'cont', acc)"
    )


class Batcher(Options):
    """How messages are gathered for ``handle_batch``."""

    #: The number of messages in a full batch; or ``(initial, fn)``, where fn decides after each message.
    batch_size: Annotated[Any, BeforeValidator(_batch_size, json_schema_input_type=PositiveInt)] = 100
    #: Seconds after its first message at which a batch leaves, full or not.
    batch_timeout: PositiveDuration = 1.0
    #: A batch closes before it would have more payload bytes than this. None: no limit.
    max_batch_bytes: PositiveInt | None = None
    #: How many batches are handled at the same time.
    concurrency: PositiveInt = 1
    #: The most messages that are asked of each processor in advance. None: batch_size.
    max_demand: PositiveInt | None = None
    #: Messages with the same key go to the same batch processor, in order. Default: what the pipeline says.
    partition_by: Annotated[Any, BeforeValidator(_callable_or_none, json_schema_input_type=None)] = INHERIT
    #: Seconds that ``handle_batch`` may take for one batch. None: no limit.
    timeout: PositiveDuration | None = None
    #: Where a plain ``def handle_batch`` runs: ``auto`` and ``thread`` in a thread, ``process`` in a worker process.
    executor: Literal["auto", "thread", "process"] = "auto"

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the settings."""
        if not isinstance(self.batch_size, int) and self.max_demand is None:
            about = frozenset({"batch_size", "max_demand"})
            yield Conflict(("max_demand",), "required when batch_size is a function", about)

    @property
    def demand(self) -> int:
        """``max_demand``; ``batch_size`` if that is None."""
        return int(self.batch_size) if self.max_demand is None else self.max_demand


def _exception_type(value: object) -> object:
    """Returns the exception type for ``"package.module:Name"`` or the name of a builtin, as config files write it."""
    if isinstance(value, str):
        module, _, name = value.rpartition(":")
        try:
            value = getattr(importlib.import_module(module or "builtins"), name)
        except (ImportError, AttributeError):
            raise ValueError("expected an exception type, or its place as text 'package.module:Name'") from None
    if isinstance(value, type) and issubclass(value, BaseException):
        return value
    raise ValueError("expected an exception type, or its place as text 'package.module:Name'")


class Breaker(Options):
    """Stops fetching when so much fails that what the handlers need must be down, and probes until it is up again."""

    #: The breaker opens when more than this part of the last *over* messages failed.
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    #: How many of the last messages are counted.
    over: PositiveInt = 100


class FailurePolicy(Options):
    """What happens to failed messages.

    The pipeline carries it out with the acknowledger's optional ``retry`` and ``dead_letter``. If the acknowledger has
    neither, a failed message goes to its ``ack(…, failed)``, which does what the connector's own ``on_failure`` says.
    """

    #: The number of deliveries of a message, including the first one.
    attempts: PositiveInt = 5
    #: Seconds: the ceiling of the delay before the second attempt, and the limit that it grows to, doubling each time.
    backoff: tuple[PositiveDuration, PositiveDuration] = (1.0, 300.0)
    #: What happens after the last attempt.
    final: Literal["dead_letter", "drop", "reject", "stop"] = "dead_letter"
    #: Where dead letters go. None: where the source keeps them (RabbitMQ: the queue ``<queue>.dead``). For RabbitMQ it
    #: may be the name of another queue, or "broker": the message is rejected, and the queue's own dead-letter exchange
    #: keeps it.
    dead_letter: Annotated[str, Field(min_length=1, strict=True)] | None = None
    #: Exception type -> what to do at once. The closest base class counts.
    classify: dict[
        Annotated[Any, BeforeValidator(_exception_type)], Literal["retry", "dead_letter", "drop", "reject", "stop"]
    ] = Field(default_factory=dict)
    #: When to stop fetching because of failures. None: never.
    breaker: Breaker | None = Breaker()

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the settings."""
        if self.backoff[0] > self.backoff[1]:
            problem = f"expected (first, most) with first <= most, got {self.backoff}"
            yield Conflict(("backoff",), problem, frozenset({"backoff"}))


class RateLimit(Options):
    """At most *allowed_messages* start in each *interval*."""

    allowed_messages: PositiveInt
    #: The length of an interval in seconds.
    interval: PositiveDuration
    #: ``"pipeline"``: all workers share the limit; ``"worker"``: each worker has the whole limit.
    scope: Literal["pipeline", "worker"] = "pipeline"

    def divided(self, index: int, workers: int) -> RateLimit:
        """Returns the part of worker *index* (from 0) among *workers*. The parts add up to the whole limit."""
        if workers == 1:
            return self
        share, rest = divmod(self.allowed_messages, workers)
        if share == 0:
            # Fewer messages than workers: each worker may start one, in an interval that is longer in proportion.
            interval = self.interval * workers / self.allowed_messages
            return RateLimit(allowed_messages=1, interval=interval, scope=self.scope)
        return RateLimit(allowed_messages=share + (index < rest), interval=self.interval, scope=self.scope)


class PlainOptions(Options):
    """The options of a pipeline that are single values."""

    #: The most seconds for a whole drain.
    shutdown_timeout: PositiveDuration = 25.0
    #: How many crashes of stages within *max_seconds* are followed by a restart. One more ends the pipeline.
    max_restarts: Annotated[int, Field(ge=0, strict=True)] = 3
    #: Seconds in which *max_restarts* counts crashes.
    max_seconds: PositiveDuration = 5.0
    #: A message that fails is tried again in place, before later messages of its key. Needs ``partition_by``.
    ordered: Annotated[bool, Field(strict=True)] = False
    #: The number of payload bytes in flight at which fetching pauses. None: no limit.
    max_in_flight_bytes: PositiveInt | None = None
    #: The first connect of each producer must succeed.
    fail_fast: Annotated[bool, Field(strict=True)] = False
    #: Messages, batches and lists have spans of OpenTelemetry. Needs the extra ``otel``.
    tracing: Annotated[bool, Field(strict=True)] = False
    #: Which partitions of the sources this daemon owns: ``"0-3"`` or ``"0,2,5-7"``; ``"ordinal"``: the one with the
    #: number at the end of the host's name; ``"ordinal of 4"``: every fourth from that number on. None: all of them.
    own: str | None = None
