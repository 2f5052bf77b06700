"""Fixtures that give a test a real broker; loaded as a pytest plugin.

The broker is the one in ``BROADWAY_TEST_AMQP_URL``, else a node of our own, in a container where an engine answers and
by the program ``rabbitmq-server`` elsewhere, started with the first test that asks for it and ended with the run; else
none: then the test is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from broadway_py.producers.rabbitmq import RabbitMQProducer
from tests.support.containers import ContainersUnavailableError, asked_for, image_of, wanted
from tests.support.rabbitmq import RabbitMQ, given_url
from tests.support.rabbitmq_node import (
    ContainerNode,
    LocalNode,
    Node,
    given_program,
    parsed_version,
    server_program,
    version_of,
)


def _image() -> str | None:
    """The image of our node; None: it is no container, because a broker or a program is named, or no engine answers."""
    if given_url() is not None or (given_program() is not None and not asked_for()):
        return None
    return image_of("rabbitmq") if wanted() else None


def _version() -> tuple[int, ...] | None:
    """Of the RabbitMQ that is going to be started; None: it is not known before it runs."""
    image = _image()
    if image is not None:
        return parsed_version(image.rpartition(":")[2])
    program = server_program() if given_url() is None else None
    version = version_of(program) if program is not None else None
    return parsed_version(version) if version is not None else None


def _choice() -> str:
    if given_url() is not None:
        return "the broker in BROADWAY_TEST_AMQP_URL"
    image = _image()
    if image is not None:
        return f"a container of our own, of {image}"
    program = server_program()
    if program is not None:
        return f"a node of our own, version {version_of(program) or 'unknown'}, by {program}"
    return "none: set BROADWAY_TEST_AMQP_URL, or install rabbitmq-server; its tests are skipped"


#: Why a test is skipped.
NOT_OURS: Final = (
    "this test looks inside the broker or changes it: unset BROADWAY_TEST_AMQP_URL, so that we start our own"
)
#: The ways by which the producer can take deliveries off its socket; a test on the broker runs on each of them.
_PATHS: Final = ("plain", "fast")


def pytest_configure() -> None:
    try:
        _choice()
    except ContainersUnavailableError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header() -> list[str]:
    return [f"rabbitmq: {_choice()}", f"rabbitmq delivery paths: {', '.join(_PATHS)}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses the broker on each delivery path."""
    only = metafunc.definition.get_closest_marker("delivery_path")
    paths = _PATHS if only is None else [path for path in _PATHS if path in only.args]
    if "rabbitmq" in metafunc.fixturenames:
        metafunc.parametrize("delivery_path", paths, indirect=True)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs on a RabbitMQ, so that it can be chosen to run on another one; leave out what needs newer."""
    for item in items:
        if "rabbitmq_node" in getattr(item, "fixturenames", ()):
            item.add_marker("rabbitmq")
        if getattr(getattr(item, "function", None), "for_any_client", False):
            item.add_marker("any_broker")
    version = _version()
    if version is None:
        return
    too_new = [item for item in items if _since(item) > version]
    if too_new:
        config.hook.pytest_deselected(items=too_new)
        items[:] = [item for item in items if item not in too_new]


def _since(item: pytest.Item) -> tuple[int, ...]:
    """The first version of RabbitMQ that the test can run on."""
    marker = item.get_closest_marker("since_rabbitmq")
    return parsed_version(marker.args[0]) if marker is not None else ()


@pytest.fixture
def delivery_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The setting for the path that the test runs on; each producer made in it has it unless it says otherwise."""
    setting = {"delivery_path": request.param}
    plain_init = RabbitMQProducer.__init__

    def init(self: RabbitMQProducer, *arguments: Any, **settings: Any) -> None:
        plain_init(self, *arguments, **{**setting, **settings})

    monkeypatch.setattr(RabbitMQProducer, "__init__", init)
    return setting


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[Node | None]:
    """The node of this run; None when the environment names a broker."""
    if given_url() is not None:
        yield None
        return
    image, program = _image(), server_program()
    node: Node
    if image is not None:
        node = ContainerNode(image)
    elif program is not None:
        node = LocalNode(program)
    else:
        pytest.skip(f"no RabbitMQ: {_choice()}")
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
async def rabbitmq(
    request: pytest.FixtureRequest, rabbitmq_node: Node | None, delivery_path: dict[str, Any]
) -> AsyncIterator[RabbitMQ]:
    """A virtual host of the test's own, with a client connection in it; on a given broker, that of its URL.

    A test marked `any_broker` cannot look inside, wherever it runs; the others are skipped on a given broker.
    """
    any_broker = request.node.get_closest_marker("any_broker") is not None
    if rabbitmq_node is not None:
        broker = RabbitMQ.on_node(rabbitmq_node)
    elif any_broker:
        broker = RabbitMQ.given(given_url() or "")
    else:
        # Before anything runs: raised in the middle, a skip goes through the pipeline as if a handler had raised it.
        pytest.skip(NOT_OURS)
    broker.settings, broker.looks_inside = delivery_path, not any_broker
    try:
        async with broker.client():
            yield broker
    finally:
        broker.remove()
