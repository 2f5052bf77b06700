"""Which runners there are, and what they can do: marks that run a test with each of them."""

from __future__ import annotations

from typing import Any, Final

import pytest

__all__ = ["IN_PROGRAM", "WITH_WORKERS", "each_runner", "each_runner_in_program", "each_runner_with_workers"]

#: These call the functions of a flow in the process of the program.
IN_PROGRAM: Final[list[Any]] = ["tasks", "threads"]
#: These call them in other processes: functions and elements are pickled, and what functions change stays there.
WITH_WORKERS: Final[list[Any]] = ["processes", pytest.param("ray", marks=pytest.mark.ray)]

each_runner = pytest.mark.parametrize("runner", [*IN_PROGRAM, *WITH_WORKERS])
each_runner_in_program = pytest.mark.parametrize("runner", IN_PROGRAM)
each_runner_with_workers = pytest.mark.parametrize("runner", WITH_WORKERS)
