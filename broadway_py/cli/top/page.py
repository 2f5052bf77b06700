"""Lays out the page: a line about the daemon, the pipelines or one of them, and a line about the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from broadway_py.cli.top import formats
from broadway_py.cli.top.details import details, workers_table
from broadway_py.cli.top.figures import Figures
from broadway_py.cli.top.lines import BAD, DIM, HEAD, WARN, fitted
from broadway_py.cli.top.overview import overview
from broadway_py.cli.top.screen import Screen

__all__ = ["Shown", "page", "plain"]


@dataclass(slots=True)
class Shown:
    """What is known about the daemon."""

    url: str
    pipelines: Sequence[Figures] = ()
    workers: Sequence[Mapping[str, Any]] = ()
    version: str = ""
    #: Why the last request failed, and how many seconds ago the last good answer came.
    trouble: str | None = None
    age_s: float | None = None
    #: Whether keys can be read.
    has_keys: bool = field(default=True)


def page(shown: Shown, screen: Screen, width: int, height: int) -> list[Text]:
    """Returns the lines of the page: exactly *height* of them, none wider than *width*."""
    screen.follow(shown.pipelines)
    head = [_title(shown), *_trouble(shown), Text("")]
    foot = _foot(shown, screen)
    room = max(1, height - len(head) - 1)
    chosen = next((one for one in shown.pipelines if one.name == screen.chosen), None)
    if screen.is_open and chosen is not None:
        lines = details(chosen, shown.workers)
        screen.scrolled = min(screen.scrolled, max(0, len(lines) - room))
        body = lines[screen.scrolled : screen.scrolled + room]
    else:
        body = _pipelines(shown, screen, width, room)
    body += [Text("")] * (room - len(body))
    return [fitted(line, width) for line in [*head, *body, foot]][-height:]


def plain(shown: Shown) -> list[str]:
    """Returns the page as plain text: all pipelines, as wide as they are, without keys."""
    lines = [_title(shown), Text("")]
    for block in overview(shown.pipelines, None, None):
        lines += block
    lines += workers_table(shown.workers)
    return [line.plain.rstrip() for line in lines]


def _title(shown: Shown) -> Text:
    title = Text(no_wrap=True)
    title.append("broadway", HEAD)
    title.append(f" {shown.version}" if shown.version else "", DIM)
    title.append(f"  {shown.url}  ")
    if shown.age_s is None:
        return title
    count, waiting = len(shown.pipelines), sum(not one.is_ready for one in shown.pipelines)
    title.append(f"{count} pipeline{'' if count == 1 else 's'}, ")
    title.append(*((f"{waiting} not ready", BAD) if waiting else ("all ready", "")))
    rates = [one.settled_per_s for one in shown.pipelines if one.settled_per_s is not None]
    if rates:
        title.append(f"  {formats.rate(sum(rates))} msg/s")
    return title


def _trouble(shown: Shown) -> list[Text]:
    if shown.trouble is None:
        return []
    lines = [Text(shown.trouble, style=BAD, no_wrap=True)]
    if shown.age_s is not None:
        age = formats.seconds(shown.age_s)
        lines.append(Text(f"the figures are {age} old; the daemon is asked again every second", no_wrap=True))
    return lines


def _foot(shown: Shown, screen: Screen) -> Text:
    if screen.question is not None:
        return Text(screen.question, style=WARN, no_wrap=True)
    if screen.notice:
        return Text(screen.notice, style=WARN, no_wrap=True)
    if not shown.has_keys:
        return Text("Ctrl-C ends", style=DIM, no_wrap=True)
    if screen.is_open:
        return Text("j k scroll   esc back   p pause or resume   q quit", style=DIM, no_wrap=True)
    return Text("j k choose   enter open   p pause or resume   q quit", style=DIM, no_wrap=True)


def _pipelines(shown: Shown, screen: Screen, width: int, room: int) -> list[Text]:
    if shown.age_s is None:
        return []
    head, *blocks = overview(shown.pipelines, screen.chosen if shown.has_keys else None, width)
    room -= len(head)
    at = next((at for at, one in enumerate(shown.pipelines) if one.name == screen.chosen), 0)
    # The first block that is shown is the earliest one with which the chosen one still fits.
    first, used = at, len(blocks[at]) if blocks else 0
    while first > 0 and used + len(blocks[first - 1]) <= room:
        first -= 1
        used += len(blocks[first])
    lines = [line for block in blocks[first:] for line in block]
    if len(lines) <= room:
        workers = list(workers_table(shown.workers))
        lines += workers if len(lines) + len(workers) <= room else []
    return [*head, *lines[: max(1, room)]]
