"""What is measured, and what a bar is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Bar", "Figure", "Program", "Row"]


@dataclass(frozen=True, slots=True)
class Program:
    """A module that is run in a fresh interpreter and prints one measurement."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    #: So many processes at once, each with all the messages; their rates are added.
    copies: int = 1
    #: The environment it runs in: ours, or that of a peer (see ``benchmarks.peers``).
    environment: str = "ours"
    #: Does one of so many messages, where all of them would take minutes; a rate is a rate.
    one_in: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work, and everybody who does it, in the order in which they take turns."""

    name: str
    title: str
    #: At scale 1: some seconds of work for ours.
    messages: int
    programs: tuple[Program, ...]
    #: Whose work is done once, four times and sixteen times as long, to see that a message's cost does not grow.
    growth: Program | None = None
    #: The smallest of the three: times the row's number of messages.
    growth_from: float = 0.25
    #: Its memory must not grow either, by more than a tenth.
    is_flat: bool = False
    needs_broker: bool = False
    #: Which broker that is.
    broker: Literal["rabbitmq", "sqs"] = "rabbitmq"
    #: RabbitMQ's kind of queue, and the size of the bodies in it.
    queue_type: str = "classic"
    body_bytes: int = 256
    #: The programs have the messages published while they run: the queue is empty before, too.
    is_offered: bool = False
    #: The programs publish: the queue is empty before, and has all messages afterwards.
    is_filled: bool = False


#: What a bar speaks of; each is better when it is more.
Figure = Literal[
    "rate",
    "messages_per_cpu_second",
    "messages_per_request",
    "messages_per_delete",
    "per_second_of_p99",
    "runs_per_minute",
    "processes_per_gib",
]


@dataclass(frozen=True, slots=True)
class Bar:
    """``ours`` must reach *at_least*: messages a second (or another figure), or times that of the program *over*.

    Attributes:
        when: ``now``: missing it fails ``make bars``; ``later``: measured, and met once its work is done; ``aim``: what
            we would like.
    """

    row: str
    at_least: float
    over: str | None = None
    ours: str = "ours"
    when: Literal["now", "later", "aim"] = "now"
    figure: Figure = "rate"
