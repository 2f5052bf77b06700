"""Measured programs run as the daemon is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.turns import ENVIRONMENT

_DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(("file", "keyword"), [("Dockerfile", "ENV "), ("systemd/broadway@.service", "Environment=")])
def test_the_files_of_a_deployment_set_what_measured_programs_find_in_their_environment(
    file: str, keyword: str
) -> None:
    lines = (_DEPLOY / file).read_text().splitlines()

    assert ENVIRONMENT
    for name, value in ENVIRONMENT.items():
        assert f"{keyword}{name}={value}" in lines
