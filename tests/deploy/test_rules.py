"""The rules of deploy/prometheus: Prometheus understands them, and each alert has its cases and its runbook section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dashboards import DEPLOY
from tests.support.prometheus import promtool

RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
ROOT = DEPLOY.parent


def alerts() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.integration
def test_prometheus_understands_the_configuration_and_the_rules() -> None:
    checked = promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(RULES)} rule files found" in checked.stdout


@pytest.mark.integration
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    checked = promtool("test", "rules", *map(str, CASES))

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = [test for file in CASES for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}

    assert {rule["alert"] for rule in alerts()} == fires == silent


def test_the_alerts_are_those_that_the_runbook_promises() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()

    assert re.findall(r"^## (Broadway\w+)$", runbook, re.MULTILINE) == [rule["alert"] for rule in alerts()]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / page)


def test_links_inside_the_runbook_and_the_metrics_page_lead_somewhere() -> None:
    for page in (ROOT / "docs" / "runbook.md", ROOT / "docs" / "metrics.md"):
        for file, anchor in re.findall(r"\]\(([\w.]*)(?:#([\w-]+))?\)", page.read_text()):
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {file}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {file}#{anchor}"
