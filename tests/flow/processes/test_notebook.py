"""Flows in the cells of a notebook: their kernel has a running event loop, and classes that no module has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

RUNNERS = pytest.mark.parametrize("runner", ["tasks", "threads", "processes"])
PATIENCE_S = 30

DEFINITIONS = """
import itertools, threading
from dataclasses import dataclass
from broadway_py import Flow, FlowFailed

@dataclass(frozen=True)
class Word:
    text: str

class Unwanted(Exception):
    def __init__(self, word, why):
        super().__init__(word, why)
        self.word = word

def refuse_blue(word):
    if word.text == "blue":
        raise Unwanted(word, "a colour")
    return word

def endless(runner):
    def show(number):
        if number == 5_000:
            print("it runs", flush=True)
        return number

    return Flow.from_iterable(itertools.count(), stages=2).map(show).filter(lambda _: False).using(runner, workers=2)

words = Flow.from_iterable(["roses are red", "violets are blue"]).flat_map(str.split)
"""


class Shown(NamedTuple):
    """What stands below a cell."""

    text: str
    #: The name of the error, what it says, and its traceback.
    error: tuple[str, str, str] | None


class Kernel:
    """A kernel that runs cells one after the other."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client

    def run(self, cell: str, *, interrupt_at: str | None = None) -> Shown:
        """Runs a cell. Interrupts the kernel as soon as the cell has printed *interrupt_at*."""
        sent = self._client.execute(cell)
        text, error = "", None
        while True:
            try:
                message: dict[str, Any] = self._client.get_iopub_msg(timeout=PATIENCE_S)
            except Empty:
                self._manager.interrupt_kernel()  # else the next cell would wait, too
                raise
            if message["parent_header"].get("msg_id") != sent:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    text += content["text"]
                    if interrupt_at is not None and interrupt_at in text:
                        interrupt_at = None
                        self._manager.interrupt_kernel()
                case "error":
                    error = content["ename"], content["evalue"], "\n".join(content["traceback"])
                case "status" if content["execution_state"] == "idle":
                    return Shown(text, error)

    def processes(self) -> list[str]:
        """The processes that the kernel has started."""
        pid = self._manager.provisioner.pid  # type: ignore[union-attr]  # it has started
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            environment.setenv(name, str(folder))
        # With it, a kernel does not show what worker processes print.
        environment.delenv("PYTEST_CURRENT_TEST", raising=False)
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=PATIENCE_S)
            started = Kernel(manager, client)
            assert started.run(DEFINITIONS) == ("", None)
            yield started
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def leaves_nothing(kernel: Kernel) -> bool:
    threads = "print([each.name for each in threading.enumerate() if each.name.startswith(('flow', 'broadway'))])"
    return kernel.run(threads) == ("[]\n", None) and kernel.processes() == []


@RUNNERS
def test_classes_and_functions_of_cells_go_through_a_flow_and_come_back_as_themselves(
    runner: str, kernel: Kernel
) -> None:
    shown = kernel.run(
        f"""
print(sorted(words.count_by().using({runner!r}, workers=2))[0])
print(sorted(await words.count_by().using({runner!r}, workers=2).to_list_async())[0])
as_words = words.map(lambda text: Word(text)).using({runner!r}, workers=2)
print(set(map(type, as_words)) == {{Word}})
try:
    as_words.map(refuse_blue).run()
except FlowFailed as failed:
    print(type(failed.__cause__) is Unwanted, failed.__cause__.word == Word("blue"))
"""
    )

    assert shown == ("('are', 2)\n('are', 2)\nTrue\nTrue True\n", None)
    assert leaves_nothing(kernel)


@RUNNERS
@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("endless({runner!r}).run()", "KeyboardInterrupt"),
        ("for _ in endless({runner!r}): pass", "KeyboardInterrupt"),
        ("await endless({runner!r}).run_async()", "CancelledError"),
    ],
)
def test_interrupting_the_kernel_ends_a_flow_and_leaves_nothing(
    runner: str, cell: str, error: str, kernel: Kernel
) -> None:
    shown = kernel.run(cell.format(runner=runner), interrupt_at="it runs")

    assert shown.error is not None
    assert shown.error[0] == error
    assert leaves_nothing(kernel)


@RUNNERS
def test_a_cell_that_fails_shows_what_the_function_has_raised(runner: str, kernel: Kernel) -> None:
    shown = kernel.run(f"words.map(Word).map(refuse_blue).using({runner!r}, workers=1).to_list()")

    assert shown.error is not None
    name, text, traceback = shown.error
    assert (name, text) == (
        "FlowFailed",
        "map 3: refuse_blue failed with Unwanted in stage 0 at element 1 of source 0",
    )
    assert "a colour" in traceback
    assert leaves_nothing(kernel)


def test_an_iterator_that_is_kept_ends_with_its_last_name(kernel: Kernel) -> None:
    shown = kernel.run("kept = iter(words.using('processes', workers=2))\nprint(next(kept))")
    assert shown.text in {f"{word}\n" for word in ("roses", "violets")}

    assert kernel.run("del kept").error is None

    assert leaves_nothing(kernel)
