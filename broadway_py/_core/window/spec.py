"""The description of a window: its kind, its settings of event time, and its triggers. It is checked, then frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never, Self, TypedDict, Unpack, get_args

from broadway_py._core.window.shape import (
    Calendar,
    CalendarUnit,
    Count,
    Duration,
    Fixed,
    Global,
    Kind,
    Periodic,
    Session,
    Shape,
    duration,
    not_negative,
    positive,
    positive_int,
    time_zone,
)
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.foreign import article, shown

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["UNSET", "EventTimeSettings", "Triggers", "Unset", "Window"]


class Unset(Enum):
    """The value of a setting that was not given: Flow and the aggregators have different defaults."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET

#: What an aggregator uses where its window leaves a setting open, in seconds.
_AGGREGATOR_DEFAULT_S: Final = 60.0


class EventTimeSettings(TypedDict, total=False):
    """The settings that every window of event time takes."""

    #: How long after its own time an event may arrive: the watermark is the newest event time less this. Default:
    #: 0 in Flow; aggregators require it.
    delay: Duration | Unset
    #: How long a window is kept after the watermark has passed its end. Default: 0.
    lateness: Duration
    #: An event that lies further ahead of the wall clock is refused. None: no limit. Default: None in Flow, 60 seconds
    #: in aggregators.
    max_ahead: Duration | Unset | None
    #: A source that is silent for so long no longer holds the watermark back. None: it does so for ever. Default: None
    #: in Flow, 60 seconds in aggregators.
    idle_timeout: Duration | Unset | None
    #: How long one message in work may hold the watermark back. Default: 60 seconds in aggregators; Flow refuses it.
    hold_timeout: Duration | Unset


class Triggers(NamedTuple):
    """What makes a window fire before it closes."""

    #: After each *every* events of the window.
    every: int | None = None
    #: ``(init, fn)``: a function decides.
    custom: tuple[Callable[[], Any], Callable[[list[Any], Any], Any]] | None = None
    #: Intervals in seconds.
    periodically: tuple[float, ...] = ()
    #: When the watermark passes the end of the window.
    on_time: bool = False


_NO_TRIGGERS: Final = Triggers(every=None, on_time=False)


@dataclass(frozen=True, slots=True)
class Window:
    """A kind of window with its settings. The class methods make one; the trigger methods return a changed copy.

    Windows of event time (fixed, sliding, session, calendar) take *by*, a function of an event that returns its time:
    an aware datetime, or seconds since 1970. They also take the :class:`EventTimeSettings`. Each duration is seconds,
    a timedelta, or text such as ``"1m"``; the attributes are in seconds.

    Raises:
        OptionsError: a setting is wrong; its path is the name of the setting.
    """

    shape: Shape
    by: Callable[[Any], Any] | None = None
    delay: float | Unset = UNSET
    lateness: float = 0.0
    max_ahead: float | Unset | None = UNSET
    idle_timeout: float | Unset | None = UNSET
    hold_timeout: float | Unset = UNSET
    triggers: Triggers = _NO_TRIGGERS

    @property
    def kind(self) -> Kind:
        """The name of the kind, such as ``"fixed"``."""
        return self.shape.kind

    @classmethod
    def fixed(
        cls, size: Duration, *, by: Callable[[Any], Any], offset: Duration = 0, **times: Unpack[EventTimeSettings]
    ) -> Self:
        """Returns windows of *size*, side by side, counted from 1970 plus *offset*. Ends are exclusive."""
        seconds = positive("size", size)
        return cls._of_event_time(Fixed("fixed", seconds, seconds, duration("offset", offset)), by, times)

    @classmethod
    def sliding(
        cls,
        size: Duration,
        every: Duration,
        *,
        by: Callable[[Any], Any],
        offset: Duration = 0,
        **times: Unpack[EventTimeSettings],
    ) -> Self:
        """Returns windows of *size*, one beginning at each *every*. An event is in each window that holds its time."""
        seconds, step = positive("size", size), positive("every", every)
        if step > seconds:
            raise OptionsError(
                ("every",),
                f"expected at most size ({seconds:g} s), got {step:g} s: an event between two windows would be in none",
            )
        return cls._of_event_time(Fixed("sliding", seconds, step, duration("offset", offset)), by, times)

    @classmethod
    def session(
        cls,
        gap: Duration,
        *,
        by: Callable[[Any], Any],
        longest: Duration | None = 86_400,
        **times: Unpack[EventTimeSettings],
    ) -> Self:
        """Returns windows of one key each, which end when the key has no event for *gap*.

        An event covers the time from its own until *gap* later. Events of a key that cover a common time are in one
        session. A session ends at the latest *longest* after its start (None: no limit); the next one follows directly.
        """
        seconds = positive("gap", gap)
        most = None if longest is None else positive("longest", longest)
        if most is not None and most < seconds:
            raise OptionsError(("longest",), f"expected at least gap ({seconds:g} s), got {most:g} s")
        return cls._of_event_time(Session(seconds, most), by, times)

    @classmethod
    def calendar(
        cls,
        unit: CalendarUnit,
        *,
        tz: str | ZoneInfo,
        by: Callable[[Any], Any],
        **times: Unpack[EventTimeSettings],
    ) -> Self:
        """Returns days, weeks (from Monday) or months of the time zone *tz*. A day may have 23 or 25 hours."""
        units = get_args(CalendarUnit)
        if unit not in units:
            hint = did_you_mean(str(unit), units)
            raise OptionsError(("unit",), f"expected 'day', 'week' or 'month', got {shown(unit)}{hint}")
        return cls._of_event_time(Calendar(unit, time_zone("tz", tz)), by, times)

    @classmethod
    def count(cls, n: int, **refused: Never) -> Self:
        """Returns windows of *n* events: of a stage in Flow, of a key in aggregators."""
        _refuse("count", refused)
        return cls(Count(positive_int("count", n)))

    @classmethod
    def global_(cls, **refused: Never) -> Self:
        """Returns one window that lasts until the end of the input."""
        _refuse("global", refused)
        return cls(Global())

    @classmethod
    def periodic(cls, interval: Duration, **refused: Never) -> Self:
        """Returns windows of *interval* by the clock. An event belongs to the one in which it arrives."""
        _refuse("periodic", refused)
        return cls(Periodic(positive("interval", interval)))

    @classmethod
    def _of_event_time(cls, shape: Shape, by: Callable[[Any], Any], times: EventTimeSettings) -> Self:
        if not callable(by):
            raise OptionsError(("by",), f"expected a function that returns the time of an event, got {article(by)}")
        known = EventTimeSettings.__annotations__
        for name in times:
            if name not in known:
                hint = did_you_mean(name, known)
                raise OptionsError((name,), f"unknown setting; known here: {', '.join(sorted(known))}{hint}")
        delay, ahead = times.get("delay", UNSET), times.get("max_ahead", UNSET)
        idle, hold = times.get("idle_timeout", UNSET), times.get("hold_timeout", UNSET)
        return cls(
            shape,
            by,
            delay if isinstance(delay, Unset) else not_negative("delay", delay),
            not_negative("lateness", times.get("lateness", 0)),
            ahead if ahead is None or isinstance(ahead, Unset) else not_negative("max_ahead", ahead),
            idle if idle is None or isinstance(idle, Unset) else positive("idle_timeout", idle),
            hold if isinstance(hold, Unset) else not_negative("hold_timeout", hold),
        )

    def trigger_every(self, n: int) -> Self:
        """Returns a copy that also fires after each *n* events of a window."""
        self._refuse_a_second("trigger_every")
        return replace(self, triggers=self.triggers._replace(every=positive_int("trigger_every", n)))

    def trigger_periodically(self, interval: Duration) -> Self:
        """Returns a copy that also fires each *interval*, for the windows that changed since they last fired."""
        seconds = positive("trigger_periodically", interval)
        return replace(self, triggers=self.triggers._replace(periodically=(*self.triggers.periodically, seconds)))

    def trigger_on_time(self) -> Self:
        """Returns a copy that also fires when the watermark passes the end of a window kept for ``lateness``."""
        if self.by is None:
            problem = f"a {self.kind} window has no event time, so no watermark passes its end"
            raise OptionsError(("trigger_on_time",), problem)
        return replace(self, triggers=self.triggers._replace(on_time=True))

    def trigger(self, init: Callable[[], Any], fn: Callable[[list[Any], Any], Any]) -> Self:
        """Returns a copy in which *fn* decides when a window fires.

        *fn* gets events of one window, in order, and the state that *init* made for this window. It returns one of:

        * ``("cont", state)``: the events go into the window;
        * ``("cont", events, state)``: these events go into the window instead;
        * ``("trigger", name, before, after, state)``: the events *before* go into the window, which then fires with
          the trigger *name*. Then *fn* gets the events *after*, if there are any.

        If it triggers twice in a row and *after* has not become shorter, the engine raises a ValueError.
        """
        self._refuse_a_second("trigger")
        for name, given in (("init", init), ("fn", fn)):
            if not callable(given):
                raise OptionsError(("trigger", name), f"expected a function, got {article(given)}")
        return replace(self, triggers=self.triggers._replace(custom=(init, fn)))

    def _refuse_a_second(self, name: str) -> None:
        if self.triggers.every is not None or self.triggers.custom is not None:
            other = "trigger" if self.triggers.every is None else f"trigger_every({self.triggers.every})"
            raise OptionsError((name,), f"this window already has {other}, and only one of the two kinds is possible")

    def in_flow(self) -> Self:
        """Returns a copy with Flow's defaults for the settings that were not given.

        Raises:
            OptionsError: a setting is only for aggregators.
        """
        if self.hold_timeout is not UNSET:
            problem = "only an aggregator has this setting: in a flow, no message holds the watermark back"
            raise OptionsError(("hold_timeout",), problem)
        return replace(
            self,
            delay=_given(self.delay, 0.0),
            max_ahead=_given(self.max_ahead, None),
            idle_timeout=_given(self.idle_timeout, None),
        )

    def in_aggregator(self) -> Self:
        """Returns a copy with the aggregators' defaults for the settings that were not given. It fires on time.

        Raises:
            OptionsError: ``delay`` is missing, or the window has a trigger function.
        """
        if self.triggers.custom is not None:
            raise OptionsError(
                ("trigger",), "only a flow can have a trigger function: an aggregator cannot store its state"
            )
        if self.by is None:
            return self
        if self.delay is UNSET:
            problem = "required, but missing: how long after its own time a message may still arrive, such as '10s'"
            raise OptionsError(("delay",), problem)
        return replace(
            self,
            max_ahead=_given(self.max_ahead, _AGGREGATOR_DEFAULT_S),
            idle_timeout=_given(self.idle_timeout, _AGGREGATOR_DEFAULT_S),
            hold_timeout=_given(self.hold_timeout, _AGGREGATOR_DEFAULT_S),
            triggers=self.triggers._replace(on_time=True),
        )


def _given(value: Any, default: float | None) -> Any:
    return default if value is UNSET else value


def _refuse(kind: str, settings: dict[str, Never]) -> None:
    for name in settings:
        if name == "by" or name in EventTimeSettings.__annotations__:
            raise OptionsError((name,), f"only a window of event time has this setting, and a {kind} window is none")
        raise OptionsError((name,), f"unknown setting of a {kind} window")
