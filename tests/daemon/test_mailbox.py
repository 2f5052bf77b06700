from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from broadway_py.daemon.process.signal_queue import Mailbox


def test_words_come_in_order_and_none_after_the_deadline() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.put("a")
    mailbox.put("b")
    assert [mailbox.take(None), mailbox.take(None)] == ["a", "b"]
    began = time.monotonic()
    assert mailbox.take(began + 0.05) is None
    assert time.monotonic() >= began + 0.05
    mailbox.close()


def test_a_word_from_another_thread_ends_the_wait() -> None:
    mailbox: Mailbox[str] = Mailbox()
    thread = threading.Timer(0.01, mailbox.put, ("a",))
    thread.start()
    assert mailbox.take(time.monotonic() + 10) == "a"
    thread.join()
    mailbox.close()


def test_no_signal_is_missed_whichever_moment_it_comes_at() -> None:
    """Each is sent by another thread as soon as the one before was taken: many fall just before the wait."""
    mailbox: Mailbox[str] = Mailbox()
    taken = threading.Semaphore(0)

    def send() -> None:
        for _ in range(2_000):
            os.kill(os.getpid(), signal.SIGUSR2)
            taken.acquire()

    with mailbox.signals({signal.SIGUSR2: "usr2"}):
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(2_000):
            assert mailbox.take(time.monotonic() + 10) == "usr2"
            taken.release()
        sender.join()
    mailbox.close()


def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    mailbox: Mailbox[str] = Mailbox()
    with mailbox.signals({signal.SIGUSR2: "usr2"}):
        assert signal.getsignal(signal.SIGUSR2) is not before
    assert signal.getsignal(signal.SIGUSR2) is before
    assert signal.set_wakeup_fd(-1) == -1
    mailbox.close()


def test_a_signal_to_a_forked_child_ends_it_and_leaves_no_word_here() -> None:
    program = """
import os, signal, time
from broadway_py.daemon.process.signal_queue import Mailbox
mailbox = Mailbox()
with mailbox.signals({signal.SIGTERM: "term"}):
    for _ in range(50):
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
        os.kill(child, signal.SIGTERM)  # as early as can be
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert mailbox.take(time.monotonic() + 0.05) is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert mailbox.take(time.monotonic() + 10) == "term"
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_word_after_the_end_is_lost_quietly() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.close()
    mailbox.put("a")
