"""The producer that docs/producers.md leads to: it passes the suite of the package, and runs in a pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broadway_py import FailurePolicy, Message, Pipeline
from broadway_py.examples.folder_producer import FolderProducer, put
from broadway_py.producers import SourceMessages
from broadway_py.testing.driving import opened, settle, take
from tests.support.eventually import eventually

PAGE = Path(__file__).resolve().parents[2] / "docs" / "producers.md"

# The tests of the page itself: a newcomer writes no others.
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
(block,) = (one for one in BLOCKS if "ProducerContract" in one)
shown: dict[str, Any] = {"Sequence": Sequence, "__name__": __name__}
exec(block, shown)  # noqa: S102  # our own page
TestFolderProducer = shown["TestFolderProducer"]


class Trying(Pipeline[bytes]):
    """Fails each message the first time."""

    failure = FailurePolicy(attempts=2, backoff=(0.01, 0.01))
    context: list[tuple[bytes, int | None]]

    async def handle_message(self, message: Message[bytes]) -> None:
        self.context.append((message.data, message.attempt))
        if message.attempt == 1 or message.data == b"bad":
            raise ValueError


async def test_it_delivers_again_what_failed_and_keeps_what_failed_for_good(tmp_path: Path) -> None:
    put(tmp_path, b"good")
    put(tmp_path, b"bad")
    handled: list[tuple[bytes, int | None]] = []

    async with Trying(producer=FolderProducer(str(tmp_path)), context=handled):
        await eventually(lambda: len(handled) == 4, what="each message is tried twice")

    assert sorted(handled) == [(b"bad", 1), (b"bad", 2), (b"good", 1), (b"good", 2)]
    assert [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()] == [b"bad"]


async def test_it_counts_what_waits_what_is_put_off_and_what_has_failed(tmp_path: Path) -> None:
    for body in (b"retry", b"bad", b"held", b"waits", b"waits"):
        put(tmp_path, body)
    async with opened(FolderProducer(str(tmp_path))) as copy:
        retry, bad, _ = await take(copy, 3)
        await retry.acknowledgement.acknowledger.retry(None, [(retry, 3600.0)])
        await settle([], [bad])
        assert await copy.source_messages() == SourceMessages(ready=2, delayed=1, dead=1)
