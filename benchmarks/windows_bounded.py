"""Does the memory of windows stay flat? ``python -m benchmarks.windows_bounded KIND``: an endless stream of new keys.

Prints the rate, and the memory (resident, in MiB) after a quarter of the events and at the end. Fails when it has grown
by more than 3 MiB in between.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.bounded import resident_mib
from broadway_py._core.window.effects import Fire
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.spec import Window

_MOST_GROWTH_MIB: Final = 3.0
_LIST: Final = 1_000
_A_SECOND: Final = 1_000


def time_of(key: int) -> float:
    """Each event is its own key."""
    return key / _A_SECOND


_KINDS: Final[dict[str, Callable[[], Window]]] = {
    "session": lambda: Window.session(10, by=time_of),
    "sliding": lambda: Window.sliding(10, 1, by=time_of, lateness=5),
    "fixed": lambda: Window.fixed(10, by=time_of, lateness=5).trigger_on_time(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(_KINDS))
    parser.add_argument("--keys", type=int, default=10_000_000, help="how many keys, with one event each (10 million)")
    asked: Any = parser.parse_args()
    engine = Engine(_KINDS[asked.kind](), 0.0)
    engine.join("source", 0.0)
    early, fired, begin = 0.0, 0, time.monotonic()
    for first in range(0, asked.keys, _LIST):
        stamped = engine.read(range(first, first + _LIST))
        stamped.keys = stamped.events
        fired += sum(isinstance(effect, Fire) for effect in engine.feed(stamped, 0.0, upstream="source"))
        if first <= asked.keys / 4:
            early = resident_mib()
    seconds, late = time.monotonic() - begin, resident_mib()
    print(
        f"{asked.kind}: {asked.keys / seconds:,.0f} events/s, {fired:,} firings; {early:.1f} MiB after a quarter, "
        f"{late:.1f} MiB after {asked.keys:,} keys"
    )
    if late - early > _MOST_GROWTH_MIB:
        raise SystemExit(f"{asked.kind}: memory has grown by {late - early:.1f} MiB")


if __name__ == "__main__":
    main()
