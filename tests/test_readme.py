"""What the README shows is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def block(language: str) -> str:
    """The README's only block in *language*."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_pipeline_of_the_readme_has_about_20_lines() -> None:
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 20


def test_the_pipeline_of_the_readme_handles_each_order_once(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", block("python")], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    batches = re.findall(r"^(\d+) orders, worth (\d+)$", ran.stdout, re.MULTILINE)
    assert sum(int(size) for size, _ in batches) == 1_000
    assert sum(int(worth) for _, worth in batches) == 2 * sum(range(1_000))


def test_the_settings_of_the_readme_pass_the_check(tmp_path: Path) -> None:
    (tmp_path / "readme.yaml").write_text(block("yaml"))

    ran = subprocess.run(
        [sys.executable, "-m", "broadway_py", "check", "readme.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/decisions/README.md"])
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", (ROOT / page).read_text())

    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text()))

    pages = [page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/*.md")]
    assert [page for page in [*pages, "docs/decisions/README.md"] if page not in linked] == []


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_link_to_a_heading_leads_to_one() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    links = [(page, *link) for page in pages for link in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text())]
    assert len(links) > 20

    assert [
        f"{page.relative_to(ROOT)}: {file}#{anchor}"
        for page, file, anchor in links
        if anchor not in anchors(page.parent / file if file else page)
    ] == []


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()

    assert [page.name for page in ROOT.glob("docs/decisions/0*.md") if page.name not in listed] == []
