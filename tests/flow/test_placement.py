"""Which process reads what, and the sockets between the processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Flow, Window
from broadway_py.flow.plan import Plan, plan_of
from broadway_py.flow.running.placement import PARENT, Placement, files_of_workers
from broadway_py.flow.running.socket_pairs import SocketPairs
from tests.flow.support import leaves_nothing


@contextmanager
def named(kind: str, folder: Path) -> Iterator[str]:
    path = folder / "lines.txt"
    if kind == "named pipe":
        os.mkfifo(path)
    else:
        path.touch()
    if kind == "descriptor":
        with path.open() as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield str(path)


def plan(flow: Flow[str]) -> Plan:
    return plan_of(flow._layer, 2)


@pytest.mark.parametrize(
    ("kind", "readers"), [("file", [0, 1]), ("named pipe", [PARENT]), ("descriptor", [PARENT])], ids=str
)
def test_workers_read_files_that_are_the_same_in_each_process(kind: str, readers: list[int], tmp_path: Path) -> None:
    with named(kind, tmp_path) as path:
        planned = plan(Flow.from_files(path).map(str.upper))
        placement = Placement(2, files=files_of_workers(planned))

    assert list(placement.of_source(planned.sources[0])) == readers


def test_the_program_reads_files_whose_order_matters_and_those_that_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.touch()
    lines = Flow.from_files(path).map(str.upper)
    windows: Flow[Any] = lines.partition(stages=1, window=Window.count(2)).reduce(list, lambda found, _: found)

    assert files_of_workers(plan(lines)) == {0}
    assert files_of_workers(plan(windows)) == set()
    path.unlink()
    assert files_of_workers(plan(lines)) == set()


def test_each_two_processes_have_a_pair_of_sockets() -> None:
    with leaves_nothing():
        pairs = SocketPairs(range(-1, 3))
        held = {place: pairs.of(place) for place in range(-1, 3)}
        assert {place: sorted(ends) for place, ends in held.items()} == {
            -1: [0, 1, 2],
            0: [-1, 1, 2],
            1: [-1, 0, 2],
            2: [-1, 0, 1],
        }
        for place, ends in held.items():
            for other, end in ends.items():
                end.send(f"from {place} to {other}".encode())
        for place, ends in held.items():
            for other, end in ends.items():
                assert end.recv(100) == f"from {other} to {place}".encode()
                end.close()


def test_a_program_with_many_workers_has_few_descriptors_at_once() -> None:
    descriptors = Path("/proc/self/fd")
    before, most = len(list(descriptors.iterdir())), 0

    with leaves_nothing():
        pairs = SocketPairs(range(-1, 32))
        own = pairs.of(-1)
        for place in range(32):
            ends = pairs.of(place)
            most = max(most, len(list(descriptors.iterdir())) - before)
            for each in ends.values():
                each.close()
        for each in own.values():
            each.close()

    assert most < 350


def test_sockets_that_were_not_handed_out_are_closed() -> None:
    with leaves_nothing():
        pairs = SocketPairs(range(-1, 4))
        for place in (-1, 0):
            for each in pairs.of(place).values():
                each.close()
        pairs.close()
