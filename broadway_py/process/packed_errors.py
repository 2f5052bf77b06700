"""Converts exceptions to bytes and back, for the way from a worker process to its parent."""

from __future__ import annotations

import pickle
from typing import Final, NamedTuple

from broadway_py.error_text import PLACE, name_of, place_of, text_of
from broadway_py.foreign import foreign_errors, type_name
from broadway_py.process.frames import dumps

__all__ = ["PackedError", "WorkerError", "pack_error", "unpack_error"]

#: Limits the classes made for exceptions that cannot be rebuilt: user code could create types without end.
_MOST_STAND_INS: Final = 200


class WorkerError(RuntimeError):
    """Replaces an exception of a worker process that cannot be rebuilt here. A subclass has the exception's name."""


class PackedError(NamedTuple):
    """An exception in several pickled forms. The parent uses the first form that it can read."""

    whole: bytes | None
    #: The class, the arguments and the attributes, separately: many exceptions can be pickled but not unpickled.
    kind: bytes | None
    args: bytes | None
    attributes: bytes | None
    name: str
    text: str
    place: str


def pack_error(error: BaseException) -> PackedError:
    """Returns *error* packed, with the place where it was raised instead of its traceback. Never raises."""
    return PackedError(
        _dumped(error),
        _dumped(type(error)),
        _dumped(error.args),
        _dumped(_attributes(error)),
        name_of(error),
        text_of(error),
        place_of(error),
    )


def _attributes(error: BaseException) -> object:
    try:
        return vars(error)
    except foreign_errors(cancellations=True):
        return {}


def unpack_error(packed: PackedError) -> BaseException:
    """Returns an exception of the same type if possible, else a :class:`WorkerError` of the same name. Never raises."""
    error = _rebuilt(packed) or _stand_in(packed.name)(packed.text)
    setattr(error, PLACE, packed.place)
    error.add_note(f"raised in a worker process, at {packed.place or 'an unknown place'}")
    return error


def _rebuilt(packed: PackedError) -> BaseException | None:
    whole = _loaded(packed.whole)
    if isinstance(whole, BaseException) and type_name(whole) == packed.name:
        return whole
    kind = _loaded(packed.kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    try:
        # __init__ is not called: it may need other arguments than `args`, which is why the whole could not be read.
        error = kind.__new__(kind)
        args = _loaded(packed.args)
        error.args = args if isinstance(args, tuple) else (packed.text,)
        attributes = _loaded(packed.attributes)
        vars(error).update(attributes if isinstance(attributes, dict) else {})
        str(error)
    except foreign_errors(cancellations=True):
        return None
    return error


_stand_ins: dict[str, type[WorkerError]] = {}


def _stand_in(name: str) -> type[WorkerError]:
    if name not in _stand_ins:
        if len(_stand_ins) >= _MOST_STAND_INS:
            return WorkerError
        _stand_ins[name] = type(name, (WorkerError,), {"__doc__": WorkerError.__doc__, "__module__": __name__})
    return _stand_ins[name]


def _dumped(value: object) -> bytes | None:
    try:
        return dumps(value)
    except foreign_errors(cancellations=True):
        return None


def _loaded(packed: bytes | None) -> object:
    try:
        return None if packed is None else pickle.loads(packed)  # noqa: S301  # from our own worker process
    except foreign_errors(cancellations=True):
        return None
