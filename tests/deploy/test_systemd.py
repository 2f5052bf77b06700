"""deploy/systemd: what systemd's own checker says of the unit, and where the unit must agree with the daemon."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.deploy.dashboards import DEPLOY

FOLDER = DEPLOY / "systemd"
UNIT = FOLDER / "broadway@.service"
BEFORE_253 = FOLDER / "before-253.conf"
#: Seconds: what the drain has, and how much later the process has left at the latest.
DRAIN, LEAVES = 25, 2
#: The most that `systemd-analyze security` may find: 0 is no exposure, 10 is a service without any protection.
#: systemd 252 finds 1.7. What is left is the network, which the daemon needs.
EXPOSURE = 2.0


def analyze(*arguments: str) -> str:
    """All that systemd-analyze says. Its exit code is 0 if it only warns."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version"))
    assert found is not None
    return int(found[1])


@pytest.fixture
def installed(tmp_path: Path, version: int) -> Path:
    """The unit of one settings file, as the documents say to install it. /bin/true stands for the daemon."""
    unit = tmp_path / "broadway@orders.service"
    unit.write_text(UNIT.read_text().replace("/opt/broadway/bin/broadway", "/bin/true"))
    if version < 253:
        folder = tmp_path / "broadway@.service.d"
        folder.mkdir()
        shutil.copy(BEFORE_253, folder)
    return unit


def test_systemd_finds_nothing_wrong_with_the_unit(installed: Path, version: int) -> None:
    told = analyze("verify", str(installed)).splitlines()
    if version < 253:
        (line,) = [number for number, text in enumerate(installed.read_text().splitlines(), 1) if "Type=" in text[:5]]
        told.remove(f"{installed}:{line}: Failed to parse service type, ignoring: notify-reload")
    assert told == []


def test_systemd_would_notice_what_is_wrong_with_the_unit(installed: Path) -> None:
    installed.write_text(installed.read_text().replace("WatchdogSec=60", "Watchdog=60"))
    assert "Unknown key 'Watchdog' in section [Service], ignoring." in analyze("verify", str(installed))


def test_the_unit_exposes_little(installed: Path) -> None:
    told = analyze("security", "--offline=true", "--no-pager", str(installed))
    found = re.search(r"Overall exposure level for broadway@orders\.service: ([\d.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= EXPOSURE


def test_a_stop_has_time_to_drain_and_the_unit_speaks_the_protocol_that_the_daemon_speaks() -> None:
    service = RawConfigParser(strict=False)
    service.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way: names keep their case
    service.read(UNIT)
    values = service["Service"]
    assert int(values["TimeoutStopSec"]) > DRAIN + LEAVES
    assert (values["Type"], values["NotifyAccess"]) == ("notify-reload", "main")
    # A worker counts as silent after 10 s, and the status is told every 5 s.
    assert int(values["WatchdogSec"]) > 10 + 5
    assert values["KillMode"] == "mixed"
    assert values["LimitCORE"] == "0"
