"""A flow in which something goes wrong at a chosen point, and programs that run it. Workers import this module too."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

__all__ = ["ELEMENTS", "Fault", "main"]

#: How many elements the source has.
ELEMENTS: Final = 400


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when. Its methods are the functions of the flow."""

    #: What the process that gets to the point does: ``kill`` or ``stop`` (itself), ``_exit``, ``exit``, ``block``, or
    #: nothing but to make the file: ``tell``.
    what: str
    point: str
    #: A file that does not exist: only the first who gets to the point makes it. It has the process in it.
    flag: Path

    def at(self, point: str) -> None:
        """Goes wrong if this is the place."""
        if point != self.point or self.flag.exists():
            return
        # It is there with all that is in it.
        written = self.flag.with_suffix(f".{os.getpid()}")
        written.write_text(str(os.getpid()))
        try:
            os.link(written, self.flag)
        except FileExistsError:
            return
        match self.what:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "_exit":
                os._exit(3)
            case "exit":
                sys.exit(3)
            case "block":
                threading.Event().wait()

    def flow(self, *, endless: bool = False, **settings: Any) -> Any:
        """Returns the flow: it exchanges lists between workers, and slow results leave it."""
        from broadway_py import Flow  # noqa: PLC0415  # what comes from the program of a test needs no more

        numbers = count() if endless else islice(count(), ELEMENTS)
        return (
            Flow.from_iterable(numbers, stages=2, max_demand=4, on_init=self.started)
            .map(self.mapped)
            .partition(stages=2, max_demand=4, key=_number)
            .emit_and_reduce(int, self.reduced)
            .on_trigger(self.ended)
            .using("ray", **{"workers": 2, **settings})
        )

    def started(self, _index: int, _stages: int) -> None:
        self.at("start")

    def mapped(self, number: int) -> Any:
        if number == 0:
            self.at("first")
        if number == ELEMENTS // 2:
            self.at("middle")
        return Sent(number, self)

    def reduced(self, total: int, sent: Sent) -> tuple[list[int], int]:
        if sent.number == ELEMENTS - 1:
            self.at("reduced")
        return [sent.number], total + 1

    def ended(self, total: int) -> tuple[list[Sent], int]:
        return [Sent(total, self)], total


class Sent:
    """An element that goes from one worker to another one, or is the last result of one."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault

    def __reduce__(self) -> Any:
        if self.number < ELEMENTS:
            self.fault.at("exchange")
        return Sent, (self.number, self.fault)


def _number(sent: Sent) -> int:
    return sent.number


# --- programs


def _connecting(fault: Fault) -> None:
    """Has the program tell when it begins to connect, and when its workers were asked for."""
    from broadway_py.flow.running.runners import ray as runner  # noqa: PLC0415  # only programs need it
    from broadway_py.flow.running.runners import ray_cluster  # noqa: PLC0415  # the same

    for of, name, point in (
        (ray_cluster.Connected, "_init", "connecting"),
        (runner.RayWorkers, "_answers", "placing"),
        (runner.RayWorkers, "close", "closing"),
    ):
        original = getattr(of, name)

        def told(*given: Any, original: Any = original, point: str = point) -> Any:
            if fault.point == point and not fault.flag.exists():
                fault.flag.write_text(str(os.getpid()))
            return original(*given)

        setattr(of, name, told)


def _read(fault: Fault, settings: dict[str, Any]) -> Iterator[str]:
    try:
        found = fault.flow(**settings).to_list()
    except BaseException as error:  # noqa: BLE001  # the test says which it must be
        yield f"{type(error).__name__}: {error}"
    else:
        yield str(len(found))


def main() -> None:
    """Runs flows: each line of the arguments has the fault and the settings of one."""
    for line in sys.argv[1:]:
        case = json.loads(line)
        fault = Fault(case["what"], case["point"], Path(case["flag"]))
        _connecting(fault)
        for told in _read(fault, case.get("settings", {})):
            print(told, flush=True)


if __name__ == "__main__":
    main()
