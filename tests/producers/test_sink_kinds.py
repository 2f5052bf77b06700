"""The sinks that a settings file names: built, with secrets from files, and the whole sentence for each mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from broadway_py import QueueSink, RabbitMQSink, SQSSink
from broadway_py.errors import OptionsError
from broadway_py.producers.publishing import ConnectingSink
from broadway_py.producers.sink_kinds import build_sink
from broadway_py.written import Written
from tests.pipeline.support import events_logged

PATH = ("aggregators", "revenue", "emit_to")


def built(section: object) -> ConnectingSink:
    return cast("ConnectingSink", build_sink(section, PATH))


def complaints(section: object) -> list[str]:
    with pytest.raises(OptionsError) as wrong:
        build_sink(section, PATH)
    return [str(one) for one in wrong.value.all()]


@pytest.mark.parametrize(
    ("section", "made", "place"),
    [
        ({"kind": "queue", "path": "out.db", "queue": "revenue"}, QueueSink, "queue 'revenue' in out.db"),
        (
            {"kind": "rabbitmq", "queue": "revenue"},
            RabbitMQSink,
            "queue 'revenue' on amqp://***@127.0.0.1:5672/",
        ),
        ({"kind": "sqs", "queue_url": "revenue", "region": "eu-central-1"}, SQSSink, "SQS queue 'revenue'"),
    ],
)
def test_each_kind_is_built(section: dict[str, Any], made: type, place: str) -> None:
    sink = built(section)

    assert type(sink) is made
    assert sink.place == place


def test_settings_given_as_text_have_the_types_of_their_fields() -> None:
    rabbitmq = built({"kind": "rabbitmq", "host": "mq", "port": Written("5673"), "queue": Written("123")})
    queue = built({"kind": "queue", "path": "out.db", "queue": "out", "dedup_window": Written("1h")})

    assert isinstance(rabbitmq, RabbitMQSink)
    assert (rabbitmq.options.port, rabbitmq.options.queue) == (5673, "123")
    assert isinstance(queue, QueueSink)
    assert queue.options.dedup_window == 3_600.0


@pytest.mark.parametrize(
    ("section", "sentences"),
    [
        ("rabbitmq", ["aggregators.revenue.emit_to: expected a section of settings with a kind, got str"]),
        ({}, ["aggregators.revenue.emit_to.kind: required: the kind of sink; known here: queue, rabbitmq, sqs"]),
        (
            {"kind": "rabitmq"},
            [
                (
                    "aggregators.revenue.emit_to.kind: unknown kind 'rabitmq'; known here: queue, rabbitmq, sqs; "
                    "did you mean 'rabbitmq'?"
                )
            ],
        ),
        (
            {"kind": "queue", "pth": "out.db", "queue": "out"},
            [
                (
                    "aggregators.revenue.emit_to.pth: unknown setting; known here: dedup_window, path, queue; "
                    "did you mean 'path'?"
                )
            ],
        ),
        (
            {"kind": "sqs", "queue_ulr": "out"},
            [
                (
                    "aggregators.revenue.emit_to.queue_ulr: unknown setting; known here: endpoint_url, profile, "
                    "queue_url, region; did you mean 'queue_url'?"
                )
            ],
        ),
        (
            {"kind": "rabbitmq", "port": 0},
            [
                "aggregators.revenue.emit_to.port: expected greater than or equal to 1, got 0",
                "aggregators.revenue.emit_to.queue: required, but missing: give queue, or exchange",
            ],
        ),
        (
            {"kind": "rabbitmq", "queue": "q", "url": "amqp://h/", "url_file": "secret"},
            ["aggregators.revenue.emit_to.url_file: give url or url_file, not both"],
        ),
        (
            {"kind": "rabbitmq", "queue": "q", "url_file": 5},
            ["aggregators.revenue.emit_to.url_file: expected the name of a file, got int"],
        ),
    ],
)
def test_mistakes_are_told_with_their_path(section: object, sentences: list[str]) -> None:
    assert complaints(section) == sentences


def test_a_file_that_cannot_be_read_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    missing = tmp_path / "secret"
    told = complaints({"kind": "rabbitmq", "queue": "", "url_file": str(missing)})

    assert [one.partition(": ")[0] for one in told] == [
        "aggregators.revenue.emit_to.url_file",
        "aggregators.revenue.emit_to.queue",
    ]


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("broadway_py.producers.rabbitmq")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aio_pika", None)

    assert complaints({"kind": "rabbitmq", "queue": "q"}) == [
        (
            "aggregators.revenue.emit_to.kind: the kind 'rabbitmq' needs aio-pika, which is not installed: "
            "pip install 'broadway-py[rabbitmq]'"
        )
    ]


def test_a_setting_in_a_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://u:one@h/\n")
    sink = built({"kind": "rabbitmq", "queue": "q", "url_file": str(file)})
    assert isinstance(sink, RabbitMQSink)
    assert sink.options.url == "amqp://u:one@h/"
    assert sink.renewed() is sink

    file.write_text("amqp://u:two@h/\n")
    renewed = sink.renewed()

    assert isinstance(renewed, RabbitMQSink)
    assert renewed.options.url == "amqp://u:two@h/"
    assert renewed.renewed() is renewed
    file.unlink()
    assert renewed.renewed() is renewed
    assert events_logged(caplog) == ["a setting cannot be read again from its file; using its last value"]


def test_without_a_file_nothing_is_read_again() -> None:
    sink = built({"kind": "rabbitmq", "queue": "q"})

    assert sink.renewed() is sink
