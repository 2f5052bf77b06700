"""Edges of settlement and batching that mutation testing found unguarded."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core import batching
from broadway_py._core.batching import Batch, OpenBatches
from broadway_py._core.settlement import Round, claim, returned_one_problem
from broadway_py.message import CLAIMED, Acknowledgement, Message

SHOP, BANK = object(), object()


def of(*acknowledgements: Acknowledgement) -> list[Message[Any]]:
    return [Message(place, acknowledgement=each) for place, each in enumerate(acknowledgements)]


def rounds_of(*acknowledgements: Acknowledgement) -> list[tuple[object, object, list[int]]]:
    rounds = claim(of(*acknowledgements), [])
    return [(each.acknowledger, each.ref, [message.data for message in each.successful]) for each in rounds]


# --- the claim ------------------------------------------------------------------------------------------------------


def test_a_claim_stands_before_anything_is_settled() -> None:
    messages = of(Acknowledgement(SHOP, 1))

    claim(messages, [])

    assert messages[0]._settlement == CLAIMED


def test_messages_that_share_an_acknowledgement_are_all_in_its_round() -> None:
    shared, other = Acknowledgement(SHOP, 1), Acknowledgement(SHOP, 2)

    assert rounds_of(shared, shared, shared, other, shared) == [(SHOP, 1, [0, 1, 2, 4]), (SHOP, 2, [3])]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(Acknowledgement(SHOP, 1), Acknowledgement(SHOP, 2, 1), id="its data is the other's ref"),
        pytest.param(Acknowledgement(SHOP, 1, 2), Acknowledgement(SHOP, 2), id="its ref is the other's data"),
        pytest.param(Acknowledgement(SHOP, SHOP), Acknowledgement(BANK, SHOP), id="its ref is the other acknowledger"),
        pytest.param(
            Acknowledgement(SHOP, BANK), Acknowledgement(BANK, BANK), id="its acknowledger is the other's ref"
        ),
    ],
)
def test_acknowledger_and_ref_alone_decide_about_the_round(first: Acknowledgement, second: Acknowledgement) -> None:
    assert rounds_of(first, second) == [(first[0], first[1], [0]), (second[0], second[1], [1])]


def test_the_successful_ones_of_a_round_are_acked_unless_it_says_otherwise() -> None:
    assert Round(SHOP, 1).given == "acked"


@pytest.mark.parametrize(("name", "article"), [("Offer", "an"), ("offer", "an"), ("Xylophone", "a"), ("Total", "a")])
def test_an_article_fits_its_word(name: str, article: str) -> None:
    assert returned_one_problem("handle_message", type(name, (), {})()) == (
        f"handle_message returned {article} {name}; expected None or the message it was given: "
        "change the message in place (message.data = …) and return nothing"
    )


# --- batches --------------------------------------------------------------------------------------------------------


def message(data: int, key: Any = "default", *, flush: bool = False) -> Message[int]:
    made = Message(data)
    made.batch_key = key
    made.batch_mode = "flush" if flush else "bulk"
    return made


def told(batches: list[Batch]) -> list[list[Any]]:
    return [[each.data for each in batch.messages] for batch in batches]


@pytest.mark.parametrize("key", [None, "", 0])
def test_an_empty_key_is_a_key(key: object) -> None:
    batches = OpenBatches("b", 2, 1.0)

    assert told(batches.add([message(1, key), message(2, key)], 0.0)) == [[1, 2]]


def test_a_run_of_one_key_in_one_partition_is_flushed_together() -> None:
    batches = OpenBatches("b", 10, 1.0, partition_of=lambda _: 0)

    assert told(batches.add([message(1, flush=True), message(2)], 0.0)) == [[1, 2]]


def test_accumulators_of_too_many_keys_are_forgotten_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def until_three(_: Message[int], seen: int) -> tuple[str, int]:
        return ("emit" if seen >= 1 else "cont"), seen + 1

    monkeypatch.setattr(batching, "_CARRIED_KEYS", 2)
    batches = OpenBatches("b", (0, until_three), 1.0)
    for key in "abc":
        assert told(batches.add([message(1, key), message(2, key)], 0.0)) == [[1, 2]]

    # The next batch of "b" and of "c" begins where their last one ended; that of "a" begins anew.
    assert [told(batches.add([message(3, key)], 0.0)) for key in "bca"] == [[[3]], [[3]], []]
