"""Puts dead letters back that a client of the HTTP port asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.daemon.dead_letters.letters import Choice, PartlyReplayed, id_lists
from broadway_py.daemon.dead_letters.places import Place, of_settings
from broadway_py.daemon.reload.resolved import name_of
from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import BroadwayError, OptionsError, did_you_mean
from broadway_py.pipeline.option_sources import named_producers
from broadway_py.producers.kinds import arguments, build_all
from broadway_py.written import opened

__all__ = ["Replays"]

# In seconds: after how long no new portion is begun, and after how long a portion that hangs is given up. A client of
# the HTTP port waits half a minute.
_ENOUGH_S: Final = 10.0
_HANGS_S: Final = 20.0
_PORTION: Final = 100


class Replays:
    """Puts dead letters of the pipelines back into the queues in which they failed. Only one call is at work at a time.

    Args:
        settings: returns the settings as they are now.
    """

    def __init__(self, settings: Callable[[], Settings], clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._is_at_work = False

    async def replay(self, pipeline: str, producer: str | None, most: int) -> tuple[int, str | None]:
        """Puts back the oldest dead letters, at most *most* of them. A letter is removed only after it is safely back.

        Args:
            pipeline: the name of the pipeline.
            producer: the name of one of its producers. None: all of them.
            most: the most letters.

        Returns:
            How many were put back, and why the others could not be. None: there are no more, or *most* were put back,
            or ten seconds are over.

        Raises:
            OptionsError: there is no such producer, its dead letters cannot be read here, or another call is at work.
        """
        places = _places(self._settings(), pipeline, producer)
        if self._is_at_work:
            raise OptionsError((), "dead letters are being put back for another request; try again when that has ended")
        self._is_at_work = True
        try:
            return await self._replay(places, most)
        finally:
            self._is_at_work = False

    async def _replay(self, places: Sequence[Place], most: int) -> tuple[int, str | None]:
        moved = 0
        enough = self._clock.monotonic() + _ENOUGH_S
        try:
            async with self._clock.timeout(_HANGS_S):
                for place in places:
                    async with (
                        place() as letters,
                        aclosing(id_lists(letters, Choice(limit=most - moved), _PORTION)) as lists,
                    ):
                        async for ids in lists:
                            if self._clock.monotonic() >= enough:
                                return moved, None
                            moved += await letters.replay(ids)
                    if moved >= most:
                        break
        except PartlyReplayed as partly:
            return moved + partly.moved, str(partly)
        except BroadwayError as failed:
            return moved, str(failed)
        except TimeoutError:
            return moved, (
                f"the queue did not answer within {_HANGS_S:.0f} s; some letters may be back in their queue and still "
                "be dead letters, too"
            )
        return moved, None


def _places(settings: Settings, pipeline: str, producer: str | None) -> list[Place]:
    """Returns where the dead letters of *producer*, or of all producers, of *pipeline* are.

    Raises:
        OptionsError: there is no such producer, or its dead letters cannot be read here.
    """
    # A reload may have removed the pipeline a moment ago.
    key = next((key for key, section in settings.pipelines.items() if name_of(key, section) == pipeline), None)
    given = None if key is None else opened(settings.pipelines[key].get("producer"))
    if key is None or given is None:
        raise OptionsError(
            (), "its producer is not in the settings, but in the code; use broadway dlq with --queue or --url"
        )
    sections = given if isinstance(given, list) else [given]
    named = dict(zip(named_producers(build_all(given, ("pipelines", key, "producer"))), sections, strict=True))
    if producer is not None:
        # All partitions of a producer share one place. They are called after it, with a number.
        whole = producer if producer in named else producer.rpartition(".")[0]
        if whole not in named:
            raise OptionsError(
                (), f"there is no producer {producer!r}; known here: {', '.join(named)}{did_you_mean(producer, named)}"
            )
        sections = [named[whole]]
    return [place for section in sections for place in _places_of(settings, key, section)]


def _places_of(settings: Settings, key: str, section: object) -> Iterator[Place]:
    """Yields where the dead letters of the producer in *section* are: once, or for each of its queues."""
    alone = replace(settings, pipelines={key: {**settings.pipelines[key], "producer": section}})
    _, fields = arguments(section, ("pipelines", key, "producer"))
    queues = fields.get("queue")
    try:
        yield of_settings(alone, key, None)
    except OptionsError:
        if not isinstance(queues, list) or len(queues) < 2:
            raise
        for queue in queues:
            yield of_settings(alone, key, str(queue))
