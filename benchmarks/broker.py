"""The broker of a measurement: the one in ``BROADWAY_TEST_AMQP_URL``, or a private node that ends with the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.rabbitmq import RabbitMQ, given_url
from tests.support.rabbitmq_node import Node, server_program

__all__ = ["NoBrokerError", "running_broker"]


class NoBrokerError(Exception):
    """There is no RabbitMQ to measure with; the text says what to do."""


@contextmanager
def running_broker() -> Iterator[str]:
    """The URL of a RabbitMQ that is there for the block.

    Raises:
        NoBrokerError: there is none.
    """
    given = given_url()
    if given is not None:
        yield given
        return
    program = server_program()
    if program is None:
        raise NoBrokerError("no RabbitMQ: set BROADWAY_TEST_AMQP_URL, or install rabbitmq-server")
    node = Node(program)
    try:
        node.start()
        yield RabbitMQ.on_node(node).url
    finally:
        node.remove()
