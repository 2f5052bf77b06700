"""Gives what leaves a flow to running stages: ``into_stages``, and the first half of ``through_stages``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broadway_py.errors import FlowFailed
from broadway_py.flow.operator_errors import errors_of_functions
from broadway_py.flow.stages.flow_exit import FlowExit
from broadway_py.flow.stages.running_stage import check_running
from broadway_py.stage import ProducerStage, Wake
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.settings import SubscriptionOptions
from broadway_py.stage.subscribe import connect

__all__ = ["give"]


class _Giver(ProducerStage[Any]):
    """Emits the elements of lists. It stands for the flow at the other end of the subscriptions."""

    name = "flow"

    def __init__(self, changed: Wake) -> None:
        # It is given a list only while its consumers want events, so no more than one list waits.
        super().__init__(buffer_size=None)
        self._changed = changed

    def handle_demand(self, demand: int) -> list[Any]:
        self._changed.set()
        return []

    def _consumer_left(self) -> None:
        self._changed.set()

    def finish(self) -> None:
        """Ends when the consumers have taken what was emitted."""
        self._is_ending = True
        self._wake.set()


async def give(
    exit_: FlowExit, consumers: Iterable[tuple[ConsumingStage[Any], SubscriptionOptions]], *, operator: str
) -> None:
    """Gives the elements that leave at *exit_* to *consumers*, until there are none, or all consumers have left.

    Raises:
        FlowFailed: a consumer had not started, or had ended before; *operator* names the call.
    """
    try:
        async with _Giver(exit_.wake) as giver:
            outlet = giver.outlet
            for consumer, options in consumers:
                try:
                    check_running(consumer)
                    connect(consumer, giver, options)
                except errors_of_functions() as error:
                    raise FlowFailed(operator, error) from error
            while outlet.edges:
                if outlet.demand > 0 and (taken := exit_.take()) is not None:
                    elements, edge = taken
                    giver.emit(elements)
                    edge.ask(1)
                elif exit_.has_ended:
                    giver.finish()
                    await giver.wait()
                    return
                else:
                    await exit_.wake.wait()
    finally:
        exit_.leave()
