"""Which contract numbers the tests hold, and the page that says so.

A test carries its numbers with :func:`conforms`. Loaded as a pytest plugin, this module notes which of them ran and
passed; a complete run leaves that record in ``.cache/conformance.json``. ``python -m tests.support.conformance``
renders the record to ``docs/conformance.md`` (with ``--check`` it only compares) and fails when a number in scope has
neither a test that passed nor a row in ``tests/conformance_exceptions.toml``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.contract_numbers import ContractNumberError, Scope, check_numbers, load_scope

__all__ = ["conforms", "main", "problems", "render"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_RECORD: Final = Path(".cache", "conformance.json")
_PAGE: Final = Path("docs", "conformance.md")
_EXCEPTIONS: Final = Path("tests", "conformance_exceptions.toml")

#: What `-m` says in pyproject.toml: a run with it is still a complete one.
_USUAL_SELECTION: Final = "not soak and not ray"

#: The attribute of a test's report with the numbers that the test carries.
_NUMBERS: Final = "contract_numbers"

#: test name (without parameters) -> numbers and outcomes, as in the record's file
Record = Mapping[str, Mapping[str, Any]]


def conforms(*numbers: str) -> pytest.MarkDecorator:
    """Mark a test as the one that holds the contract's *numbers*, one to three of them.

    Raises:
        ContractNumberError: when the test is collected, if there are more, or one has not the form "B-017".
    """
    check_numbers(numbers)
    return pytest.mark.conforms(*numbers)


# --- the plugin -----------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Carrier(), "conformance-carrier")
    # A worker runs a share of the tests and tells the process that started it; that one sees them all.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(config), "conformance-recorder")


class _Carrier:
    """Where tests run: puts the numbers of each into its reports, which travel from a worker to the recorder."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            numbers = [number for mark in item.iter_markers("conforms") for number in mark.args]
            if not any(True for _ in item.iter_markers("conforms")):
                continue
            try:
                check_numbers(numbers)
            except ContractNumberError as wrong:
                raise pytest.UsageError(f"{item.nodeid}: {wrong}") from None
            self._numbers[item.nodeid] = numbers

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        vars(report)[_NUMBERS] = self._numbers.get(item.nodeid, [])
        return report


class _Recorder:
    """Where the run ends: collects the outcomes of all its tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._numbers: dict[str, list[str]] = {}
        self._outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self._outcomes.get(report.nodeid)
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        # The worst of set-up, call and tear-down counts.
        if before is None or before == "passed" or outcome == "failed":
            self._outcomes[report.nodeid] = outcome
        if numbers := getattr(report, _NUMBERS, []):
            self._numbers[report.nodeid] = numbers

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self._is_complete(session, exitstatus):
            return
        record: dict[str, dict[str, Any]] = {}
        for nodeid, numbers in sorted(self._numbers.items()):
            # The parameters of a test may carry different numbers.
            entry = record.setdefault(nodeid.partition("[")[0], {"numbers": [], "outcomes": []})
            entry["numbers"] = sorted({*entry["numbers"], *numbers})
            entry["outcomes"] = sorted({*entry["outcomes"], self._outcomes[nodeid]})
        path = self._config.rootpath / _RECORD
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")

    def _is_complete(self, session: pytest.Session, exitstatus: int) -> bool:
        """Whether every test ran: a selection must not leave a record with gaps."""
        option = self._config.option
        return (
            exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
            and self._config.args_source is pytest.Config.ArgsSource.TESTPATHS
            and option.markexpr == _USUAL_SELECTION
            and not (option.keyword or option.deselect or option.ignore or option.ignore_glob)
            and not (option.collectonly or option.maxfail)
            and not (getattr(option, "lf", False) or getattr(option, "stepwise", False))  # of a plug-in
            and len(self._outcomes) == session.testscollected
        )


# --- the page -------------------------------------------------------------------------------------------------------


def problems(record: Record, scope: Scope) -> list[str]:
    """What keeps the contract from being held, one sentence each."""
    found = []
    for number in sorted(scope.numbers):
        tests = _carrying(record, number)
        if _passing(record, number) or number in scope.exceptions:
            continue
        if tests:
            seen = ", ".join(f"{test} ({'/'.join(record[test]['outcomes'])})" for test in tests)
            found.append(f"{number}: no test with it passed: {seen}")
        else:
            found.append(f"{number}: no test carries it, and tests/conformance_exceptions.toml has no row for it")
    for number, exception in sorted(scope.exceptions.items()):
        passing = _passing(record, number)
        if passing and exception.kind != "defect_fixed":
            found.append(f"{number}: {passing[0]} passes, so its row of kind {exception.kind} must go")
    return found


def render(record: Record, scope: Scope) -> str:
    """The page: each number in scope, or with a passing test, and what holds it or why nothing does."""
    tested = {number for entry in record.values() if "passed" in entry["outcomes"] for number in entry["numbers"]}
    in_scope = tested & scope.numbers
    exempt = {number for number in scope.numbers if number in scope.exceptions}
    lines = [
        "# Conformance",
        "",
        "Which sentence of the contract is held by which test. The numbers are those of the contract's list: B core,",
        "R RabbitMQ, S SQS, G stages, F flow, W windows. Written by `make conformance` from a complete test run;",
        "do not edit. A number without a test has a row in `tests/conformance_exceptions.toml` that says why:",
        "*beam_only* (means something only on the original's virtual machine), *defect_fixed* (the original does it",
        "wrong; a test holds what is right), *out_of_scope* (left out, for the reason given).",
        "",
        f"In scope: {len(scope.numbers)} numbers; {len(in_scope)} held by tests, {len(exempt)} with a reason.",
        "",
        "| Number | Held by, or why not |",
        "| --- | --- |",
    ]
    for number in sorted(tested | exempt):
        cells = [f"`{test}`" for test in _passing(record, number)]
        if number in exempt:
            exception = scope.exceptions[number]
            cells.append(f"*{exception.kind}*: {exception.sentence}")
        lines.append(f"| {number} | {'<br>'.join(cells)} |")
    return "\n".join(lines) + "\n"


def _carrying(record: Record, number: str) -> list[str]:
    return sorted(test for test, entry in record.items() if number in entry["numbers"])


def _passing(record: Record, number: str) -> list[str]:
    """Tests of *number* that passed; a parametrised one may have been skipped for some parameters, but not failed."""
    return [
        test
        for test in _carrying(record, number)
        if "passed" in record[test]["outcomes"] and "failed" not in record[test]["outcomes"]
    ]


def main(arguments: Sequence[str] | None = None, *, root: Path = _ROOT) -> int:
    """Write or check the page of the project at *root*; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.conformance")
    parser.add_argument("--check", action="store_true", help="only compare the page with the record")
    check = parser.parse_args(arguments).check
    if not (root / _RECORD).exists():
        print("there is no record of a complete test run: run `make test` first", file=sys.stderr)
        return 1
    record: Record = json.loads((root / _RECORD).read_text())
    scope = load_scope(root / _EXCEPTIONS)
    wrong = problems(record, scope)
    content, page = render(record, scope), root / _PAGE
    if not check:
        page.write_text(content)
    elif not page.exists() or page.read_text() != content:
        wrong.append(f"{_PAGE} differs from the run: write it anew with `make conformance` and commit it")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    print(f"conformance: {len(scope.numbers)} numbers in scope, {len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
