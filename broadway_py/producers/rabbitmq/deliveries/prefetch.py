"""How many messages to have in advance when their bodies are large."""

from __future__ import annotations

import math
from typing import Final

from broadway_py.producers.rabbitmq.settings.options import AUTO_BYTES, RabbitMQOptions

__all__ = ["PrefetchGauge"]

#: The part of a new body in the running average.
_WEIGHT: Final = 0.05
#: A prefetch is changed when it is off by this factor: each change costs a new consumer.
_TOLERANCE: Final = 2.0


class PrefetchGauge:
    """Follows the sizes of bodies, and says when another prefetch is due. For ``prefetch_count: auto`` only.

    Args:
        options: of the producer.
        capacity: how many messages the pipeline can hold.
        mean_bytes: what earlier connections have seen; 0: nothing.
    """

    def __init__(self, options: RabbitMQOptions, capacity: int, mean_bytes: float = 0.0) -> None:
        self._options = options
        self._capacity = capacity
        self.mean_bytes = mean_bytes
        self.count = options.prefetch(capacity, mean_bytes)
        self._set_bounds()

    def see(self, size: int) -> int | None:
        """A body of *size* bytes has come; the prefetch to change to, or None to leave it."""
        mean = self.mean_bytes
        self.mean_bytes = mean = float(size) if mean == 0.0 else mean + (size - mean) * _WEIGHT
        return None if self._low <= mean <= self._high else self._change()

    def overrun(self, mean_bytes: float) -> int | None:
        """So many bytes have come that *mean_bytes* counts at once; the prefetch to change to, or None."""
        self.mean_bytes = max(self.mean_bytes, mean_bytes)
        return self._change()

    def resize(self, capacity: int) -> int | None:
        """The pipeline can hold *capacity* messages now; the prefetch to change to, or None."""
        self._capacity = capacity
        return self._change()

    def _change(self) -> int | None:
        count = self._options.prefetch(self._capacity, self.mean_bytes)
        if count == self.count:
            self._set_bounds()
            return None
        self.count = count
        self._set_bounds()
        return count

    def _set_bounds(self) -> None:
        """Between which averages the prefetch may stay as it is."""
        queues = len(self._options.queues)
        unlimited = self._options.prefetch(self._capacity)
        # Larger bodies than these, and twice the bytes would be there.
        self._high = _TOLERANCE * AUTO_BYTES / self.count / queues if self.count > 1 else math.inf
        self._low = AUTO_BYTES / (_TOLERANCE * self.count) / queues if self.count < unlimited else 0.0
