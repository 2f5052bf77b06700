"""The JSON Schema of settings files is compared with what `broadway check` says about the same settings."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from typer.testing import CliRunner

from broadway_py.cli import app
from broadway_py.daemon.json_schema import settings_schema
from broadway_py.daemon.pipelines.loader import check_pipelines
from broadway_py.daemon.settings.settings import examine
from broadway_py.pipeline.option_sources import OPTION_NAMES
from broadway_py.producer import Producer
from broadway_py.producers import kinds
from broadway_py.written import PlainYaml

ROOT: Final = Path(__file__).parents[2]
QUEUE: Final = {"kind": "queue", "path": "q.db", "queue": "q"}
RABBITMQ: Final = {"kind": "rabbitmq", "queue": "q"}
SQS: Final = {"kind": "sqs", "queue_url": "q", "region": "eu-central-1"}
SOURCES: Final[Mapping[str, dict[str, Any]]] = {"queue": QUEUE, "rabbitmq": RABBITMQ, "sqs": SQS}

#: Values of each type. Those that a schema has as words of their own are added.
VALUES: Final[tuple[object, ...]] = (
    None,
    True,
    0,
    7,
    -1,
    0.5,
    1.5,
    "",
    "x",
    "on",
    "0.5",
    "1s",
    "${X}",
    [],
    ["x"],
    [1, 2],
    {},
    {"x": 1},
)


@cache
def schema() -> dict[str, Any]:
    return settings_schema()


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def complaints(settings: object) -> list[str]:
    """What an editor says."""
    return [f"{error.json_path}: {error.message}" for error in validator().iter_errors(settings)]


def refusals(settings: object) -> list[str]:
    """What `broadway check` says about a file with these settings, in the current directory."""
    file = Path("a.json")
    file.write_text(json.dumps(settings))
    examined = examine([file], environ={"X": "7"})
    wrong = [*examined.wrong, *check_pipelines(examined.settings, examined.told)]
    return [str(one) for each in wrong for one in each.all()]


def pipeline(**options: object) -> dict[str, Any]:
    return {"pipelines": {"a": {"class": "tests.daemon.pipelines:Plain", "producer": QUEUE, **options}}}


def sums(**options: object) -> dict[str, Any]:
    section = {"class": "broadway_py.examples.revenue:Sales", "producer": QUEUE, "state": "s.db"}
    return {"pipelines": {"a": {**section, "aggregators": {"revenue": options}}}}


def words(node: object) -> Iterator[Any]:
    if isinstance(node, list):
        for one in node:
            yield from words(one)
    elif isinstance(node, dict):
        yield from node.get("enum", [])
        if "const" in node:
            yield node["const"]
        yield from words([value for name, value in node.items() if name not in ("enum", "const", "default")])


def of_kind(name: str, kind: str) -> dict[str, Any]:
    """The settings of a kind, by name."""
    rules = schema()["$defs"][name]["allOf"]
    found = next(one for one in rules if one.get("if", {}).get("properties") == {"kind": {"const": kind}})
    return dict(found["then"]["properties"])


def without(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """*section* without the setting that a file takes the place of."""
    return {key: value for key, value in section.items() if f"{key}_file" != name}


def defined(name: str) -> dict[str, Any]:
    return dict(schema()["$defs"][name]["properties"])


def nested(name: str, section: str, **beside: object) -> tuple[Callable[[], dict[str, Any]], Any]:
    return lambda: defined(name), lambda setting, value: pipeline(**{section: {**beside, setting: value}})


#: Section -> the schemas of its settings, and what makes settings of one of them with a value.
SECTIONS: Final[Mapping[str, tuple[Callable[[], dict[str, Any]], Callable[[str, Any], dict[str, Any]]]]] = {
    "top": (lambda: schema()["properties"], lambda name, value: {**pipeline(), name: value}),
    "http": (lambda: defined("Http"), lambda name, value: {**pipeline(), "http": {name: value}}),
    "log": (lambda: defined("Log"), lambda name, value: {**pipeline(), "log": {name: value}}),
    "pipeline": (lambda: defined("pipeline"), lambda name, value: pipeline(**{name: value})),
    "processors": nested("Processors", "processors"),
    "failure": nested("FailurePolicy", "failure"),
    "rate_limit": nested("RateLimit", "rate_limit", allowed_messages=1, interval=1),
    "state": nested("State", "state", path="s.db"),
    "batchers": (lambda: defined("Batcher"), lambda name, value: pipeline(batchers={"default": {name: value}})),
    "breaker": (lambda: defined("Breaker"), lambda name, value: pipeline(failure={"breaker": {name: value}})),
    "aggregators": (lambda: defined("AggregatorSettings"), lambda name, value: sums(**{name: value})),
    "queue": (
        lambda: of_kind("producer", "queue"),
        lambda name, value: pipeline(producer={**without(QUEUE, name), name: value}),
    ),
    "rabbitmq": (
        lambda: of_kind("producer", "rabbitmq"),
        lambda name, value: pipeline(producer={**without(RABBITMQ, name), name: value}),
    ),
    "sqs": (
        lambda: of_kind("producer", "sqs"),
        lambda name, value: pipeline(producer={**without(SQS, name), name: value}),
    ),
    "queue sink": (
        lambda: of_kind("sink", "queue"),
        lambda name, value: pipeline(publishers={"out": {**without(QUEUE, name), name: value}}),
    ),
    "rabbitmq sink": (
        lambda: of_kind("sink", "rabbitmq"),
        lambda name, value: pipeline(publishers={"out": {**without(RABBITMQ, name), name: value}}),
    ),
    "declare_options": (
        lambda: defined("DeclareOptions"),
        lambda name, value: pipeline(producer={**RABBITMQ, "declare": "active", "declare_options": {name: value}}),
    ),
    "consume_options": (
        lambda: defined("ConsumeOptions"),
        lambda name, value: pipeline(producer={**RABBITMQ, "consume_options": {name: value}}),
    ),
    "bindings": (
        lambda: defined("Binding"),
        lambda name, value: pipeline(producer={**RABBITMQ, "bindings": [{"exchange": "e", name: value}]}),
    ),
    "tls": (
        lambda: defined("TlsOptions"),
        lambda name, value: pipeline(producer={**RABBITMQ, "host": "mq.example", "tls": {name: value}}),
    ),
}

#: What `check` refuses and the schema allows, of what is not text: another file may say what is missing, another
#: setting is the reason, or JSON Schema has no word for it. (Text is not here: it may have a variable in it.)
ONLY_CHECK_KNOWS: Final[Mapping[str, list[object]]] = {
    "top.pipelines": [{}],
    "pipeline.producer": [None, {}],
    "pipeline.state": [{}],
    "pipeline.rate_limit": [{}],
    "pipeline.ordered": [True],
    "rabbitmq.url": [[], ["x"]],
    "rabbitmq.host": [[]],
    "rabbitmq.port": [7],
    "rabbitmq.tls": [{}],
    "rabbitmq.queue": [[]],
    "rabbitmq.declare_options": [{}],
    "rabbitmq sink.url": [[], ["x"]],
    "rabbitmq sink.host": [[]],
    "rabbitmq sink.port": [7],
    "rabbitmq sink.tls": [{}],
    "rabbitmq sink.queue": [None],
    "rabbitmq sink.queue_arguments": [{"x": 1}],
    "sqs.wait_time_seconds": [0.5, 1.5],
    "sqs.visibility_timeout": [0.5, 1.5],
    "aggregators.emit_to": [{}],
}


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    "file",
    [
        *sorted((ROOT / "config").glob("*.yaml")),
        *sorted((ROOT / "tests" / "user-repository" / "settings").glob("*.yaml")),
        *sorted((ROOT / "deploy").rglob("settings.yaml")),
    ],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_the_settings_that_ship_are_right(file: Path) -> None:
    settings = yaml.load(file.read_text(), PlainYaml)  # noqa: S506  # it is a SafeLoader
    assert complaints(settings) == []
    assert list(Draft7Validator(schema()).iter_errors(settings)) == []  # many editors only know this version


@pytest.mark.parametrize("section", SECTIONS)
def test_it_complains_about_nothing_that_check_accepts(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings, made_with = SECTIONS[section]
    unnoticed: dict[str, list[object]] = {}
    for name, node in settings().items():
        for value in [*VALUES, *(word for word in words(node) if word not in VALUES)]:
            whole = made_with(name, value)
            said, refused = complaints(whole), refusals(whole)
            if refused and not said and not isinstance(value, str):
                unnoticed.setdefault(f"{section}.{name}", []).append(value)
            assert refused or not said, (name, value)
    assert unnoticed == {
        name: values for name, values in ONLY_CHECK_KNOWS.items() if name.rpartition(".")[0] == section
    }


def _sections(settings: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(settings, dict):
        yield at
        for name, inner in settings.items():
            yield from _sections(inner, (*at, name))
    elif isinstance(settings, list):
        for index, inner in enumerate(settings):
            yield from _sections(inner, (*at, index))


def test_it_refuses_unknown_names_where_check_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("var").mkdir()
    text = (ROOT / "config" / "reference.yaml").read_text()
    places = list(_sections(yaml.load(text, PlainYaml)))  # noqa: S506  # it is a SafeLoader
    assert len(places) >= 20

    for place in places:
        settings = yaml.load(text, PlainYaml)  # noqa: S506  # it is a SafeLoader
        section = settings
        for part in place:
            section = section[part]
        section["no_such_setting"] = 1
        refused = any("no_such_setting" in sentence for sentence in refusals(settings))
        assert refused == any("no_such_setting" in sentence for sentence in complaints(settings)), place


@pytest.mark.parametrize(
    ("section", "known"),
    [
        (QUEUE, True),
        (RABBITMQ, True),
        ({"path": "q.db"}, True),  # the kind may be in another file
        ({"kind": "${KIND}", "queue_url": "q"}, True),
        ({"kind": "kafka"}, False),
        ({**QUEUE, "prefetch_count": 1}, False),
        ({"kind": "${KIND}", "topic": "q"}, False),
        ([QUEUE, SQS], True),
        ([QUEUE, {"kind": "kafka"}], False),
        ([], False),
        ("${SOURCE}", True),
        ("queue", False),
    ],
)
def test_the_kind_of_source_decides_its_settings(section: object, *, known: bool) -> None:
    assert (complaints(pipeline(producer=section)) == []) == known


@pytest.mark.parametrize(
    ("section", "known"),
    [
        (QUEUE, True),
        ({"kind": "rabbitmq", "exchange": "e", "url_file": "/run/secrets/url"}, True),
        ({**QUEUE, "visibility": 1}, False),
        ({"kind": "kafka"}, False),
        (None, True),
    ],
)
def test_the_kind_of_sink_decides_its_settings(section: object, *, known: bool) -> None:
    assert (complaints(pipeline(publishers={"out": section})) == []) == known
    assert (complaints(sums(emit_to=section)) == []) == known


def test_it_has_every_option_that_a_file_may_set() -> None:
    code = {"partition_by", "schema", "transformer"}
    assert defined("pipeline").keys() == {*OPTION_NAMES - code, "class"}


def test_every_setting_is_described() -> None:
    bare = {
        f"{name}.{setting}"
        for name in ("pipeline", "Batcher", "Processors", "FailurePolicy", "PlainOptions", "Http", "Log", "State")
        for setting, node in schema()["$defs"].get(name, {}).get("properties", {}).items()
        if not node.get("description") and "$ref" not in node and "$ref" not in str(node.get("anyOf"))
    }
    assert bare == set()
    assert of_kind("producer", "queue")["path"]["description"].endswith("network file system. Required.")
    assert of_kind("producer", "queue")["queue_file"] == {
        "type": "string",
        "description": "The name of a file that holds queue. It is read again at each connect.",
    }


def test_defaults_are_shown() -> None:
    assert defined("Batcher")["batch_size"]["default"] == 100
    assert defined("Http")["port"]["default"] == 8080
    assert "default" not in defined("AggregatorSettings")["max_ahead"]


class Kafka(Producer):
    """The producer of a plug-in."""

    def __init__(self, topic: str, offset: int | None = None) -> None:
        self.topic, self.offset = topic, offset


def test_plug_ins_have_their_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_plug_ins", lambda: {"kafka": _EntryPoint(Kafka)})
    found = Draft202012Validator(settings_schema())

    for section, known in (
        ({"kind": "kafka", "topic": "t", "offset": 1}, True),
        ({"kind": "kafka", "topic_file": "t"}, True),
        ({"kind": "kafka", "queue": "q"}, False),
        ({"topic": "t"}, True),
    ):
        assert found.is_valid(pipeline(producer=section)) == known


def test_a_plug_in_that_cannot_be_loaded_may_have_any_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_plug_ins", lambda: {"kafka": _EntryPoint(None)})
    found = Draft202012Validator(settings_schema())

    assert found.is_valid(pipeline(producer={"kind": "kafka", "topic": "t"}))
    assert not found.is_valid(pipeline(producer={**QUEUE, "topic": "t"}))


class _EntryPoint:
    def __init__(self, found: object) -> None:
        self.value, self._found = "kafka:Kafka", found

    def load(self) -> object:
        if self._found is None:
            raise ImportError("no kafka")
        return self._found


def test_a_kind_whose_library_is_missing_may_have_any_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def import_module(name: str) -> object:
        if "rabbitmq" in name:
            raise ModuleNotFoundError("no aio_pika", name="aio_pika")
        return real(name)

    monkeypatch.setattr("broadway_py.daemon.json_schema.import_module", import_module)
    monkeypatch.setattr("broadway_py.producers.sections.import_module", import_module)
    found = Draft202012Validator(settings_schema())

    assert found.is_valid(pipeline(producer={**RABBITMQ, "anything": 1}, publishers={"out": {**RABBITMQ, "other": 1}}))
    assert not found.is_valid(pipeline(producer={**QUEUE, "anything": 1}))


def test_the_command_prints_it() -> None:
    shown = CliRunner().invoke(app, ["schema"])
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, schema())


def test_the_command_writes_it_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "broadway.schema.json"
    shown = CliRunner().invoke(app, ["schema", "--output", str(file)])
    assert (shown.exit_code, shown.output) == (0, "")
    assert json.loads(file.read_text()) == schema()


def test_the_command_says_why_it_cannot_write(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["schema", "--output", str(tmp_path)])
    assert (shown.exit_code, shown.stderr) == (2, f"broadway: {tmp_path}: cannot be written: Is a directory\n")
