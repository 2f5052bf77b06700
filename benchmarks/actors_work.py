"""What actors are asked, by Ray and by Dask alike: the messages, the calls, and how many of them are open at once.

Only the standard library is imported here: the programs run in environments of their own.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

__all__ = ["WORKS", "Message", "Tally", "arguments_of", "call_all", "check", "method_of"]

Message = dict[str, Any]
F = TypeVar("F")

#: How many messages a call has, and how many calls are open at once. A runner keeps so many open for each edge, because
#: Ray queues calls without a limit.
WORKS: Final = {"alone": (1, 1), "calls": (1, 100), "lists": (500, 100), "frames": (500, 100)}


class Tally:
    """The actor. It counts messages and adds up their numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def add(self, messages: list[Message]) -> None:
        """Counts *messages*."""
        self.count += len(messages)
        self.total += sum(message["number"] for message in messages)

    def add_frame(self, frame: bytes) -> None:
        """Counts the messages of *frame*, which the caller has pickled, as Flow does it."""
        self.add(pickle.loads(frame))  # noqa: S301  # from the other end of this program

    def told(self) -> tuple[int, int]:
        """Returns how many messages there were, and the sum of their numbers."""
        return self.count, self.total


def method_of(work: str) -> str:
    """The method that is called."""
    return "add_frame" if work == "frames" else "add"


def arguments_of(work: str, messages: int) -> Iterator[list[Message] | bytes]:
    """What each call gets: the same messages again and again, because making them is not what is measured."""
    size, _ = WORKS[work]
    whole = [{"number": number, "key": f"customer-{number}", "amount": number % 97} for number in range(size)]
    for begin in range(0, messages, size):
        part = whole if begin + size <= messages else whole[: messages - begin]
        yield pickle.dumps(part, pickle.HIGHEST_PROTOCOL) if work == "frames" else part


def call_all(
    work: str,
    call: Callable[[list[Message] | bytes], F],
    wait: Callable[[F], object],
    arguments: Iterable[list[Message] | bytes],
) -> None:
    """Make a call for each of *arguments*. When enough are open, the oldest is waited for."""
    _, most_open = WORKS[work]
    begun: deque[F] = deque()
    for argument in arguments:
        if len(begun) >= most_open:
            wait(begun.popleft())
        begun.append(call(argument))
    while begun:
        wait(begun.popleft())


def check(work: str, told: tuple[int, int], messages: int) -> None:
    """Raises RuntimeError unless the actor has had each message once."""
    size, _ = WORKS[work]
    calls, rest = divmod(messages, size)
    expected = messages, calls * sum(range(size)) + sum(range(rest))
    if told != expected:
        raise RuntimeError(f"expected {expected[0]} messages with the sum {expected[1]}, the actor had {told}")
