"""Whether a consumer lives on: the table of cancel modes."""

from __future__ import annotations

import pytest

from broadway_py._core.subscription import Cancellation, CancelMode, End, lives_on


@pytest.mark.parametrize(
    ("mode", "quiet", "with_a_reason", "never_began"),
    [("permanent", False, False, False), ("transient", True, False, False), ("temporary", True, True, True)],
)
def test_who_lives_on_after_the_end_of_a_subscription(
    mode: CancelMode, quiet: bool, with_a_reason: bool, never_began: bool
) -> None:
    for kind in ("cancel", "down"):
        assert lives_on(mode, End(Cancellation(kind, None))) is quiet
        assert lives_on(mode, End(Cancellation(kind, "oops"))) is with_a_reason
    assert lives_on(mode, End(Cancellation("down"), never_began=True)) is never_began
    assert lives_on(mode, End(Cancellation("cancel", "oops"), spares=True))


def test_a_cancellation_is_a_pair() -> None:
    assert Cancellation("cancel", "oops") == ("cancel", "oops")
    assert Cancellation("down") == ("down", None)
