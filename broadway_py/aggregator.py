"""``Aggregator``: what users subclass to gather messages in windows, and what such a window hands out."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field

from broadway_py._core.window.shape import Duration as AnyDuration
from broadway_py._core.window.spec import UNSET, Unset, Window
from broadway_py._core.window.times import EventTime
from broadway_py.errors import DefinitionError, OptionsError
from broadway_py.foreign import article
from broadway_py.message import Message
from broadway_py.options import Duration, Options, PositiveDuration, PositiveInt
from broadway_py.publisher import Sink

__all__ = [
    "MEMORY",
    "METHODS",
    "WINDOW_SETTINGS",
    "Aggregator",
    "AggregatorOptions",
    "AggregatorSettings",
    "ResultTrigger",
    "State",
    "WindowResult",
]

K = TypeVar("K")
In = TypeVar("In")
Acc = TypeVar("Acc")

#: Why a result comes now. ``watermark``, ``count``, ``gap``, ``end``: the window is complete, because time has passed
#: its end, it is full, its key was silent, or all sources have ended. ``late``: messages came after that. ``every``,
#: ``periodic``: an early result. ``closed``: an operator has closed the window.
ResultTrigger = Literal["watermark", "late", "every", "periodic", "count", "gap", "end", "closed"]


@dataclass(frozen=True)  # without slots: with them, Python 3.11 cannot run WindowResult[str, int](…)
class WindowResult(Generic[K, Acc]):
    """One result of one window of one key.

    It is handed out after it is stored, at least once. One pair of *id* and *firing* has the same value for ever, also
    after a crash. A sink that keeps the row with the largest *firing* for each *id* counts nothing twice.
    """

    #: The name of the aggregator.
    aggregator: str
    key: K
    #: The bounds of the window, in the kind that ``by`` returns. The end is exclusive. Windows of ``periodic`` have
    #: them in seconds since 1970. Windows of ``count`` have none.
    start: EventTime | None
    end: EventTime | None
    #: The whole value of the window so far. It is never a difference from the firing before.
    value: Acc
    #: How many messages are in the value.
    count: int
    #: Names the window. It never changes.
    id: str
    #: Counts the results of the window: 1, 2, …
    firing: int
    trigger: ResultTrigger
    #: True if no other result of this window can follow.
    is_last: bool
    #: The ids of sessions that went into this one after they had fired. Their rows are to be deleted.
    replaces: tuple[str, ...] = ()
    #: The number of the partition of the source; None if the source has none.
    partition: int | None = None


def _sink(value: object) -> object:
    if value is None or isinstance(value, Sink):
        return value
    # Another error would be shown with the value, and a URL in it may hold a password.
    raise OptionsError((), f"expected a sink, such as QueueSink('var/out.db', 'results'), got {article(value)}")


class AggregatorOptions(Options):
    """How much an aggregator may hold, and how it hands out its results."""

    #: The most results that one call of ``emit`` gets.
    emit_batch: PositiveInt = 100
    #: Seconds that ``emit`` may take. A call that takes longer is cancelled, and its results are handed out again.
    emit_timeout: PositiveDuration = 60.0
    #: The sink to which results are published as JSON. In a file it is a section with its ``kind`` (queue, rabbitmq or
    #: sqs) and its settings. None: they are not published; ``emit`` takes them.
    emit_to: Annotated[Sink | None, BeforeValidator(_sink)] = None
    #: The most messages that are added and not stored yet. When half of them are there, they are stored at once.
    max_demand: PositiveInt = 1000
    #: The number of open windows, counted for each key, at which intake pauses.
    max_open: PositiveInt = 1_000_000
    #: The number of results not handed out yet at which intake pauses.
    max_pending: PositiveInt = 100_000
    #: True: a message without an identity fails. False: it is added, perhaps twice, and counted.
    require_identity: Annotated[bool, Field(strict=True)] = False


_NotNegative = Annotated[Duration, Field(ge=0)]


class AggregatorSettings(AggregatorOptions):
    """The options of an aggregator, and the settings of its window that a file may change."""

    #: Seconds after its own time in which a message may still arrive. None: as the window in the class says.
    delay: _NotNegative | None = None
    #: Seconds that a window is kept after its result. A message for it gives another result. None: as the window in the
    #: class says, or 0.
    lateness: _NotNegative | None = None
    #: A message whose time lies more than these seconds ahead of the clock fails. None: no limit. Default: as the
    #: window in the class says, or 60.
    max_ahead: _NotNegative | None = UNSET  # type: ignore[assignment]  # no user can give this value
    #: Seconds after which a source without messages no longer holds the windows open. None: it always does. Default: as
    #: the window in the class says, or 60.
    idle_timeout: PositiveDuration | None = UNSET  # type: ignore[assignment]  # no user can give this value
    #: The most seconds that one message in work, or put off for a retry, holds the windows open. None: as the window in
    #: the class says, or 60.
    hold_timeout: _NotNegative | None = None


#: The settings of a window that an aggregator may replace. They are names of fields of :class:`Window`, too.
WINDOW_SETTINGS: Final = frozenset(AggregatorSettings.model_fields.keys() - AggregatorOptions.model_fields.keys())

#: The path of a state that ends with the process.
MEMORY: Final = "memory"


def _path(value: object) -> str:
    if not isinstance(value, str | PathLike):
        raise ValueError("expected the path of a file, or 'memory'")  # noqa: TRY004  # pydantic wants this type
    path = fspath(value)
    if not isinstance(path, str) or not path:
        raise ValueError("expected the path of a file, or 'memory'")
    return path


class State(Options):
    """Where the windows of a pipeline are stored, and how often.

    ``State("var/shop.db")`` is the same as ``State(path="var/shop.db")``.
    """

    #: The file that has the windows. "memory" keeps them in the process: for sources that end with it, too.
    path: Annotated[str, BeforeValidator(_path)]
    #: Seconds from the first message that is not stored yet until it is stored.
    checkpoint_interval: PositiveDuration = 0.1
    #: Seconds of connected time that the identity of a message is kept after its ack, to recognise a repetition.
    dedup: Annotated[Duration, Field(ge=0)] = 600.0

    def __init__(self, path: str | PathLike[str] | None = None, /, **settings: Any) -> None:
        super().__init__(**settings if path is None else {"path": path, **settings})

    @property
    def is_memory(self) -> bool:
        """True if nothing is written to a file."""
        return self.path == MEMORY


#: Each method that a user may write, with the parameters that it is called with.
METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "key": ("message",),
    "initial": (),
    "add": ("acc", "message"),
    "merge": ("a", "b"),
    "identity": ("message",),
    "upgrade": ("version", "value"),
    "emit": ("results",),
    "late": ("messages",),
    "setup": (),
    "teardown": (),
}
_ASYNC: Final = frozenset({"emit", "late", "setup", "teardown"})


class Aggregator(ABC, Generic[K, In, Acc]):
    """Adds messages to windows by key, and hands out the value of each window. Subclass it.

    ::

        class Revenue(Aggregator[str, Order, int]):      # key, message.data, accumulator
            window = Window.fixed("1m", by=lambda message: message.data.ts, delay="10s")

            def key(self, message): return message.data.country
            def initial(self): return 0
            def add(self, total, message): return total + message.data.amount
            async def emit(self, results): ...

    The three types say what the methods take and return, and how keys and accumulators are stored: as JSON, so each
    must be a type that pydantic reads back from JSON as it was.

    ``key``, ``initial``, ``add``, ``merge``, ``identity`` and ``upgrade`` are plain functions. They run in the event
    loop, so they must be quick, without input and output. A raise in one of the first five fails that message alone
    and changes nothing. The messages of a key come in any order, unless the pipeline is ``ordered``.

    A message is acked when its effect is stored. Options are class attributes or constructor arguments:
    ``emit_batch=100``, ``emit_timeout=60.0``, ``emit_to=None``, ``max_demand=1000``, ``max_open=1_000_000``,
    ``max_pending=100_000``, ``require_identity=False``; and ``delay``, ``lateness``, ``max_ahead``, ``idle_timeout``,
    ``hold_timeout``, which replace those of the window.

    Raises:
        DefinitionError: when the class is created: a method is misspelt, cannot be called, or is ``async def`` where it
            must not be (or the other way round).
        OptionsError: an argument is not an option, or its value is wrong.

    A pipeline works on a shallow copy of an object that it is given: ``pipeline.aggregators["revenue"]``.
    """

    #: The kind of windows, with the function ``by`` that returns the time of a message.
    window: Window
    #: The version of the stored accumulators. If it is raised, ``upgrade`` must turn older ones into new ones.
    version: int = 1

    # The options; see AggregatorSettings.
    emit_batch: int = 100
    emit_timeout: AnyDuration = 60.0
    emit_to: Sink | None = None
    max_demand: int = 1000
    max_open: int = 1_000_000
    max_pending: int = 100_000
    require_identity: bool = False
    delay: AnyDuration | Unset = UNSET
    lateness: AnyDuration | Unset = UNSET
    max_ahead: AnyDuration | Unset | None = UNSET
    idle_timeout: AnyDuration | Unset | None = UNSET
    hold_timeout: AnyDuration | Unset = UNSET

    #: The name in the pipeline. It is there before ``setup``.
    name: str
    #: The ``context`` of the pipeline. It is there before ``setup``.
    context: Any

    # The options that were given to the constructor. A subclass may have a constructor that does not call this one's.
    _given: Mapping[str, Any] = {}  # never changed in place

    def __init__(self, **options: Any) -> None:
        AggregatorSettings(**options)
        self._given = options

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_names(cls)
        for name, parameters in METHODS.items():
            if name in vars(cls):
                _check_method(cls, name, parameters)

    @abstractmethod
    def key(self, message: Message[In]) -> K:
        """Returns what *message* is counted under. It must be hashable."""

    @abstractmethod
    def initial(self) -> Acc:
        """Returns the accumulator of a window without messages. It is called for each window of each key."""

    @abstractmethod
    def add(self, acc: Acc, message: Message[In]) -> Acc:
        """Returns *acc* with *message* added to it. It may change *acc* in place and return it."""

    def merge(self, a: Acc, b: Acc) -> Acc:
        """Returns the accumulators of two sessions that a message has joined, as one. Sessions need this method."""
        raise NotImplementedError

    def identity(self, message: Message[In]) -> str | bytes | None:
        """Returns the same value for messages that are the same, and another one for others. None: it has no identity.

        Without this method, the id that the source has given the message is its identity.
        """
        raise NotImplementedError

    def upgrade(self, version: int, value: Any) -> Acc:
        """Returns the accumulator for *value*, which was stored with an older *version* of this class.

        *value* is what JSON has: dicts, lists, text, numbers. It is called when the pipeline starts. If it raises, the
        pipeline does not start, and the file stays as it was.
        """
        raise NotImplementedError

    async def emit(self, results: list[WindowResult[K, Acc]]) -> None:
        """Takes results that are stored. It may get one again, with the same id, firing and value.

        If it raises, the results are handed out again, one by one, with a growing back-off. It may be left out if
        ``emit_to`` is given.
        """
        raise NotImplementedError

    async def late(self, messages: list[Message[In]]) -> None:
        """Takes messages whose windows are closed. If it returns, they are acked.

        Without this method, they fail with cause ``late``, which is final.
        """
        raise NotImplementedError

    async def setup(self) -> None:
        """Runs once, after the ``setup`` of the pipeline and before the first message."""

    async def teardown(self) -> None:
        """Runs once, after the last call of ``emit``, also if ``setup`` has failed half-way."""


_BASE: Final[type] = Aggregator
_KNOWN: Final = frozenset({*METHODS, *AggregatorSettings.model_fields, "window", "version", "name", "context"})


def _check_names(cls: type) -> None:
    """Refuse a class that misspells a method or an option.

    Raises:
        DefinitionError: names the attribute, and the probable one.
    """
    # A name that resembles one which the class has as well, such as `keys` beside `key`, is a helper.
    free = [name for name in _KNOWN if getattr(cls, name, None) is getattr(_BASE, name, None)]
    for name, value in vars(cls).items():
        if name.startswith("_") or name in _KNOWN:
            continue
        close = difflib.get_close_matches(name, free, n=1, cutoff=0.85)
        if close:
            raise DefinitionError(
                f"{_called(cls)} defines {name!r}, which is not {'a method' if callable(value) else 'an option'} of an "
                f"aggregator; did you mean {close[0]!r}?"
            )


def _check_method(cls: type, name: str, parameters: tuple[str, ...]) -> None:
    method: Any = inspect.getattr_static(cls, name)
    if isinstance(method, staticmethod | classmethod):
        function: Callable[..., Any] = method.__func__
        before = int(isinstance(method, classmethod))
    elif callable(method):
        function, before = method, int(inspect.isfunction(method))
    else:
        raise DefinitionError(f"{_called(cls)}.{name} must be a method, got {type(method).__name__}")
    try:
        inspect.signature(function).bind(*[None] * before, *parameters)
    except TypeError:
        expected = ", ".join(("self", *parameters))
        raise DefinitionError(
            f"{_called(cls)}.{name}{inspect.signature(function)} cannot be called; expected {name}({expected})"
        ) from None
    except ValueError:
        pass  # a built-in function that does not describe its parameters
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if is_async and name not in _ASYNC:
        raise DefinitionError(
            f"{_called(cls)}.{name}: expected a plain function, got async def: it runs between two messages, where "
            f"nothing may wait; write `def {name}`, and do what must wait in handle_message"
        )
    if not is_async and name in _ASYNC:
        raise DefinitionError(
            f"{_called(cls)}.{name}: expected async def, got a plain function, which would hold up all messages; "
            f"write `async def {name}`"
        )


def _called(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
