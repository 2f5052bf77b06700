"""How many entries one request holds, and when a failed one is tried again. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_ENTRIES", "retry_delay"]

#: The most entries that SQS accepts in one batch.
MOST_ENTRIES: Final = 10
#: The first and the largest ceiling of the delay before an entry is tried again, in seconds.
_FIRST_DELAY_S: Final = 0.2
_MOST_DELAY_S: Final = 5.0


def retry_delay(kind: str, tries: int, now: float, give_up_at: float, spread: float) -> float | None:
    """Returns the seconds until an entry that failed for the *tries*-th time is tried again; None: it is not.

    Args:
        kind: the trouble. What SQS refused, or no longer knows, is not tried again.
        tries: how often it was tried.
        now: the time.
        give_up_at: when it is too late, because others may have the message.
        spread: the jitter, from 0 to 1.
    """
    if kind not in ("away", "busy", "expired"):
        return None
    ceiling = min(_MOST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(tries - 1, 60))
    delay = ceiling * (1.0 + spread) / 2.0
    return delay if now + delay < give_up_at else None
