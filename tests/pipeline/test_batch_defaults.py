"""``batch_defaults``: what every batcher does that does not say otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, OptionsError, Pipeline
from broadway_py.producers import DummyProducer, MemoryProducer
from tests.pipeline.support import Recorder, finish


class Two(Pipeline[Any]):
    """Two batchers, one of which has an opinion."""

    producer = DummyProducer()
    batch_defaults = Batcher(batch_size=3, batch_timeout=7.0)
    batchers = {"default": Batcher(), "own": Batcher(batch_size=2, concurrency=2)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        message.batcher = "own" if message.data % 2 else "default"

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        self.sizes = [*getattr(self, "sizes", []), (info.batcher, info.size)]


def of(pipeline: Pipeline[Any], name: str) -> tuple[Any, float, int]:
    options = pipeline.batchers[name]
    return options.batch_size, options.batch_timeout, options.concurrency


def test_what_a_batcher_does_not_say_the_defaults_say() -> None:
    pipeline = Two()

    assert of(pipeline, "default") == (3, 7.0, 1)
    assert of(pipeline, "own") == (2, 7.0, 2)


def test_a_setting_that_equals_the_default_of_the_library_is_a_setting_all_the_same() -> None:
    pipeline = Two(batchers={"default": Batcher(batch_size=100)})

    assert of(pipeline, "default") == (100, 7.0, 1)


def test_without_defaults_batchers_are_as_they_are_written() -> None:
    assert of(Two(batch_defaults=None), "own") == (2, 1.0, 2)


def test_the_class_stays_as_it_is() -> None:
    Two()
    assert Two.batchers["default"].batch_size == 100


async def test_the_merged_options_are_those_that_count() -> None:
    recorder = Recorder()
    pipeline = Two(producer=MemoryProducer(recorder.messages([0, 2, 4, 1, 3])))

    assert await finish(pipeline) == {"acked": 5}
    assert sorted(pipeline.sizes) == [("default", 3), ("own", 2)]
    recorder.check_once()


def test_a_file_may_say_them_and_they_are_merged_field_by_field() -> None:
    settings = {"batch_defaults": {"batch_size": 5}, "batchers": {"own": {"batch_timeout": "500ms"}, "third": {}}}
    pipeline = Two.from_settings(settings, name="two")

    assert of(pipeline, "default") == (5, 7.0, 1)
    assert of(pipeline, "own") == (2, 0.5, 2)
    assert of(pipeline, "third") == (5, 7.0, 1)


def test_null_in_a_file_removes_them() -> None:
    assert of(Two.from_settings({"batch_defaults": None}, name="two"), "default") == (100, 1.0, 1)


def test_a_wrong_default_in_a_file_is_refused_with_its_path() -> None:
    with pytest.raises(OptionsError) as raised:
        Two.from_settings({"batch_defaults": {"batch_size": 0}}, name="two", path=("pipelines", "two"))
    assert str(raised.value) == (
        "pipelines.two.batch_defaults.batch_size: expected a positive whole number or (initial, fn), with "
        "fn(message, acc) -> ('emit' | 'cont', acc), got 0"
    )


def test_something_that_is_no_batcher_is_refused() -> None:
    with pytest.raises(OptionsError) as raised:
        Two(batch_defaults={"batch_size": 5})
    assert str(raised.value) == "batch_defaults: expected Batcher(…), got dict"
