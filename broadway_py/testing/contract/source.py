"""The other side of a source: how a test fills and counts it, without the producer that is tested."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

from broadway_py.producer_description import AnyProducer
from broadway_py.testing.driving import until_equal

__all__ = ["SourceUnderTest"]


class SourceUnderTest(abc.ABC):
    """One source, empty at first. It is filled and counted from outside, never through the producer.

    A source that another process may read defines :meth:`elsewhere`. If it counts with a delay, its counts are looked
    at again for 15 s.
    """

    #: False: messages cannot be given back without a decision. Then these tests are skipped.
    can_release: bool = True
    #: False: the source hands each message out once, whatever becomes of it. Then these tests are skipped.
    redelivers: bool = True
    #: A part of the credentials in the producer's settings, which no ``repr`` may show; None: there are none.
    secret: str | None = None
    #: Seconds after which the source delivers again what a killed process held.
    returns_within: float = 0.0

    @abc.abstractmethod
    async def publish(self, bodies: Sequence[bytes]) -> None:
        """Puts *bodies* in, in order. It returns when the source has them."""

    @abc.abstractmethod
    def producer(self) -> AnyProducer:
        """Returns a new producer, or description of one, that reads this source."""

    @abc.abstractmethod
    async def ready_count(self) -> int:
        """Returns how many messages wait to be handed out."""

    @abc.abstractmethod
    async def held_count(self) -> int:
        """Returns how many messages are handed out (to a producer, or on to the pipeline) and not settled."""

    @abc.abstractmethod
    async def rejected_count(self) -> int:
        """Returns how many messages were settled as failed: in the dead letters, or wherever the source puts them."""

    def elsewhere(self) -> Callable[[], AnyProducer] | None:
        """Returns a function that makes the producer in another process, which the suite kills.

        The function is pickled, so it must be importable there: ``functools.partial(MyProducer, self.path)``. None: no
        other process can read this source.
        """
        return None

    async def expect(self, **counts: int) -> None:
        """Waits until the counts are as given: ``await source.expect(ready=3, held=0)``."""

        async def look() -> dict[str, int]:
            return {name: await getattr(self, f"{name}_count")() for name in counts}

        await until_equal(look, counts, "the source counts")
