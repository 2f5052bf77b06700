"""GenStage for asyncio: stages that exchange events, at the pace at which consumers ask for them.

The pipelines of this library run on the same links (``Edge``, ``Inlet``, ``Outlet``, ``Wake``). The arithmetic of
demand is in ``_core``.
"""

from broadway_py._core.dispatch import DROP, BroadcastDispatcher, DemandDispatcher, PartitionDispatcher
from broadway_py._core.subscription import Cancellation
from broadway_py.errors import StageDown
from broadway_py.stage.consumer import ConsumerStage
from broadway_py.stage.edge import Edge
from broadway_py.stage.iterable import from_iterable
from broadway_py.stage.links import Inlet, Outlet
from broadway_py.stage.producer import ProducerStage
from broadway_py.stage.producer_consumer import ProducerConsumerStage
from broadway_py.stage.stream import stream
from broadway_py.stage.subscribe import Subscription, subscribe
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
