"""The events of stages as an async iterator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from broadway_py._core.subscription import Cancellation, End, lives_on
from broadway_py.errors import OptionsError
from broadway_py.foreign import article
from broadway_py.stage.consuming import ConsumingStage, producer_down
from broadway_py.stage.emitting import EmittingStage
from broadway_py.stage.settings import SubscriptionOptions
from broadway_py.stage.subscribe import connect

__all__ = ["stream"]

T = TypeVar("T")

_Stages = EmittingStage[T] | Iterable[EmittingStage[T] | tuple[EmittingStage[T], Mapping[str, Any]]]


def stream(stages: _Stages[T], **options: Any) -> AsyncGenerator[T]:
    """Returns an async iterator over the events of *stages*. It ends when all subscriptions have ended.

    It subscribes when the first event is asked for. It ends its subscriptions when it ends, is closed, or is broken
    out of. (Close it with ``contextlib.aclosing`` if you must know when.) The subscriptions are ``cancel="transient"``
    unless told otherwise: a producer that ends quietly ends them, one that dies makes the iterator raise.

    Args:
        stages: a stage, or several; each of them may be a pair ``(stage, options)``.
        options: the options of all subscriptions, as for :func:`subscribe`; ``mode`` is always automatic.

    Raises:
        OptionsError: at once, if an option is wrong or unknown, or a stage is none.
        StageDown: while iterating, if a producer has died, or had ended before. With ``cancel="permanent"`` also if a
            producer has ended quietly; with ``"temporary"`` never.
    """
    chosen = [_pair(each, options) for each in ((stages,) if isinstance(stages, EmittingStage) else _several(stages))]
    return _events(chosen)


def _several(stages: object) -> Sequence[Any]:
    if not isinstance(stages, Iterable):
        raise OptionsError(("stages",), f"expected stages that emit events, got {article(stages)}")
    return list(stages)


def _pair(given: Any, options: Mapping[str, Any]) -> tuple[EmittingStage[Any], SubscriptionOptions]:
    stage, own = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
    if not isinstance(stage, EmittingStage):
        raise OptionsError(("stages",), f"expected a stage that emits events, got {article(stage)}")
    checked = SubscriptionOptions(**{"cancel": "transient", **options, **own})
    if checked.mode != "automatic":
        raise OptionsError(("mode",), "expected 'automatic', because a stream asks by itself, got 'manual'")
    return stage, checked


class _Reader(ConsumingStage[Any]):
    """Stands for the stream at the other end of its subscriptions. It has no task: the iterator does its work."""

    name = "stream"


async def _events(stages: Sequence[tuple[EmittingStage[T], SubscriptionOptions]]) -> AsyncGenerator[T]:
    reader = _Reader()
    inlet = reader.inlet
    try:
        for stage, options in stages:
            connect(reader, stage, options)
        while inlet.marks or inlet or inlet.edges:
            mark = inlet.next_mark()
            if isinstance(mark, tuple):
                edge, end = mark
                if not lives_on(edge.cancel_mode, end):
                    raise producer_down(reader.name, edge, end)
            elif mark is not None:
                continue  # a subscription has begun, which nobody wants to know here
            elif inlet:
                edge, chunk, ask = inlet.take()
                for event in chunk:
                    yield event
                if ask:
                    edge.ask(ask)
            else:
                await reader._wake.wait()
    finally:
        reader._has_ended = True
        for edge in list(inlet.edges):
            edge.outlet.unsubscribe(edge, End(Cancellation("cancel")))
