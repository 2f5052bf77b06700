"""The bytes of stored windows and results: lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic_core import to_json

from broadway_py._core.aggregation.changes import Entry, Part
from broadway_py._core.aggregation.outcome import Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.window.saved import WindowFacts, result_id
from broadway_py._core.window.times import EventTime
from broadway_py.aggregator import WindowResult
from broadway_py.foreign import foreign_errors
from broadway_py.state.codec import Codec, CodecError
from broadway_py.state.results import join
from broadway_py.storage.errors import StorageError

__all__ = ["Records"]

_SEPARATORS: Final = (",", ":")

#: An id with so many characters, all of them ASCII, is short enough.
_SHORT: Final = 200


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
        if part.fired:
            head["fired"] = len(part.fired)
        # The ends of sessions stand where entries have a count. There is no value. Windows that keys share have no
        # such ends, and so the keys that have fired stand in the same place.
        ends = part.ended or [(key, 0) for key in part.fired]
        text = ",".join(f"[{self._codec.key_text(key)},{end},0,null]" for key, end in ends)
        return b"\n".join((_json(head), self._codec.dump(part.entries), f"[{text}]".encode() if text else b""))

    def read_part(self, bucket: int, content: bytes, version: int) -> Part:
        """Returns the part in *content*, which has values of this *version*."""
        head_json, entries_json, ended_json = content.split(b"\n")
        head = json.loads(head_json)
        entries = self._entries(entries_json, version)
        ended = [(key, end) for key, end, _, _ in self._codec.load_older(ended_json)] if ended_json else []
        facts = [_facts(each) for each in head["windows"]]
        if "fired" in head:
            return Part(bucket, entries, facts, head.get("news", []), fired=[key for key, _ in ended])
        return Part(bucket, entries, facts, head.get("news", []), head.get("closed", []), ended)

    # --- results

    def due(self, results: Results, first: int, until: int, *, is_stored: bool) -> tuple[list[DueResult], bytes]:
        """Returns those of *results* from the place *first* to *until*: as they are handed out, and their bytes.

        Args:
            results: results of one window.
            first: the place of the first one.
            until: the place after the last one; it may lie behind all of them.
            is_stored: False: there is no file, and the bytes are empty.

        Raises:
            CodecError: one of them cannot be stored.
        """
        entries = results.entries[first:until]
        values = [entry[3] for entry in entries]
        key_texts = self._codec.key_texts([entry[0] for entry in entries])
        names = self._names(results.window, key_texts)
        start, version = results.sequence + first, self._version
        if not self._codec.are_plain(values):
            contents = self._contents(results, entries, key_texts, names)
            return [
                DueResult(sequence, name, content, version)
                for sequence, (name, content) in enumerate(zip(names, contents, strict=True), start)
            ], join(contents) if is_stored else b""
        due = [DueResult(sequence, name, b"", version, results) for sequence, name in enumerate(names, start)]
        if not is_stored:
            return due, b""
        if results.replaces:
            return due, join(self._contents(results, entries, key_texts, names))
        # There can be very many results. This takes a quarter of the time.
        tail = f'{_tail(results)},"replaces":[]}}\n[['
        texts = [
            f'{{"id":{name},{tail}{text},{count},{firing},{value}]]'
            for name, text, (_, count, firing, _), value in zip(
                _quoted(names), key_texts, entries, self._codec.plain_texts(values), strict=True
            )
        ]
        return due, "\n".join(texts).encode()

    def _names(self, window: str, key_texts: Sequence[str]) -> list[str]:
        """Returns the ids of the results of *window* and these keys."""
        before = f"{self._aggregator}/{window}/"
        together = "".join((before, *key_texts))
        longest = len(before) + max(map(len, key_texts), default=0)
        if longest <= _SHORT and together.isascii() and together.isprintable():
            # Most ids are what is easy to read.
            return [before + text for text in key_texts]
        return [
            name
            if len(name := before + text) <= _SHORT and name.isascii() and name.isprintable()
            else result_id(self._aggregator, text, window)
            for text in key_texts
        ]

    def _contents(
        self,
        results: Results,
        entries: Sequence[Entry],
        key_texts: Sequence[str],
        names: Sequence[str],
    ) -> list[bytes]:
        """Returns the bytes of *entries*, which are some of *results*."""
        tail = _tail(results)
        contents: list[bytes] = []
        for name, text, entry in zip(names, key_texts, entries, strict=True):
            replaced = self._replaced(text, results)
            line = f'{{"id":{to_json(name).decode()},{tail},"replaces":{to_json(replaced).decode()}}}\n'
            contents.append(line.encode() + self._codec.dump([entry]))
        return contents

    def _replaced(self, key_text: str, results: Results) -> list[str]:
        """Returns the ids of the results of this key that *results* replace."""
        return [result_id(self._aggregator, key_text, former) for former in results.replaces]

    def id_of(self, content: bytes) -> str:
        """Returns the id of the result in *content*."""
        return str(json.loads(content.partition(b"\n")[0])["id"])

    def read_results(
        self, taken: Sequence[DueResult], shown: Callable[[int | None], EventTime | None]
    ) -> list[WindowResult[Any, Any]]:
        """Returns *taken* as users see them, new objects each time. *shown* gives bounds as users know them."""
        read = iter(self._read([due for due in taken if due.results is None], shown))
        fields: list[dict[str, Any]] = []
        of: Results | None = None
        common: dict[str, Any] = {}
        for due in taken:
            if due.results is None:
                fields.append(next(read))
                continue
            if of is not due.results:
                of = due.results
                # Python copies a dict in one piece. To put others into it would take longer.
                common = {
                    "aggregator": self._aggregator,
                    "key": None,
                    "start": shown(of.start),
                    "end": shown(of.end),
                    "value": None,
                    "count": 0,
                    "id": "",
                    "firing": 0,
                    "trigger": of.trigger,
                    "is_last": of.is_last,
                    "replaces": (),
                    "partition": self._partition,
                }
            own = common.copy()
            own["key"], own["count"], own["firing"], own["value"] = of.entries[due.sequence - of.sequence]
            own["id"] = due.window_id
            if of.replaces:
                own["replaces"] = tuple(self._replaced(self._codec.key_text(own["key"]), of))
            fields.append(own)
        return _window_results(fields)

    def _read(
        self, taken: Sequence[DueResult], shown: Callable[[int | None], EventTime | None]
    ) -> list[dict[str, Any]]:
        """Returns the fields of *taken* as their bytes say."""
        if not taken:
            return []
        parts = [due.data.partition(b"\n") for due in taken]
        heads = json.loads(_together([head for head, _, _ in parts]))
        # An entry stands in a list of its own.
        entries: list[Entry] = []
        if all(due.version == self._version for due in taken):
            entries = self._codec.load(_together([entry[1:-1] for _, _, entry in parts]))
        else:
            entries = [self._entries(part[2], due.version)[0] for part, due in zip(parts, taken, strict=True)]
        return [
            {
                "aggregator": self._aggregator,
                "key": key,
                "start": shown(head["start"]),
                "end": shown(head["end"]),
                "value": value,
                "count": count,
                "id": head["id"],
                "firing": firing,
                "trigger": head["trigger"],
                "is_last": head["is_last"],
                "replaces": tuple(head["replaces"]),
                "partition": self._partition,
            }
            for head, (key, count, firing, value) in zip(heads, entries, strict=True)
        ]

    def texts(self, result: WindowResult[Any, Any]) -> tuple[str, str]:
        """Returns the key and the value of *result* as JSON."""
        entry: Entry = (result.key, result.count, result.firing, result.value)
        key = self._codec.key_text(result.key)
        before = f"[[{key},{result.count},{result.firing},"
        return key, self._codec.dump([entry], to_be_read=False).decode()[len(before) : -2]

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


def _window_results(fields: Sequence[dict[str, Any]]) -> list[WindowResult[Any, Any]]:
    """Returns the results with these *fields*: all of each."""
    made: list[WindowResult[Any, Any]] = []
    # The constructor of a frozen class makes a call for each field, and takes three times as long. There can be very
    # many results.
    new, set_attribute = WindowResult.__new__, object.__setattr__
    for own in fields:
        result: WindowResult[Any, Any] = new(WindowResult)
        set_attribute(result, "__dict__", own)
        made.append(result)
    return made


def _tail(results: Results) -> str:
    """Returns what all *results* say about themselves."""
    head = {"start": results.start, "end": results.end, "trigger": results.trigger, "is_last": results.is_last}
    return to_json(head)[1:-1].decode()


def _quoted(names: Sequence[str]) -> list[str]:
    """Returns each of *names*, which can be printed, as JSON."""
    together = "".join(names)
    if '"' in together or "\\" in together:
        return [to_json(name).decode() for name in names]
    return [f'"{name}"' for name in names]


def _together(texts: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _json(content: object) -> bytes:
    return json.dumps(content, separators=_SEPARATORS).encode()


def _facts(stored: Sequence[Any]) -> WindowFacts:
    return WindowFacts._make([*stored[:-1], tuple(stored[-1])])
