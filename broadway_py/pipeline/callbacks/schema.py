"""Validates the messages of a chunk with the schema of the pipeline."""

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
    """Replace each message's data by the result of *schema*. A message that does not fit fails as ``invalid``.

    Args:
        chunk: the messages; those that have failed already are not changed.
        schema: the schema; it reads data that is text or bytes as JSON.
        names: names of the schema's own fields, which may be shown.
        room: gives the user's validators a clean context.
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
            # The user's validator may raise any error.
            message._status = Failed("invalid", Plain(f"the schema raised {name_of(error)}"), error)
