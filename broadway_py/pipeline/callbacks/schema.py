"""The schema of a pipeline, on the messages of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from broadway_py.error_text import complaints_of, name_of
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Plain

if TYPE_CHECKING:
    from broadway_py.pipeline.callbacks.chunk import Chunk
    from broadway_py.pipeline.contexts import CleanRoom

__all__ = ["validate"]


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
            message._status = Failed("invalid", Plain(f"does not fit the schema: {complaints_of(invalid, names)}"))
        except foreign_errors() as error:
            # A validator of the user may raise anything.
            message._status = Failed("invalid", Plain(f"the schema raised {name_of(error)}"), error)
