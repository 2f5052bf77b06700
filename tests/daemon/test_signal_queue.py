from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from broadway_py.daemon.process.signal_queue import SignalQueue


def test_words_come_in_order_and_none_after_the_deadline() -> None:
    signal_queue: SignalQueue[str] = SignalQueue()
    signal_queue.put("a")
    signal_queue.put("b")
    assert [signal_queue.take(None), signal_queue.take(None)] == ["a", "b"]
    began = time.monotonic()
    assert signal_queue.take(began + 0.05) is None
    assert time.monotonic() >= began + 0.05
    signal_queue.close()


def test_a_word_from_another_thread_ends_the_wait() -> None:
    signal_queue: SignalQueue[str] = SignalQueue()
    thread = threading.Timer(0.01, signal_queue.put, ("a",))
    thread.start()
    assert signal_queue.take(time.monotonic() + 10) == "a"
    thread.join()
    signal_queue.close()


def test_no_signal_is_missed_whichever_moment_it_comes_at() -> None:
    """Each is sent by another thread as soon as the one before was taken: many fall just before the wait."""
    signal_queue: SignalQueue[str] = SignalQueue()
    taken = threading.Semaphore(0)

    def send() -> None:
        for _ in range(2_000):
            os.kill(os.getpid(), signal.SIGUSR2)
            taken.acquire()

    with signal_queue.signals({signal.SIGUSR2: "usr2"}):
        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(2_000):
            assert signal_queue.take(time.monotonic() + 10) == "usr2"
            taken.release()
        sender.join()
    signal_queue.close()


def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    signal_queue: SignalQueue[str] = SignalQueue()
    with signal_queue.signals({signal.SIGUSR2: "usr2"}):
        assert signal.getsignal(signal.SIGUSR2) is not before
    assert signal.getsignal(signal.SIGUSR2) is before
    assert signal.set_wakeup_fd(-1) == -1
    signal_queue.close()


def test_a_signal_to_a_forked_child_ends_it_and_leaves_no_word_here() -> None:
    program = """
import os, signal, time
from broadway_py.daemon.process.signal_queue import SignalQueue
signal_queue = SignalQueue()
with signal_queue.signals({signal.SIGTERM: "term"}):
    for _ in range(50):
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
        os.kill(child, signal.SIGTERM)  # as early as can be
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signal_queue.take(time.monotonic() + 0.05) is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal_queue.take(time.monotonic() + 10) == "term"
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_word_after_the_end_is_lost_quietly() -> None:
    signal_queue: SignalQueue[str] = SignalQueue()
    signal_queue.close()
    signal_queue.put("a")
