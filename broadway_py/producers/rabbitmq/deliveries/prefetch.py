"""Chooses a smaller prefetch when bodies are large."""

from __future__ import annotations

import math
from typing import Final

from broadway_py.producers.rabbitmq.settings.options import AUTO_BYTES, RabbitMQOptions

__all__ = ["PrefetchGauge"]

#: The weight of a new body in the running average.
_WEIGHT: Final = 0.05
#: The prefetch is changed when it is wrong by this factor. Each change costs a new consumer.
_TOLERANCE: Final = 2.0


class PrefetchGauge:
    """Follows the sizes of bodies, and tells when to change the prefetch. For ``prefetch_count: auto`` only.

    Args:
        options: the producer's settings.
        capacity: how many messages the pipeline can hold.
        mean_bytes: the average that earlier connections have found; 0: none.
    """

    def __init__(self, options: RabbitMQOptions, capacity: int, mean_bytes: float = 0.0) -> None:
        self._options = options
        self._capacity = capacity
        self.mean_bytes = mean_bytes
        self.count = options.prefetch(capacity, mean_bytes)
        self._set_bounds()

    def see(self, size: int) -> int | None:
        """Counts a body of *size* bytes. Returns the prefetch to change to; None: keep it."""
        mean = self.mean_bytes
        self.mean_bytes = mean = float(size) if mean == 0.0 else mean + (size - mean) * _WEIGHT
        return None if self._low <= mean <= self._high else self._change()

    def overrun(self, mean_bytes: float) -> int | None:
        """Uses *mean_bytes* at once if it is the larger average. Returns the prefetch to change to; None: keep it.

        Called when the buffer holds too many bytes.
        """
        self.mean_bytes = max(self.mean_bytes, mean_bytes)
        return self._change()

    def resize(self, capacity: int) -> int | None:
        """Takes the new *capacity* of the pipeline, in messages. Returns the prefetch to change to; None: keep it."""
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
        """Sets the averages between which the prefetch stays as it is."""
        queues = len(self._options.queues)
        unlimited = self._options.prefetch(self._capacity)
        # With bodies larger than these, the buffer would hold twice the allowed bytes.
        self._high = _TOLERANCE * AUTO_BYTES / self.count / queues if self.count > 1 else math.inf
        self._low = AUTO_BYTES / (_TOLERANCE * self.count) / queues if self.count < unlimited else 0.0
