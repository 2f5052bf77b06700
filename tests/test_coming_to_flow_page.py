"""What the pages for those who come from elsewhere show is run as it stands, and names only what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broadway_py.flow import Flow, Window
from broadway_py.flow.report import FlowReport

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMING = (DOCS / "coming-to-flow.md").read_text()
#: What the tables call that is not of Flow.
_OTHERS = {"f", "first", "second", "islice", "iter", "itemgetter", "list", "nlargest", "nsmallest", "random", "sorted"}


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def printed(page: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["coming-to-flow.md", "when-not-flow.md"])
def test_each_program_prints_what_stands_below_it(name: str, tmp_path: Path) -> None:
    page = (DOCS / name).read_text()
    ran = [
        subprocess.run(
            [sys.executable, "-c", each], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        for each in programs(page)
    ]

    assert [(each.returncode, each.stderr) for each in ran] == [(0, "")] * len(ran)
    assert [each.stdout for each in ran if each.stdout] == printed(page)


def test_a_program_of_each_peer_stands_beside_ours() -> None:
    peers = re.findall(r"^```(elixir|python \w+)\n(.*?)^```$.*?^```python\n", COMING, re.MULTILINE | re.DOTALL)

    assert [language for language, _ in peers] == ["elixir", "python dask", "python spark", "python bytewax"]
    assert len(programs(COMING)) == 1 + len(peers)
    for language, program in peers:
        if language != "elixir":
            ast.parse(program)  # it does not run here: the peers are no dependencies


def test_the_tables_name_only_what_there_is() -> None:
    rows = re.findall(r"^\| .*(?<!\\)\| (.*) \|$", COMING, re.MULTILINE)
    called = {name for row in rows for code in re.findall(r"`([^`]*)`", row) for name in re.findall(r"(\w+)\(", code)}

    assert len(called) > 40
    assert [name for name in called - _OTHERS if not hasattr(Flow, name) and not hasattr(Window, name)] == []
    assert "elements_out" in FlowReport.__annotations__
