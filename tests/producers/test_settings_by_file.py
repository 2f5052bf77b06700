"""A setting that is given by a file behaves as the same setting given plainly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.errors import OptionsError
from broadway_py.pipeline.intake.copies import Copies
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producer_description import ProducerDescription, described
from broadway_py.producers import kinds
from broadway_py.storage.queue_members import Partition
from broadway_py.testing import settle
from broadway_py.testing.driving import context_of
from tests.pipeline.support import logged

PATH: Final = ("producer",)
PLAN: Final = FailurePlan(
    frozenset({"retry", "dead_letter"}), None, FailureAuthority(failure_is_given=True, on_failure_is_given=False)
)

#: Settings of a producer, one of them by the name that is to be given by a file.
PLAINLY: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "rabbitmq": (
        {
            "kind": "rabbitmq",
            "queue": "orders",
            "url": "amqp://u:one@127.0.0.1/",
            "concurrency": 2,
            "prefetch_count": 7,
            "on_failure": "reject",
            "backoff_type": "exp",
        },
        "url",
    ),
    "sqs": ({"kind": "sqs", "queue_url": "http://127.0.0.1:1/000000000000/orders", "concurrency": 3}, "queue_url"),
    "queue": ({"kind": "queue", "path": "q.db", "queue": "orders", "partitioned": True}, "path"),
}


def by_file(folder: Path, settings: dict[str, Any], field: str) -> Any:
    file = folder / "secret"
    file.write_text(f"{settings[field]}\n")
    rest = {name: value for name, value in settings.items() if name != field}
    return kinds.build({**rest, f"{field}_file": str(file)}, PATH)


def change(folder: Path, content: str) -> None:
    (folder / "secret").write_text(content)


def copied(copies: Copies) -> Any:
    return copies.create(context_of(copies.description))


def windows_refused(producer: ProducerDescription) -> str | None:
    """Returns why windows cannot be kept of this source; None if they can."""
    try:
        producer.check_windows()
    except OptionsError as refused:
        return str(refused)
    return None


#: What a pipeline asks a description.
ASKED: Final[dict[str, Callable[[ProducerDescription], object]]] = {
    "class": type,
    "repr": repr,
    "called": lambda producer: producer.called,
    "concurrency": lambda producer: producer.concurrency,
    "redelivers": lambda producer: producer.redelivers,
    "keeps_keys_apart": lambda producer: producer.keeps_keys_apart,
    "marks_repeats": lambda producer: producer.marks_repeats,
    "outlives_process": lambda producer: producer.outlives_process,
    "on_failure_is_given": lambda producer: producer.on_failure_is_given,
    "partitions": lambda producer: producer.partitions,
    "backoff": lambda producer: type(producer.backoff()),
    "returns_within": lambda producer: [producer.returns_within(process_died=died) for died in (True, False)],
    "most_in_flight": lambda producer: producer.most_in_flight(100),
    "check_failure": lambda producer: producer.check_failure(PLAN),
    "check_windows": windows_refused,
    "create": lambda producer: type(producer.create()),
    "examine": lambda producer: type(producer).examine,
    "for_order": lambda producer: vars(producer.for_order().renewed().create()).keys(),
    "trace_source": lambda producer: (type(producer.trace_source()), vars(producer.trace_source())),
    "renewed": lambda producer: producer.renewed() is producer,
}


def test_everything_that_a_description_offers_is_compared() -> None:
    offered = {name for name in vars(ProducerDescription) if not name.startswith("_")}
    tried_below = {"describe_partition", "partition", "renew_by", "succeed"}
    assert offered - ASKED.keys() == {"name", "end_lost_copies"} | tried_below


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", PLAINLY)
def test_the_description_says_the_same(tmp_path: Path, kind: str, asked: str) -> None:
    settings, field = PLAINLY[kind]
    plain = described(kinds.build(settings, PATH))
    assert ASKED[asked](by_file(tmp_path, settings, field)) == ASKED[asked](plain)


async def test_copies_share_what_they_have_learned_also_after_a_change_of_the_file(tmp_path: Path) -> None:
    copies = Copies(by_file(tmp_path, *PLAINLY["rabbitmq"]))
    first, second = copied(copies), copied(copies)
    first._learned.mean_bytes = 1_000_000.0
    first._learned.troubled.by_default.add("orders")
    change(tmp_path, "amqp://u:two@127.0.0.1/")
    third, fourth = copied(copies), copied(copies)
    assert ["two" in copy._options_of(0).url for copy in (first, second, third, fourth)] == [False, False, True, True]
    assert all(copy._learned is first._learned for copy in (second, third, fourth))


def test_the_description_changes_once_for_each_change_of_the_file(tmp_path: Path) -> None:
    copies = Copies(by_file(tmp_path, *PLAINLY["rabbitmq"]))
    seen = [copies.description]
    for content in ("amqp://u:one@127.0.0.1/", "amqp://u:two@127.0.0.1/", "amqp://u:two@127.0.0.1/\n"):
        change(tmp_path, content)
        copied(copies)
        seen.append(copies.description)
    assert [one is seen[0] for one in seen] == [True, True, False, False]
    assert seen[2] is seen[3]


@pytest.mark.parametrize("content", [None, "no-url-at-all", b"\xff"])
def test_a_file_that_is_of_no_use_for_a_moment_does_not_stop_the_next_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | bytes | None
) -> None:
    file = tmp_path / "secret"
    copies = Copies(by_file(tmp_path, *PLAINLY["rabbitmq"]))
    before = copies.description
    file.unlink()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    copied(copies)
    assert copies.description is before
    (line,) = [line for line in logged(caplog) if "secret" in str(line["event"])]
    assert line["event"] == "a secret cannot be read again; using its last value"


async def test_lost_copies_are_ended_those_with_a_former_value_too(tmp_path: Path) -> None:
    copies = Copies(by_file(tmp_path, *PLAINLY["sqs"]))
    ended: list[str] = []
    for name in ("orders", "others", "more"):
        change(tmp_path, f"http://127.0.0.1:1/000000000000/{name}")
        copied(copies)._lost_copies.retire(Retiring(name, ended))
    await settle()
    await copies.description.end_lost_copies()
    assert sorted(ended) == ["more", "orders", "others"]


class Retiring:
    """A session that goes on until it is cancelled."""

    def __init__(self, name: str, ended: list[str]) -> None:
        self._name = name
        self._ended = ended

    async def retire(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # not when the task is lost, and the garbage collector closes the coroutine
            self._ended.append(self._name)
            raise


@pytest.mark.parametrize(
    ("field", "content", "is_the_same_queue"),
    [("region", "eu-central-2", True), ("queue_url", "http://127.0.0.1:1/000000000000/others", False)],
)
def test_the_names_of_receives_stay_with_their_queue(
    tmp_path: Path, field: str, content: str, *, is_the_same_queue: bool
) -> None:
    copies = Copies(by_file(tmp_path, {**PLAINLY["sqs"][0], "region": "eu-central-1"}, field))
    before = copied(copies)
    change(tmp_path, content)
    assert (copied(copies)._attempts is before._attempts) is is_the_same_queue


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_queue_that_is_read_alone_stays_alone_after_a_change_of_the_file(tmp_path: Path, *, is_ordered: bool) -> None:
    settings = {"kind": "queue", "path": "q.db", "queue": "orders"}
    producer = by_file(tmp_path, settings, "path")
    copies = Copies(producer.for_order() if is_ordered else producer)
    before = copied(copies)
    change(tmp_path, "other.db")
    after = copied(copies)
    assert (before.options.path, after.options.path) == ("q.db", "other.db")
    assert (after._sharing, after._holder) == (before._sharing, before._holder)
    assert after._sharing == ("alone" if is_ordered else "shared")


def test_a_partition_keeps_its_place_after_a_change_of_the_file(tmp_path: Path) -> None:
    whole = by_file(tmp_path, {"kind": "queue", "path": "q.db", "queue": "orders", "partitions": 4}, "path")
    copies = Copies(whole.partition(3))
    before = copied(copies)
    change(tmp_path, "other.db")
    after = copied(copies)
    assert (before.options.path, after.options.path) == ("q.db", "other.db")
    assert (after._partition, after._holder) == (Partition(3, 4), before._holder)
    assert copies.description.called == "queue.3"


class Plugged(Producer):
    """A plug-in that is no description. Its copies share a list."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.shared: list[str] = []


def test_a_plug_in_of_either_form_takes_settings_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "producer_class", lambda _: Plugged)
    copies = Copies(by_file(tmp_path, {"kind": "plugged", "token": "one"}, "token"))
    first, second = copied(copies), copied(copies)
    change(tmp_path, "two")
    third, fourth = copied(copies), copied(copies)
    assert [copy.token for copy in (first, second, third, fourth)] == ["one", "one", "two", "two"]
    assert first.shared is second.shared
    assert third.shared is fourth.shared


def test_without_a_file_a_plug_in_is_an_object_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "producer_class", lambda _: Plugged)
    producer = kinds.build({"kind": "plugged", "token": "one"}, PATH)
    assert isinstance(producer, Plugged)
    assert producer.token == "one"


@dataclass(frozen=True)
class Frozen(ProducerDescription):
    token: str

    def create(self) -> Producer:
        return Plugged(self.token)


def test_a_plug_in_that_is_frozen_takes_settings_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "producer_class", lambda _: Frozen)
    copies = Copies(by_file(tmp_path, {"kind": "frozen", "token": "one"}, "token"))
    first = copied(copies)
    change(tmp_path, "two")
    assert [copy.token for copy in (first, copied(copies))] == ["one", "two"]
