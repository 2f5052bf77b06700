"""The acknowledgers in the box."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from broadway_py.abilities import Ability, abilities_of
from broadway_py.acknowledger import Acknowledger, CallerAcknowledger, NoopAcknowledger
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


# --- abilities --------------------------------------------------------------------------------------------------------


class Releasing(NoopAcknowledger):
    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        raise NotImplementedError


class Retrying:
    """No acknowledger, but something from which one can get a method."""

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        raise NotImplementedError


class ReleasingOnly(Releasing, Retrying):
    """Declares less than it has methods for."""

    abilities = frozenset({"release"})


class ReleasingAndDeadLettering(ReleasingOnly):
    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        raise NotImplementedError


class RetryingAfterAll(ReleasingOnly):
    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        raise NotImplementedError


class RetryingAgain(ReleasingOnly):
    """Declares what its base class does not declare."""

    abilities = frozenset({"retry"})


class KeepingAll(Releasing):
    release = None  # type: ignore[assignment]  # that is how a method is taken away


@pytest.mark.parametrize(
    ("kind", "abilities"),
    [
        pytest.param(NoopAcknowledger, set(), id="none"),
        pytest.param(CallerAcknowledger, {"configure"}, id="by a method"),
        pytest.param(Releasing, {"release"}, id="by a method, on top of a base class"),
        pytest.param(type("Both", (Releasing, Retrying), {}), {"release", "retry"}, id="by a method of a mix-in"),
        pytest.param(ReleasingOnly, {"release"}, id="what is declared wins"),
        pytest.param(type("Same", (ReleasingOnly,), {}), {"release"}, id="also for a subclass"),
        pytest.param(ReleasingAndDeadLettering, {"release", "dead_letter"}, id="a subclass adds one"),
        pytest.param(RetryingAfterAll, {"release", "retry"}, id="a subclass has a method of its own"),
        pytest.param(type("Same", (RetryingAgain,), {}), {"retry"}, id="the nearest declaration counts"),
        pytest.param(KeepingAll, set(), id="taken away"),
    ],
)
def test_an_acknowledger_can_do_what_it_declares_or_has_a_method_for(
    kind: type[Acknowledger], abilities: set[str]
) -> None:
    assert kind.abilities == abilities
    assert abilities_of(kind.__new__(kind)) == abilities


async def give_back(ref: Hashable, messages: Sequence[Message[Any]]) -> None:
    raise NotImplementedError


def test_an_acknowledger_may_get_a_method_when_it_is_made() -> None:
    class Choosing(Releasing):
        def __init__(self, **methods: object) -> None:
            vars(self).update(methods)

    assert abilities_of(Choosing(dead_letter=give_back)) == {"release", "dead_letter"}
    assert abilities_of(Choosing(release=None)) == set()


def test_an_acknowledger_may_pass_what_it_does_not_have_on_to_another_one() -> None:
    class Counting(NoopAcknowledger):
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    assert abilities_of(Counting(Releasing())) == {"release"}
    assert abilities_of(Counting(NoopAcknowledger())) == set()


def test_a_class_may_get_a_method_when_it_exists_already() -> None:
    def releasing(kind: type[NoopAcknowledger]) -> type[NoopAcknowledger]:
        kind.release = give_back  # type: ignore[attr-defined]  # that is how a decorator adds a method
        return kind

    @releasing
    class Decorated(NoopAcknowledger):
        pass

    class Derived(Decorated):
        pass

    assert abilities_of(Decorated()) == abilities_of(Derived()) == {"release"}


def test_an_object_that_is_no_acknowledger_can_do_what_it_has_a_method_for() -> None:
    assert abilities_of(None) == abilities_of(object()) == set()
    assert abilities_of(Retrying()) == {"retry"}
    assert abilities_of(SimpleNamespace(release=print, dead_letter=None, abilities=3)) == {"release"}


def test_a_message_takes_only_the_options_that_its_acknowledger_declares_to_take() -> None:
    class Shut(CallerAcknowledger):
        abilities = frozenset[Ability]()

    message = Message(1, acknowledgement=Shut(1).acknowledgement())

    with pytest.raises(TypeError) as refused:
        message.configure_ack(on_failure="drop")
    assert str(refused.value) == (
        "configure_ack(on_failure): Shut takes no options; remove the call, or use a producer whose acknowledger has "
        "configure()"
    )


def test_a_declared_ability_needs_its_method() -> None:
    with pytest.raises(TypeError) as refused:
        type("Till", (NoopAcknowledger,), {"abilities": frozenset({"retry"})})
    assert str(refused.value) == (
        "Till.abilities names retry, but the class has no method retry(): write the method, or leave the name out"
    )


@pytest.mark.parametrize(
    ("declared", "got"),
    [(frozenset({"relase"}), "frozenset({'relase'})"), (["release"], "['release']"), ("release", "'release'")],
)
def test_a_declaration_names_known_abilities(declared: object, got: str) -> None:
    with pytest.raises(TypeError) as refused:
        type("Till", (Releasing,), {"abilities": declared})
    assert str(refused.value) == (
        f"Till.abilities: expected a frozenset of configure, release, retry, dead_letter, got {got}"
    )


def test_an_acknowledger_without_ack_cannot_be_made() -> None:
    class Silent(Acknowledger):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Silent()  # type: ignore[abstract]  # that is what is tested
