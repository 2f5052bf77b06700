"""What an aggregator stores of its windows, so that they go on after a restart. All of it is plain values.

Times and lengths of event time are in microseconds, and moments of the clock are in seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from broadway_py._core.window.shape import Calendar, Fixed, Periodic, Shape
from broadway_py._core.window.times import TimeKind

__all__ = ["EngineMemory", "SavedKey", "SavedTicks", "SavedWindow", "WindowFacts", "result_id", "text_of_shape"]

#: A key of a shared window: the key, how many events it has, the number of its last firing, and whether it has news,
#: which means events since that firing. News are kept only where something still fires them.
SavedKey = tuple[Hashable, int, int, bool]
#: A timer by the clock: its start and its interval in seconds, and how many intervals have passed.
SavedTicks = tuple[float, float, int]

#: An id of a result is a message id, too. AMQP allows 255 bytes, and ``#<firing>`` follows.
_MOST_BYTES: Final = 200
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What a :class:`KeyedEngine` keeps apart from its open windows and its ended sessions. It is always small."""

    #: The kind of the windows and what decides about their bounds, as text.
    shape: str
    #: In microseconds since 1970; None while it is not known.
    watermark: int | None
    #: Windows that end here or earlier have closed, and do not open again; in microseconds since 1970.
    line: int | None
    #: The kind of the event times that came; None before the first one.
    times: TimeKind | None
    #: The serial number of the next window.
    serial: int
    #: The index of the next count window.
    index: int
    #: How many events were late, and how many were too far ahead of the wall clock.
    late: int
    ahead: int
    #: The timer of periodic windows; None for other kinds.
    window_ticks: SavedTicks | None
    #: The timers of ``trigger_periodically``.
    trigger_ticks: tuple[SavedTicks, ...]


class WindowFacts(NamedTuple):
    """An open window without its key or keys: plain values, in an order that does not change.

    Of a window that the keys share (fixed, sliding, calendar, periodic, global), the first four matter.
    """

    #: The bounds in microseconds; None for count windows and the global one.
    start: int | None
    end: int | None
    #: The number of a count window or a periodic window, from 0; else None.
    window_index: int | None
    #: The place of the window among all that were opened.
    serial: int
    #: The start of a session when it was opened, in microseconds; None for other kinds. Its start may move.
    first_start: int | None = None
    #: How many events it has, and how many of them came since the last count trigger.
    events: int = 0
    since_trigger: int = 0
    #: The number of its last firing.
    firing: int = 0
    #: True if events came since its last firing.
    has_news: bool = False
    #: The ids of the sessions that have fired and then went into this one.
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedWindow:
    """An open window, or a part of its keys."""

    facts: WindowFacts
    #: The key of a session or of a count window; else None.
    key: Hashable = None
    #: The keys of a shared window, or those of them that were asked for.
    keys: Sequence[SavedKey] = ()


def result_id(aggregator: str, key: str, window: str) -> str:
    """Returns the id that names the results of a window and a key for ever: at most 200 bytes of UTF-8.

    Args:
        aggregator: its name.
        key: the key as JSON.
        window: ``OpenWindow.id``, or one of ``Fire.replaces``.
    """
    readable = f"{aggregator}/{window}/{key}"
    encoded = readable.encode(errors="surrogatepass")
    if len(encoded) <= _MOST_BYTES and readable.isprintable():
        return readable
    return blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()


def text_of_shape(shape: Shape) -> str:
    """Returns what decides about the bounds of windows of this *shape*. Open windows go on only under the same text.

    Sessions and count windows keep the bounds that they have, so the text is their kind.
    """
    match shape:
        case Fixed(kind="fixed"):
            return f"fixed(size={shape.size!r}, offset={shape.offset!r})"
        case Fixed():
            return f"sliding(size={shape.size!r}, every={shape.every!r}, offset={shape.offset!r})"
        case Calendar():
            return f"calendar({shape.unit}, tz={shape.tz})"
        case Periodic():
            return f"periodic(interval={shape.interval!r})"
        case _:
            return shape.kind
