"""GenStage for asyncio: stages that exchange events, at the pace at which consumers ask for them.

The pipelines of this library run on the same links (``Edge``, ``Inlet``, ``Outlet``, ``Wake``). The arithmetic of
demand is in ``_core``.

Most names are loaded when they are first used: a worker process of a flow uses few of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

# These modules have the names of their functions. So the functions must be here before somebody imports the modules.
from broadway_py.stage.stream import stream
from broadway_py.stage.subscribe import Subscription, subscribe

if TYPE_CHECKING:
    from broadway_py._core.dispatch import DROP, BroadcastDispatcher, DemandDispatcher, PartitionDispatcher
    from broadway_py._core.subscription import Cancellation
    from broadway_py.errors import StageDown
    from broadway_py.stage.consumer import ConsumerStage
    from broadway_py.stage.edge import Edge
    from broadway_py.stage.iterable import from_iterable
    from broadway_py.stage.links import Inlet, Outlet
    from broadway_py.stage.producer import ProducerStage
    from broadway_py.stage.producer_consumer import ProducerConsumerStage
    from broadway_py.stage.supervisor import ConsumerSupervisor
    from broadway_py.stage.waits import first_completed
    from broadway_py.stage.wake import Wake

__all__ = [
    "DROP",
    "BroadcastDispatcher",
    "Cancellation",
    "ConsumerStage",
    "ConsumerSupervisor",
    "DemandDispatcher",
    "Edge",
    "Inlet",
    "Outlet",
    "PartitionDispatcher",
    "ProducerConsumerStage",
    "ProducerStage",
    "StageDown",
    "Subscription",
    "Wake",
    "first_completed",
    "from_iterable",
    "stream",
    "subscribe",
]

_HOMES: Final = {
    "DROP": "broadway_py._core.dispatch",
    "BroadcastDispatcher": "broadway_py._core.dispatch",
    "Cancellation": "broadway_py._core.subscription",
    "ConsumerStage": "broadway_py.stage.consumer",
    "ConsumerSupervisor": "broadway_py.stage.supervisor",
    "DemandDispatcher": "broadway_py._core.dispatch",
    "Edge": "broadway_py.stage.edge",
    "Inlet": "broadway_py.stage.links",
    "Outlet": "broadway_py.stage.links",
    "PartitionDispatcher": "broadway_py._core.dispatch",
    "ProducerConsumerStage": "broadway_py.stage.producer_consumer",
    "ProducerStage": "broadway_py.stage.producer",
    "StageDown": "broadway_py.errors",
    "Wake": "broadway_py.stage.wake",
    "first_completed": "broadway_py.stage.waits",
    "from_iterable": "broadway_py.stage.iterable",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
