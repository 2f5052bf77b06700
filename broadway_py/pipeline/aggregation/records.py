"""The bytes of stored windows and results: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from pydantic_core import to_json

from broadway_py._core.aggregation.changes import Entry, Part
from broadway_py._core.aggregation.outcome import Result
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.window.saved import WindowFacts, result_id
from broadway_py._core.window.times import EventTime
from broadway_py.aggregator import ResultTrigger, WindowResult
from broadway_py.foreign import foreign_errors
from broadway_py.state.codec import Codec, CodecError
from broadway_py.storage.errors import StorageError

__all__ = ["Records", "ResultFacts", "facts_of"]

_SEPARATORS: Final = (",", ":")


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


class Records:
    """Writes and reads what one aggregator stores.

    A part of a window has three lines: about the windows, the entries, the keys of ended sessions. A result has two:
    about the result, and its key and value as an entry.

    Args:
        aggregator: its name, which results bear.
        codec: writes and reads keys and values.
        upgrade: makes a value of an older version new, given the version and the value.
        version: the version of the values that are written.
        partition: the partition of the sources, which results bear; None: they have none.
    """

    def __init__(
        self,
        aggregator: str,
        codec: Codec[Any, Any],
        upgrade: Callable[[int, Any], Any],
        version: int,
        partition: int | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._codec = codec
        self._upgrade = upgrade
        self._version = version
        self._partition = partition

    # --- parts of windows

    def part(self, part: Part) -> bytes:
        """Returns the bytes of *part*."""
        head: dict[str, Any] = {"windows": [tuple(facts) for facts in part.facts]}
        if part.news:
            head["news"] = part.news
        if part.closed:
            head["closed"] = part.closed
        if part.ended:
            # The ends stand where entries have a count. There is no value.
            text = ",".join(f"[{self._codec.key_text(key)},{end},0,null]" for key, end in part.ended)
            return b"\n".join((_json(head), self._codec.dump(part.entries), f"[{text}]".encode()))
        return b"\n".join((_json(head), self._codec.dump(part.entries), b""))

    def read_part(self, bucket: int, content: bytes, version: int) -> Part:
        """Returns the part in *content*, which has values of this *version*."""
        head_json, entries_json, ended_json = content.split(b"\n")
        head = json.loads(head_json)
        entries = self._entries(entries_json, version)
        ended = [(key, end) for key, end, _, _ in self._codec.load_older(ended_json)] if ended_json else []
        facts = [_facts(each) for each in head["windows"]]
        return Part(bucket, entries, facts, head.get("news", []), head.get("closed", []), ended)

    # --- results

    def result(self, result: Result) -> tuple[str, bytes]:
        """Returns the id of *result*, and its bytes."""
        key = self._codec.key_text(result.key)
        name = result_id(self._aggregator, key, result.window)
        head = {
            "id": name,
            "start": result.start,
            "end": result.end,
            "trigger": result.trigger,
            "is_last": result.is_last,
            "replaces": [result_id(self._aggregator, key, former) for former in result.replaces],
        }
        entry: Entry = (result.key, result.count, result.firing, result.value)
        # There can be very many results, and `json` takes eight times as long.
        return name, b"\n".join((to_json(head), self._codec.dump([entry])))

    def id_of(self, content: bytes) -> str:
        """Returns the id of the result in *content*."""
        return str(json.loads(content.partition(b"\n")[0])["id"])

    def read_results(
        self, taken: Sequence[DueResult], shown: Callable[[int | None], EventTime | None]
    ) -> list[WindowResult[Any, Any]]:
        """Returns *taken* as users see them, new objects each time. *shown* gives bounds as users know them."""
        parts = [due.data.partition(b"\n") for due in taken]
        heads = json.loads(_together([head for head, _, _ in parts]))
        # An entry stands in a list of its own.
        entries: list[Entry] = []
        if all(due.version == self._version for due in taken):
            entries = self._codec.load(_together([entry[1:-1] for _, _, entry in parts]))
        else:
            entries = [self._entries(part[2], due.version)[0] for part, due in zip(parts, taken, strict=True)]
        return [
            _window_result(
                aggregator=self._aggregator,
                key=key,
                start=shown(head["start"]),
                end=shown(head["end"]),
                value=value,
                count=count,
                id=head["id"],
                firing=firing,
                trigger=cast("ResultTrigger", head["trigger"]),
                is_last=head["is_last"],
                replaces=tuple(head["replaces"]),
                partition=self._partition,
            )
            for head, (key, count, firing, value) in zip(heads, entries, strict=True)
        ]

    def texts(self, result: WindowResult[Any, Any]) -> tuple[str, str]:
        """Returns the key and the value of *result* as JSON."""
        entry: Entry = (result.key, result.count, result.firing, result.value)
        key = self._codec.key_text(result.key)
        before = f"[[{key},{result.count},{result.firing},"
        return key, self._codec.dump([entry]).decode()[len(before) : -2]

    def _entries(self, content: bytes, version: int) -> list[Entry]:
        if version == self._version:
            return self._codec.load(content)
        older = self._codec.load_older(content)
        try:
            entries = [(key, count, firing, self._upgrade(version, value)) for key, count, firing, value in older]
        except foreign_errors() as error:
            raise StorageError(
                f"upgrade() of aggregator {self._aggregator!r} raised {type(error).__name__} for a value of version "
                f"{version}: correct it; the state is as it was"
            ) from error
        try:
            return self._codec.load(self._codec.dump(entries))
        except CodecError as error:
            raise StorageError(
                f"upgrade() of aggregator {self._aggregator!r} returned for a value of version {version} what cannot "
                f"be stored: expected a value of type {self._codec.value_name}; correct it; the state is as it was"
            ) from error


def _window_result(**fields: Any) -> WindowResult[Any, Any]:
    """Returns the result with all its *fields*."""
    result: WindowResult[Any, Any] = WindowResult.__new__(WindowResult)
    # The constructor of a frozen class makes a call for each field, and takes three times as long. There can be very
    # many results.
    vars(result).update(fields)
    return result


def _together(texts: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _json(content: object) -> bytes:
    return json.dumps(content, separators=_SEPARATORS).encode()


def _facts(stored: Sequence[Any]) -> WindowFacts:
    return WindowFacts._make([*stored[:-1], tuple(stored[-1])])
