"""Checks ``deduplicate_by``: its value, and that the state and the sources suit it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from broadway_py.aggregator import State
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.foreign import article
from broadway_py.pipeline.aggregator_options import check_state
from broadway_py.pipeline.deduplication.handled_ids import NAME
from broadway_py.pipeline.deduplication.naming import BY_ID
from broadway_py.producer_description import ProducerDescription
from broadway_py.written import looked_at

__all__ = ["check_deduplication", "checked_deduplicate_by", "merged_deduplicate_by"]


def checked_deduplicate_by(value: object) -> object:
    """Returns the option ``deduplicate_by``, which is None, ``"id"`` or a plain function.

    Raises:
        OptionsError: it is something else.
    """
    if value is None or (isinstance(value, str) and value == BY_ID):
        return value
    if isinstance(value, str):
        raise OptionsError(
            (NAME,), f"expected {BY_ID!r} or a function of one message, got {value!r}{did_you_mean(value, [BY_ID])}"
        )
    if not callable(value):
        raise OptionsError((NAME,), f"expected {BY_ID!r} or a function of one message, got {article(value)}")
    if inspect.iscoroutinefunction(value):
        raise OptionsError((NAME,), "expected a plain function of one message, got an async one; write it with def")
    return value


def merged_deduplicate_by(base: object, raw: object) -> object:
    """Returns ``deduplicate_by`` of a settings file: ``id``, or ``null``, which turns it off.

    A function is code, so a file can only leave the one of the class as it is.

    Raises:
        OptionsError: it is something else.
    """
    value = looked_at(raw)
    if value is None or value == BY_ID:
        return value
    shown = repr(value) if isinstance(value, str) else article(value)
    hint = "; the class has a function, which counts if the file says nothing" if callable(base) else ""
    raise OptionsError((NAME,), f"expected {BY_ID!r} or null, got {shown}; a function is written in the class{hint}")


def check_deduplication(
    deduplicate_by: object,
    state: State | None,
    producers: Mapping[str, ProducerDescription],
    aggregators: Mapping[str, Any],
) -> None:
    """Check that the state and the sources suit ``deduplicate_by``.

    Raises:
        OptionsError: they do not.
    """
    if deduplicate_by is None:
        return
    if NAME in aggregators:
        raise OptionsError(
            ("aggregators", NAME),
            "the ids of handled messages have this name in the state; give the aggregator another name",
        )
    check_state(
        state,
        producers,
        missing="required with deduplicate_by, but missing: the file that keeps the ids of handled messages, such as "
        "var/shop.db",
        kept="the ids of handled messages",
    )
