"""Shell completion, asked by a real bash, as a user has installed it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

SETTINGS = "pipelines:\n  orders: {class: 'a:B'}\n  orders-late: {class: 'a:B'}\n  returns: {class: 'a:B'}\n"

#: Fills in the words of a command line as bash does, calls the function that completes, and prints what it found.
COMPLETE = """\
source "$HOME/.bashrc"
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_broadway_completion broadway
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Shell:
    """A bash of a user whose home is *home*, with the command `broadway` in its path."""

    def __init__(self, home: Path) -> None:
        self.home = home
        program = home / "bin" / "broadway"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nfrom broadway_py.__main__ import main\n\nmain()\n")
        program.chmod(0o755)
        (home / "orders.yaml").write_text(SETTINGS)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments,
            cwd=self.home,
            env={
                **os.environ,
                "HOME": str(self.home),
                "PATH": f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def completed(self, *words: str) -> list[str]:
        shown = self.run("bash", "-c", COMPLETE, "bash", *words)
        assert (shown.returncode, shown.stderr) == (0, "")
        return shown.stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    found = Shell(tmp_path_factory.mktemp("home"))
    # The command looks for the shell that has started it.
    installed = found.run("bash", "-c", "broadway --install-completion; exit $?")
    assert installed.returncode == 0, installed.stderr
    return found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("broadway", "ch"), ["check"]),
        (("broadway", "config", ""), ["show"]),
        (("broadway", "new", "shop", "--source", ""), ["queue", "rabbitmq", "sqs"]),
        (("broadway", "config", "show", "orders.yaml", "--format", ""), ["yaml", "json"]),
        (("broadway", "run", "orders.yaml", "--relo"), ["--reload"]),
        (("broadway", "send", "orders.yaml", "--pipeline", "or"), ["orders", "orders-late"]),
        (("broadway", "dlq", "ls", "--config", "orders.yaml", "--pipeline", ""), ["orders", "orders-late", "returns"]),
        (("broadway", "send", "missing.yaml", "--pipeline", ""), [""]),
        # Files are completed by bash itself, where there is nothing else.
        (("broadway", "check", "or"), [""]),
    ],
)
def test_bash_completes(shell: Shell, words: tuple[str, ...], found: list[str]) -> None:
    assert shell.completed(*words) == found


def test_bash_completes_files_where_nothing_else_fits(shell: Shell) -> None:
    shown = shell.run("bash", "-c", 'source "$HOME/.bashrc"; complete -p broadway')
    assert shown.stdout == "complete -o default -F _broadway_completion broadway\n"


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_can_be_made(shell: Shell, name: str) -> None:
    shown = shell.run("env", f"_BROADWAY_COMPLETE=source_{name}", "broadway")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"_BROADWAY_COMPLETE=complete_{name}" in shown.stdout
