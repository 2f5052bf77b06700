"""What a child that is forked off has not of its parent. Each program runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import os, signal, sys, threading
from broadway_py import forks

def exit_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def said(program: str) -> str:
    # Python 3.12 and newer warn of a fork beside threads, which is what this is about.
    python = [sys.executable, "-W", "ignore:This process:DeprecationWarning"]
    ran = subprocess.run(
        [*python, "-c", HEAD + textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stderr == ""
    return ran.stdout


def test_the_child_alone_is_reset_last_registered_first_and_not_by_what_was_taken_back() -> None:
    assert (
        said(
            """
            forks.when_forked(lambda: print("first", end=" "))
            forks.when_forked(lambda: print("second", end=" "))
            forget = forks.when_forked(lambda: print("third", end=" "))
            forget()
            child = os.fork()
            if not child:
                print(flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent")
            """
        )
        == "second first \nparent\n"
    )


def test_a_signal_that_comes_before_the_child_is_reset_waits_until_then() -> None:
    # The reset sends it, so it comes as early as it can.
    assert (
        said(
            """
            signal.signal(signal.SIGTERM, lambda *_: print("the parent's handler ran", flush=True))
            def reset():
                os.kill(os.getpid(), signal.SIGTERM)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            forks.when_forked(reset)
            child = os.fork()
            if not child:
                os._exit(0)
            print(exit_of(child), signal.pthread_sigmask(signal.SIG_BLOCK, []))
            """
        )
        == "-15 set()\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("None", 0),
        ("SystemExit()", 0),
        ("SystemExit(0)", 0),
        ("SystemExit(3)", 3),
        ("SystemExit('why')", 1),
        ("ValueError()", 1),
    ],
)
def test_a_child_that_comes_back_into_our_code_ends_there(error: str, code: int) -> None:
    program = f"""
    def ours():
        forks.own_this_thread()
        child = os.fork()
        forks.leave_if_forked({error})
        print(exit_of(child) if child else "came through", flush=True)
    thread = threading.Thread(target=ours)
    thread.start()
    thread.join()
    """
    assert said(program) == f"{code}\n"


def test_a_child_may_run_pipelines_of_its_own() -> None:
    assert (
        said(
            """
            child = os.fork()
            if not child:
                def ours():
                    forks.own_this_thread()
                    forks.leave_if_forked(ValueError())
                    os._exit(7)
                thread = threading.Thread(target=ours)
                thread.start()
                thread.join()
            print(exit_of(child))
            """
        )
        == "7\n"
    )
