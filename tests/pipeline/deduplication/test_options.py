"""What ``deduplicate_by`` takes, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Aggregator, Message, OptionsError, Pipeline, Window, WindowResult
from broadway_py.producers import DummyProducer, QueueProducer
from tests.pipeline.support import Quiet


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(OptionsError) as raised:
        make()
    return str(raised.value)


async def named(message: Message[Any]) -> str:
    return str(message.data)


class Named(Quiet):
    state = "memory"

    def deduplicate_by(self, message: Message[Any]) -> str:
        return str(message.data)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("ids", "expected 'id' or a function of one message, got 'ids'; did you mean 'id'?"),
        (7, "expected 'id' or a function of one message, got an int"),
        (named, "expected a plain function of one message, got an async one; write it with def"),
    ],
)
def test_another_value_is_refused(value: object, sentence: str) -> None:
    assert refused(lambda: Quiet(deduplicate_by=value, state="memory")) == f"deduplicate_by: {sentence}"


def test_it_needs_a_state() -> None:
    assert refused(lambda: Quiet(deduplicate_by="id")) == (
        "state: required with deduplicate_by, but missing: the file that keeps the ids of handled messages, such as "
        "var/shop.db"
    )


def test_a_state_in_memory_is_refused_for_a_source_that_outlives_the_process(tmp_path: Path) -> None:
    producer = QueueProducer(tmp_path / "q.db", "work")
    assert refused(lambda: Quiet(deduplicate_by="id", state="memory", producer=producer)) == (
        "state: expected the path of a file, got 'memory': the messages of the source 'queue' outlive this "
        "process, and the ids of handled messages would not; choose a file such as var/shop.db"
    )


def test_an_aggregator_of_the_same_name_is_refused() -> None:
    class Counts(Aggregator[str, int, int]):
        window = Window.count(3)

        def key(self, message: Message[int]) -> str:
            return "all"

        def initial(self) -> int:
            return 0

        def add(self, acc: int, message: Message[int]) -> int:
            return acc + message.data

        async def emit(self, results: list[WindowResult[str, int]]) -> None:
            pass

    assert refused(lambda: Quiet(deduplicate_by="id", state="memory", aggregators={"deduplicate_by": Counts})) == (
        "aggregators.deduplicate_by: the ids of handled messages have this name in the state; give the aggregator "
        "another name"
    )


def test_the_queue_is_read_alone(tmp_path: Path) -> None:
    pipeline = Quiet(
        deduplicate_by="id", state=str(tmp_path / "ids.db"), producer=QueueProducer(tmp_path / "q.db", "work")
    )

    (producer,) = pipeline._sources.producers.values()
    assert isinstance(producer, QueueProducer)
    assert producer._sharing == "alone"


# --- from a settings file


def made(cls: type[Pipeline[Any]], settings: Mapping[str, Any], workers: int = 1) -> Pipeline[Any]:
    return cls.from_settings(settings, name="p", path=("pipelines", "p"), share=(0, workers))


def test_a_file_may_turn_it_on() -> None:
    pipeline = made(Quiet, {"deduplicate_by": "id", "state": "memory"})

    assert pipeline.deduplicate_by == "id"


def test_a_file_may_turn_it_off() -> None:
    assert made(Named, {"deduplicate_by": None}).deduplicate_by is None


def test_a_file_may_leave_the_function_of_the_class() -> None:
    pipeline = made(Named, {})

    assert pipeline.deduplicate_by == Named.deduplicate_by.__get__(pipeline)


@pytest.mark.parametrize(
    ("cls", "value", "sentence"),
    [
        (
            Quiet,
            "order",
            "expected 'id' or null, got 'order'; a function is written in the class",
        ),
        (
            Named,
            3,
            (
                "expected 'id' or null, got an int; a function is written in the class; the class has a function, "
                "which counts if the file says nothing"
            ),
        ),
    ],
)
def test_another_value_of_a_file_is_refused(cls: type[Pipeline[Any]], value: object, sentence: str) -> None:
    said = refused(lambda: made(cls, {"deduplicate_by": value, "state": "memory"}))

    assert said == f"pipelines.p.deduplicate_by: {sentence}"


def test_several_workers_are_refused_without_partitions() -> None:
    assert refused(lambda: made(Quiet, {"deduplicate_by": "id", "state": "memory"}, workers=2)) == (
        "pipelines.p.deduplicate_by: a key must have one owner, but 2 workers read the same source; set workers: 1, "
        "leave deduplicate_by out, or part the source (partitions), so that each worker owns some of the partitions"
    )


def test_several_workers_may_share_partitions(tmp_path: Path) -> None:
    class Parted(Quiet):
        producer = QueueProducer(tmp_path / "q.db", "work", partitions=4)  # type: ignore[assignment]  # another producer
        state = str(tmp_path / "ids")
        deduplicate_by = "id"

    assert made(Parted, {}, workers=2)._sources.owned == (0, 2)


def test_a_pipeline_without_it_is_what_it_was() -> None:
    pipeline = Quiet(producer=DummyProducer())

    assert pipeline.deduplicate_by is None
    assert not pipeline._keeps_state
