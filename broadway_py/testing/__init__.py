"""What tests of pipelines need: a broker in memory that redelivers, and a clock that moves only when the test moves it.

::

    async with harness(Orders) as h:
        await h.send({"number": 1}, id="a")
        assert h.outcomes["a"] == "acked"

``broadway_py.testing.contract`` has the suite that every producer must pass, and ``broadway_py.testing.plugin`` the
fixture ``broadway``. They need pytest; the other modules do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broadway_py.testing.clock import FakeClock
    from broadway_py.testing.clock import settle as settle  # for our own tests
    from broadway_py.testing.harnesses import Harnesses
    from broadway_py.testing.outcomes import DeadLetter, Ended, Left, MessageOutcome, MessagesLeft, Outcomes
    from broadway_py.testing.pipeline_harness import Harness, harness
    from broadway_py.testing.quiet import StillAtWork

__all__ = [
    "DeadLetter",
    "Ended",
    "FakeClock",
    "Harness",
    "Harnesses",
    "Left",
    "MessageOutcome",
    "MessagesLeft",
    "Outcomes",
    "StillAtWork",
    "harness",
]

_HOMES: Final = {
    "DeadLetter": "broadway_py.testing.outcomes",
    "Ended": "broadway_py.testing.outcomes",
    "FakeClock": "broadway_py.testing.clock",
    "Harness": "broadway_py.testing.pipeline_harness",
    "Harnesses": "broadway_py.testing.harnesses",
    "Left": "broadway_py.testing.outcomes",
    "MessageOutcome": "broadway_py.testing.outcomes",
    "MessagesLeft": "broadway_py.testing.outcomes",
    "Outcomes": "broadway_py.testing.outcomes",
    "StillAtWork": "broadway_py.testing.quiet",
    "harness": "broadway_py.testing.pipeline_harness",
    "settle": "broadway_py.testing.clock",
}


def __getattr__(name: str) -> object:
    # Loaded when first used: pytest imports the plug-in of this package in every run.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
