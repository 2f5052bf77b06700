"""Demand between the stages of one event loop. The arithmetic is in ``_core``."""

from broadway_py.stage.links import Edge, Inlet, Outlet
from broadway_py.stage.waits import first_completed
from broadway_py.stage.wake import Wake

__all__ = ["Edge", "Inlet", "Outlet", "Wake", "first_completed"]
