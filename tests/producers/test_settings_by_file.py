"""A setting that is given by a file behaves as the same setting given plainly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producers import kinds
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.sqs import SQSProducer
from tests.pipeline.support import logged

PATH: Final = ("producer",)
PLACE: Final[dict[str, Any]] = {"index": 0, "capacity": 10, "pipeline": "orders", "lost": lambda _: None}
PLAN: Final = FailurePlan(frozenset({"retry", "dead_letter"}), None, FailureAuthority(True, False))

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


def by_file(folder: Path, settings: dict[str, Any], field: str) -> Producer:
    file = folder / "secret"
    file.write_text(f"{settings[field]}\n")
    rest = {name: value for name, value in settings.items() if name != field}
    return kinds.build({**rest, f"{field}_file": str(file)}, PATH)


def rabbitmq(folder: Path) -> Producer:
    return by_file(folder, *PLAINLY["rabbitmq"])


def copied(producer: Producer) -> RabbitMQProducer:
    copy = producer.copy(**PLACE)
    assert isinstance(copy, RabbitMQProducer)
    return copy


#: What a pipeline asks a description.
ASKED: Final[dict[str, Callable[[Producer], object]]] = {
    "concurrency": lambda producer: producer.concurrency,
    "redelivers": lambda producer: producer.redelivers,
    "keeps_keys_apart": lambda producer: producer.keeps_keys_apart,
    "on_failure_is_given": lambda producer: producer.on_failure_is_given,
    "backoff": lambda producer: type(producer.backoff()),
    "most_in_flight": lambda producer: producer.most_in_flight(100),
    "check_failure": lambda producer: producer.check_failure(PLAN),
    "copy": lambda producer: type(producer.copy(**PLACE)),
    "for_order": lambda producer: vars(producer.for_order().copy(**PLACE)).keys(),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", PLAINLY)
def test_the_description_says_the_same(tmp_path: Path, kind: str, asked: str) -> None:
    settings, field = PLAINLY[kind]
    plain = kinds.build(settings, PATH)
    assert ASKED[asked](by_file(tmp_path, settings, field)) == ASKED[asked](plain)


def test_copies_share_what_they_have_learned(tmp_path: Path) -> None:
    producer = rabbitmq(tmp_path)
    first, second = copied(producer), copied(producer)
    assert first._seen is second._seen
    assert first._troubled is second._troubled


def test_the_copy_after_a_change_of_the_file_has_the_new_value(tmp_path: Path) -> None:
    producer = rabbitmq(tmp_path)
    before = copied(producer)
    (tmp_path / "secret").write_text("amqp://u:two@127.0.0.1/\n")
    after = copied(producer)
    assert ["two" in copy._settings["url"] for copy in (before, after)] == [False, True]
    assert copied(producer)._seen is after._seen


def test_a_file_that_is_away_for_a_moment_does_not_stop_the_next_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    producer = rabbitmq(tmp_path)
    (tmp_path / "secret").unlink()
    assert "one" in copied(producer)._settings["url"]
    (line,) = [line for line in logged(caplog) if "secret" in str(line["event"])]
    assert line["event"] == "a secret cannot be read again; using the last one"


async def test_lost_copies_are_ended_those_with_a_former_value_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Producer] = []

    async def end(self: SQSProducer) -> None:
        ended.append(self)

    monkeypatch.setattr(SQSProducer, "end_lost_copies", end)
    producer = by_file(tmp_path, *PLAINLY["sqs"])
    producer.copy(**PLACE)
    (tmp_path / "secret").write_text("http://127.0.0.1:1/000000000000/others")
    producer.copy(**PLACE)
    await producer.end_lost_copies()
    assert len({id(one) for one in ended}) == 2


async def test_a_producer_that_cannot_end_its_lost_copies_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Producer] = []

    async def end(self: SQSProducer) -> None:
        if not ended:
            ended.append(self)
            raise ValueError("canary")
        await asyncio.sleep(0)
        ended.append(self)

    monkeypatch.setattr(SQSProducer, "end_lost_copies", end)
    producer = by_file(tmp_path, *PLAINLY["sqs"])
    (tmp_path / "secret").write_text("http://127.0.0.1:1/000000000000/others")
    producer.copy(**PLACE)
    with pytest.raises(ValueError, match="canary"):
        await producer.end_lost_copies()
    assert len({id(one) for one in ended}) == 2
