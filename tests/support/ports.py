"""Ports for servers of the tests."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Collection
from typing import Final

__all__ = ["free_port"]

#: Among how many workers the ports are divided.
_SHARES: Final = 16


def free_port(*, but: Collection[int] = ()) -> int:
    """A port of 127.0.0.1 that nobody uses at this moment, and none of *but*, which are going to be used.

    Of those that the system gives to nobody unasked (to a connection it would, between this call and the server's
    start), and of this worker's share of them, where the suite runs on several.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = range(10_000 + worker % _SHARES, 32_000, _SHARES)
    for port in random.sample(share, len(share)):
        if port in but:
            continue
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue  # somebody listens there with leave to share it
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port of 127.0.0.1 is free between 10000 and 32000")
