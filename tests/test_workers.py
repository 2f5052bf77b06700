"""The suite on several cores: a run of its own, with workers."""

from __future__ import annotations

import pytest

HANGS = """
import threading
import pytest

@pytest.mark.parametrize("case", range(8))
def test_passes(case): pass

@pytest.mark.timeout(2)
def test_hangs_in_here(): threading.Event().wait()
"""

TWO_TESTS = """
def test_one(): pass
def test_two(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        "[tool.pytest.ini_options]\n"
        'testpaths = ["checks"]\naddopts = ["--max-worker-restart=0"]\nmarkers = ["integration", "faults"]\n'
        'timeout_method = "thread"\nasyncio_default_fixture_loop_scope = "function"\n'
    )
    pytester.makeconftest('pytest_plugins = ["tests.support.workers"]')
    pytester.mkdir("checks")
    return pytester


def test_a_test_that_hangs_ends_a_run_with_workers_as_a_failure_and_with_its_stack(suite: pytest.Pytester) -> None:
    suite.path.joinpath("checks", "test_it.py").write_text(HANGS)

    ran = suite.runpytest_subprocess("-n", "2")

    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(
        [
            "worker 'gw?' crashed while running 'checks/test_it.py::test_hangs_in_here'",
            "=* xdist: worker gw? crashed and worker restarting disabled =*",
        ]
    )
    ran.stderr.fnmatch_lines(["Timeout *", "* in test_hangs_in_here"])


def test_the_tests_of_a_file_run_on_one_worker_and_long_files_begin_beside_short_ones(suite: pytest.Pytester) -> None:
    for name in ("test_a.py", "test_b.py", "test_c.py"):
        suite.path.joinpath("checks", name).write_text(TWO_TESTS)
    marked = f"import pytest\npytestmark = pytest.mark.integration\n{TWO_TESTS}"
    for name in ("test_d.py", "test_e.py", "test_f.py"):
        suite.path.joinpath("checks", name).write_text(marked)

    ran = suite.runpytest_subprocess("-n", "3", "-v")

    files: dict[str, list[str]] = {}
    for line in ran.outlines:
        if "PASSED" in line:
            worker, test = line.split()[0], line.split()[-1]
            files.setdefault(worker, []).append(test.partition("::")[0])
    together = [file for ran_by in files.values() for file in dict.fromkeys(ran_by)]
    assert sorted(together) == [f"checks/test_{name}.py" for name in "abcdef"]
    assert sorted(ran_by[0] for ran_by in files.values()) == [f"checks/test_{name}.py" for name in "ade"]
