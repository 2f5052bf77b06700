"""What the page about idempotency shows is run as it stands."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from broadway_py import MemoryPublisher, Message
from broadway_py.pipeline.option_sources import merged_options
from broadway_py.producers import MemoryProducer
from tests.support.daemon import ROOT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "idempotency.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_the_first_program_prints_what_is_shown() -> None:
    program, *_ = blocks("python")
    (shown,) = blocks("text")
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == (shown, "")


def test_a_method_names_a_message() -> None:
    program, method, _ = blocks("python")
    names: dict[str, Any] = {"__name__": "shown"}
    exec(program.replace("asyncio.run(main())", "") + method, names)  # noqa: S102  # our own page
    orders = names["Orders"]

    assert orders.deduplicate_by(None, Message(b"1", {"message_id": "o-1"})) == "o-1"
    assert orders.deduplicate_by(None, Message(b"1")) is None


async def test_what_is_published_has_the_id_of_its_message(tmp_path: Path) -> None:
    program, _, recipe = blocks("python")
    names: dict[str, Any] = {"__name__": "shown"}
    exec(program.replace("asyncio.run(main())", "") + recipe, names)  # noqa: S102  # our own page
    out = MemoryPublisher()
    message = Message(b"Ada", {"message_id": "o-1"})
    again = Message(b"Ada", {"message_id": "o-1"})
    invoices = names["Invoices"](
        producer=MemoryProducer([message, again]), publishers={"out": out}, state=tmp_path / "ids.db"
    )
    async with invoices:
        await invoices.wait()

    assert [(one.data, one.message_id) for one in out.messages] == [(b"invoice for Ada", "o-1")]


def test_the_settings_are_taken() -> None:
    (text,) = blocks("yaml")
    section = yaml.safe_load(text)["pipelines"]["payments"]
    program, *_ = blocks("python")
    names: dict[str, Any] = {"__name__": "shown"}
    exec(program.replace("asyncio.run(main())", ""), names)  # noqa: S102  # our own page
    options = merged_options(names["Payments"], {name: section[name] for name in ("deduplicate_by", "state")})

    assert options["deduplicate_by"] == "id"
    assert (options["state"].path, options["state"].dedup) == ("var/payments.db", 3600.0)
