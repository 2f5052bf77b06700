"""Draws everything about one pipeline: its sources, layers, publishers, windows, failures and workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from broadway_py.cli.top import formats
from broadway_py.cli.top.figures import Figures, by_name, per_second, shown
from broadway_py.cli.top.lines import BAD, DIM, HEAD, WARN, Cell, table
from broadway_py.cli.top.overview import latency, state_style

__all__ = ["details", "workers_table"]

Section = Mapping[str, Any]


def details(one: Figures, workers: Sequence[Section]) -> list[Text]:
    """Returns the lines about a pipeline. *workers* is what the daemon says about its processes."""
    return [
        *_summary(one),
        *_breaker(one.now),
        *_producers(one),
        *_stages(one),
        *_publishers(one),
        *_windows(one),
        *_failures(one.now),
        *workers_table(workers, one.now.get("owners")),
    ]


def _summary(one: Figures) -> Iterator[Text]:
    title = Text(no_wrap=True)
    title.append(shown(one.name), HEAD)
    title.append("  ").append(one.state, state_style(one.state))
    yield title
    for why in one.reasons:
        if why != one.state:
            yield Text(f"  {why}", style=WARN, no_wrap=True)
    facts = [
        f"{formats.rate(one.settled_per_s)} msg/s",
        f"in flight {formats.count(one.in_flight)}",
        f"p50 {latency(one.p50_s, one.most_latency_s)}",
        f"p99 {latency(one.p99_s, one.most_latency_s)}",
        f"settled {one.settled:,}",
    ]
    yield Text("  " + "   ".join(facts), no_wrap=True)
    outcomes: dict[str, int] = {}
    for producer in one.now.get("producers", ()):
        for outcome, count in producer.get("outcomes", {}).items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    told = [f"{shown(outcome).replace('_', ' ')} {count:,}" for outcome, count in outcomes.items() if count]
    troubles = ((name, one.now.get(name)) for name in ("restarts", "stuck_handlers"))
    told += [f"{name.replace('_', ' ')} {number:,}" for name, number in troubles if number]
    if told:
        yield Text("  " + "   ".join(told), no_wrap=True)


def _breaker(now: Section) -> Iterator[Text]:
    said = now.get("breaker")
    breaker = said if isinstance(said, Mapping) else {}
    if not (breaker.get("open") or now.get("breaker_open")):
        return
    why = breaker.get("reason") or now.get("breaker_opened_by") or "too many messages failed"
    after = breaker.get("next_try_seconds")
    when = "" if after is None else f"; next try in {formats.seconds(after)}"
    yield Text(f"  breaker open: {shown(why)}{when}", style=BAD, no_wrap=True)


def _heading(title: str) -> Iterator[Text]:
    yield Text("")
    yield Text(title, style=HEAD, no_wrap=True)


def _producers(one: Figures) -> Iterator[Text]:
    rows: list[list[Cell]] = []
    for producer in one.now.get("producers", ()):
        then = by_name(one.then, "producers", producer.get("name"))
        source = producer.get("source") or {}
        copies, connected = producer.get("copies", 0), producer.get("connected", 0)
        is_down = not producer.get("ended") and connected < copies
        dead, lost = source.get("dead"), producer.get("connections_lost", 0)
        rows.append(
            [
                (shown(producer.get("name", "")), ""),
                ("ended" if producer.get("ended") else f"{connected}/{copies} up", BAD if is_down else ""),
                (formats.rate(_grown(producer, then, "received", one.elapsed_s)), ""),
                (formats.count(producer.get("in_flight")), ""),
                (formats.seconds(producer.get("oldest_in_flight_seconds")), ""),
                (formats.count(producer.get("redelivered")), ""),
                (formats.count(lost), BAD if lost else ""),
                (formats.count(source.get("ready")), ""),
                (formats.count(source.get("delayed")), ""),
                (formats.count(dead), BAD if dead else ""),
            ]
        )
    if not rows:
        return
    yield from _heading("sources")
    head = ("source", "", "msg/s", "in flight", "oldest", "redelivered", "lost", "ready", "delayed", "dead")
    yield from table([(title, at > 1) for at, title in enumerate(head)], rows)
    for producer in one.now.get("producers", ()):
        for why in (producer.get("trouble"), (producer.get("source") or {}).get("trouble")):
            if why is not None:
                yield Text(f"  {shown(producer.get('name', ''))}: {shown(why)}", style=WARN, no_wrap=True)


def _stages(one: Figures) -> Iterator[Text]:
    rows: list[list[Cell]] = []
    for stage in one.now.get("stages", ()):
        then = by_name(one.then, "stages", stage.get("name"))
        slots = max(1, stage.get("concurrency", 1))
        busy, held = (
            None if grown is None else grown / slots
            for grown in (_grown(stage, then, name, one.elapsed_s) for name in ("busy_seconds", "backpressure_seconds"))
        )
        failed = sum(stage.get("failed", {}).values())
        rows.append(
            [
                (shown(stage.get("name", "")).replace("_", " ").replace(":", " "), ""),
                (f"x{stage.get('concurrency', 0)}", ""),
                (formats.share(busy), ""),
                (formats.share(held), WARN if held is not None and held > 0.5 else ""),
                (formats.count(stage.get("queued")), ""),
                (formats.seconds(_mean(stage.get("duration"), None if then is None else then.get("duration"))), ""),
                (formats.count(failed), BAD if failed else ""),
            ]
        )
    if rows:
        yield from _heading("stages")
        head = ("stage", "", "busy", "held back", "queued", "takes", "failed")
        yield from table([(title, at > 1) for at, title in enumerate(head)], rows)
    loads = [share for share in one.now.get("processors_busy") or () if isinstance(share, int | float)]
    if loads:
        yield Text(f"  load of each processor: {' '.join(map(formats.share, loads))}", style=DIM, no_wrap=True)


def _publishers(one: Figures) -> Iterator[Text]:
    rows: list[list[Cell]] = []
    publishers = one.now.get("publishers") or ()
    for publisher in publishers:
        then = by_name(one.then, "publishers", publisher.get("name"))
        published, before = publisher.get("published", {}), (then or {}).get("published", {})
        confirmed = per_second(
            published.get("confirmed", 0), None if then is None else before.get("confirmed", 0), one.elapsed_s
        )
        copies, connected = publisher.get("copies", 0), publisher.get("connected", 0)
        rows.append(
            [
                (shown(publisher.get("name", "")), ""),
                (f"{connected}/{copies} up", BAD if connected < copies else ""),
                (formats.rate(confirmed), ""),
                (formats.count(publisher.get("waiting")), ""),
                (formats.count(publisher.get("in_flight")), ""),
                *(
                    (formats.count(published.get(outcome, 0)), BAD if published.get(outcome) else "")
                    for outcome in ("refused", "unconfirmed")
                ),
            ]
        )
    if not rows:
        return
    yield from _heading("publishers")
    head = ("publisher", "", "msg/s", "waiting", "in flight", "refused", "unconfirmed")
    yield from table([(title, at > 1) for at, title in enumerate(head)], rows)
    for publisher in publishers:
        if publisher.get("trouble") is not None:
            told = f"  {shown(publisher.get('name', ''))}: {shown(publisher['trouble'])}"
            yield Text(told, style=WARN, no_wrap=True)


def _windows(one: Figures) -> Iterator[Text]:
    rows: list[list[Cell]] = []
    for aggregator in one.now.get("aggregators") or ():
        held = aggregator.get("watermark_held_seconds", {})
        by = max(held, key=held.__getitem__, default=None)
        is_held = by is not None and held[by] > 0
        lag = aggregator.get("watermark_lag_seconds")
        behind = formats.seconds(lag) if lag is None or lag >= 0 else f"-{formats.seconds(-lag)}"
        late = sum(aggregator.get("late", {}).values())
        failing = aggregator.get("results_failing", 0)
        partition = aggregator.get("partition")
        rows.append(
            [
                (shown(aggregator.get("name", "")) + ("" if partition is None else f" {partition}"), ""),
                (formats.count(aggregator.get("windows_open")), ""),
                (behind, ""),
                (f"{shown(by)} {formats.seconds(held[by])}" if is_held else formats.NONE, ""),
                (formats.count(late), WARN if late else ""),
                (formats.count(aggregator.get("results_pending")), ""),
                (formats.count(failing), BAD if failing else ""),
                (formats.seconds(aggregator.get("checkpoint_age_seconds")), ""),
                (formats.bytes_of(aggregator.get("state_bytes", 0)), ""),
            ]
        )
    if rows:
        yield from _heading("windows")
        head = ("aggregator", "open", "behind", "held by", "late", "results due", "failing", "checkpoint", "state")
        yield from table([(title, at not in {0, 3}) for at, title in enumerate(head)], rows)


def _failures(now: Section) -> Iterator[Text]:
    rows: list[list[Cell]] = [
        [
            (shown(one.get("type") or formats.NONE), ""),
            (shown(one.get("stage") or formats.NONE), ""),
            (shown(one.get("place") or formats.NONE), ""),
            (shown(one.get("cause") or formats.NONE), ""),
            (formats.count(one.get("count")), ""),
            (shown(one.get("next") or formats.NONE), ""),
        ]
        for one in now.get("failures") or ()
        if isinstance(one, Mapping)
    ]
    if rows:
        yield from _heading("failures")
        yield from table(
            [("type", False), ("stage", False), ("place", False), ("cause", False), ("count", True), ("next", False)],
            rows,
        )


def workers_table(workers: Sequence[Section], owners: object = None) -> Iterator[Text]:
    """Yields the processes of the daemon. *owners* says which partitions each of them owns, if there are any."""
    owned = owners if isinstance(owners, Mapping) else {}
    rows: list[list[Cell]] = []
    for one in workers:
        index = str(one.get("index", ""))
        state, restarts = shown(one.get("state") or formats.NONE), one.get("restarts")
        rows.append(
            [
                (shown(index), ""),
                (shown(one.get("pid") or formats.NONE), ""),
                (state, state_style(state)),
                (formats.count(restarts), BAD if restarts else ""),
                (" ".join(map(str, owned.get(index, ()))) or formats.NONE, ""),
                (shown(one.get("reason") or ""), WARN),
            ]
        )
    if rows:
        yield from _heading("workers")
        head = ("worker", "pid", "state", "restarts", "partitions", "")
        yield from table([(title, at in {1, 3}) for at, title in enumerate(head)], rows)


def _grown(now: Section, then: Section | None, name: str, elapsed_s: float) -> float | None:
    return per_second(now.get(name, 0), None if then is None else then.get(name, 0), elapsed_s)


def _mean(now: Any, then: Any) -> float | None:
    """Returns the mean of the values that came between two distributions."""
    if not isinstance(now, Mapping):
        return None
    count, total = sum(now["counts"]), float(now["total"])
    if isinstance(then, Mapping):
        count, total = count - sum(then["counts"]), total - float(then["total"])
    return max(0.0, total) / count if count > 0 else None
