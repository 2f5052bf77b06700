"""Sets Python's garbage collector for a process in which very many objects come and go."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["importing", "quieten_collector"]

#: New objects are looked at after so many were made and not freed, and young ones after so many of these passes. An
#: aggregator holds its messages until the next checkpoint. If these are fewer objects, no pass visits them.
_NEW: Final = 50_000
_YOUNG: Final = 3
#: All objects are looked at after so many passes over young ones: usually, and while the collector has much to free.
_SELDOM: Final = 100
_OFTEN: Final = 20
#: If a pass over young objects frees so many, the collector has much to free.
_MUCH: Final = 1_000


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Stops the garbage collector while the block imports modules, and makes it leave out what they consist of.

    Modules stay. By default the collector would walk over them again and again while they are loaded, which costs a
    tenth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def quieten_collector() -> None:
    """Makes the garbage collector run less often and leave out the objects that exist now.

    Messages are freed by their reference counts. By default the collector would walk over every module and setting
    again after each 700 messages, which costs a fifth of the time per message.

    A message that fails with an error is an exception: the frames of the error refer to it, so only the collector frees
    it. So all objects are looked at more often while young ones are found that only the collector frees. A look at all
    of them holds the event loop, with a million open windows for some tenths of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW, _YOUNG, _SELDOM)
    if _adapt not in gc.callbacks:
        gc.callbacks.append(_adapt)


def _adapt(phase: str, info: Mapping[str, int]) -> None:
    """Sets how often all objects are looked at. The collector calls it at the begin and at the end of each pass."""
    if phase == "stop" and info["generation"] == 1:
        gc.set_threshold(_NEW, _YOUNG, _OFTEN if info["collected"] >= _MUCH else _SELDOM)
