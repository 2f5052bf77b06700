"""What the page about sinks shows is run as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broadway_py.aggregator import WindowResult
from broadway_py.errors import PublishError
from broadway_py.publisher import Outgoing, Sink
from broadway_py.result_message import result_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sinks.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def shown() -> Any:
    """The names that the page's Python defines, from the first block to the last."""
    names: dict[str, Any] = {"__name__": "shown"}
    for block in blocks("python"):
        exec(block, names)  # noqa: S102  # our own page
    return SimpleNamespace(**names)


def test_the_sinks_of_the_package_are_made_as_shown(shown: Any) -> None:
    assert repr(shown.emit_to) == "<SQSPublisher SQS queue 'revenue.fifo'>"


def test_a_second_aggregator_has_the_id_of_the_message(shown: Any) -> None:
    message = SimpleNamespace(data=SimpleNamespace(id="w", firing=2))

    assert shown.identity(None, message) == "w#2"


def test_the_json_has_the_fields_of_a_result() -> None:
    (block,) = blocks("json")
    fields = json.loads(block)
    result: WindowResult[Any, Any] = WindowResult(**fields)

    assert json.loads(result_json(result, json.dumps(result.key), json.dumps(result.value))) == fields


async def test_a_sink_of_your_own_publishes(shown: Any, tmp_path: Path) -> None:
    sink = shown.FolderSink(str(tmp_path / "out"))
    assert isinstance(sink, Sink)
    publisher = sink.create("shop.revenue")
    odd = Outgoing(data=b"{}", message_id="no/folder")

    with pytest.raises(PublishError) as error:
        await publisher.publish([Outgoing(data=b"{}", message_id="w#1"), odd], timeout=1.0)
    await publisher.close()

    assert error.value.unpublished == [odd]
    assert (tmp_path / "out" / "w#1.json").read_bytes() == b"{}"
