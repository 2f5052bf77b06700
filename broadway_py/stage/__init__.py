"""Demand between stages of one event loop, on the arithmetic of ``_core``."""

from broadway_py.stage.links import Edge, Inlet, Outlet
from broadway_py.stage.wake import Wake

__all__ = ["Edge", "Inlet", "Outlet", "Wake"]
