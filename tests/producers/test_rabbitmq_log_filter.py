"""No payload gets into the client library's log, at any level."""

from __future__ import annotations

import logging
from typing import cast

import pytest
from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import InvalidFrameError
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.testing.driving import copy_of
from tests.producers.fake_broker import FakeBroker


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    hush()
    hush()
    caplog.set_level(logging.DEBUG)


def returned() -> DeliveredMessage:
    header = ContentHeader(properties=Basic.Properties(headers={"token": "canary"}))
    return DeliveredMessage(Basic.Return(312, "NO_ROUTE", "", "q"), header, b"canary", cast("Channel", None))


def test_the_body_of_a_returned_message_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aiormq.channel").error("Unhandled message %r returning", returned())
    assert caplog.messages == ["Unhandled message '<message of 6 bytes>' returning"]


def test_frames_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("aiormq.connection")
    log.debug("Prepare to send %r", ChannelFrame(b"canary", should_close=False))
    log.debug("Dropped %r", b"canary")
    assert caplog.messages == ["Prepare to send '<frames of 6 bytes>'", "Dropped '<6 bytes>'"]


def test_an_error_that_quotes_a_frame_is_named_only(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("aiormq.connection")
    try:
        raise InvalidFrameError(b"canary")
    except InvalidFrameError as error:
        log.warning("Cancelling cause reader exited abnormally", exc_info=error)
        log.warning("Reader: %r", error)
    assert caplog.messages == [
        "Cancelling cause reader exited abnormally (InvalidFrameError)",
        "Reader: 'InvalidFrameError'",
    ]
    assert "canary" not in caplog.text


def test_a_failed_connect_is_left_to_the_producers_own_sentence(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aiormq.connection").error("error when creating transport: %r", OSError("refused"))
    assert caplog.messages == []


def test_what_holds_nothing_secret_passes_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aiormq.channel").warning("Frame %r has no consumer tag", "x")
    assert caplog.messages == ["Frame 'x' has no consumer tag"]


async def test_the_user_is_not_shown_by_connections_that_open_and_close(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(*_: object) -> bool:
        return False

    async with FakeBroker.at_work(answer) as broker:
        url = broker.url.replace("guest:guest", "canary:canary")
        copy = copy_of(RabbitMQProducer("work", url), capacity=5, pipeline="ours")
        await copy.open()
        await copy.close()
    assert "aio_pika.connection" in {record.name for record in caplog.records}
    assert "canary" not in caplog.text
