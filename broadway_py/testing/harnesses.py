"""The harnesses of one test, as the fixture ``broadway`` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar

from broadway_py.pipeline import Pipeline
from broadway_py.testing.pipeline_harness import Harness
from broadway_py.testing.quiet import LIMIT_S

__all__ = ["Harnesses"]

P = TypeVar("P", bound=Pipeline[Any])


class Harnesses:
    """Makes harnesses, and remembers them: ``async with broadway(Orders) as h``."""

    def __init__(self) -> None:
        self._made: list[Harness[Any]] = []

    def __call__(self, pipeline: Callable[..., P], /, *, patience: float = LIMIT_S, **options: Any) -> Harness[P]:
        """Returns a :class:`Harness`, with the same arguments."""
        made = Harness(pipeline, patience=patience, **options)
        self._made.append(made)
        return made

    def from_settings(
        self,
        file: str | PathLike[str] | Sequence[str | PathLike[str]],
        /,
        *,
        pipeline: str | None = None,
        environ: Mapping[str, str] | None = None,
        patience: float = LIMIT_S,
        **options: Any,
    ) -> Harness[Pipeline[Any]]:
        """Returns a harness for a pipeline of a settings file, as :meth:`Harness.from_settings` does."""
        made = Harness.from_settings(file, pipeline=pipeline, environ=environ, patience=patience, **options)
        self._made.append(made)
        return made

    def stories(self) -> list[tuple[str, str]]:
        """Returns the name of each pipeline that ran, and what became of its messages."""
        return [(one.pipeline.name, one.story() or "no message was sent") for one in self._made if one.has_run]

    def refuse_open(self) -> None:
        """Checks that each harness was left, once the test has ended.

        Raises:
            AssertionError: one was not.
        """
        for one in self._made:
            if one.is_open:
                raise AssertionError(
                    f"the harness of pipeline {one.pipeline.name!r} was entered and not left: use `async with`, which "
                    "drains the pipeline"
                )
