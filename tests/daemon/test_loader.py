from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Pipeline
from broadway_py.daemon.dead_letters.places import of_settings
from broadway_py.daemon.pipelines.loader import build_pipelines, check_pipelines
from broadway_py.daemon.settings.settings import Settings, read_settings
from broadway_py.errors import OptionsError
from broadway_py.options import RateLimit

QUEUE = "{kind: queue, path: q.db, queue: orders}"


def settings_of(folder: Path, text: str, *more: str) -> Settings:
    files = []
    for index, part in enumerate((text, *more)):
        files.append(folder / f"{index}.yaml")
        files[-1].write_text(part)
    return read_settings(files, environ={})


def build(folder: Path, text: str, *more: str, share: tuple[int, int] = (0, 1)) -> list[Pipeline[Any]]:
    return build_pipelines(settings_of(folder, text, *more), share=share)


def refusal(folder: Path, text: str, *more: str) -> str:
    with pytest.raises(OptionsError) as refused:
        build(folder, text, *more)
    return str(refused.value).replace(f"{folder}/", "")


def section(reference: str, rest: str = "") -> str:
    return f"pipelines:\n  orders:\n    class: {reference}\n    producer: {QUEUE}\n{rest}"


def test_settings_are_merged_over_the_class(tmp_path: Path) -> None:
    (pipeline,) = build(
        tmp_path,
        section("tests.daemon.pipelines:Plain", "    batchers: {slow: null, default: {batch_timeout: 5s}}\n"),
    )
    assert pipeline.name == "orders"
    assert list(pipeline.batchers) == ["default"]
    assert (pipeline.batchers["default"].batch_size, pipeline.batchers["default"].batch_timeout) == (10, 5.0)


def test_a_rate_limit_is_divided_among_workers(tmp_path: Path) -> None:
    text = section("tests.daemon.pipelines:Plain", "    rate_limit: {allowed_messages: 5, interval: 1s}\n")
    limits = [build(tmp_path, text, share=(index, 2))[0].rate_limit for index in range(2)]
    assert limits == [RateLimit(allowed_messages=3, interval=1.0), RateLimit(allowed_messages=2, interval=1.0)]


@pytest.mark.parametrize(
    ("http", "asked"),
    [
        ("", True),
        ("http: {source_messages: true}\n", True),
        ("http: {source_messages: false}\n", False),
        ("http: null\n", False),
    ],
)
def test_sources_are_asked_how_many_messages_they_hold_if_it_is_shown(tmp_path: Path, http: str, asked: bool) -> None:
    (pipeline,) = build(tmp_path, section("tests.daemon.pipelines:Plain") + http)
    assert pipeline._counts_sources is asked


def test_a_class_is_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here_only.py").write_text("from tests.daemon.pipelines import Plain\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert build(tmp_path, section("here_only:Plain"))[0].name == "orders"


def test_dead_letters_of_a_pipeline_are_looked_for_by_the_class_that_run_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text(
        "from broadway_py.options import FailurePolicy\n"
        "from tests.daemon.pipelines import Plain\n\n\n"
        "class Orders(Plain):\n    failure = FailurePolicy(dead_letter='broker')\n"
    )
    settings = settings_of(
        tmp_path, "pipelines: {a: {class: 'only_here:Orders', producer: {kind: rabbitmq, queue: q, host: h}}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    with pytest.raises(OptionsError) as refused:
        of_settings(settings, "a", None)
    assert str(refused.value) == (
        "the queue's own dead-letter exchange decides where its dead letters are; name that queue with --dead NAME"
    )


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        (
            "tests.daemon.pipelines.Plain",
            "expected 'module:Class', such as 'orders:Orders', got 'tests.daemon.pipelines.Plain'",
        ),
        (
            "tests.daemon.pipeline:Plain",
            (
                "there is no module 'tests.daemon.pipeline', neither in the current directory nor among the installed "
                "packages; check the name, or run from the directory that holds it"
            ),
        ),
        (
            "tests.daemon.pipelines:Plane",
            "the module 'tests.daemon.pipelines' has no 'Plane'; did you mean 'Plain'?",
        ),
        (
            "tests.daemon.pipelines:NotAPipeline",
            (
                "'tests.daemon.pipelines:NotAPipeline' is a class, not a pipeline; "
                "expected a subclass of broadway_py.Pipeline"
            ),
        ),
        (
            "tests.daemon.pipelines:a_function",
            (
                "'tests.daemon.pipelines:a_function' is a function, not a pipeline; "
                "expected a subclass of broadway_py.Pipeline"
            ),
        ),
        (
            "tests.daemon.misspelt_module:Orders",
            (
                "tests.daemon.misspelt_module.Orders defines 'handle_mesage', which is not a callback of a pipeline; "
                "did you mean 'handle_message'?"
            ),
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(tmp_path: Path, reference: str, sentence: str) -> None:
    assert refusal(tmp_path, section(reference)) == f"0.yaml:3: pipelines.orders.class: {sentence}"


def test_a_module_that_fails_while_it_is_imported_is_named_with_the_line(tmp_path: Path) -> None:
    place = Path(__file__).with_name("broken_module.py")
    assert refusal(tmp_path, section("tests.daemon.broken_module:Orders")) == (
        "0.yaml:3: pipelines.orders.class: the module 'tests.daemon.broken_module' failed while it was imported: "
        f"RuntimeError: half written ({place}:3)"
    )


def test_a_missing_class_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "pipelines: {orders: {processors: {}}}") == (
        "0.yaml:1: pipelines.orders.class: required, but missing; expected 'module:Class', such as 'orders:Orders'"
    )


def test_an_unknown_setting_of_a_pipeline_is_refused_with_its_whole_path(tmp_path: Path) -> None:
    text = section("tests.daemon.pipelines:Plain", "    batchers:\n      slow:\n        batch_sizy: 5\n")
    assert refusal(tmp_path, text) == (
        "0.yaml:7: pipelines.orders.batchers.slow.batch_sizy: unknown setting; known here: batch_size, "
        "batch_timeout, concurrency, executor, max_batch_bytes, max_demand, partition_by, timeout; "
        "did you mean 'batch_size'?"
    )


def test_an_unknown_option_of_a_pipeline_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, section("tests.daemon.pipelines:Plain", "    procesors: {}\n")) == (
        "0.yaml:5: pipelines.orders.procesors: unknown setting; known here: aggregators, batch_defaults, batchers, "
        "class, context, deduplicate_by, fail_fast, failure, max_in_flight_bytes, max_restarts, max_seconds, name, "
        "ordered, own, processors, producer, publishers, rate_limit, shutdown_timeout, state, tracing; "
        "did you mean 'processors'?"
    )


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path) -> None:
    text = section("tests.daemon.pipelines:Plain")
    more = "pipelines: {others: {class: tests.daemon.pipelines:Plain, name: orders}}"
    assert refusal(tmp_path, text, more) == (
        "1.yaml:1: pipelines.others.name: 'orders' is already the name of pipelines.orders; "
        "names label logs and metrics, so give each pipeline its own"
    )


def test_one_name_in_two_files_is_one_pipeline(tmp_path: Path) -> None:
    text = section("tests.daemon.pipelines:Plain")
    more = "pipelines: {orders: {processors: {concurrency: 9}}}"
    (pipeline,) = build(tmp_path, text, more)
    assert pipeline.processors.concurrency == 9


@pytest.mark.parametrize(
    ("producer", "sentence"),
    [
        (
            "{kind: rabitmq}",
            "producer.kind: unknown kind 'rabitmq'; known here: queue, rabbitmq, sqs; did you mean 'rabbitmq'?",
        ),
        ("{queue: x}", "producer.kind: required: the kind of source; known here: queue, rabbitmq, sqs"),
        ("{kind: queue, queue: x}", "producer.path: required, but missing"),
        (
            "{kind: queue, queue: x, path: y, visibilty: 3}",
            (
                "producer.visibilty: unknown setting; known here: concurrency, name, on_failure, partitioned, "
                "partitions, path, queue, visibility; did you mean 'visibility'?"
            ),
        ),
        (
            "{kind: queue, queue: x, path: y, visibility: soon}",
            "producer.visibility: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'",
        ),
        ("[]", "producer: expected one producer or a list of them, got an empty list"),
        ("5", "producer: expected a section of settings with a kind, got int"),
        ("[{kind: queue, queue: x}]", "producer.0.path: required, but missing"),
        (
            "{kind: rabbitmq, queue: x, url: 'amqp://u:canary@h/', url_file: y}",
            "producer.url_file: give url or url_file, not both",
        ),
        (
            "{kind: rabbitmq, queue: x, url_file: /no/such/file}",
            "producer.url_file: the file '/no/such/file' cannot be read: No such file or directory",
        ),
        (
            "{kind: rabbitmq, queue: x, url: 'http://u:canary@h/'}",
            "producer.url: expected amqp://user:password@host:port/vhost, or the same with amqps://",
        ),
    ],
)
def test_a_wrong_producer_is_refused_with_its_whole_path(tmp_path: Path, producer: str, sentence: str) -> None:
    text = f"pipelines:\n  orders:\n    class: tests.daemon.pipelines:Plain\n    producer: {producer}\n"
    assert refusal(tmp_path, text) == f"0.yaml:4: pipelines.orders.{sentence}"


def test_check_finds_what_is_wrong_with_each_pipeline(tmp_path: Path) -> None:
    text = "pipelines:\n  a: {class: 'no_such:A'}\n  b: {class: tests.daemon.pipelines:Finite}\n  c: {class: x}\n"
    wrong = check_pipelines(settings_of(tmp_path, text))
    assert [str(one).partition(": ")[0].rpartition("/")[2] for one in wrong] == ["0.yaml:2", "0.yaml:4"]
