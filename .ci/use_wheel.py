"""Run in an empty environment with the wheel alone: everything is there, and nothing needs an extra that must not."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import broadway_py

#: What needs an extra: the daemon and its metrics, the command, the connectors of brokers, traces, an example with its
#: metric, and the examples that use a part of it.
OF_EXTRAS = (
    "broadway_py.__main__",
    "broadway_py.cli",
    "broadway_py.daemon",
    "broadway_py.examples.arrivals",
    "broadway_py.examples.revenue",
    "broadway_py.examples.shipments",
    "broadway_py.metrics",
    "broadway_py.otel",
    "broadway_py.flow.running.runners.ray",  # Ray, and what is built on it
    "broadway_py.producers.hosts",  # by yarl, which all three of its users have
    "broadway_py.producers.rabbitmq",
    "broadway_py.producers.sqs",
    "broadway_py.testing.contract",  # by pytest, which whoever uses them has
    "broadway_py.testing.plugin",  # the same
)

package = files("broadway_py")
if Path(broadway_py.__file__).is_relative_to(Path(sys.argv[1])):
    sys.exit(f"this is the checkout's broadway_py, not the wheel's: {broadway_py.__file__}")
checkout = Path(sys.argv[1]) / "broadway_py"
templates = [str(file.relative_to(checkout)) for file in checkout.glob("cli/new_project/templates/**/*.in")]
for data in ("py.typed", "daemon/http/page/index.html", *templates):
    if not package.joinpath(data).is_file():
        sys.exit(f"the wheel lacks broadway_py/{data}")
# run is the daemon's, and what publishes to a broker imports its client library.
for name in set(broadway_py.__all__) - {"run", "RabbitMQPublisher", "RabbitMQSink", "SQSPublisher", "SQSSink"}:
    getattr(broadway_py, name)


def plain_modules(package_path: Iterable[str], prefix: str) -> Iterator[str]:
    """Every module that must do without an extra; the others are not even imported (the command leaves at once)."""
    for module in pkgutil.iter_modules(package_path, prefix):
        if not module.name.startswith(OF_EXTRAS):
            yield module.name
            imported = importlib.import_module(module.name)
            if module.ispkg:
                yield from plain_modules(imported.__path__, f"{module.name}.")


found = list(plain_modules(broadway_py.__path__, "broadway_py."))
print(f"the wheel stands alone: {len(found)} modules imported without an extra")
