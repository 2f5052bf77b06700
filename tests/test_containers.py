"""Whether the brokers of a run come from containers: by hand, else by whether an engine of this machine answers."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import broker_fixtures, sqs_fixtures
from tests.support.containers import ContainersUnavailableError, image_of, main, unavailable, wanted
from tests.support.eventually import eventually_sync
from tests.support.rabbitmq_node import parsed_version

ROOT = Path(__file__).resolve().parents[1]
#: What ``docker info`` of an engine on this machine says, of which we read these.
ENGINE = {"ServerVersion": "29.1.0", "Name": socket.gethostname(), "OperatingSystem": "Debian", "SecurityOptions": []}
RABBITMQ, LOCALSTACK = image_of("rabbitmq"), image_of("localstack")


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run that says nothing of brokers, and that has not asked for an engine yet."""
    for name in ("BROKERS", "AMQP_URL", "SQS_URL", "RABBITMQ_SERVER"):
        monkeypatch.delenv(f"BROADWAY_TEST_{name}", raising=False)
    unavailable.cache_clear()
    yield
    unavailable.cache_clear()


@pytest.fixture
def bin_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder in PATH but those of the system; it has a docker when the test puts one there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def docker(
    folder: Path, says: dict[str, Any], *, status: int = 0, errors: str = "", has: bool = True, pulls: bool = True
) -> None:
    """A ``docker`` whose ``docker info`` answers so, and that has or pulls every image; each call is noted."""
    program = folder / "docker"
    program.write_text(
        f"""#!/bin/sh
echo "$1" "$2" >>{folder}/calls
case $1 in
image) exit {int(not has)} ;;
pull) exit {int(not pulls)} ;;
esac
printf '%s\\n' '{json.dumps(says)}'
printf '%s' '{errors}' >&2
exit {status}
"""
    )
    program.chmod(0o755)


def test_where_an_engine_answers_brokers_come_from_its_containers(bin_folder: Path) -> None:
    docker(bin_folder, ENGINE)
    assert wanted()
    assert broker_fixtures.pytest_report_header()[0] == f"rabbitmq: a container of our own, of {RABBITMQ}"
    assert sqs_fixtures.pytest_report_header() == f"sqs: a container of our own, of {LOCALSTACK}"


def test_the_engine_is_asked_once_in_a_run(bin_folder: Path) -> None:
    docker(bin_folder, ENGINE)
    for _ in range(5):
        broker_fixtures.pytest_report_header()
        sqs_fixtures.pytest_report_header()
    assert (bin_folder / "calls").read_text() == "info --format\n"


def test_by_hand_local_programs_are_taken_though_an_engine_answers(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(bin_folder, ENGINE)
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "local")
    assert not wanted()
    assert "container" not in broker_fixtures.pytest_report_header()[0]
    assert not (bin_folder / "calls").exists()


def test_without_docker_the_question_starts_no_process(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a process was started to ask")

    monkeypatch.setattr(subprocess, "run", started)
    assert not wanted()
    assert "container" not in broker_fixtures.pytest_report_header()[0]


@pytest.mark.parametrize(
    ("says", "errors", "why"),
    [
        (
            {"ServerErrors": ["Cannot connect to the Docker daemon at unix:///no.sock. Is the docker daemon running?"]},
            "",
            "`docker info` says: Cannot connect to the Docker daemon at unix:///no.sock. Is the docker daemon running?",
        ),
        ({}, "permission denied", "`docker info` says: permission denied"),
        ({}, "", "`docker info` says: nothing, with exit code 1"),
    ],
)
def test_an_engine_that_does_not_answer_is_none(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, says: dict[str, Any], errors: str, why: str
) -> None:
    docker(bin_folder, says, status=1, errors=errors)
    assert not wanted()
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "containers")
    with pytest.raises(ContainersUnavailableError) as raised:
        wanted()
    assert str(raised.value) == (
        f"BROADWAY_TEST_BROKERS=containers asks for a container engine, but {why}; start one, or say "
        "BROADWAY_TEST_BROKERS=local"
    )


@pytest.mark.parametrize(
    "other", [{"Name": "docker-desktop"}, {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}]
)
def test_an_engine_with_a_network_of_its_own_is_none(bin_folder: Path, other: dict[str, Any]) -> None:
    docker(bin_folder, ENGINE | other)
    assert not wanted()
    assert unavailable() == (
        f"the engine that answers (Debian, host name {(ENGINE | other)['Name']}) has a network of its own (another "
        "machine, a virtual machine, or rootless), and tests need containers in this machine's"
    )


def test_containers_by_hand_without_docker_ends_the_run_with_a_sentence(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "containers")
    with pytest.raises(pytest.UsageError) as raised:
        broker_fixtures.pytest_configure()
    assert str(raised.value) == (
        "BROADWAY_TEST_BROKERS=containers asks for a container engine, but there is no program docker in PATH; start "
        "one, or say BROADWAY_TEST_BROKERS=local"
    )


def test_another_word_ends_the_run_with_a_sentence(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "docker")
    with pytest.raises(pytest.UsageError) as raised:
        broker_fixtures.pytest_configure()
    assert str(raised.value) == (
        "BROADWAY_TEST_BROKERS is 'containers' or 'local', not 'docker'; without it containers are taken where an "
        "engine answers"
    )


def test_brokers_that_are_named_come_before_containers(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(bin_folder, ENGINE)
    monkeypatch.setenv("BROADWAY_TEST_AMQP_URL", "amqp://127.0.0.1")
    monkeypatch.setenv("BROADWAY_TEST_SQS_URL", "http://127.0.0.1:4566")
    assert broker_fixtures.pytest_report_header()[0] == "rabbitmq: the broker in BROADWAY_TEST_AMQP_URL"
    assert sqs_fixtures.pytest_report_header() == "sqs: the endpoint in BROADWAY_TEST_SQS_URL"


def test_a_program_that_is_named_comes_before_containers_unless_they_are_asked_for(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker(bin_folder, ENGINE)
    (bin_folder / "erl").write_text("#!/bin/sh\n")
    (bin_folder / "erl").chmod(0o755)
    monkeypatch.setenv("BROADWAY_TEST_RABBITMQ_SERVER", str(bin_folder / "rabbitmq-server"))
    assert broker_fixtures.pytest_report_header()[0].endswith(f"by {bin_folder}/rabbitmq-server")
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "containers")
    assert broker_fixtures.pytest_report_header()[0] == f"rabbitmq: a container of our own, of {RABBITMQ}"


def test_the_version_of_a_container_is_that_of_its_tag() -> None:
    version = parsed_version(RABBITMQ.rpartition(":")[2])
    assert len(version) == 3
    assert version >= (4, 3)


def test_the_image_of_the_daemon_installs_nothing_of_the_containers() -> None:
    listed = re.findall(r"^([\w-]+)==", (ROOT / "deploy" / "requirements.txt").read_text(), re.MULTILINE)
    assert listed
    assert not {"docker", "testcontainers", "requests"} & set(listed)


def test_before_the_suite_images_that_are_missing_are_pulled(
    bin_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    docker(bin_folder, ENGINE, has=False)
    assert main() == 0
    assert capfd.readouterr().out == "containers\n"
    calls = (bin_folder / "calls").read_text().splitlines()
    assert [call for call in calls if call.startswith("pull")] == [f"pull {RABBITMQ}", f"pull {LOCALSTACK}"]


def test_images_that_are_there_are_not_asked_for_elsewhere(bin_folder: Path) -> None:
    docker(bin_folder, ENGINE)
    assert main() == 0
    assert "pull" not in (bin_folder / "calls").read_text()


def test_an_image_that_cannot_be_had_is_named_before_the_suite(
    bin_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    docker(bin_folder, ENGINE, has=False, pulls=False)
    assert main() == 1
    assert capfd.readouterr() == (
        "",
        (
            f"the image {RABBITMQ} is not on this machine and cannot be pulled; correct that, or set "
            "BROADWAY_TEST_BROKERS=local\n"
        ),
    )


def test_without_an_engine_the_suite_is_told_to_take_local_programs(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main() == 0
    assert capfd.readouterr() == ("local\n", "")
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "containers")
    assert main() == 1
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.startswith("BROADWAY_TEST_BROKERS=containers asks for a container engine, but there is no program")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_a_version_by_make_and_containers_by_hand_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROADWAY_TEST_BROKERS", "containers")
    planned = subprocess.run(
        ["make", "--dry-run", "test", "RABBITMQ=4.3"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert planned.returncode == 2
    assert (
        "RABBITMQ=4.3 asks for a program of this machine, BROADWAY_TEST_BROKERS=containers for a container: leave one "
        "of them out"
    ) in planned.stderr


def test_a_container_is_removed_when_the_tests_are_killed(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = bin_folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/removed\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    killed = (
        "import os, signal\n"
        "from tests.support.containers import Keeper\n"
        "keeper = Keeper('broadway-test-1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed], cwd=ROOT, check=False)
    removed = eventually_sync((tmp_path / "removed").read_text, what="it is removed", ignoring=OSError)
    assert removed == "rm --force --volumes broadway-test-1\n"
