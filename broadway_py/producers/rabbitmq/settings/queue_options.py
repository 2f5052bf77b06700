"""The sections of a RabbitMQ producer's settings that say how its queue is declared, bound and consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from broadway_py.conflict import Conflict
from broadway_py.options import Options
from broadway_py.producers.rabbitmq.settings.arguments import Arguments, ConsumerArguments, ExchangeToBind, Name

__all__ = ["Binding", "ConsumeOptions", "DeclareOptions"]


class DeclareOptions(Options):
    """How ``declare: active`` declares the queue. If the queue exists already, these settings must match it."""

    #: The queue survives a restart of the broker.
    durable: bool = True
    #: The broker deletes the queue after its last consumer is gone.
    auto_delete: bool = False
    #: The queue belongs to this connection, and is deleted with it.
    exclusive: bool = False
    #: Arguments for the broker, such as ``x-queue-type: quorum``, ``x-max-priority``, ``x-single-active-consumer`` or
    #: ``x-dead-letter-exchange``.
    arguments: Arguments = Field(default_factory=dict)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        kind = self.arguments.get("x-queue-type")
        if kind == "stream":
            yield Conflict(
                ("arguments", "x-queue-type"),
                "streams are not supported, because they do not deliver again what a pause gives back; declare a queue",
                frozenset({"arguments"}),
            )
        if kind == "quorum":
            for name, wanted in (("durable", True), ("auto_delete", False), ("exclusive", False)):
                if getattr(self, name) is not wanted:
                    problem = f"a quorum queue needs {name}: {str(wanted).lower()}"
                    yield Conflict((name,), problem, frozenset({name, "arguments"}))


class Binding(Options):
    """Binds the queue to *exchange* with *routing_key*. This is done at each connect. The exchange must exist."""

    exchange: ExchangeToBind
    routing_key: Name = ""
    arguments: Arguments = Field(default_factory=dict)
    #: The queue to bind, if there are several. None: each of them.
    queue: str | None = None


class ConsumeOptions(Options):
    """How the queue is consumed."""

    #: Refuses any other consumer on the queue. While another one is there, connecting fails and is tried again.
    exclusive: bool = False
    #: The consumer's name at the broker. None: a generated one.
    consumer_tag: Name | None = None
    #: The broker serves consumers with a higher number first, while they have room. None: 0, the broker's default.
    priority: Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)] | None = None
    #: The broker regards a message as settled when it is handed out: at most once, and never delivered again.
    no_ack: bool = False
    #: Arguments for the broker, such as ``x-cancel-on-ha-failover``.
    arguments: ConsumerArguments = Field(default_factory=dict)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        if self.priority is not None and "x-priority" in self.arguments:
            yield Conflict(
                ("priority",),
                "give priority, or x-priority among the arguments, not both",
                frozenset({"priority", "arguments"}),
            )

    def all_arguments(self) -> dict[str, Any]:
        """Returns all arguments that are sent to the broker."""
        return self.arguments if self.priority is None else {**self.arguments, "x-priority": self.priority}
