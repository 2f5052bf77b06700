"""What docs/flow.md shows is run as it stands, and prints what stands below it; its tables are complete."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

from broadway_py.flow import Flow
from broadway_py.flow.description.chain import LayerOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "flow.md"
TEXT = PAGE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_the_page_says() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))],
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "".join(blocks("text"))


def test_the_page_has_every_method_and_its_arguments() -> None:
    methods = [name for name, _ in inspect.getmembers(Flow, callable) if not name.startswith("_")]

    assert [name for name in methods if not re.search(rf"\b{name}\(", TEXT)] == []


def test_the_page_has_every_option_of_a_layer() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)

    assert set(LayerOptions.__annotations__) <= set(rows)


def test_every_file_that_the_page_links_to_is_there() -> None:
    shown = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", TEXT)
    assert [name for name in shown if not (PAGE.parent / name).exists()] == []
