"""How a flow is run: what ``Flow.using`` takes, checked."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["OnError", "RunSettings", "Runner"]

#: Where the stages of a flow run: all in one event loop, each with its plain functions in a thread of its own, or in
#: worker processes.
Runner = Literal["tasks", "threads", "processes"]
#: What an error of a user's function does: it ends the flow, the element is left out, or it is also reported.
OnError = Literal["raise", "skip", "collect"]


class RunSettings(NamedTuple):
    """How a flow is run."""

    runner: Runner = "tasks"
    #: How many stages a layer has that does not say it itself; None: as many as this process may use processors.
    workers: int | None = None
    on_error: OnError = "raise"
    #: True: it shows how far it is.
    progress: bool = False
