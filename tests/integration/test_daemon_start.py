"""The first seconds of a daemon, and of its workers: signals are heard, and what cannot be started is tried again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

#: A module that takes as long to import as the test wants: in the daemon, or in its workers only.
SLOW = """
import os, sys, time
from pathlib import Path
if {only_in_workers} <= sys.argv[0].endswith("daemon/__main__.py"):
    Path(f"importing-{{os.getpid()}}").touch()
    while not Path("go").exists():
        time.sleep(0.02)
from tests.daemon.pipelines import Recorder
"""


def slow(folder: Path, *, workers: int, only_in_workers: bool = False) -> Path:
    (folder / "slow.py").write_text(SLOW.format(only_in_workers=only_in_workers))
    file = folder / "a.yaml"
    file.write_text(
        f"""\
pipelines:
  orders:
    class: slow:Recorder
    producer: {{kind: queue, path: {folder}/q.db, queue: orders}}
    context: {{file: {folder}/handled}}
workers: {workers}
"""
    )
    return file


def until_importing(folder: Path, count: int = 1) -> list[int]:
    def importing() -> list[int]:
        return [int(path.name.removeprefix("importing-")) for path in folder.glob("importing-*")]

    eventually_sync(lambda: len(importing()) >= count, timeout=60, what="the module is being imported")
    return importing()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_while_modules_are_imported_ends_it_at_once(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    with daemon(tmp_path, slow(tmp_path, workers=workers)) as running:
        until_importing(tmp_path)
        running.signal(number)
        assert running.exit_code(5) == 0
    assert running.lines == []


def test_workers_that_are_starting_leave_at_once_too(tmp_path: Path) -> None:
    with daemon(tmp_path, slow(tmp_path, workers=2, only_in_workers=True)) as running:
        pids = until_importing(tmp_path, 2)
        code, seconds = running.terminated()
        assert (code, seconds < 5) == (0, True)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_other_signals_wait_until_the_start_is_over(tmp_path: Path, workers: int) -> None:
    with daemon(tmp_path, slow(tmp_path, workers=workers)) as running:
        until_importing(tmp_path)
        running.signal(signal.SIGHUP)
        running.signal(signal.SIGUSR1)
        (tmp_path / "go").touch()
        running.until_logged("reloading")
        running.until_logged("state: pipeline")
        assert "broadway-loop" in {line["thread"] for line in running.log if line["event"] == "state: thread"}
        running.until_ready()
        assert running.terminated()[0] == 0


@pytest.mark.parametrize("command", [["check", "a.yaml"], ["topology", "a.yaml"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_other_commands_end_as_a_shell_expects(
    tmp_path: Path, command: list[str], number: signal.Signals, code: int
) -> None:
    slow(tmp_path, workers=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "broadway_py", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    until_importing(tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, b"")


# --- as process 1

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


as_process_1 = pytest.mark.skipif(not may_unshare(), reason="needs Linux, and the right to make a space of processes")


def children(pid: int) -> list[tuple[int, str]]:
    """Processes whose parent is *pid*, with their states."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid:
                found.append((int(path.parent.name), state))
    return found


class Contained:
    """A daemon that is process 1 of a space of its own."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.shell = subprocess.Popen(
            [*UNSHARE, sys.executable, "-m", "broadway_py", "run", str(file), "--set", "http=null"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def process_1(self) -> int:
        """As it is known outside."""
        eventually_sync(lambda: bool(children(self.shell.pid)), timeout=30, what="it is there")
        return children(self.shell.pid)[0][0]

    def ended(self) -> tuple[int, str]:
        """Its exit code, and what it has printed."""
        out, _ = self.shell.communicate(timeout=30)
        return self.shell.returncode, out


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[list[Contained]]:
    made: list[Contained] = []
    yield made
    for each in made:
        each.shell.kill()
        each.shell.communicate()


@as_process_1
@pytest.mark.parametrize("workers", [1, 2])
def test_as_process_1_it_hears_signals_while_it_starts(
    tmp_path: Path, contained: list[Contained], workers: int
) -> None:
    contained.append(one := Contained(tmp_path, slow(tmp_path, workers=workers)))
    until_importing(tmp_path)
    os.kill(one.process_1, signal.SIGTERM)
    assert one.ended() == (0, "")


@as_process_1
def test_as_process_1_it_says_how_it_has_ended(tmp_path: Path, contained: list[Contained]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("pipelines: {a: {class: 'tests.daemon.pipelines:NoPipeline'}}\n")
    contained.append(one := Contained(tmp_path, file))
    code, out = one.ended()
    assert code == 2, out


@as_process_1
async def test_as_process_1_it_reaps_whom_nobody_else_does(tmp_path: Path, contained: list[Contained]) -> None:
    async with Queue(tmp_path / "q.db", "orders") as queue:
        await queue.put_many([b"1", b"2", b"3"])
    file = slow(tmp_path, workers=1)
    file.write_text(file.read_text().replace("slow:Recorder", "tests.daemon.pipelines:LeavesOrphans"))
    contained.append(one := Contained(tmp_path, file))
    handled = tmp_path / "handled"
    eventually_sync(
        lambda: handled.exists() and handled.read_text().count("\n") == 3, timeout=60, what="all are handled"
    )
    eventually_sync(
        lambda: len(children(one.process_1)) == 1, timeout=30, what="the orphans have ended, and are reaped"
    )
    os.kill(one.process_1, signal.SIGTERM)
    assert one.ended()[0] == 0


# --- what cannot be started for now


def forbid_descriptors(running: Daemon) -> tuple[int, int]:
    """Let it open no more than it has; what it was allowed before."""
    pid = running.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())), usual[1]))
    return usual


@pytest.mark.faults
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux changes the limits of another process")
def test_a_worker_that_cannot_be_started_for_now_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with daemon(tmp_path, slow(tmp_path, workers=2)) as running:
        running.until_ready()
        victim, other = running.workers()[0], running.workers()[1]
        usual = forbid_descriptors(running)
        os.kill(victim, signal.SIGKILL)
        refused = running.until_logged("a worker cannot be started; trying again", count=2)
        assert (refused["index"], refused["reason"]) == (0, "Too many open files")
        os.kill(other, 0)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, usual)
        running.until_logged("worker started", count=3)
        running.until_ready()
        assert running.workers()[1] == other
        assert running.terminated()[0] == 0


@pytest.mark.faults
def test_an_interpreter_that_is_away_for_a_while_is_no_end(tmp_path: Path) -> None:
    # As while a package is being upgraded.
    (tmp_path / "go").touch()
    python = tmp_path / "python"
    file = slow(tmp_path, workers=2)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(python)!r}\n")
    with daemon(tmp_path, file, environ={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as running:
        refused = running.until_logged("a worker cannot be started; trying again", count=2)
        assert refused["reason"] == "No such file or directory"
        assert "it cannot be started for now: No such file or directory" in running.get("/readyz")[1]
        assert running.get("/livez")[0] == 200
        arriving = tmp_path / "arriving"
        arriving.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        arriving.chmod(0o755)
        arriving.rename(python)
        running.until_ready()
        assert running.terminated()[0] == 0


# --- the environment


def test_a_folder_for_metrics_of_several_processes_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "from prometheus_client import Counter\n"
        "from tests.daemon.pipelines import Recorder\n"
        "COUNTED = Counter('counted', 'A metric of the user.')\n"
        "COUNTED.inc(3)\n"
    )
    file = slow(tmp_path, workers=2)
    file.write_text(file.read_text().replace("slow:Recorder", "counting:Recorder"))
    with daemon(tmp_path, file, environ={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")}) as running:
        running.until_ready()
        # The supervisor imports the class, too, and asks its own registry for its process alone.
        eventually_sync(lambda: running.total("counted_total") == 6, timeout=30, what="both workers have reported")
        assert (
            running.until_logged(
                "an environment variable is ignored: the daemon adds up the metrics of its workers without files"
            )["variable"]
            == "PROMETHEUS_MULTIPROC_DIR"
        )
        assert running.terminated()[0] == 0
    assert "Traceback" not in "\n".join(running.lines)
