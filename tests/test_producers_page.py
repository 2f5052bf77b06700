"""What the page about writing a producer shows is run as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broadway_py.producer import Producer, ProducerContext
from broadway_py.producer_description import ProducerDescription, described
from broadway_py.producers import kinds
from tests.pipeline.support import Quiet, running, soon
from tests.support.eventually import eventually

PAGE = Path(__file__).resolve().parents[1] / "docs" / "producers.md"


@pytest.fixture
def shown() -> Any:
    """The names that the page's Python defines, from the first block to the last."""
    names: dict[str, Any] = {"__name__": "shown"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(block, names)  # noqa: S102  # our own page
    return SimpleNamespace(**names)


class Noting(Quiet):
    def __init__(self, **options: Any) -> None:
        self.handled: list[Any] = []
        super().__init__(**options)

    async def handle_message(self, message: Any) -> None:
        self.handled.append(message.data)


async def test_the_smallest_one_ends_after_its_last_number(shown: Any) -> None:
    pipeline = Noting(producer=shown.Ticker(25))
    async with running(pipeline):
        await soon(pipeline.wait())
    assert sorted(pipeline.handled) == list(range(25))


async def test_the_one_that_fetches_connects_again_after_a_loss(shown: Any) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"a\nb\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pipeline = Noting(producer=shown.Lines("127.0.0.1", server.sockets[0].getsockname()[1]))

    def losses() -> int:
        return pipeline.stats().producers[0].connections_lost

    async with server, running(pipeline) as clock:
        await eventually(lambda: losses() >= 1, what="the first connection is lost")
        await clock.advance(60.0)
        await eventually(lambda: losses() >= 2, what="the second connection is lost")
    assert pipeline.handled[:4] == [b"a\n", b"b\n"] * 2


async def test_the_one_with_a_shared_state_goes_on_where_it_was_lost(
    shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, secret = tmp_path / "log", tmp_path / "path"
    log.write_text("1\n2\n3\n4\n")
    secret.write_text(f"{log}\n")
    monkeypatch.setattr(kinds, "producer_class", lambda _: shown.LogProducer)
    description = described(kinds.build({"kind": "log", "path_file": str(secret)}, ("producer",)))
    first = description.create()
    await first.open()
    assert [message.data for message in await first.handle_demand(2) or []] == [b"1\n", b"2\n"]
    await first.close()
    secret.write_text(str(log.rename(tmp_path / "moved")))

    second = description.renewed().create()
    await second.open()
    assert [message.data for message in await second.handle_demand(9) or []] == [b"3\n", b"4\n"]
    assert await second.handle_demand(1) is None
    await second.close()


def named_in_first_column(heading: str) -> set[str]:
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name.split("(")[0] for cell in cells for name in re.findall(r"`(.*?)`", cell)}


def public(thing: type) -> set[str]:
    return {name for name in {*vars(thing), *vars(thing).get("__annotations__", {})} if not name.startswith("_")}


#: What the text around the tables explains, and what is for pipelines and test kits.
_ELSEWHERE = {
    *("name", "concurrency", "redelivers", "keeps_keys_apart", "marks_repeats"),
    *("name", "concurrency", "redelivers", "keeps_keys_apart", "outlives_process"),
    *("context", "draining", "demand", "push", "bind"),
}


def test_the_tables_name_every_method() -> None:
    assert named_in_first_column("The methods of a producer") == public(Producer) - _ELSEWHERE - {"wait_for_demand"}
    plumbing = {"hand_over", "on_lost", "begin_draining", "end_draining"}
    assert named_in_first_column("What a producer is told") - {"self.context"} == public(ProducerContext) - plumbing
    told = named_in_first_column("One with settings and a shared state")
    not_for_authors = {"called", "partition", "renew_by", "renewed"}
    in_the_text = {"on_failure_is_given", "partitions"}
    assert told == public(ProducerDescription) - _ELSEWHERE - not_for_authors - in_the_text
