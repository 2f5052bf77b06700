"""How a flow is run: what ``Flow.using`` takes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["OnError", "RaySettings", "RunSettings", "Runner"]

#: Where the stages of a flow run: all in one event loop, each with its plain functions in a thread of its own, in
#: worker processes, or in actors of Ray.
Runner = Literal["tasks", "threads", "processes", "ray"]
#: What an error of a user's function does: it ends the flow, the element is left out, or it is also reported.
OnError = Literal["raise", "skip", "collect"]


class RaySettings(NamedTuple):
    """Where Ray is, and what a worker needs there."""

    #: None: that of ``RAY_ADDRESS``, or a Ray of its own on this machine.
    address: str | None
    #: What each worker needs besides its CPU.
    resources: Mapping[str, float]
    runtime_env: Mapping[str, Any]
    #: The most seconds until all workers have started.
    start_timeout: float


class RunSettings(NamedTuple):
    """How a flow is run."""

    runner: Runner = "tasks"
    #: How many stages a layer has that does not say it itself; None: as many as this process may use processors.
    workers: int | None = None
    on_error: OnError = "raise"
    #: True: it shows how far it is.
    progress: bool = False
    #: None: the runner is another one.
    ray: RaySettings | None = None

    @property
    def has_workers(self) -> bool:
        """True if the stages are in other processes."""
        return self.runner in {"processes", "ray"}
