"""The independent counter is itself proven: on the real broker, and on files with known faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.counter import Counted, HandledIds, message_id, publish_confirmed
from tests.support.rabbitmq import RabbitMQ


@pytest.mark.integration
@pytest.mark.any_broker
async def test_the_publisher_writes_down_exactly_what_the_broker_confirmed(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    ids = tmp_path / "published.ids"
    await publish_confirmed(rabbitmq.url, "work", 12_000, ids, start=500)
    assert await rabbitmq.ready() == 12_000

    queue = await rabbitmq.channel.get_queue("work")
    first = await queue.get(no_ack=True)
    assert first is not None
    assert message_id(first.body) == first.message_id == "000000000500"
    assert len(first.body) == 256
    assert len(Counted.of(ids).published) == 12_000


def test_what_was_lost_doubled_or_never_sent_is_told_apart(tmp_path: Path) -> None:
    published, one, other = (tmp_path / name for name in ("published", "one", "other"))
    for path, ids in ((published, "abcd"), (one, "ab"), (other, "bx")):
        handled = HandledIds(path)
        handled.add(ids)
        handled.close()
    counted = Counted.of(published, one, other, tmp_path / "never-written")
    assert counted.missing == ["c", "d"]
    assert counted.duplicates == {"b": 2}
    assert counted.strangers == ["x"]


def test_a_line_that_a_kill_has_cut_off_does_not_count_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cut.ids"
    killed, other = HandledIds(path), HandledIds(path)
    killed.add(["first", "second"])
    path.write_text(path.read_text()[:-3])
    other.add(["third"])
    killed.close()
    other.close()
    assert Counted.of(path).published == {"first", "third"}
