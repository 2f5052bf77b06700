"""The schema of a pipeline, on the messages of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from broadway_py.foreign import foreign_errors, type_name
from broadway_py.message import Failed

if TYPE_CHECKING:
    from broadway_py.pipeline.chunk import Chunk
    from broadway_py.pipeline.contexts import CleanRoom

__all__ = ["validate"]

#: How many complaints about one message are told.
_MOST_TOLD = 5


def validate(chunk: Chunk, schema: TypeAdapter[Any], names: frozenset[str], room: CleanRoom) -> None:
    """Put what *schema* makes of it in place of each message's data; what does not fit fails with cause ``invalid``.

    Args:
        chunk: those that have failed already are left alone.
        schema: JSON is read by it where the data is text or bytes.
        names: of the schema's own fields, which may be shown.
        room: where a validator of the user is called.
    """
    for message in chunk:
        if message._status is not None:
            continue
        data = message.data
        try:
            if isinstance(data, str | bytes | bytearray):
                message.data = room.run(schema.validate_json, data)
            else:
                message.data = room.run(schema.validate_python, data)
        except ValidationError as invalid:
            message._status = Failed("invalid", _without_input(invalid, names))
        except foreign_errors() as error:
            # A validator of the user may raise anything.
            message._status = Failed("invalid", f"the schema raised {type_name(error)}", error)


def _without_input(invalid: ValidationError, names: frozenset[str]) -> str:
    """Place and type of each complaint; never the input, which is somebody's data, nor the keys of a dict in it."""
    complaints = [
        f"{'.'.join(_part(part, names) for part in error['loc']) or 'the whole'}: {error['type']}"
        for error in invalid.errors(include_url=False, include_context=False, include_input=False)
    ]
    told = "; ".join(complaints[:_MOST_TOLD])
    return f"does not fit the schema: {told}{'; …' if len(complaints) > _MOST_TOLD else ''}"


def _part(part: int | str, names: frozenset[str]) -> str:
    return str(part) if isinstance(part, int) or part in names else "***"
