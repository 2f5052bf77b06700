"""The broker of a measurement: the one that the environment names, or one of our own that ends with the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.localstack import CREDENTIALS, REGION, LocalStackProcess, given_endpoint, localstack_program
from tests.support.rabbitmq import RabbitMQ, given_url
from tests.support.rabbitmq_node import LocalNode, server_program

__all__ = ["NoBrokerError", "running_broker"]


class NoBrokerError(Exception):
    """There is no broker to measure with; the text says what to do."""


@contextmanager
def running_broker(kind: str) -> Iterator[str]:
    """The URL of a RabbitMQ, or of an SQS endpoint, that is there for the block.

    Raises:
        NoBrokerError: there is none.
    """
    with _sqs() if kind == "sqs" else _rabbitmq() as url:
        yield url


@contextmanager
def _sqs() -> Iterator[str]:
    given = given_endpoint()
    if given is not None:
        yield given
        return
    python = localstack_program()
    if python is None:
        raise NoBrokerError("no SQS: set BROADWAY_TEST_SQS_URL, or run make localstack")
    # The programs that are measured find them as AWS programs do.
    os.environ.update(CREDENTIALS | {"AWS_DEFAULT_REGION": REGION})
    server = LocalStackProcess(python)
    try:
        server.start()
        yield server.endpoint
    finally:
        server.remove()


@contextmanager
def _rabbitmq() -> Iterator[str]:
    given = given_url()
    if given is not None:
        yield given
        return
    program = server_program()
    if program is None:
        raise NoBrokerError("no RabbitMQ: set BROADWAY_TEST_AMQP_URL, or install rabbitmq-server")
    node = LocalNode(program)
    try:
        node.start()
        yield RabbitMQ.on_node(node).url
    finally:
        node.remove()
