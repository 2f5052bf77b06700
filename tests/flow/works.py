"""Drives a :class:`Work` in tests, and describes layers in short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from broadway_py.flow.description.layers import FromIterable, Layer, Spread
from broadway_py.flow.description.operators import Emission, KeyedReduction, Operator, OperatorKind, Reduction
from broadway_py.flow.frames import Frame
from broadway_py.flow.work.calls import finished
from broadway_py.flow.work.work import Reply, Work


def operator(kind: OperatorKind, fn: Callable[..., Any] | None, number: int = 1) -> Operator:
    return Operator(kind, fn, number)


def chain(*operators: tuple[OperatorKind, Callable[..., Any] | None]) -> tuple[Operator, ...]:
    return tuple(Operator(kind, fn, number) for number, (kind, fn) in enumerate(operators, 1))


def layer(**settings: Any) -> Layer:
    return Layer((FromIterable([]),), Spread(), **settings)


def reduce(init: Callable[[], Any], fn: Callable[[Any, Any], Any], **more: Any) -> Reduction:
    return Reduction("emit_and_reduce" if more.get("emits") else "reduce", init, fn, 5, **more)


def total(**more: Any) -> Reduction:
    return reduce(int, lambda total, element: total + element, **more)


def by_key(key: Callable[[Any], Any] | None = None, **more: Any) -> KeyedReduction:
    return KeyedReduction("reduce_by", key, int, lambda total, element: total + element, 5, **more)


def count_by(key: Callable[[Any], Any] | None = None, **more: Any) -> KeyedReduction:
    return KeyedReduction("count_by", key, int, lambda count, _: count + 1, 5, **more)


def emit(what: Any) -> Emission:
    return Emission(6, what)


def on_trigger(fn: Callable[..., Any], takes: int = 1) -> Emission:
    return Emission(6, None, fn, takes)


def frames_of(reply: Reply) -> list[Frame]:
    """Returns the frames, also if a coroutine gives them."""
    if isinstance(reply, list):
        return reply

    async def waited() -> list[Frame]:
        return await reply

    return asyncio.run(waited())


def elements_of(reply: Reply) -> list[Any]:
    return [element for frame in frames_of(reply) for element in frame.elements]


def run(work: Work, elements: Sequence[Any], sizes: Sequence[int] = (3,)) -> list[Any]:
    """Gives *elements* in lists of *sizes*, in turns. Returns all that comes out."""
    ran = _run(work, elements, sizes)
    return asyncio.run(ran) if work.is_async else finished(ran)


async def _run(work: Work, elements: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    out: list[Any] = []

    async def take(reply: Reply) -> None:
        frames = reply if isinstance(reply, list) else await reply
        out.extend(element for frame in frames for element in frame.elements)

    await take(work.start(0.0))
    place = turn = 0
    while place < len(elements):
        size = sizes[turn % len(sizes)]
        turn += 1
        await take(work.feed(Frame(list(elements[place : place + size]), first=place), 0.0))
        place += size
    await take(work.end(0.0))
    return out


def result(elements: Sequence[Any], sizes: Sequence[int] = (3,), **settings: Any) -> list[Any]:
    """Returns what one stage of a layer makes of *elements*."""
    return run(Work(layer(**settings)), elements, sizes)
