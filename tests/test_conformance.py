"""The conformance record and page: only what ran and passed counts, and gaps are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.conformance import conforms, main, problems, render
from tests.support.contract_numbers import ContractNumberError, Excepted, Scope, load_scope

BEAM = Excepted("beam_only", "Names of processes are atoms there.")


def entry(*numbers: str, outcomes: tuple[str, ...] = ("passed",)) -> dict[str, Any]:
    return {"numbers": list(numbers), "outcomes": list(outcomes)}


def scope(*numbers: str, **exceptions: Excepted) -> Scope:
    return Scope(frozenset(numbers), {name.replace("_", "-"): row for name, row in exceptions.items()})


# --- what a test may carry ------------------------------------------------------------------------------------------


def test_a_test_carries_at_most_three_numbers() -> None:
    with pytest.raises(ContractNumberError) as refused:
        conforms("B-001", "B-002", "B-003", "B-004")

    assert str(refused.value) == (
        "a test carries one to three contract numbers, this one has 4: "
        "split the test, so that each number fails on its own"
    )


@pytest.mark.parametrize("number", ["B17", "X-001", "B-1", "b-001", 17])
def test_a_number_has_the_form_of_the_contract(number: Any) -> None:
    with pytest.raises(ContractNumberError) as refused:
        conforms(number)

    assert str(refused.value) == f'a contract number looks like "B-017" (B, R, S, G, F or W), got {number!r}'


# --- the file of scope and exceptions -------------------------------------------------------------------------------


def test_ranges_are_spread_in_scope_and_in_exceptions(tmp_path: Path) -> None:
    file = tmp_path / "exceptions.toml"
    file.write_text(
        '[scope]\nnumbers = ["B-009..B-011", "G-001"]\n'
        '[[exception]]\nnumbers = ["B-010..B-011"]\nkind = "beam_only"\nsentence = """Two\n  lines."""\n'
    )

    read = load_scope(file)

    assert read.numbers == {"B-009", "B-010", "B-011", "G-001"}
    assert read.exceptions == {number: Excepted("beam_only", "Two lines.") for number in ("B-010", "B-011")}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[scope]\nnumbers = ["B-011..B-009"]', "a range looks like \"B-020..B-030\", got 'B-011..B-009'"),
        ('[scope]\nnumbers = ["B-001..G-009"]', "a range looks like \"B-020..B-030\", got 'B-001..G-009'"),
        (
            '[scope]\nnumbers = []\n[[exception]]\nnumbers = ["B-001"]\nkind = "later"\nsentence = "x"',
            (
                "an exception has numbers, a kind (beam_only, defect_fixed, out_of_scope) and a sentence, "
                "got {'numbers': ['B-001'], 'kind': 'later', 'sentence': 'x'}"
            ),
        ),
        (
            '[scope]\nnumbers = []\n[[exception]]\nnumbers = ["B-001", "B-001"]\nkind = "beam_only"\nsentence = "x"',
            "B-001 has two rows in exceptions.toml: keep one",
        ),
    ],
)
def test_a_wrong_row_is_refused_with_what_was_expected(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "exceptions.toml"
    file.write_text(content)

    with pytest.raises(ContractNumberError) as refused:
        load_scope(file)

    assert str(refused.value) == sentence


# --- what is missing ------------------------------------------------------------------------------------------------


def test_a_number_in_scope_without_test_and_row_is_a_problem() -> None:
    assert problems({}, scope("B-001")) == [
        "B-001: no test carries it, and tests/conformance_exceptions.toml has no row for it"
    ]


@pytest.mark.parametrize("outcomes", [("skipped",), ("failed",), ("failed", "passed")])
def test_a_test_that_did_not_pass_holds_nothing(outcomes: tuple[str, ...]) -> None:
    record = {"tests/test_a.py::test_a": entry("B-001", outcomes=outcomes)}

    assert problems(record, scope("B-001")) == [
        f"B-001: no test with it passed: tests/test_a.py::test_a ({'/'.join(outcomes)})"
    ]


def test_a_passing_test_or_a_row_is_enough() -> None:
    record = {"tests/test_a.py::test_a": entry("B-001", outcomes=("passed", "skipped"))}

    assert problems(record, scope("B-001", "B-002", B_002=BEAM)) == []


def test_a_row_that_a_passing_test_contradicts_must_go() -> None:
    record = {"tests/test_a.py::test_a": entry("B-001", "B-002")}
    mended = Excepted("defect_fixed", "Ours fails the message.")

    assert problems(record, scope("B-001", "B-002", B_001=BEAM, B_002=mended)) == [
        "B-001: tests/test_a.py::test_a passes, so its row of kind beam_only must go"
    ]


def test_the_page_shows_each_number_with_its_tests_or_its_reason() -> None:
    record = {"tests/test_b.py::test_b": entry("B-001"), "tests/test_a.py::test_a": entry("B-001", "G-004")}

    page = render(record, scope("B-001", "B-002", B_002=BEAM))

    assert "In scope: 2 numbers; 1 held by tests, 1 with a reason.\n" in page
    assert page.endswith(
        "| B-001 | `tests/test_a.py::test_a`<br>`tests/test_b.py::test_b` |\n"
        "| B-002 | *beam_only*: Names of processes are atoms there. |\n"
        "| G-004 | `tests/test_a.py::test_a` |\n"
    )


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in (".cache", "docs", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "conformance_exceptions.toml").write_text('[scope]\nnumbers = ["B-001"]\n')
    (tmp_path / ".cache" / "conformance.json").write_text(json.dumps({"tests/test_a.py::test_a": entry("B-001")}))
    return tmp_path


def test_the_page_is_written_and_then_found_up_to_date(project: Path) -> None:
    assert main([], root=project) == 0
    assert main(["--check"], root=project) == 0


def test_a_stale_page_fails_the_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "docs" / "conformance.md").write_text("old\n")

    assert main(["--check"], root=project) == 1
    assert capsys.readouterr().err == (
        "docs/conformance.md differs from the run: write it anew with `make conformance` and commit it\n"
    )


def test_a_number_without_test_fails_the_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".cache" / "conformance.json").write_text("{}")

    assert main([], root=project) == 1
    assert capsys.readouterr().err == (
        "B-001: no test carries it, and tests/conformance_exceptions.toml has no row for it\n"
    )


def test_without_a_record_the_command_says_how_to_get_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".cache" / "conformance.json").unlink()

    assert main([], root=project) == 1
    assert capsys.readouterr().err == "there is no record of a complete test run: run `make test` first\n"


# --- the plugin, in a pytest run of its own -------------------------------------------------------------------------

SUITE = """
import pytest
from tests.support.conformance import conforms

@conforms("B-001")
@pytest.mark.parametrize("case", [1, 2])
def test_passes(case): pass

@conforms("B-002", "B-003")
def test_is_skipped(): pytest.skip("no broker")

@conforms("B-004")
@pytest.mark.xfail(strict=True)
def test_is_expected_to_fail(): assert False

@pytest.fixture
def breaks_afterwards():
    yield
    assert False

@conforms("B-005")
def test_breaks_in_its_tear_down(breaks_afterwards): pass

@conforms("B-006")
@pytest.mark.soak
def test_soaks(): pass

def test_carries_nothing(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        "[tool.pytest.ini_options]\n"
        'testpaths = ["checks"]\naddopts = ["-m", "not soak and not ray"]\nmarkers = ["conforms", "soak"]\n'
        'asyncio_default_fixture_loop_scope = "function"\n'
    )
    pytester.makeconftest('pytest_plugins = ["tests.support.conformance"]')
    pytester.mkdir("checks").joinpath("test_it.py").write_text(SUITE)
    return pytester


def recorded(suite: pytest.Pytester) -> Any:
    path = suite.path / ".cache" / "conformance.json"
    return json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_complete_run_records_the_worst_outcome_of_each_test_that_carries_a_number(
    suite: pytest.Pytester, workers: int
) -> None:
    suite.runpytest_inprocess("-n", str(workers))

    assert recorded(suite) == {
        "checks/test_it.py::test_breaks_in_its_tear_down": entry("B-005", outcomes=("failed",)),
        "checks/test_it.py::test_is_expected_to_fail": entry("B-004", outcomes=("skipped",)),
        "checks/test_it.py::test_is_skipped": entry("B-002", "B-003", outcomes=("skipped",)),
        "checks/test_it.py::test_passes": entry("B-001"),
    }


@pytest.mark.parametrize(
    "selection",
    [
        ["-k", "passes"],
        ["-m", "not nothing"],
        ["checks/test_it.py"],
        ["--deselect", "checks/test_it.py::test_passes"],
        ["-x"],
        ["--lf"],
        ["--collect-only"],
        ["-n2", "-k", "passes"],
    ],
    ids=" ".join,
)
def test_a_partial_run_leaves_no_record(suite: pytest.Pytester, selection: list[str]) -> None:
    suite.runpytest_inprocess(*selection, "--strict-markers")

    assert recorded(suite) is None


def test_too_many_numbers_by_several_marks_end_the_collection_with_the_sentence(suite: pytest.Pytester) -> None:
    suite.path.joinpath("checks", "test_more.py").write_text(
        "from tests.support.conformance import conforms\n"
        '@conforms("B-001", "B-002")\n@conforms("B-003", "B-004")\ndef test_too_much(): pass\n'
    )

    ran = suite.runpytest_inprocess()

    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines(
        "ERROR: checks/test_more.py::test_too_much: a test carries one to three contract numbers, this one has 4: "
        "split the test, so that each number fails on its own"
    )
