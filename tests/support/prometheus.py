"""A Prometheus and an Alertmanager of our own, as processes, and their tools."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.eventually import eventually_sync
from tests.support.ports import free_port

__all__ = ["Alertmanager", "Prometheus", "alertmanager", "amtool", "program", "prometheus", "promtool"]


def program(name: str) -> str:
    """Where *name* (such as ``prometheus`` or ``promtool``) is; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: tests/support/get_prometheus.sh does that where it may")
    return found


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool with *given* on its standard input; it has said all in ``stdout`` and ``stderr``."""
    return subprocess.run(
        [program("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run amtool; it has said all in ``stdout`` and ``stderr``."""
    return subprocess.run([program("amtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)


class RefusedError(Exception):
    """Prometheus has answered with an error: its text."""


def _answer(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310  # our own http URL
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as refused:
        with refused:
            raise RefusedError(f"{refused.code}: {refused.read().decode()[:500]}") from None


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant query: labels and value of each series; NaN is no value."""
        found = self._get("/api/v1/query", query=expression)["data"]
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        series = [(one["metric"], float(one["value"][1])) for one in found["result"]]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that goes."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets")["data"]["activeTargets"]
        return found

    def label_values(self, label: str, matching: str) -> list[str]:
        """The values of a label over the series that match."""
        found: list[str] = self._get(f"/api/v1/label/{label}/values", **{"match[]": matching})["data"]
        return found

    def metadata(self) -> dict[str, str]:
        """The types of the metrics that it has scraped, by name; counters without their ``_total``."""
        found = self._get("/api/v1/metadata")["data"]
        return {name.removesuffix("_total"): entries[0]["type"] for name, entries in found.items()}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health."""
        return [rule for group in self._get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]

    def _get(self, path: str, **arguments: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(_answer(f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"))
        return body

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any], rules: Sequence[Path]) -> Iterator[Prometheus]:
    """A Prometheus with *config* and *rules* that does not outlive the block; its files are in *folder*."""
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump({**config, "rule_files": [str(rule) for rule in rules]}))
    url = f"http://127.0.0.1:{port}"
    arguments = [
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _running("prometheus", arguments, url, folder / "prometheus.log"):
        yield Prometheus(url, folder / "prometheus.log")


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url

    def alerts(self) -> list[dict[str, str]]:
        """The labels of each alert that fires."""
        return [one["labels"] for one in json.loads(_answer(f"{self.url}/api/v2/alerts"))]


@contextmanager
def alertmanager(folder: Path, config: Path) -> Iterator[Alertmanager]:
    """An Alertmanager with *config* that does not outlive the block; its files are in *folder*."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [
        f"--config.file={config}",
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _running("prometheus-alertmanager", arguments, url, folder / "alertmanager.log"):
        yield Alertmanager(url)


@contextmanager
def _running(name: str, arguments: Sequence[str], url: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([program(name), *arguments], stdout=output, stderr=subprocess.STDOUT)

    def up() -> bool:
        assert process.poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
        return _answer(f"{url}/-/ready") != b""

    try:
        eventually_sync(up, timeout=60, what=f"{name} is ready", ignoring=(OSError, RefusedError))
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
