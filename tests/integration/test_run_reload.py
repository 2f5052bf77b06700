"""`broadway run --reload` as a process of its own: files are changed as an editor does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ROOT
from tests.support.eventually import PATIENCE, eventually_sync

pytestmark = pytest.mark.integration

#: Writes a line at each start and at each end, and handles a message when the test lets it.
CODE = """\
import asyncio
import os
from pathlib import Path

from broadway_py import Message, Pipeline
from broadway_py.producers import QueueProducer


class Jobs(Pipeline[bytes]):
    producer = QueueProducer("q.db", "jobs")

    def note(self, what: str) -> None:
        with Path("notes").open("a") as notes:
            notes.write(f"VERSION {what} {os.getpid()}\\n")

    async def setup(self) -> None:
        self.note("starts")

    async def teardown(self) -> None:
        self.note("ends")

    async def handle_message(self, message: Message[bytes]) -> None:
        self.note(message.data.decode())
        while not Path("go").exists():
            await asyncio.sleep(0.01)
"""
SETTINGS = """\
pipelines: {jobs: {class: 'jobs:Jobs', shutdown_timeout: 60s}}
http: null
log: {level: info, format: json}
"""


class Watched:
    """A project that runs under `broadway run --reload`."""

    def __init__(self, folder: Path, *options: str, settings: str = "jobs.yaml") -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broadway_py", "run", "--reload", settings, *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.decode().rstrip("\n"))

    def write(self, version: str, name: str = "jobs.py", text: str | None = None) -> None:
        """Replaces a file in one step, as editors do."""
        new = self.folder / f"{name}.new"
        new.write_text(CODE.replace("VERSION", version) if text is None else text)
        new.rename(self.folder / name)

    @property
    def said(self) -> list[str]:
        """What the command itself has said."""
        return [line.removeprefix("broadway: ") for line in list(self.lines) if line.startswith("broadway: ")]

    @property
    def notes(self) -> list[tuple[str, ...]]:
        file = self.folder / "notes"
        return [tuple(line.split()) for line in file.read_text().splitlines()] if file.exists() else []

    def until_said(self, sentence: str) -> None:
        eventually_sync(lambda: sentence in self.said, what=f"it says {sentence!r}; it said {self.lines}")

    def until_noted(self, version: str, what: str) -> int:
        """Waits for a note. The process that wrote it."""
        eventually_sync(
            lambda: (version, what) in [note[:2] for note in self.notes],
            what=f"{version} {what} is noted; it said {self.lines}",
        )
        return next(int(note[2]) for note in self.notes if note[:2] == (version, what))

    def send(self, line: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "broadway_py", "send", "--queue", "q.db:jobs"],
            cwd=self.folder,
            input=line.encode(),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        )

    def ended(self, number: int = signal.SIGINT, *, whole_group: bool = True) -> int:
        """Sends a signal, by default as Ctrl-C does. The exit code, when nobody of its group is left."""
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        return self.waited()

    def waited(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)  # a child that lived on would keep the pipe open
        assert not self._reader.is_alive()
        return code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(CODE.replace("VERSION", "one"))
    (tmp_path / "jobs.yaml").write_text(SETTINGS)
    (tmp_path / "go").touch()
    return tmp_path


@pytest.fixture
def watched(project: Path) -> Iterator[Watched]:
    running = Watched(project)
    yield running
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.waited()


def test_a_change_of_the_code_is_used_after_a_drain(watched: Watched) -> None:
    first = watched.until_noted("one", "starts")
    watched.send("a")
    watched.until_noted("one", "a")

    watched.write("two")
    second = watched.until_noted("two", "starts")
    watched.send("b")
    watched.until_noted("two", "b")

    assert first != second
    assert [note[:2] for note in watched.notes] == [
        ("one", "starts"),
        ("one", "a"),
        ("one", "ends"),
        ("two", "starts"),
        ("two", "b"),
    ]
    assert watched.said == ["jobs.py has changed: draining, then starting anew"]
    assert watched.ended() == 0
    assert watched.notes[-1] == ("two", "ends", str(second))


def test_a_change_of_the_settings_is_used(watched: Watched) -> None:
    first = watched.until_noted("one", "starts")
    watched.write("", "jobs.yaml", SETTINGS.replace("60s", "50s"))
    watched.until_said("jobs.yaml has changed: draining, then starting anew")
    eventually_sync(lambda: [note[1] for note in watched.notes] == ["starts", "ends", "starts"], what="it starts anew")
    assert int(watched.notes[-1][2]) != first
    assert watched.ended(signal.SIGTERM, whole_group=False) == 0


def test_what_is_wrong_is_said_and_what_runs_goes_on(watched: Watched) -> None:
    first = watched.until_noted("one", "starts")
    watched.write("", text="def broken(:\n")
    watched.until_said("jobs.py has changed, and is not used; what runs goes on until the next change")
    assert watched.said[0].startswith(
        "jobs.yaml:1: pipelines.jobs.class: the module 'jobs' failed while it was imported: SyntaxError: "
    )
    watched.send("a")
    assert watched.until_noted("one", "a") == first

    watched.write("", "jobs.yaml", SETTINGS.replace("60s", "soon"))
    watched.until_said("jobs.yaml has changed, and is not used; what runs goes on until the next change")
    watched.write("", "jobs.yaml", SETTINGS)
    watched.write("two")
    watched.until_noted("two", "starts")
    assert watched.ended() == 0


def test_the_newest_files_count_when_they_change_during_a_drain(watched: Watched) -> None:
    watched.until_noted("one", "starts")
    (watched.folder / "go").unlink()
    watched.send("a")
    watched.until_noted("one", "a")
    watched.write("two")
    watched.until_said("jobs.py has changed: draining, then starting anew")

    watched.write("", text="raise ValueError('not yet')\n")
    watched.until_said("jobs.py has changed, and is not used; nothing runs until the next change")
    (watched.folder / "go").touch()
    watched.until_noted("one", "ends")
    watched.write("three")
    watched.until_noted("three", "starts")

    assert [note[:2] for note in watched.notes] == [
        ("one", "starts"),
        ("one", "a"),
        ("one", "ends"),
        ("three", "starts"),
    ]
    assert watched.ended() == 0


def test_wrong_settings_at_the_start_wait_for_a_change(project: Path) -> None:
    (project / "jobs.yaml").write_text("pipelines: {jobs: {class: 'jobs:Jobz'}}\n")
    running = Watched(project)
    running.until_said("the daemon has ended with exit code 2; the next change starts it again")
    assert running.said[0] == "jobs.yaml:1: pipelines.jobs.class: the module 'jobs' has no 'Jobz'; did you mean 'Jobs'?"

    running.write("", "jobs.yaml", "pipelines: {jobs: {class: 'jobs:Jobzz'}}\n")
    running.until_said("jobs.yaml has changed, and is not used; nothing runs until the next change")
    running.write("", "jobs.yaml", SETTINGS)
    running.until_noted("one", "starts")
    assert "jobs.yaml has changed: starting" in running.said
    assert running.ended() == 0


def test_ctrl_c_while_nothing_runs_ends_with_the_last_exit_code(project: Path) -> None:
    (project / "jobs.yaml").write_text("pipelines: {jobs: {class: 'jobs:Jobz'}}\n")
    running = Watched(project)
    running.until_said("the daemon has ended with exit code 2; the next change starts it again")
    assert running.ended() == 2


@pytest.mark.faults
def test_a_daemon_that_is_killed_starts_again_at_the_next_change(watched: Watched) -> None:
    os.kill(watched.until_noted("one", "starts"), signal.SIGKILL)
    watched.until_said("the daemon has ended with exit code 137; the next change starts it again")
    watched.write("two")
    watched.until_noted("two", "starts")
    assert watched.ended() == 0


def test_ctrl_c_drains_once(watched: Watched) -> None:
    watched.until_noted("one", "starts")
    (watched.folder / "go").unlink()
    watched.send("a")
    watched.until_noted("one", "a")
    os.killpg(watched.process.pid, signal.SIGINT)
    eventually_sync(lambda: any('"stopping"' in line for line in watched.lines), what="the daemon drains")
    (watched.folder / "go").touch()
    assert watched.waited() == 0
    assert [note[1] for note in watched.notes] == ["starts", "a", "ends"]


def test_other_files_do_not_count_and_several_count_once(watched: Watched) -> None:
    watched.until_noted("one", "starts")
    watched.write("", "data.txt", "x")
    (watched.folder / "__pycache__").mkdir(exist_ok=True)
    watched.write("", "__pycache__/cached.py", "x")
    for name in ("a.py", "b.py", "c.py", "d.py"):
        (watched.folder / name).write_text("")
    watched.until_said("a.py, b.py, c.py and 1 more have changed: draining, then starting anew")
    eventually_sync(lambda: len(watched.notes) == 3, what="it starts anew")
    assert watched.ended() == 0
    assert len(watched.said) == 1
    assert [note[1] for note in watched.notes] == ["starts", "ends", "starts", "ends"]


def test_settings_elsewhere_are_watched_and_options_are_passed_on(project: Path) -> None:
    elsewhere = project / "settings"
    elsewhere.mkdir()
    code = project / "code"
    code.mkdir()
    (project / "jobs.py").rename(code / "jobs.py")
    (code / "go").touch()
    (elsewhere / "jobs.yaml").write_text(SETTINGS)
    running = Watched(code, "--workers", "2", "--set", "log.level=debug", settings="../settings/jobs.yaml")
    eventually_sync(lambda: [note[1] for note in running.notes].count("starts") == 2, what="two workers start")
    (elsewhere / "other.py").write_text("")
    (elsewhere / "jobs.yaml").write_text(SETTINGS.replace("60s", "50s"))
    eventually_sync(lambda: [note[1] for note in running.notes].count("starts") == 4, what="two workers start anew")
    assert running.said == [f"{elsewhere}/jobs.yaml has changed: draining, then starting anew"]
    assert running.ended() == 0


def test_without_the_library_it_says_what_to_install(project: Path) -> None:
    (project / "watchfiles.py").write_text("raise ImportError\n")
    ran = subprocess.run(
        [sys.executable, "-m", "broadway_py", "run", "--reload", "jobs.yaml"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (
        2,
        "broadway: --reload needs watchfiles, which is not installed: pip install 'broadway-py[reload]'\n",
    )


#: Does not return from its import before the test lets it.
HANGS = """\
import os
import time
from pathlib import Path

Path("importing.new").write_text(str(os.getpid()))
Path("importing.new").rename("importing")
while not Path("imported").exists():
    time.sleep(0.01)
"""


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def checking(watched: Watched) -> int:
    """Waits until a check imports a module that hangs. The process of the check."""
    file = watched.folder / "importing"
    eventually_sync(file.exists, what="a check imports the module")
    pid = int(file.read_text())
    file.unlink()
    return pid


@pytest.mark.faults
def test_a_check_that_hangs_does_not_hold_up_the_end(watched: Watched) -> None:
    watched.until_noted("one", "starts")
    watched.write("", text=HANGS)
    pid = checking(watched)

    assert watched.ended() == 0
    eventually_sync(lambda: is_gone(pid), what="the check is gone")
    assert [note[1] for note in watched.notes] == ["starts", "ends"]


@pytest.mark.faults
def test_a_change_ends_a_check_of_what_was_before(watched: Watched) -> None:
    watched.until_noted("one", "starts")
    watched.write("", text=HANGS)
    pid = checking(watched)
    watched.write("two")

    watched.until_noted("two", "starts")
    assert is_gone(pid)
    assert watched.said == ["jobs.py has changed: draining, then starting anew"]
    assert watched.ended() == 0


@pytest.mark.faults
def test_a_check_that_is_killed_counts_as_wrong(watched: Watched) -> None:
    first = watched.until_noted("one", "starts")
    watched.write("", text=HANGS)
    os.kill(checking(watched), signal.SIGKILL)
    watched.until_said("jobs.py has changed, and is not used; what runs goes on until the next change")
    watched.send("a")
    assert watched.until_noted("one", "a") == first
    assert watched.ended() == 0
