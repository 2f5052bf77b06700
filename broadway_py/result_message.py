"""What a sink of an aggregator publishes: a result as JSON, with an id that never changes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from broadway_py._core.window.times import EventTime
from broadway_py.aggregator import WindowResult
from broadway_py.publisher import Outgoing

__all__ = ["result_json", "result_message"]

_CONTENT_TYPE: Final = "application/json"


def result_json(result: WindowResult[Any, Any], key_json: str, value_json: str) -> bytes:
    """Returns *result* as a JSON object with the fields of :class:`~broadway_py.aggregator.WindowResult`.

    Times are as ``by`` gives them: an aware datetime as text of ISO 8601, seconds as a number. A result has the same
    bytes each time.

    Args:
        result: the result.
        key_json: its key as JSON.
        value_json: its value as JSON.
    """
    # The key and the value are JSON already, by their types.
    return (
        f'{{"id":{json.dumps(result.id)},"firing":{result.firing},"aggregator":{json.dumps(result.aggregator)},'
        f'"key":{key_json},"start":{_time(result.start)},"end":{_time(result.end)},"value":{value_json},'
        f'"count":{result.count},"trigger":{json.dumps(result.trigger)},"is_last":{json.dumps(result.is_last)},'
        f'"replaces":{json.dumps(result.replaces)},"partition":{json.dumps(result.partition)}}}'
    ).encode()


def result_message(result: WindowResult[Any, Any], key_json: str, value_json: str) -> Outgoing:
    """Returns *result* as a message to publish.

    Its id is ``<id>#<firing>``, so that an aggregator that reads it counts each result once. Its key is the key of the
    result: a text as it is, others as JSON.

    Args:
        result: the result.
        key_json: its key as JSON.
        value_json: its value as JSON.
    """
    return Outgoing(
        data=result_json(result, key_json, value_json),
        message_id=f"{result.id}#{result.firing}",
        key=result.key if isinstance(result.key, str) else key_json,
        content_type=_CONTENT_TYPE,
    )


def _time(time: EventTime | None) -> str:
    return json.dumps(time.isoformat() if isinstance(time, datetime) else time)
