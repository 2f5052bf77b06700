"""What a flow expects of the running stages at its ends."""

from __future__ import annotations

import asyncio

from broadway_py.stage.base import Stage

__all__ = ["check_running"]


def check_running(stage: Stage) -> None:
    """Refuses a stage that would never send or take anything, because the flow would wait for it without an end.

    Raises:
        RuntimeError: it has not started, or it runs in another event loop.
    """
    if stage._started().get_loop() is not asyncio.get_running_loop():
        raise RuntimeError(
            f"{stage.name} runs in another event loop than the flow: "
            "run the flow in the loop of the stage, with `async for` or a method such as run_async()"
        )
