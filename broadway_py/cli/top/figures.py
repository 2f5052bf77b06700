"""Works out what ``broadway top`` shows from the answers of a daemon: rates, percentiles and sums."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from broadway_py.daemon.dead_letters.letters import printable
from broadway_py.error_text import clipped

__all__ = [
    "Answer",
    "Figures",
    "History",
    "Source",
    "answer_of",
    "as_json",
    "by_name",
    "per_second",
    "quantile",
    "shown",
    "since",
]

#: Rates are over the last seconds, percentiles over more, because few messages say little about the slowest one.
_RATE_OVER_S: Final = 3.0
_LATENCY_OVER_S: Final = 30.0
#: The most characters that are taken from a text of the daemon.
_MOST_TEXT: Final = 500
#: The outcomes of messages that are lost to the pipeline.
_BAD: Final = ("rejected", "dead_lettered", "dropped", "unknown")

Section = Mapping[str, Any]


class Answer(NamedTuple):
    """What a daemon has answered at one moment. *at_s* is that moment on a clock that only goes forward."""

    at_s: float
    version: str
    pipelines: Mapping[str, Section]


def answer_of(answer: Any, at_s: float) -> Answer | None:
    """Returns the JSON of ``/api/pipelines`` as an answer. Returns None if no daemon of ours can have sent it."""
    pipelines = answer.get("pipelines") if isinstance(answer, dict) else None
    if not isinstance(pipelines, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("producers"), list)
        for one in pipelines
    ):
        return None
    return Answer(at_s, shown(answer.get("version", "")), {one["name"]: one for one in pipelines})


@dataclass(frozen=True, slots=True)
class Source:
    """How many messages the sources of a pipeline hold, added up. None: no source says so."""

    ready: int | None
    delayed: int | None
    dead: int | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is shown of one pipeline. Values that need two answers are None after the first one."""

    name: str
    #: A word: the state, or ``not ready`` or ``degraded`` while it runs and is not ready.
    state: str
    is_ready: bool
    is_paused: bool
    #: Why it is not ready.
    reasons: Sequence[str]
    settled_per_s: float | None
    failed_per_s: float | None
    in_flight: int
    settled: int
    #: How many calls of handlers have failed, and how many messages have ended in an outcome that loses them.
    failed: int
    lost: int
    p50_s: float | None
    p99_s: float | None
    #: The percentiles are not known above this.
    most_latency_s: float
    source: Source | None
    #: The newest answer about it, the one that rates are taken from, and the seconds between them.
    now: Section
    then: Section | None
    elapsed_s: float


class History:
    """Keeps the answers of the last seconds."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()

    @property
    def latest(self) -> Answer | None:
        """Returns the newest answer."""
        return self._answers[-1] if self._answers else None

    def add(self, answer: Answer) -> None:
        """Adds the newest answer. If its counters are smaller than before, the daemon has started anew."""
        last = self.latest
        if last is not None and any(
            _received(answer.pipelines[name]) < _received(one)
            for name, one in last.pipelines.items()
            if name in answer.pipelines
        ):
            self._answers.clear()
        self._answers.append(answer)
        while len(self._answers) > 2 and answer.at_s - self._answers[1].at_s >= _LATENCY_OVER_S:
            self._answers.popleft()

    def figures(self) -> list[Figures]:
        """Returns the figures of all pipelines, in the order of the daemon."""
        now = self.latest
        if now is None:
            return []
        earlier = list(self._answers)[:-1]
        recent = next((one for one in earlier if now.at_s - one.at_s <= _RATE_OVER_S + 0.5), None)
        then = recent or (earlier[-1] if earlier else None)
        old = earlier[0] if earlier else None
        return [
            _figures(
                one,
                None if then is None else then.pipelines.get(name),
                0.0 if then is None else now.at_s - then.at_s,
                None if old is None else old.pipelines.get(name),
            )
            for name, one in now.pipelines.items()
        ]


def _figures(now: Section, then: Section | None, elapsed_s: float, old: Section | None) -> Figures:
    reasons = [shown(why) for why in _list(now, "reasons")]
    state = shown(now.get("state", ""))
    if reasons and state == "running":
        state = "degraded" if now.get("breaker_open") else "not ready"
    latency = _latency(now)
    since_old = since(latency, _latency(old) if old is not None else None)
    bounds = latency[0]
    return Figures(
        name=str(now["name"]),
        state=state,
        is_ready=not reasons,
        is_paused=now.get("state") == "paused",
        reasons=reasons,
        settled_per_s=per_second(_settled(now), None if then is None else _settled(then), elapsed_s),
        failed_per_s=per_second(_failed(now), None if then is None else _failed(then), elapsed_s),
        in_flight=_sum(one.get("in_flight") for one in _producers(now)),
        settled=_settled(now),
        failed=_failed(now),
        lost=_sum(one.get("outcomes", {}).get(outcome) for one in _producers(now) for outcome in _BAD),
        p50_s=quantile(bounds, since_old, 0.5),
        p99_s=quantile(bounds, since_old, 0.99),
        most_latency_s=bounds[-1] if bounds else 0.0,
        source=_source(now),
        now=now,
        then=then,
        elapsed_s=elapsed_s,
    )


def as_json(one: Figures) -> dict[str, Any]:
    """Returns the figures as a plain value. A percentile above all that is measured is the largest that is."""

    def known(value: float | None) -> float | None:
        return value if value is None else min(value, one.most_latency_s)

    source = one.source
    return {
        "name": one.name,
        "state": one.state,
        "ready": one.is_ready,
        "reasons": list(one.reasons),
        "settled_per_second": one.settled_per_s,
        "failed_per_second": one.failed_per_s,
        "in_flight": one.in_flight,
        "settled": one.settled,
        "failed": one.failed,
        "lost": one.lost,
        "latency_p50_seconds": known(one.p50_s),
        "latency_p99_seconds": known(one.p99_s),
        "source": None if source is None else {"ready": source.ready, "delayed": source.delayed, "dead": source.dead},
    }


def per_second(now: float, then: float | None, elapsed_s: float) -> float | None:
    """Returns how much a counter grew in each second."""
    return None if then is None or elapsed_s <= 0 else max(0.0, now - then) / elapsed_s


def since(now: tuple[Sequence[float], Sequence[int]], then: tuple[Sequence[float], Sequence[int]] | None) -> list[int]:
    """Returns the counts of a distribution that came between two answers; all of them if there is no earlier one."""
    (bounds, counts), (old_bounds, old) = now, then or ((), ())
    if list(bounds) != list(old_bounds):
        return list(counts)
    return [max(0, new - before) for new, before in zip(counts, old, strict=True)]


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """Returns the value below which *part* of the observations are, as a line between the two bounds around it.

    It is infinite if it is above all bounds, and None without observations.
    """
    wanted = sum(counts) * part
    if wanted <= 0:
        return None
    seen = 0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if seen + count >= wanted:
            return lower + (bound - lower) * (wanted - seen) / count
        seen += count
        lower = bound
    return math.inf


def shown(text: object) -> str:
    """Returns a text of the daemon, so that it cannot control the terminal, and not too long."""
    return printable(clipped(str(text), _MOST_TEXT))


def by_name(section: Section | None, key: str, name: object) -> Section | None:
    """Returns the one of this *name* in the list at *key*."""
    return next((one for one in _list(section or {}, key) if one.get("name") == name), None)


def _list(section: Section, key: str) -> Sequence[Any]:
    found = section.get(key)
    return found if isinstance(found, list) else ()


def _producers(pipeline: Section) -> Sequence[Section]:
    return _list(pipeline, "producers")


def _sum(values: Iterable[Any]) -> int:
    return sum(one for one in values if isinstance(one, int))


def _received(pipeline: Section) -> int:
    return _sum(one.get("received") for one in _producers(pipeline))


def _settled(pipeline: Section) -> int:
    return _sum(count for one in _producers(pipeline) for count in one.get("outcomes", {}).values())


def _failed(pipeline: Section) -> int:
    return _sum(count for one in _list(pipeline, "stages") for count in one.get("failed", {}).values())


def _latency(pipeline: Section) -> tuple[Sequence[float], Sequence[int]]:
    """Returns the bounds and the counts of all producers together."""
    all_of = [one["latency"] for one in _producers(pipeline) if isinstance(one.get("latency"), dict)]
    if not all_of:
        return (), ()
    bounds: list[float] = all_of[0]["bounds"]
    counts = [one["counts"] for one in all_of if one["bounds"] == bounds]
    return bounds, [sum(each) for each in zip(*counts, strict=True)]


def _source(pipeline: Section) -> Source | None:
    said = [one["source"] for one in _producers(pipeline) if isinstance(one.get("source"), dict)]
    if not said:
        return None

    def total(key: str) -> int | None:
        known = [one[key] for one in said if isinstance(one.get(key), int)]
        return sum(known) if known else None

    return Source(total("ready"), total("delayed"), total("dead"))
