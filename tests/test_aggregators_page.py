"""What docs/aggregators.md shows is run as it stands, and prints what stands below it; its tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import yaml

from broadway_py import State, WindowResult
from broadway_py.aggregator import METHODS, AggregatorSettings, ResultTrigger
from broadway_py.options import load

PAGE = Path(__file__).resolve().parents[1] / "docs" / "aggregators.md"
TEXT = PAGE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[str]:
    """The first column of the first table below *heading*."""
    section = TEXT.split(f"## {heading}\n")[1]
    rows = next(re.finditer(r"(?:^\|.*\n)+", section, re.MULTILINE))[0].splitlines()[2:]
    return [row.split(" | ")[0] for row in rows]


def names(cells: list[str]) -> set[str]:
    return {found for cell in cells for found in re.findall(r"`(?:async )?(\w+)", cell)}


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


def test_the_settings_are_valid() -> None:
    plain, parted = (yaml.safe_load(text)["pipelines"]["shop"] for text in blocks("yaml"))
    assert load(State, plain["state"]).dedup == 600.0
    assert load(State, parted["state"]).path == "var/shop"
    revenue = {name: value for name, value in plain["aggregators"]["revenue"].items() if name != "emit_to"}
    assert load(AggregatorSettings, revenue).lateness == 300.0


def test_the_tables_have_every_method_option_and_attribute() -> None:
    assert names(table("The methods")) == set(METHODS)
    assert names(table("Options")) == set(AggregatorSettings.model_fields)
    assert names(table("The results")) == {field.name for field in fields(WindowResult)}


def test_the_page_names_every_trigger() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| `trigger` |"))
    assert names([row]) - {"trigger"} == set(get_args(ResultTrigger))


def test_every_file_that_the_page_links_to_is_there() -> None:
    shown = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", TEXT)
    assert [name for name in shown if not (PAGE.parent / name).exists()] == []
