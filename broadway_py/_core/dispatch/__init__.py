"""Dispatchers decide which consumer gets which events: by demand, by partition, or all events to all consumers."""

from broadway_py._core.dispatch.broadcast import BroadcastDispatcher
from broadway_py._core.dispatch.demand import DemandDispatcher
from broadway_py._core.dispatch.partition import DROP, PartitionDispatcher
from broadway_py._core.dispatch.port import Delivery, Dispatched, Dispatcher

__all__ = [
    "DROP",
    "BroadcastDispatcher",
    "Delivery",
    "DemandDispatcher",
    "Dispatched",
    "Dispatcher",
    "PartitionDispatcher",
]
