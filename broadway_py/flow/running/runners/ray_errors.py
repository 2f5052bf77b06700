"""What Ray says of a worker that has died, as one sentence of ours."""

from __future__ import annotations

import re
from typing import Final

from ray.exceptions import LocalRayletDiedError, NodeDiedError, RayActorError, WorkerCrashedError

from broadway_py.errors import FlowFailed
from broadway_py.process.packed_errors import WorkerError

__all__ = ["is_death", "lost_worker", "reason_of", "told_failure"]

_MOST_CHARS: Final = 600
#: Ray names the actor in lines that begin with a tab, and says why below them.
_LINES_OF_ACTOR: Final = re.compile(r"\A.*?(?:\n\t[^\n]*)+\n", re.DOTALL)


def reason_of(error: BaseException) -> str:
    """Returns what Ray gives as the reason of *error*, on one line."""
    reason = " ".join(_LINES_OF_ACTOR.sub("", str(error)).split()) or type(error).__name__
    return reason if len(reason) <= _MOST_CHARS else f"{reason[: _MOST_CHARS - 3]}..."


def is_death(error: BaseException) -> bool:
    """Returns whether a call has failed because the process that was called is gone, or cannot be reached."""
    return isinstance(error, RayActorError | NodeDiedError | WorkerCrashedError | LocalRayletDiedError)


def lost_worker(place: int, node: str, reason: str, *, has_died: bool = True) -> FlowFailed:
    """Returns the error of a flow whose worker at *place* has died, or lives and cannot be called any more."""
    name = f"Ray worker {place}"
    what = "has died" if has_died else "cannot be called any more"
    return told_failure(name, f"{name} on node {node} {what}: {reason}", WorkerError(reason))


def told_failure(what: str, told: str, cause: BaseException, place: str | None = None) -> FlowFailed:
    """Returns the error of a flow with the text *told*; *what* has failed, and *place* says where."""
    error = FlowFailed(what, cause, place=place)
    error.args = (told,)
    return error
