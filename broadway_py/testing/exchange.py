"""Exchanges what a pipeline has in production for what it has in a test: producers, sinks, the file of its state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from broadway_py.aggregator import Aggregator
from broadway_py.errors import did_you_mean
from broadway_py.foreign import article
from broadway_py.message import Message
from broadway_py.pipeline.aggregator_options import checked_state
from broadway_py.pipeline.option_sources import named_producers
from broadway_py.producer_description import ProducerDescription
from broadway_py.producers import MemoryPublisher
from broadway_py.publisher import Outgoing, Sink
from broadway_py.testing.broker import Broker
from broadway_py.testing.broker_producer import BrokerProducer

__all__ = ["Exchange"]


class Published(dict[str, list[Outgoing]]):
    """What was published, in order: by the name of the publisher, or of the aggregator with ``emit_to``."""

    def __missing__(self, name: str) -> list[Outgoing]:
        known = ", ".join(map(repr, self)) or "none"
        raise KeyError(f"no publisher or aggregator {name!r} publishes; known: {known}{did_you_mean(name, self)}")


class Exchange:
    """What a harness has put into the place of the real things.

    Args:
        broker: the broker that the producers read.
        directory: where the file of the state is made.
    """

    def __init__(self, broker: Broker, directory: Path) -> None:
        #: What was published by name, in order.
        self.published = Published()
        self._broker = broker
        self._directory = directory
        # Queues whose messages are objects of this process, in production as well.
        self._of_objects: set[str] = set()

    def options(self, pipeline: Callable[..., Any], given: Mapping[str, Any], kept: frozenset[str]) -> dict[str, Any]:
        """Returns the arguments with which *pipeline* is called.

        Args:
            pipeline: the class, or a function that makes a pipeline.
            given: the arguments for it. What they leave out comes from the attributes of *pipeline*.
            kept: names of options that the test itself has given, so they stay as they are.
        """
        options = dict(given)

        def option(name: str) -> Any:
            return options[name] if name in options else getattr(pipeline, name, None)

        producers = option("producer")
        originals: Sequence[ProducerDescription | None] = [None]
        if producers is not None:
            originals = list(named_producers(producers).values())
        options["producer"] = [self._producer(original) for original in originals]
        aggregators = option("aggregators")
        if isinstance(aggregators, Mapping) and aggregators:
            options["aggregators"] = {name: self._aggregator(name, one) for name, one in aggregators.items()}
        publishers = option("publishers")
        if isinstance(publishers, Mapping) and publishers:
            options["publishers"] = {
                name: self._in_memory(name, one) if isinstance(one, Sink) else one for name, one in publishers.items()
            }
        state = option("state")
        if state is not None and "state" not in kept:
            checked = checked_state(state)
            if checked is not None and not checked.is_memory:
                options["state"] = checked.model_copy(update={"path": str(self._directory / "state")})
        return options

    def _producer(self, original: ProducerDescription | None) -> BrokerProducer:
        made = BrokerProducer(self._broker, original)
        if original is not None and not original.outlives_process:
            self._of_objects.add(made.queue)
        return made

    def _aggregator(self, name: str, given: Any) -> Any:
        if isinstance(given, Aggregator):
            made = copy.copy(given)
        elif isinstance(given, type) and issubclass(given, Aggregator) and not given.__abstractmethods__:
            made = given()
        else:
            return given  # the pipeline says what is wrong with it
        if (sink := made._given.get("emit_to", made.emit_to)) is not None:
            made._given = {**made._given, "emit_to": self._in_memory(name, sink)}
        return made

    def _in_memory(self, name: str, given: object) -> MemoryPublisher:
        made = given if isinstance(given, MemoryPublisher) else MemoryPublisher()
        self.published[name] = made.messages
        return made

    def payloads_of(self, queue: str, items: Sequence[Any]) -> list[Any]:
        """Returns the payloads of several messages.

        Raises:
            TypeError: *items* is no list, or has something that cannot be sent.
        """
        if isinstance(items, str | bytes | bytearray | memoryview) or not isinstance(items, Sequence):
            raise TypeError(
                f"send_batch: expected a list with the data of each message, got {article(items)}; for one message, "
                "use send"
            )
        return [self._payload_of(queue, item) for item in items]

    def _payload_of(self, queue: str, data: Any) -> Any:
        """Returns *data* as the messages of *queue* have it: bytes, or the object itself."""
        if isinstance(data, Message):
            raise TypeError(f"send: expected the data of a message, got {article(data)}; send message.data")
        if queue in self._of_objects or isinstance(data, bytes):
            return data
        if isinstance(data, bytearray | memoryview):
            return bytes(data)
        if isinstance(data, str):
            return data.encode()
        try:
            return to_json(data)
        except ValueError as error:
            raise TypeError(
                f"send: expected bytes, text, or what pydantic can write as JSON, got {article(data)}: {error}"
            ) from error
