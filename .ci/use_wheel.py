"""Run in an empty environment with the wheel alone: everything is there, and nothing needs an extra that must not."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.resources import files
from pathlib import Path

import broadway_py

#: What needs an extra: the daemon and its metrics, the command, the RabbitMQ connector, an example with its own metric.
OF_EXTRAS = (
    "broadway_py.__main__",
    "broadway_py.cli",
    "broadway_py.daemon",
    "broadway_py.examples.shipments",
    "broadway_py.metrics",
    "broadway_py.producers.rabbitmq",
)

package = files("broadway_py")
if Path(broadway_py.__file__).is_relative_to(Path(sys.argv[1])):
    sys.exit(f"this is the checkout's broadway_py, not the wheel's: {broadway_py.__file__}")
for data in ("py.typed", "daemon/page/index.html"):
    if not package.joinpath(data).is_file():
        sys.exit(f"the wheel lacks broadway_py/{data}")
for name in set(broadway_py.__all__) - {"run"}:  # run is the daemon's
    getattr(broadway_py, name)
found = [module.name for module in pkgutil.walk_packages(broadway_py.__path__, "broadway_py.", onerror=lambda _: None)]
plain = [name for name in found if not name.startswith(OF_EXTRAS)]
for name in plain:
    importlib.import_module(name)
print(f"the wheel stands alone: {len(plain)} modules imported without an extra")
