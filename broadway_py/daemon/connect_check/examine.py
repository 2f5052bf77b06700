"""Examines all places at the same time, each step with a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from broadway_py.daemon.connect_check.places import Place
from broadway_py.daemon.settings.files import SettingPath
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.examination import Finding

__all__ = ["Examination", "Found", "examine_all"]

#: The most places that are examined at the same time.
_AT_ONCE: Final = 20
#: The most steps between two findings of a place, and seconds to end its connection. A place keeps its deadlines
#: itself; one that does not is given up after so many of them.
_STEPS: Final = 4
_ENDING_S: Final = 5.0


class Found(NamedTuple):
    """What was found out about one setting."""

    path: SettingPath
    finding: Finding


async def examine_all(places: Sequence[Place], timeout: float) -> list[Found]:
    """Returns everything that is found out about *places*, in their order. *timeout*: seconds for each step."""
    found: list[list[Finding]] = [[] for _ in places]
    turns = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for place, findings in zip(places, found, strict=True):
            tasks.create_task(_examine(place, timeout, turns, findings))
    return [
        Found((*place.path, *finding.setting), finding)
        for place, findings in zip(places, found, strict=True)
        for finding in findings
    ]


async def _examine(place: Place, timeout: float, turns: asyncio.Semaphore, found: list[Finding]) -> None:
    most_s = _STEPS * timeout + _ENDING_S
    async with turns:
        try:
            async with aclosing(place.examine(timeout)) as findings:
                while True:
                    async with asyncio.timeout(most_s):
                        finding = await anext(findings, None)
                    if finding is None:
                        return
                    found.append(finding)
        except TimeoutError:
            found.append(Finding("away", f"nothing more was found out within {most_s:g} s; check the network"))
        except SourceRefused as refused:
            found.append(Finding("wrong", str(refused)))
        except ProducerError as away:
            found.append(Finding("away", str(away)))
        except Exception as error:  # noqa: BLE001  # a plug-in's own error must not hide what others have found
            # Its text is not shown, because it may hold secrets.
            said = f"its examine() raised {name_of(error)} at {place_of(error)}; report it to its author"
            found.append(Finding("wrong", said))


class Examination:
    """Runs :func:`examine_all` in a thread, so that the caller can leave it at any time.

    A look-up of a host name cannot be cancelled, and would hold up the end of an event loop.
    """

    def __init__(self, places: Sequence[Place], timeout: float) -> None:
        self._places = places
        self._timeout = timeout
        self._is_over = threading.Event()
        self._found: list[Found] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="broadway-check", daemon=True)

    def found(self) -> list[Found]:
        """Runs it, and returns what was found out."""
        self._thread.start()
        self._is_over.wait()
        if self._error is not None:
            raise self._error
        return self._found

    def has_ended(self, seconds: float) -> bool:
        """Returns whether its thread ends within *seconds*. If not, something in it cannot be cancelled."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._until_found())
        except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
            self._error = error
        finally:
            self._is_over.set()

    async def _until_found(self) -> None:
        self._found = await examine_all(self._places, self._timeout)
        self._is_over.set()
