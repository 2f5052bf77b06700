"""Decides whether a delivery came back from a delay queue of ours, so that its headers are our own. Pure.

Any publisher can write any header, also those of the broker (``x-death``). So this looks at the exchange by which the
message came, which the broker writes into each delivery.
"""

from __future__ import annotations

from collections.abc import Mapping

from broadway_py.producers.rabbitmq.topology.delay_queues import is_delay_queue, way_back

__all__ = ["BY_DEFAULT", "came_back"]

#: Stands for the default exchange, which is used if we may not have an exchange of our own.
BY_DEFAULT = ""


def came_back(exchange: str, routing_key: str, headers: Mapping[str, object], queue: str, back: str) -> bool:
    """Returns whether a delivery from *queue* came through a delay queue of ours.

    Args:
        exchange: the exchange by which it came, as the broker says.
        routing_key: its routing key, as the broker says.
        headers: the headers of the message.
        queue: the queue from which it was delivered.
        back: the exchange by which messages return to *queue*. :data:`BY_DEFAULT`: the default exchange, to which
            others may publish, too. Then the broker's record of the last death is also checked, but a publisher can
            write that as well.
    """
    if back != BY_DEFAULT:
        return exchange == back
    if exchange != BY_DEFAULT or routing_key != queue:
        return False
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    name = last.get("queue") if isinstance(last, dict) else None
    return isinstance(name, str) and is_delay_queue(name) and name.startswith(way_back(queue).removesuffix("back"))
