"""Publishers in settings files: built, merged by name, from the environment, each mistake with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadway_py import OptionsError, QueuePublisher, RabbitMQPublisher
from broadway_py.daemon.pipelines.loader import build_pipelines, check_pipelines
from broadway_py.daemon.settings.settings import read_settings
from tests.daemon.test_loader import build, section, settings_of

CLASS = "tests.daemon.pipelines:Publishing"


def shown(folder: Path, rest: str, *more: str) -> dict[str, str]:
    (pipeline,) = build(folder, section(CLASS, rest), *more)
    return {name: repr(sink) for name, sink in pipeline.publishers.items()}


def refused(folder: Path, rest: str, reference: str = CLASS) -> list[str]:
    settings = settings_of(folder, section(reference, rest))
    return [str(one).replace(f"{folder}/", "") for one in check_pipelines(settings)]


def test_a_file_replaces_adds_and_removes_publishers_by_name(tmp_path: Path) -> None:
    assert shown(
        tmp_path,
        "    publishers:\n"
        "      audit: null\n"
        "      out: {kind: rabbitmq, queue: invoices, url: 'amqp://guest:canary@mq/'}\n"
        "      more: {kind: sqs, queue_url: more, region: eu-central-1}\n",
    ) == {
        "out": "<RabbitMQPublisher queue 'invoices' on amqp://***@mq:5672/>",
        "more": "<SQSPublisher SQS queue 'more'>",
    }


def test_a_later_file_changes_one_field(tmp_path: Path) -> None:
    assert shown(
        tmp_path,
        "    publishers: {out: {kind: queue, path: one.db, queue: out}}\n",
        "pipelines: {orders: {publishers: {out: {queue: other}}}}",
    ) == {
        "out": "<QueuePublisher queue 'other' in one.db>",
        "audit": "<QueuePublisher queue 'audit' in class.db>",
    }


def test_without_a_section_the_class_says_it(tmp_path: Path) -> None:
    assert shown(tmp_path, "") == {
        "out": "<QueuePublisher queue 'out' in class.db>",
        "audit": "<QueuePublisher queue 'audit' in class.db>",
    }


def test_the_environment_and_set_win(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        section(CLASS, "    publishers: {out: {kind: queue, path: one.db, queue: out, dedup_window: 1m}}\n")
    )
    settings = read_settings(
        [file],
        environ={"BROADWAY_PIPELINES__ORDERS__PUBLISHERS__OUT__DEDUP_WINDOW": "2h"},
        assignments=("pipelines.orders.publishers.out.queue=other",),
    )
    (pipeline,) = build_pipelines(settings)
    out = pipeline.publishers["out"]
    assert isinstance(out, QueuePublisher)
    assert (out.options.queue, out.options.dedup_window) == ("other", 7_200.0)


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("amqp://user:canary@mq/\n")
    (pipeline,) = build(
        tmp_path, section(CLASS, f"    publishers: {{out: {{kind: rabbitmq, queue: q, url_file: {secret}}}}}\n")
    )
    out = pipeline.publishers["out"]
    assert isinstance(out, RabbitMQPublisher)
    assert out.options.where == "amqp://***@mq:5672/"
    secret.write_text("amqp://user:canary@other/\n")
    renewed = out.renewed()
    assert repr(renewed) == "<RabbitMQPublisher queue 'q' on amqp://***@other:5672/>"


@pytest.mark.parametrize(
    ("rest", "sentences"),
    [
        (
            "    publishers: {out: {kind: kueue}, audit: {kind: queue, path: a.db, kueue: x}}\n",
            [
                (
                    "0.yaml:5: pipelines.orders.publishers.out.kind: unknown kind 'kueue'; known here: queue, "
                    "rabbitmq, sqs; did you mean 'queue'?"
                ),
                (
                    "0.yaml:5: pipelines.orders.publishers.audit.kueue: unknown setting; known here: dedup_window, "
                    "path, queue; did you mean 'queue'?"
                ),
            ],
        ),
        (
            "    publishers: queue\n",
            [
                (
                    "0.yaml:5: pipelines.orders.publishers: expected a section with one entry for each publisher, got "
                    "a str"
                )
            ],
        ),
        (
            "    publishers: {out: {queue: x}}\n",
            [
                (
                    "0.yaml:5: pipelines.orders.publishers.out.kind: required: the kind of sink; known here: queue, "
                    "rabbitmq, sqs"
                )
            ],
        ),
        (
            "    publisher: {out: {kind: queue, path: a.db, queue: x}}\n",
            [
                (
                    "0.yaml:5: pipelines.orders.publisher: unknown setting; known here: aggregators, batch_defaults, "
                    "batchers, class, context, deduplicate_by, fail_fast, failure, max_in_flight_bytes, max_restarts, "
                    "max_seconds, name, ordered, own, processors, producer, publishers, rate_limit, shutdown_timeout, "
                    "state, tracing; did you mean 'publishers'?"
                )
            ],
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, rest: str, sentences: list[str]) -> None:
    assert refused(tmp_path, rest) == sentences


def test_a_section_that_nobody_made_a_publisher_of_is_refused() -> None:
    from tests.daemon.pipelines import Publishing  # noqa: PLC0415  # the loader imports it by its name in other tests

    with pytest.raises(OptionsError) as wrong:
        Publishing.from_settings({"publishers": {"out": {"kind": "queue"}}}, name="orders", producer=None)
    assert "publishers.out: expected a publisher, such as QueuePublisher('var/out.db', 'results'), got a dict" in [
        str(one) for one in wrong.value.all()
    ]
