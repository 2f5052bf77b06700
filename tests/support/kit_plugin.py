"""How a pytest that a test starts gets the plug-in of the test kit."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

#: Nothing, where the package was installed with this entry point: pytest refuses to load a plug-in twice.
LOAD_PLUGIN: Final[tuple[str, ...]] = (
    ()
    if any(point.value == "broadway_py.testing.plugin" for point in entry_points(group="pytest11"))
    else ("-p", "broadway_py.testing.plugin")
)
