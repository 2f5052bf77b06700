"""What the page about tests shows is saved and run, as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broadway_py.testing import DeadLetter, Harness, MessageOutcome
from tests.support.kit_plugin import LOAD_PLUGIN

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "testing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_recipes_pass(pytester: pytest.Pytester) -> None:
    pipeline, *recipes = blocks("python")
    (settings,) = blocks("ini")
    pytester.path.joinpath("orders.py").write_text(pipeline)
    pytester.path.joinpath("test_orders.py").write_text("\n\n".join(recipes))
    pytester.path.joinpath("pytest.ini").write_text(settings)

    result = pytester.runpytest_subprocess(*LOAD_PLUGIN, "-p", "no:xdist", "-W", "error")

    result.assert_outcomes(passed=13)
    assert len(re.findall(r"^### \d+\. ", PAGE, re.MULTILINE)) == 11


def test_the_table_names_what_a_harness_has() -> None:
    section = PAGE.split("## What a harness has\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| `(?:await )?h\.(\w+)", section, re.MULTILINE)

    for_the_fixture = {"has_run", "is_open"}
    assert sorted(cells) == sorted(
        name for name in {*vars(Harness), "clock"} - for_the_fixture - {"from_settings"} if not name.startswith("_")
    )
    for name in re.findall(r"`\.(\w+)`", section):
        assert name in {"history", "counts", "count", *DeadLetter.__slots__, *MessageOutcome.__annotations__}
