"""Aggregators and their state in settings files: merged, with sinks built, each mistake with its file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broadway_py import Aggregator, OptionsError, QueueSink, State
from broadway_py.cli import app
from broadway_py.daemon.pipelines.loader import build_pipelines, check_pipelines
from tests.daemon.test_loader import build, section, settings_of

WINDOWS = "tests.daemon.pipelines:Windows"
STATE = "    state: {path: shop.db, checkpoint_interval: 500ms, dedup: 5m}\n"


def built(folder: Path, rest: str, *more: str) -> tuple[Aggregator[Any, Any, Any], Any]:
    (pipeline,) = build(folder, section(WINDOWS, rest), *more)
    aggregator = pipeline.aggregators["sums"]
    assert isinstance(aggregator, Aggregator)
    return aggregator, pipeline


def refused(folder: Path, rest: str, reference: str = WINDOWS, workers: int = 1) -> list[str]:
    settings = settings_of(folder, f"workers: {workers}\n" + section(reference, rest))
    return [str(one).replace(f"{folder}/", "") for one in check_pipelines(settings)]


def test_aggregators_and_state_are_read(tmp_path: Path) -> None:
    aggregator, pipeline = built(
        tmp_path,
        STATE + "    aggregators:\n      sums:\n        emit_batch: 7\n        emit_timeout: 1m\n"
        "        emit_to: {kind: queue, path: out.db, queue: sums}\n",
    )
    assert pipeline.state == State("shop.db", checkpoint_interval=0.5, dedup=300)
    assert (aggregator.emit_batch, aggregator.emit_timeout) == (7, 60.0)
    sink = aggregator.emit_to
    assert isinstance(sink, QueueSink)
    assert (sink.options.path, sink.options.queue) == ("out.db", "sums")


def test_a_later_file_changes_one_field(tmp_path: Path) -> None:
    aggregator, pipeline = built(
        tmp_path,
        STATE + "    aggregators: {sums: {emit_batch: 7, emit_to: {kind: queue, path: out.db, queue: sums}}}\n",
        "pipelines: {orders: {state: {dedup: 1m}, aggregators: {sums: {max_demand: 5, emit_to: {queue: others}}}}}",
    )
    assert (aggregator.emit_batch, aggregator.max_demand) == (7, 5)
    assert aggregator.emit_to is not None
    assert repr(aggregator.emit_to) == "<QueuePublisher queue 'others' in out.db>"
    assert pipeline.state == State("shop.db", checkpoint_interval=0.5, dedup=60)


def test_a_removed_aggregator_needs_nothing(tmp_path: Path) -> None:
    (pipeline,) = build(tmp_path, section(WINDOWS, "    aggregators: {sums: null}\n"))
    assert (pipeline.aggregators, pipeline.state) == ({}, None)


@pytest.mark.parametrize(
    ("rest", "sentences"),
    [
        (
            STATE + "    aggregators: {sums: {emit_to: {kind: queue, path: out.db}}}\n",
            ["0.yaml:7: pipelines.orders.aggregators.sums.emit_to.queue: required, but missing"],
        ),
        (
            STATE + "    aggregators: {sums: {emit_to: {kind: kueue}, emit_bach: 3}}\n",
            [
                (
                    "0.yaml:7: pipelines.orders.aggregators.sums.emit_to.kind: unknown kind 'kueue'; known here: "
                    "queue, rabbitmq, sqs; did you mean 'queue'?"
                ),
                (
                    "0.yaml:7: pipelines.orders.aggregators.sums.emit_bach: unknown setting; known here: delay, "
                    "emit_batch, emit_timeout, emit_to, hold_timeout, idle_timeout, lateness, max_ahead, max_demand, "
                    "max_open, max_pending, require_identity; did you mean 'emit_batch'?"
                ),
            ],
        ),
        (
            "    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}, delay: 3}}\n",
            [
                (
                    "0.yaml:6: pipelines.orders.aggregators.sums.delay: only a window of event time has this setting, "
                    "and a count window is none; leave it out"
                ),
                (
                    "0.yaml:3: pipelines.orders.state: required with aggregators, but missing: the file that keeps "
                    "their windows, such as var/shop.db"
                ),
            ],
        ),
        (
            "    state: memory\n    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}}}\n",
            [
                (
                    "0.yaml:6: pipelines.orders.state: expected the path of a file, got 'memory': the messages of the "
                    "source 'queue' outlive this process, and its windows would not; choose a file such as var/shop.db"
                )
            ],
        ),
        (
            STATE,
            [
                (
                    "0.yaml:3: pipelines.orders.aggregators.sums.emit: required, but missing: nobody would take the "
                    "results; write `async def emit(self, results)`, or set emit_to, such as QueueSink('var/out.db', "
                    "'results')"
                )
            ],
        ),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, rest: str, sentences: list[str]) -> None:
    assert refused(tmp_path, rest) == sentences


def test_several_workers_are_refused(tmp_path: Path) -> None:
    rest = STATE + "    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}}}\n"
    assert refused(tmp_path, rest, workers=3) == [
        (
            "0.yaml:7: pipelines.orders.aggregators: a key must have one owner, but 3 workers read the same source; "
            "set workers: 1, leave the aggregators out, or part the source (partitions), so that each worker owns some "
            "of the partitions"
        )
    ]


def test_several_workers_are_told_beside_a_wrong_setting(tmp_path: Path) -> None:
    found = refused(tmp_path, STATE + "    aggregators: {sums: {max_demand: 0}}\n", workers=3)
    assert [one.split(": ", 2)[1:] for one in found] == [
        ["pipelines.orders.aggregators.sums.max_demand", "expected greater than or equal to 1, got 0"],
        [
            "pipelines.orders.aggregators",
            (
                "a key must have one owner, but 3 workers read the same source; set workers: 1, leave the aggregators "
                "out, or part the source (partitions), so that each worker owns some of the partitions"
            ),
        ],
    ]


def test_without_the_class_only_what_does_not_depend_on_it_is_told(tmp_path: Path) -> None:
    found = refused(
        tmp_path, "    state: {dedup: 1m}\n    aggregators: {sums: {emit_to: {kind: ''}}}\n", "tests.daemon.nowhere:X"
    )
    assert [one.split(": ")[1] for one in found] == [
        "pipelines.orders.class",
        "pipelines.orders.aggregators.sums.emit_to.kind",
    ]


def test_the_settings_of_a_sink_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as error:
        built(tmp_path, STATE + "    aggregators: {sums: {emit_to: 'amqp://shop:secret@127.0.0.1/'}}\n")
    assert str(error.value).endswith("emit_to: expected a section of settings with a kind, got str")


SINK = "    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}}}\n"


def two_with_state(first: str, second: str) -> str:
    return "pipelines:\n" + "".join(
        f"  {name}:\n    class: {WINDOWS}\n    producer: {{kind: queue, path: q.db, queue: {name}{more}}}\n{rest}"
        for name, more, rest in (("orders", *first.split("|")), ("returns", *second.split("|")))
    )


def test_two_pipelines_do_not_have_one_file(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, two_with_state(f"|    state: shop.db\n{SINK}", f"|    state: ./shop.db\n{SINK}"))

    (wrong,) = check_pipelines(settings)
    sentence = (
        "pipelines.returns.state: the pipeline 'orders' keeps its windows in './shop.db', too, and a file belongs to "
        "one pipeline at a time, so this one would wait until that one ends; choose another path"
    )
    assert str(wrong).replace(f"{tmp_path}/", "") == f"0.yaml:10: {sentence}"
    with pytest.raises(OptionsError) as refused:
        build_pipelines(settings)
    assert str(refused.value) == str(wrong)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"|    state: shop.db\n{SINK}", f"|    state: returns.db\n{SINK}"),
        (f"|    state: shop.db\n{SINK}", "|    state: shop.db\n    aggregators: {sums: null}\n"),
        (
            f", partitions: 4|    state: shop\n    own: 0-1\n{SINK}",
            f", partitions: 4|    state: shop\n    own: 2-3\n{SINK}",
        ),
    ],
    ids=["two files", "no aggregators", "other partitions"],
)
def test_two_pipelines_with_files_of_their_own(tmp_path: Path, first: str, second: str) -> None:
    assert check_pipelines(settings_of(tmp_path, two_with_state(first, second))) == []


def test_check_says_that_the_directory_of_the_state_is_missing_with_its_line(tmp_path: Path) -> None:
    """This is no mistake in the settings, which may be for another machine."""
    missing, memory = (
        f"|    state: {tmp_path}/none/shop.db\n{SINK}",
        "|    state: no/a.db\n    aggregators: {sums: null}\n",
    )
    here: list[OptionsError] = []
    assert check_pipelines(settings_of(tmp_path, two_with_state(missing, memory)), here=here) == []
    assert [str(one).replace(f"{tmp_path}/", "") for one in here] == [
        (
            "0.yaml:5: pipelines.orders.state: state file none/shop.db: its directory none does not exist: create it, "
            "or choose another path"
        )
    ]


def test_check_tells_mistakes_and_a_missing_directory_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(two_with_state(f"|    state: none/shop.db\n{SINK}", "|    stat: shop.db\n"))
    shown = CliRunner().invoke(app, ["check", str(path)])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert [line.split(": ")[2] for line in shown.stderr.splitlines()] == [
        "pipelines.returns.stat",
        "pipelines.returns.aggregators.sums.emit",
        "pipelines.returns.state",
        "pipelines.orders.state",
    ]
