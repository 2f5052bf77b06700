from __future__ import annotations

import pytest

from broadway_py._core.window.spec import Window
from broadway_py.state.facts import window_text


def by(event: float) -> float:
    return event


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window.fixed("1m", by=by), "fixed windows of 60 s"),
        (Window.fixed(1_234_567.000001, by=by), "fixed windows of 1234567.000001 s"),
        (Window.fixed("1h", by=by, offset=-5), "fixed windows of 3600 s, moved by -5 s"),
        (Window.sliding("1m", "10s", by=by), "sliding windows of 60 s every 10 s"),
        (Window.session("30s", by=by), "session windows"),
        (Window.calendar("week", tz="Europe/Berlin", by=by), "calendar windows of a week in Europe/Berlin"),
        (Window.count(10), "count windows"),
        (Window.periodic(0.5), "periodic windows of 0.5 s"),
    ],
)
def test_the_text_of_a_window_says_what_must_stay(window: Window, text: str) -> None:
    assert window_text(window.shape) == text
