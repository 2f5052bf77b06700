"""Groups of errors, as ``asyncio.TaskGroup`` raises them: of which kind they are."""

from __future__ import annotations

import pytest

from broadway_py.errors import Unavailable
from broadway_py.pipeline.settlement.failures import failure_from

AWAY, OTHER = Unavailable("the database"), Unavailable("the cache")


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("", [AWAY]),
        ExceptionGroup("", [AWAY, OTHER]),
        ExceptionGroup("", [ExceptionGroup("", [AWAY]), OTHER]),
    ],
)
def test_a_group_of_nothing_but_unavailable_counts_as_its_first_error(group: ExceptionGroup[Exception]) -> None:
    status = failure_from(group)
    assert (status.cause, status.exception) == ("raised", AWAY)


def test_a_group_with_another_error_stays_a_group() -> None:
    group = ExceptionGroup("", [AWAY, ExceptionGroup("", [ValueError(), OTHER])])
    assert failure_from(group).exception is group
