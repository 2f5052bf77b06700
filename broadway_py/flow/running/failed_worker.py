"""The error of a flow on its way from a worker process to the parent."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from broadway_py.errors import FlowFailed
from broadway_py.flow.frames import Frame
from broadway_py.flow.running.carried import Carrier, unpacked
from broadway_py.foreign import foreign_errors
from broadway_py.process.packed_errors import PackedError, pack_error, unpack_error

__all__ = ["PackedFailure", "pack_failure", "unpack_failure"]


class PackedFailure(NamedTuple):
    """A FlowFailed, packed."""

    operator: str
    cause: PackedError
    stage: int
    place: str | None
    #: None: it does not pickle.
    element: bytes | None
    #: The traceback of the cause.
    told: str


def pack_failure(failed: FlowFailed, worker: str) -> PackedFailure:
    """Returns *failed*, which has happened in the worker of this name, packed. Never raises."""
    cause = failed.__cause__ or failed
    # The text of the traceback has the notes of the user.
    told = "".join(traceback.format_exception(cause)).rstrip()
    return PackedFailure(
        failed.operator,
        pack_error(cause),
        failed.stage,
        failed.place,
        _packed(failed.element),
        f"In {worker}:\n{told}",
    )


def unpack_failure(packed: PackedFailure) -> FlowFailed:
    """Returns the error. An element that does not pickle is None. Never raises."""
    cause = unpack_error(packed.cause)
    cause.add_note(packed.told)
    element = _unpacked(packed.element)
    return FlowFailed(packed.operator, cause, stage=packed.stage, place=packed.place, element=element)


def _packed(element: object) -> bytes | None:
    try:
        return Carrier(to_program=True).packed([Frame([element])])
    except foreign_errors(cancellations=True):
        return None


def _unpacked(packed: bytes | None) -> object:
    try:
        return None if packed is None else unpacked(packed)[0].elements[0]
    except foreign_errors(cancellations=True):
        return None
