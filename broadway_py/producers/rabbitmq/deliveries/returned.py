"""Whether a delivery has come back from a delay queue of ours, so that what its headers say of it is our own. Pure.

Whoever may publish can write any header, those of the broker's (``x-death``) included. So the way that it came decides,
which the broker writes into each delivery.
"""

from __future__ import annotations

from collections.abc import Mapping

from broadway_py.producers.rabbitmq.topology.delay_queues import is_delay_queue, way_back

__all__ = ["BY_DEFAULT", "came_back"]

#: In place of the exchange of our own, where we may not have one.
BY_DEFAULT = ""


def came_back(exchange: str, routing_key: str, headers: Mapping[str, object], queue: str, back: str) -> bool:
    """Whether a delivery from *queue* came through a delay queue of ours.

    Args:
        exchange: by which it came, as the broker says.
        routing_key: likewise.
        headers: of the message.
        queue: from which it was delivered.
        back: the exchange by which messages return to *queue*. :data:`BY_DEFAULT`: by the default exchange, to which
            others may publish, too. Then the broker's note of the last death is asked besides, which a publisher can
            write as well.
    """
    if back != BY_DEFAULT:
        return exchange == back
    if exchange != BY_DEFAULT or routing_key != queue:
        return False
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    name = last.get("queue") if isinstance(last, dict) else None
    return isinstance(name, str) and is_delay_queue(name) and name.startswith(way_back(queue).removesuffix("back"))
