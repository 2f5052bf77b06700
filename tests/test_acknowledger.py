"""The acknowledgers in the box."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from broadway_py.acknowledger import Acknowledger, CallerAcknowledger, Configures, NoopAcknowledger, Releases
from broadway_py.message import Message
from broadway_py.testing import FakeClock


async def test_the_caller_waits_until_every_expected_message_was_settled() -> None:
    caller = CallerAcknowledger(3)
    good = [Message(place, acknowledgement=caller.acknowledgement()) for place in range(2)]
    bad = Message(2, acknowledgement=caller.acknowledgement())
    waiting = asyncio.ensure_future(caller.settled())

    await caller.ack(id(caller), good[:1], [])
    await caller.ack(id(caller), [], [bad])
    await FakeClock().advance(0)
    assert not waiting.done()
    await caller.ack(id(caller), good[1:], [])

    assert await waiting == (good, [bad])
    assert await caller.settled() == (good, [bad])


async def test_the_caller_of_no_messages_does_not_wait() -> None:
    assert await CallerAcknowledger(0).settled() == ([], [])


def test_the_messages_of_one_caller_are_settled_together_and_of_two_apart() -> None:
    one, other = CallerAcknowledger(2), CallerAcknowledger(2)

    assert one.acknowledgement().ref == one.acknowledgement("data").ref != other.acknowledgement().ref
    assert one.acknowledgement("data").data == "data"


def test_the_caller_notes_what_was_configured() -> None:
    caller = CallerAcknowledger(1)
    message = Message(1, acknowledgement=caller.acknowledgement("data"))

    message.configure_ack(on_failure="reject")
    message.configure_ack(delay=3)

    assert caller.configured == [{"on_failure": "reject"}, {"delay": 3}]
    assert message.acknowledgement.data == "data"


async def test_the_noop_acknowledger_tells_nobody() -> None:
    await NoopAcknowledger().ack(None, [Message(1)], [Message(2)])


@pytest.mark.parametrize(
    ("acknowledger", "configures", "releases"),
    [(NoopAcknowledger(), False, False), (CallerAcknowledger(1), True, False)],
)
def test_what_an_acknowledger_offers_can_be_asked(acknowledger: Acknowledger, configures: bool, releases: bool) -> None:
    assert isinstance(acknowledger, Configures) is configures
    assert isinstance(acknowledger, Releases) is releases


def test_an_acknowledger_that_can_give_back_is_recognised() -> None:
    class GivesBack(NoopAcknowledger):
        async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
            raise NotImplementedError

    assert isinstance(GivesBack(), Releases)


def test_an_acknowledger_without_ack_cannot_be_made() -> None:
    class Silent(Acknowledger):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Silent()  # type: ignore[abstract]  # that is what is tested
