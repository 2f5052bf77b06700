"""What a stored result says about itself."""

from __future__ import annotations

import json
from typing import NamedTuple

__all__ = ["ResultFacts", "facts_of"]


class ResultFacts(NamedTuple):
    """What is known of a stored result without the types of its aggregator."""

    #: Names the window and key.
    id: str
    #: Counts the results of the window from 1.
    firing: int
    trigger: str
    #: The end of the window in microseconds; None for count windows.
    end: int | None


def facts_of(content: bytes) -> ResultFacts:
    """Returns what the stored result *content* says about itself. Its value is not read."""
    head_json, _, entry_json = content.partition(b"\n")
    head = json.loads(head_json)
    entry = entry_json.decode()
    _, after_key = json.JSONDecoder().raw_decode(entry, len("[["))
    _, _, firing, _ = entry[after_key:].split(",", 3)
    return ResultFacts(head["id"], int(firing), head["trigger"], head["end"])
