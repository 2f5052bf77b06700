"""The configuration of Alertmanager: who is told of what, and which alerts are held back."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.dashboards import DEPLOY
from tests.deploy.test_rules import alerts
from tests.support.prometheus import amtool

FILE = DEPLOY / "alertmanager" / "alertmanager.yml"
CONFIG: dict[str, Any] = yaml.safe_load(FILE.read_text())


@pytest.mark.integration
def test_alertmanager_understands_the_configuration() -> None:
    checked = amtool("check-config", str(FILE))

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.integration
@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_somebody_is_woken_by_critical_alerts_only(rule: dict[str, Any]) -> None:
    severity = rule["labels"]["severity"]
    tested = amtool(
        "config", "routes", "test", f"--config.file={FILE}", f"alertname={rule['alert']}", f"severity={severity}"
    )

    assert tested.stdout.strip() == {"critical": "wake-somebody", "warning": "look-at-it-today"}[severity]


def test_what_is_held_back_and_why_are_alerts_that_exist() -> None:
    known = {rule["alert"] for rule in alerts()}
    for rule in CONFIG["inhibit_rules"]:
        for matcher in [*rule["source_matchers"], *rule["target_matchers"]]:
            names = re.fullmatch(r'alertname=~?"([\w|]+)"', matcher)
            assert names is not None, matcher
            assert set(names[1].split("|")) <= known, matcher


def test_no_secret_is_in_the_file() -> None:
    assert not re.search(r"^\s*\w*(password|secret|token|api_url|key):", FILE.read_text(), re.MULTILINE)
