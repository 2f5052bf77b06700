"""What happens when a function of the user raises: it ends the flow, or its element is left out."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from sys import exception
from typing import Any, Final

from broadway_py.flow.description.settings import OnError
from broadway_py.flow.frames import Frame, Origin

__all__ = ["Failed", "OperatorError", "OperatorErrors", "errors_of_functions", "pass_cancellation_on"]

#: The most errors that one copy of a layer keeps.
_MOST_COLLECTED: Final = 10_000


def errors_of_functions(*, is_async: bool = False) -> tuple[type[BaseException], ...]:
    """Returns the types for an ``except`` around functions of the user, none of which may end a flow in silence.

    They are all types, so also those with which Python ends iterators, generators and programs. Only two errors are
    for the library: Ctrl-C in the main thread, because a person wants it, and in coroutines a cancellation that
    somebody asked for, or their own end.
    """
    error = exception()
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        return ()
    if is_async and isinstance(error, asyncio.CancelledError | GeneratorExit):
        try:
            task = asyncio.current_task()
        except RuntimeError:  # the loop has ended, and the coroutine is being closed
            return ()
        if task is None or (isinstance(error, asyncio.CancelledError) and task.cancelling()):
            return ()
    return (BaseException,)


def pass_cancellation_on() -> None:
    """Raises the cancellation of the current task again if a function of the user has caught it, and gone on."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """A function of the user has raised: which operator it belongs to, and at which element."""

    #: The label of the operator.
    operator: str
    error: BaseException
    #: The source element of the layer; None if the function does not work on one element.
    element: Any = None
    #: Where the list of the element stands in its source, and what the source calls its first element.
    origin: Origin | None = None
    first: Any = None
    #: The place of the element in this list, from 0. None: where the element stands is not known.
    index: int | None = None


class OperatorError(Exception):
    """A function of the user has raised, and the flow ends with it. The error of the function is the cause."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.operator)
        self.failed = failed


class OperatorErrors:
    """Raises the errors of operators, or counts the elements that are left out because of them.

    Args:
        on_error: which of the two.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        self.on_error = on_error
        #: How many elements were left out, by the label of the operator.
        self.skipped: dict[str, int] = {}
        #: The first errors, if they are kept.
        self.collected: list[Failed] = []
        #: The list that is worked on; None while the elements are not those of a list that came in.
        self.frame: Frame | None = None

    def element_failed(
        self, operator: str, error: BaseException, element: Any, *, index: int | None = None, count: int = 1
    ) -> None:
        """Notes that *operator* has failed on *element*, which *count* elements go with.

        Raises:
            OperatorError: the flow ends with it.
        """
        failed = Failed(operator, error, element)
        if self.frame is not None and index is not None:
            failed = replace(failed, origin=self.frame.origin, first=self.frame.first, index=index)
        if self.on_error == "raise":
            raise OperatorError(failed) from error
        self.skipped[operator] = self.skipped.get(operator, 0) + count
        if self.on_error == "collect" and len(self.collected) < _MOST_COLLECTED:
            self.collected.append(failed)
