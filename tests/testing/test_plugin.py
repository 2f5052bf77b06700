"""The fixture ``broadway``, in projects of users."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.kit_plugin import LOAD_PLUGIN

PIPELINE = """
    from broadway_py import FailurePolicy, Message, Pipeline
    from broadway_py.testing import Harnesses

    class Orders(Pipeline[bytes]):
        failure = FailurePolicy(attempts=1)

        async def handle_message(self, message: Message[bytes]) -> None:
            if message.data == b"bad":
                raise ValueError
"""
PLUGIN = (
    *(*LOAD_PLUGIN, "-p", "no:xdist", "-p", "no:cacheprovider", "-W", "error"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixture_makes_harnesses_in_each_mode_of_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(
        PIPELINE
        + """
    import pytest

    @pytest.mark.asyncio
    async def test_one(broadway: Harnesses) -> None:
        async with broadway(Orders) as h:
            await h.send(b"good", id="a")
            assert h.outcomes == {"a": "acked"}
    """
    )

    result = pytester.runpytest_subprocess(*PLUGIN, f"--asyncio-mode={mode}")

    result.assert_outcomes(passed=1)


def test_a_failed_test_tells_what_became_of_its_messages(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PIPELINE
        + """
    async def test_one(broadway: Harnesses) -> None:
        async with broadway(Orders) as h:
            await h.send(b"bad", id="a")
            assert h.outcomes["a"] == "acked"

    async def test_two(broadway: Harnesses) -> None:
        async with broadway(Orders, name="empty"):
            raise ZeroDivisionError
    """
    )

    result = pytester.runpytest_subprocess(*PLUGIN, "--asyncio-mode=auto")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*- broadway: Orders -*",
            "    0.00 s  'a' <dead_lettered at attempt 1, raised: ValueError>",
            "*- broadway: empty -*",
            "no message was sent",
        ]
    )


def test_a_harness_that_is_not_left_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PIPELINE
        + """
    async def test_one(broadway: Harnesses) -> None:
        await broadway(Orders).__aenter__()
    """
    )

    result = pytester.runpytest_subprocess(*LOAD_PLUGIN, "--asyncio-mode=auto")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            (
                "E * AssertionError: the harness of pipeline 'Orders' was entered and not left: use `async with`, "
                "which drains the pipeline"
            )
        ]
    )


def test_a_settings_file_by_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        shop="""
        from broadway_py import Message, Pipeline

        class Orders(Pipeline[bytes]):
            async def handle_message(self, message: Message[bytes]) -> None:
                pass
        """,
        test_shop="""
        async def test_one(broadway) -> None:
            async with broadway.from_settings("shop.yaml", environ={"FILE": "never-opened.db"}) as h:
                await h.send("a")
                assert h.outcomes.counts == {"acked": 1}
        """,
    )
    pytester.makefile(
        ".yaml",
        shop='pipelines: {orders: {class: "shop:Orders", producer: {kind: queue, path: "${FILE}", queue: orders}}}',
    )

    result = pytester.runpytest_subprocess(*PLUGIN, "--asyncio-mode=auto")

    result.assert_outcomes(passed=1)


def test_the_entry_point_is_the_plug_in() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"broadway": "broadway_py.testing.plugin"}


def test_the_plug_in_costs_nothing_until_its_fixture_is_used() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import broadway_py.testing.plugin; "
        "print(sorted(set(sys.modules) - before))"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout == "['broadway_py', 'broadway_py.testing', 'broadway_py.testing.plugin']\n"
