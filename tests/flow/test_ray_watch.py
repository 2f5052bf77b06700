"""Whether a process of Ray has ended, by the connections that it takes. It needs no Ray."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from broadway_py.flow.running.runners.ray_watch import Endpoint, Watch


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken


def endpoint_of(listening: socket.socket) -> Endpoint:
    return Endpoint(*listening.getsockname())


async def test_a_process_that_refuses_connections_in_two_looks_in_a_row_has_ended(listening: socket.socket) -> None:
    watch, endpoint = Watch(), endpoint_of(listening)

    assert await watch.look([endpoint]) == set()
    listening.close()
    assert await watch.look([endpoint]) == set()
    assert await watch.look([endpoint]) == {endpoint}


async def test_a_process_that_another_one_has_replaced_has_not_ended(listening: socket.socket) -> None:
    watch, endpoint = Watch(), endpoint_of(listening)
    listening.close()

    assert await watch.look([endpoint]) == set()
    with socket.create_server(endpoint):
        assert await watch.look([endpoint]) == set()
    assert await watch.look([endpoint]) == set()


async def test_a_process_that_has_no_time_for_its_connections_has_not_ended(listening: socket.socket) -> None:
    watch, endpoint = Watch(), endpoint_of(listening)

    assert [await watch.look([endpoint]) for _ in range(3)] == [set()] * 3


async def test_an_address_without_an_answer_is_left_to_ray() -> None:
    watch, nowhere = Watch(), Endpoint("nowhere.invalid", 1)

    assert [await watch.look([nowhere]) for _ in range(3)] == [set()] * 3
