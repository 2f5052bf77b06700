"""Flow: map, partition, window and reduce over lists, files and streams.

Names are loaded when they are first used: a worker process of a flow uses other modules of this package, and few.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broadway_py._core.window.effects import SideOutput
    from broadway_py._core.window.firing import Firing
    from broadway_py._core.window.spec import Window
    from broadway_py.flow.flow import Flow
    from broadway_py.flow.report import FlowReport
    from broadway_py.flow.running.run import RunningFlow

__all__ = ["Firing", "Flow", "FlowReport", "RunningFlow", "SideOutput", "Window"]

_HOMES: Final = {
    "Firing": "broadway_py._core.window.firing",
    "Flow": "broadway_py.flow.flow",
    "FlowReport": "broadway_py.flow.report",
    "RunningFlow": "broadway_py.flow.running.run",
    "SideOutput": "broadway_py._core.window.effects",
    "Window": "broadway_py._core.window.spec",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
