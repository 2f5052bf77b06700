"""The producer that users name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.message import Message
from broadway_py.producer import Producer
from broadway_py.producers.rabbitmq.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.quiet import hush
from broadway_py.producers.rabbitmq.session import Session

__all__ = ["RabbitMQProducer"]


class RabbitMQProducer(Producer):
    """Consumes a RabbitMQ queue.

    ::

        RabbitMQProducer("orders", "amqp://guest:guest@127.0.0.1/", on_failure="reject_and_requeue_once")

    Each copy has a connection, a channel and a consumer of its own. Whatever goes wrong with them is reported to the
    pipeline, which opens a fresh copy with back-off; messages of the old one can then no longer be settled, and the
    broker delivers them again.

    Args:
        queue: name of the queue.
        url: where the broker is; ``amqp://guest:guest@127.0.0.1/`` when left out.
        settings: any other field of :class:`RabbitMQOptions`.

    Raises:
        OptionsError: a setting is wrong or unknown.
    """

    def __init__(self, queue: str | None = None, url: str | None = None, **settings: Any) -> None:
        given = {"queue": queue, "url": url}
        settings.update((name, value) for name, value in given.items() if value is not None)
        self.options = RabbitMQOptions(**settings)
        self.name = self.options.name
        self.concurrency = self.options.concurrency
        self._session: Session | None = None
        self._paused = False

    async def open(self) -> None:
        """Connect, look for the queue, and consume.

        Raises:
            SourceRefused: the broker refused the login, the virtual host or the queue.
            ProducerError: the broker is away, or the queue is.
        """
        hush()
        self._session = Session(self.options, prefetch=self.options.prefetch(self.capacity), lost=self.lost)
        await self._session.open(self._connection_name())

    def _connection_name(self) -> str:
        return self.options.connection_name or f"{self.pipeline}.{self.name or 'rabbitmq'}.{self.index}"

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]]:
        """Return what has come, at most *demand*; wait for the first message.

        Raises:
            ProducerError: the connection, the channel or the consumer is gone.
        """
        session = self._opened()
        while True:
            if session.trouble is not None:
                raise session.trouble
            if self.draining.is_set():
                return []
            if not self._paused and (messages := session.take(demand)):
                return messages
            session.changed.clear()
            await session.changed.wait()

    def begin_draining(self) -> None:
        """Also ends a waiting :meth:`handle_demand`."""
        super().begin_draining()
        if self._session is not None:
            self._session.changed.set()

    async def pause(self) -> None:
        """Cancel the consumer and requeue what was not handed over."""
        self._paused = True
        await self._opened().stop_consuming()

    async def resume(self) -> None:
        """Consume again."""
        self._paused = False
        session = self._opened()
        await session.consume_again()
        session.changed.set()

    async def prepare_for_draining(self) -> None:
        """Cancel the consumer and requeue what was not handed over."""
        if self._session is not None:
            await self._session.stop_consuming()

    async def close(self) -> None:
        """Write the last settlements and close the connection, in a few seconds at most."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError(f"{self!r} is a description: the pipeline opens a copy of it")
        return self._session
