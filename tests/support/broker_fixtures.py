"""Fixtures that give a test a real broker; loaded as a pytest plugin.

The broker is the one in ``BROADWAY_TEST_AMQP_URL``, else a ``rabbitmq-server`` process of our own, started with the
first test that asks for it and ended with the run, else none: then the test is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.rabbitmq import RabbitMQ, given_url
from tests.support.rabbitmq_node import Node, server_program


def _choice() -> str:
    if given_url() is not None:
        return "the broker in BROADWAY_TEST_AMQP_URL"
    program = server_program()
    if program is not None:
        return f"a node of our own by {program}"
    return "none: set BROADWAY_TEST_AMQP_URL, or install rabbitmq-server; its tests are skipped"


def pytest_report_header() -> str:
    return f"rabbitmq: {_choice()}"


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[Node | None]:
    """The node of this run; None when the environment names a broker."""
    if given_url() is not None:
        yield None
        return
    program = server_program()
    if program is None:
        pytest.skip(f"no RabbitMQ: {_choice()}")
    node = Node(program)
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
async def rabbitmq(rabbitmq_node: Node | None) -> AsyncIterator[RabbitMQ]:
    """A virtual host of the test's own, with a client connection in it."""
    if rabbitmq_node is not None:
        broker = RabbitMQ.on_node(rabbitmq_node)
    else:
        url = given_url() or ""
        broker = RabbitMQ(url, unquote(urlsplit(url).path[1:]) or "/", None)
    try:
        async with broker.client():
            yield broker
    finally:
        broker.remove()
