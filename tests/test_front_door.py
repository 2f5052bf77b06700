"""The front door: what users import from ``broadway_py``, and nothing besides."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import broadway_py
from broadway_py import errors

NAMES = [
    "Acknowledgement",
    "Acknowledger",
    "Aggregator",
    "BatchFailed",
    "BatchInfo",
    "Batcher",
    "Breaker",
    "BroadwayError",
    "CalledInsideCallback",
    "CallerAcknowledger",
    "DefinitionError",
    "DrainReport",
    "EventTimeError",
    "Failed",
    "FailurePolicy",
    "Flow",
    "FlowFailed",
    "HandlerVerdict",
    "MalformedMessage",
    "MemoryPublisher",
    "Message",
    "MessageFailed",
    "NoopAcknowledger",
    "OptionsError",
    "Pipeline",
    "PipelineCrashed",
    "PipelineNotRunning",
    "PipelineStats",
    "Processors",
    "ProducerError",
    "PublishError",
    "QueuePublisher",
    "QueueSink",
    "RabbitMQPublisher",
    "RabbitMQSink",
    "RateLimit",
    "Reject",
    "RetryLater",
    "SQSPublisher",
    "SQSSink",
    "SettleError",
    "Settled",
    "SourceRefused",
    "StageDown",
    "State",
    "Unavailable",
    "Window",
    "WindowResult",
    "ack_immediately",
    "all_running",
    "run",
]


def test_the_front_door_exports_exactly_these_names() -> None:
    assert sorted(broadway_py.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(broadway_py, name) is not None


def test_every_error_is_exported_and_has_the_one_root() -> None:
    exceptions = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}

    assert exceptions <= set(broadway_py.__all__)
    assert all(issubclass(getattr(errors, name), broadway_py.BroadwayError) for name in exceptions)


def test_a_name_that_is_not_there_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError) as refused:
        broadway_py.Pipelines  # type: ignore[attr-defined]  # noqa: B018  # the access is what is tested

    assert str(refused.value) == "module 'broadway_py' has no attribute 'Pipelines'"


#: What worker processes import. They must start fast, and some of them only compute.
LIGHT = ["foreign", "errors", "clock", "log", "_core.dispatch", "_core.window.engine", "stage"]
#: What takes longer to load than all of the above. (asyncio itself loads ssl.)
HEAVY = {"pydantic", "pydantic_core", "pydantic_settings", "structlog", "yaml", "rich", "importlib.metadata"}


def test_stages_and_windows_load_nothing_heavy() -> None:
    program = (
        "import asyncio, json, sys; of_asyncio = set(sys.modules)\n"
        f"import {', '.join(f'broadway_py.{name}' for name in LIGHT)}\n"
        "print(json.dumps(sorted(set(sys.modules) - of_asyncio)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    modules = set(json.loads(loaded))

    assert modules & (HEAVY | {"ssl", "_ssl"}) == set()
    assert {f"broadway_py.{name}" for name in LIGHT} <= modules


def test_the_changelog_begins_with_what_is_unreleased_or_with_the_version_that_is_installed() -> None:
    changelog = Path(__file__).resolve().parents[1].joinpath("CHANGELOG.md").read_text()
    first = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)

    assert first is not None
    assert first[1] in {"Unreleased", importlib.metadata.version("broadway-py")}
