"""The aggregators of a pipeline, checked when the pipeline is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broadway_py._core.window.spec import Window
from broadway_py.aggregator import Aggregator, AggregatorOptions

__all__ = ["AggregatorDefinition"]


@dataclass(frozen=True, slots=True)
class AggregatorDefinition:
    """One aggregator of a pipeline, as it runs: its parts are checked, and settings of files are in them."""

    name: str
    #: An object of this pipeline alone, with ``name`` and ``context`` set. The context is set again when the pipeline
    #: starts, because ``setup`` may have replaced it.
    aggregator: Aggregator[Any, Any, Any]
    #: The window with each of its settings, as :meth:`Window.in_aggregator` returns it.
    window: Window
    key_type: Any
    #: The type of ``message.data``. It is not checked.
    data_type: Any
    acc_type: Any
    version: int
    options: AggregatorOptions
    #: The names of the optional methods that the class has.
    written: frozenset[str]

    def has(self, name: str) -> bool:
        """Returns True if the class has the optional method *name*, such as ``"merge"``."""
        return name in self.written
