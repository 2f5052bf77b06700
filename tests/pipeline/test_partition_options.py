"""The options of pipelines whose sources have partitions: what fits together, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Aggregator, Message, OptionsError, Pipeline, Processors, Window, WindowResult
from broadway_py.producer_description import ProducerDescription
from broadway_py.producers import MemoryProducer, Producer, QueueProducer
from tests.pipeline.support import ManualProducer, Quiet, check_books, outcomes, soon
from tests.support.partitioned import PartitionedBroker, PartitionedProducer


def source(partitions: int, name: str = "orders") -> PartitionedProducer:
    return PartitionedProducer(PartitionedBroker(partitions), name)


class Windowed(Quiet):
    """Has an aggregator, so its windows need a place."""

    class Counts(Aggregator[str, Any, int]):
        window = Window.periodic(60)

        def key(self, message: Message[Any]) -> str:
            return str(message.data)

        def initial(self) -> int:
            return 0

        def add(self, acc: int, message: Message[Any]) -> int:
            return acc + 1

        async def emit(self, results: list[WindowResult[str, int]]) -> None:
            """Takes all."""

    aggregators = {"counts": Counts}  # noqa: RUF012  # an option
    state = "var/shop"


class InOrder(Quiet):
    """Needs one owner for each key."""

    ordered = True

    def partition_by(self, message: Message[Any]) -> object:
        return message.data


def refused(make: Callable[[], object]) -> list[str]:
    with pytest.raises(OptionsError) as wrong:
        make()
    return [str(one) for one in wrong.value.all()]


def of_file(cls: type[Pipeline[Any]], share: tuple[int, int] = (0, 1), **settings: Any) -> Pipeline[Any]:
    producer = settings.pop("producer")
    return cls.from_settings(settings, name="shop", producer=producer, path=("pipelines", "shop"), share=share)


def owned(made: Pipeline[Any]) -> list[str]:
    return [one["producer"] for one in made.topology()["producers"]]


@pytest.mark.parametrize("cls", [Quiet, Windowed, InOrder])
def test_each_worker_reads_its_share_of_what_the_daemon_owns(cls: type[Pipeline[Any]]) -> None:
    shares = [owned(of_file(cls, (index, 3), producer=source(8), own="1-7")) for index in range(3)]
    assert shares == [
        ["orders.1", "orders.4", "orders.7"],
        ["orders.2", "orders.5"],
        ["orders.3", "orders.6"],
    ]


def test_two_sources_are_parted_alike() -> None:
    made = of_file(Quiet, (1, 2), producer=[source(4), source(4, "returns")])
    assert owned(made) == ["orders.1", "orders.3", "returns.1", "returns.3"]


def test_ordinal_is_the_number_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "shop-2")
    assert owned(of_file(Quiet, producer=source(4), own="ordinal")) == ["orders.2"]
    monkeypatch.delenv("HOSTNAME")
    monkeypatch.setattr("socket.gethostname", lambda: "shop-1")
    assert owned(of_file(Quiet, (1, 2), producer=source(4), own="ordinal of 2")) == ["orders.3"]


def test_own_may_be_an_attribute_of_the_class_and_a_file_replaces_it() -> None:
    class Third(Quiet):
        own = "3"

    assert owned(Third(producer=source(4))) == ["orders.3"]
    assert owned(of_file(Third, producer=source(4), own="2")) == ["orders.2"]
    assert owned(of_file(Third, producer=source(4), own=None)) == [f"orders.{index}" for index in range(4)]
    assert refused(lambda: of_file(Third, producer=source(4), own=2)) == [
        "pipelines.shop.own: expected text, got 2; put quotes around it"
    ]


def test_a_whole_source_that_must_be_alone_has_partitions_that_must_be_alone() -> None:
    assert all(one.is_alone for one in of_file(Windowed, producer=source(2))._sources.producers.values())  # type: ignore[attr-defined]
    assert not any(one.is_alone for one in of_file(Quiet, producer=source(2))._sources.producers.values())  # type: ignore[attr-defined]


async def test_a_pipeline_without_aggregators_reads_partitions_too() -> None:
    broker = PartitionedBroker(3)
    for partition in range(3):
        broker.put(partition, *range(20))
    broker.end()
    made = InOrder(producer=PartitionedProducer(broker), own="0,2", processors=Processors(concurrency=2, max_demand=5))
    await soon(made.start())
    await soon(made.wait())
    check_books(made)
    assert outcomes(made) == {"acked": 40}
    assert [partition for partition, _ in broker.acked].count(1) == 0


# --- what is refused


MIXED = "expected the same number for each source, because partition 0 of all sources belongs to one owner, got "


@pytest.mark.parametrize(
    ("make", "sentences"),
    [
        (
            lambda: Quiet(producer=ManualProducer(), own="0-3"),
            ["own: '0-3' names partitions, but the sources have none; set partitions on the source, or leave own out"],
        ),
        (
            lambda: of_file(Quiet, producer=source(4), own="4"),
            ["pipelines.shop.own: '4' names the partition 4, but the source has 0 to 3"],
        ),
        (
            lambda: Quiet(producer=[source(4), source(2, "returns")]),
            [f"producer.partitions: {MIXED}4 for 'orders', 2 for 'returns'"],
        ),
        (
            lambda: Quiet(producer=[ManualProducer(), source(4)]),
            [f"producer.partitions: {MIXED}none for 'manual', 4 for 'orders'"],
        ),
        (
            lambda: Quiet(producer=[source(2), ManualProducer(name="orders.1")]),
            [f"producer.partitions: {MIXED}2 for 'orders', none for 'orders.1'"],
        ),
        (
            lambda: of_file(Quiet, (0, 3), producer=source(2)),
            [
                (
                    "pipelines.shop.producer.partitions: 3 workers share 2 partitions, so one of them would have "
                    "nothing to do; set workers: 2 or less, or raise partitions"
                )
            ],
        ),
        (
            lambda: of_file(Windowed, (0, 3), producer=source(8), own="5"),
            [
                (
                    "pipelines.shop.own: 3 workers share 1 partition, so one of them would have nothing to do; set "
                    "workers: 1 or less, or raise partitions"
                )
            ],
        ),
        (
            lambda: of_file(Windowed, (0, 2), producer=[source(2), ManualProducer()]),
            [
                (
                    "pipelines.shop.aggregators: a key must have one owner, but 2 workers read the same source; set "
                    "workers: 1, leave the aggregators out, or part the source (partitions), so that each worker owns "
                    "some of the partitions"
                ),
                f"pipelines.shop.producer.partitions: {MIXED}2 for 'orders', none for 'manual'",
            ],
        ),
        (
            lambda: of_file(InOrder, (0, 2), producer=ManualProducer()),
            [
                (
                    "pipelines.shop.ordered: a key must have one owner, but 2 workers read the same source; set "
                    "workers: 1, leave ordered off, part the source (partitions), or use an embedded queue with "
                    "partitioned: true, whose messages are put with a key"
                )
            ],
        ),
        (
            lambda: Windowed(producer=source(2), state="memory"),
            [
                (
                    "state: expected the path of a file, got 'memory': the messages of the source 'orders' outlive "
                    "this process, and its windows would not; choose a file such as var/shop.db"
                )
            ],
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], sentences: list[str]) -> None:
    assert refused(make) == sentences


class Unpartable(ProducerDescription):
    """Says that it has partitions, and has not."""

    partitions = 2

    def create(self) -> Producer:
        return MemoryProducer([])


def test_a_source_that_cannot_be_parted_is_refused() -> None:
    assert refused(lambda: Quiet(producer=Unpartable())) == [
        (
            "producer.partitions: Unpartable cannot be divided into partitions; leave partitions out, or read a queue "
            "of RabbitMQ or an embedded queue"
        )
    ]


class SameNames(PartitionedProducer):
    """Gives all its partitions one name."""

    def partition(self, index: int) -> ProducerDescription:
        part = super().partition(index)
        part.name = self.name
        return part


def test_partitions_with_the_same_name_are_refused() -> None:
    assert refused(lambda: Quiet(producer=SameNames(PartitionedBroker(2)))) == [
        "producer: two producers are called 'orders', one of them as a partition; give each a name= of its own"
    ]


def test_an_embedded_queue_whose_keys_move_between_readers_is_refused_with_aggregators(tmp_path: Path) -> None:
    moving = QueueProducer(tmp_path / "queue.db", "orders", partitioned=True)
    assert refused(lambda: Windowed(producer=moving, state=tmp_path / "shop.db")) == [
        (
            "producer.partitioned: expected false with aggregators, got true: keys move when a reader comes or goes, "
            "and their windows stay behind; leave partitioned out, or set partitions"
        )
    ]
    assert owned(InOrder(producer=moving)) == ["queue"]


# --- where the windows are


def test_a_file_where_a_directory_must_be_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "shop.db"
    place.touch()
    assert refused(lambda: Windowed(producer=source(2), state=place)) == [
        (
            f"state: expected a directory, with a file for each partition, got the file {str(place)!r}; choose another "
            "path. The windows in the file stay there"
        )
    ]


def test_a_directory_where_a_file_must_be_is_refused(tmp_path: Path) -> None:
    assert refused(lambda: Windowed(producer=ManualProducer(), state=tmp_path)) == [
        (
            f"state: expected the path of a file, got the directory {str(tmp_path)!r}; choose a file such as "
            f"{str(tmp_path / 'state.db')!r}, or part the source (partitions), which needs a directory"
        )
    ]
