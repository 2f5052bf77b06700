from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from broadway_py import Pipeline
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.settings.settings import Settings, read_settings
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer
from broadway_py.producers.kinds import arguments
from broadway_py.producers.rabbitmq import RabbitMQOptions

ONE = """\
pipelines:
  orders:
    class: tests.daemon.pipelines:Plain
    producer: {kind: queue, path: q.db, queue: orders}
    processors:
      concurrency: 2
"""


def read(
    folder: Path, text: str = ONE, *, sets: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> Settings:
    path = folder / "a.yaml"
    path.write_text(text)
    return read_settings([path], assignments=sets, environ=environ or {})


def refusal(folder: Path, text: str = ONE, *, sets: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> str:
    with pytest.raises(OptionsError) as refused:
        read(folder, text, sets=sets, environ=environ)
    return str(refused.value).replace(f"{folder}/", "")


def test_defaults_are_one_worker_and_a_port_on_this_machine_only(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.workers == 1
    assert settings.http is not None
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8080)
    assert (settings.log.level, settings.log.format) == ("info", "auto")


def test_the_only_pipeline_needs_no_name(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.choose_pipeline(None) == "orders"
    assert settings.choose_pipeline("orders") == "orders"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, "--pipeline is needed, because the settings have several pipelines: orders, bills"),
        ("order", "--pipeline order: no such pipeline; known here: orders, bills; did you mean 'orders'?"),
    ],
)
def test_a_pipeline_that_is_not_known_is_refused(tmp_path: Path, name: str | None, sentence: str) -> None:
    settings = read(tmp_path, ONE + "  bills: {class: 'tests.daemon.pipelines:Plain'}\n")
    with pytest.raises(OptionsError) as refused:
        settings.choose_pipeline(name)
    assert str(refused.value) == sentence


def test_sources_are_asked_how_many_messages_they_hold_unless_the_settings_say_no(tmp_path: Path) -> None:
    said = {text: read(tmp_path, ONE + text).http for text in ("", "http: {source_messages: false}\n")}
    assert [None if http is None else http.source_messages for http in said.values()] == [True, False]
    assert refusal(tmp_path, ONE + "http: {source_messages: often}\n") == (
        "a.yaml:7: http.source_messages: expected true or false, got 'often'"
    )


def test_http_null_serves_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, ONE + "http: null\n").http is None


def test_set_wins_over_the_environment_which_wins_over_files(tmp_path: Path) -> None:
    text = ONE + "http: {port: 1}\nlog: {level: error}\nworkers: 3\n"
    settings = read(
        tmp_path,
        text,
        environ={"BROADWAY_HTTP__PORT": "2", "BROADWAY_LOG__LEVEL": "debug"},
        sets=("http.port=3",),
    )
    assert settings.http is not None
    assert (settings.http.port, settings.log.level, settings.workers) == (3, "debug", 3)


def test_environment_names_are_matched_without_regard_to_case(tmp_path: Path) -> None:
    text = ONE.replace("orders:\n    class", "Big-Orders:\n    class")
    settings = read(tmp_path, text, environ={"broadway_pipelines__BIG_ORDERS__Processors__Concurrency": "7"})
    assert settings.pipelines["Big-Orders"]["processors"] == {"concurrency": "7"}


def test_other_names_of_the_environment_are_left_alone(tmp_path: Path) -> None:
    environ = {"BROADWAY_HOME": "x", "BROADWAY_WORKERS": "9", "OTHER__THING": "x"}
    assert read(tmp_path, environ=environ).workers == 1


def test_a_password_in_the_environment_stays_as_it_is(tmp_path: Path) -> None:
    password = "a: b #c"
    settings = read(tmp_path, environ={"BROADWAY_PIPELINES__ORDERS__PRODUCER__QUEUE": password})
    assert settings.pipelines["orders"]["producer"]["queue"] == password


def test_set_reaches_into_names_with_dots(tmp_path: Path) -> None:
    text = ONE.replace("orders:\n    class", "eu.orders:\n    class")
    settings = read(tmp_path, text, sets=("pipelines.eu.orders.processors.concurrency=5",))
    assert settings.pipelines["eu.orders"]["processors"] == {"concurrency": "5"}


def test_variables_are_replaced_in_file_strings(tmp_path: Path) -> None:
    text = ONE.replace("q.db", '"${PLACE}/${NAME:-q}.db"').replace("queue: orders", 'queue: "$${PLACE}"')
    producer = read(tmp_path, text, environ={"PLACE": "/data"}).pipelines["orders"]["producer"]
    assert producer == {"kind": "queue", "path": "/data/q.db", "queue": "${PLACE}"}


def test_an_unset_variable_that_is_overridden_is_not_missed(tmp_path: Path) -> None:
    text = ONE.replace("q.db", '"${PLACE}"')
    settings = read(tmp_path, text, sets=("pipelines.orders.producer.path=x.db",))
    assert settings.pipelines["orders"]["producer"]["path"] == "x.db"


def test_an_unset_variable_is_refused_with_its_path(tmp_path: Path) -> None:
    assert refusal(tmp_path, ONE.replace("q.db", '"${PLACE}"')) == (
        "a.yaml:4: pipelines.orders.producer.path: the environment variable PLACE is not set; "
        "set it, or write ${PLACE:-default} in the file"
    )


def test_an_unknown_top_level_setting_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, ONE + "htpp: {}\n") == (
        "a.yaml:7: htpp: unknown setting; known here: http, log, pipelines, workers; did you mean 'http'?"
    )


def test_an_unknown_setting_of_a_section_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, ONE + "http:\n  prot: 1\n") == (
        "a.yaml:8: http.prot: unknown setting; known here: host, port, source_messages, token_file; "
        "did you mean 'port'?"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http: {port: high}\n", "a.yaml:7: http.port: expected a valid integer, got 'high'"),
        ("http: {port: 70000}\n", "a.yaml:7: http.port: expected less than or equal to 65535, got 70000"),
        ("workers: 0\n", "a.yaml:7: workers: expected greater than or equal to 1, got 0"),
        (
            "log: {level: loud}\n",
            "a.yaml:7: log.level: expected 'debug', 'info', 'warning' or 'error', got 'loud'",
        ),
        ("http: 8080\n", "a.yaml:7: http: expected a section of settings, got int"),
    ],
)
def test_a_wrong_type_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, ONE + text) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            "pipelines: expected at least one pipeline, such as 'orders: {class: orders:Orders}', got nothing",
        ),
        ("pipelines: {a: null}\n", "a.yaml:1: pipelines: expected at least one pipeline, but all of them are null"),
        ("pipelines: {a: 5}\n", "a.yaml:1: pipelines.a: expected a section of settings with a class, got int"),
    ],
)
def test_settings_without_a_pipeline_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"BROADWAY_HTPP__PORT": "1"},
            (
                "environment variable BROADWAY_HTPP__PORT: unknown section 'htpp'; known here: http, log, pipelines; "
                "did you mean 'http'?"
            ),
        ),
        (
            {"BROADWAY_HTTP__PROT": "1"},
            (
                "environment variable BROADWAY_HTTP__PROT: http.prot: unknown setting; known here: host, port, "
                "source_messages, token_file; did you mean 'port'?"
            ),
        ),
        (
            {"BROADWAY_PIPELINES__ORDER__NAME": "x"},
            (
                "environment variable BROADWAY_PIPELINES__ORDER__NAME: no pipeline of this name in the files; "
                "known here: orders; did you mean 'orders'?"
            ),
        ),
        (
            {"BROADWAY_HTTP__": "1"},
            "environment variable BROADWAY_HTTP__: expected BROADWAY_<SECTION>__<FIELD>, found an empty name",
        ),
    ],
)
def test_an_unknown_name_of_the_environment_is_refused(tmp_path: Path, environ: dict[str, str], sentence: str) -> None:
    assert refusal(tmp_path, environ=environ) == sentence


def test_a_name_that_may_mean_two_pipelines_is_refused(tmp_path: Path) -> None:
    text = "pipelines: {a-b: {class: 'm:A'}, a_b: {class: 'm:A'}}\n"
    assert refusal(tmp_path, text, environ={"BROADWAY_PIPELINES__A_B__NAME": "x"}) == (
        "environment variable BROADWAY_PIPELINES__A_B__NAME: 'A_B' may mean 'a-b' or 'a_b'; use --set"
    )


def test_a_set_without_a_value_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, sets=("http.port",)) == (
        "--set http.port: expected path=value, such as pipelines.orders.processors.concurrency=20"
    )


def test_a_wrong_set_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, sets=("http.port=x",)) == ("--set http.port: http.port: expected a valid integer, got 'x'")


# --- texts that come from elsewhere, typed by their fields

SECRETS = [
    "12345678", "null", "true", "007", "1e3", "1.10", "~", "no", "2024-01-01", "[a]", "{a: b}", "a: b #c",
    "$HOME${X}$$", "p@ss:w/o?r#d", "pässwörd-✓-密码", "Ln1V3#'C0oA1{FFB9l_IwBv9hmf;[]\\|\"`~^<>", "'quoted'", " blank ",
]  # fmt: skip

RABBIT = """\
pipelines:
  a: &base
    class: tests.daemon.pipelines:Plain
    producer: &source
      kind: rabbitmq
      queue: q
      host: h
      password: {password}
    processors: {{concurrency: {number}}}
  b:
    <<: *base
    name: second
"""
TOML = """\
[pipelines.a]
class = "tests.daemon.pipelines:Plain"
processors = {concurrency = "${N}"}
[pipelines.a.producer]
kind = "rabbitmq"
queue = "q"
host = "h"
password = "${PW}"
"""
JSON = """\
{"pipelines": {"a": {"class": "tests.daemon.pipelines:Plain", "processors": {"concurrency": "${N}"},
  "producer": {"kind": "rabbitmq", "queue": "q", "host": "h", "password": "${PW}"}}}}
"""


def source_of(pipeline: Pipeline[Any]) -> Any:
    return pipeline.producer


def passwords(folder: Path, name: str, text: str, **environ: str) -> list[tuple[str | None, int]]:
    path = folder / name
    path.write_text(text)
    built = build_pipelines(read_settings([path], environ=environ))
    return [(source_of(one).options.password, one.processors.concurrency) for one in built]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", RABBIT.format(password="${PW}", number='"${N}"')),
        ("b.yaml", RABBIT.format(password='"${PW}"', number='"${N:-9}"')),
        ("c.yaml", RABBIT.format(password="${PW:-other}", number='"${N}"')),
        ("a.toml", TOML),
        ("a.json", JSON),
    ],
    ids=["plain", "quoted", "with a default", "toml", "json"],
)
def test_a_secret_of_any_look_reaches_its_field_as_it_is(tmp_path: Path, name: str, text: str) -> None:
    for number, secret in enumerate(SECRETS):
        end = ("", "\n", "\r\n")[number % 3]
        found = passwords(tmp_path, name, text, PW=f"{secret}{end}", N=f"7{end}")
        assert found == [(secret, 7)] * len(found)
        assert found


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", ["environment", "set", "file"])
def test_a_secret_of_any_look_comes_by_every_way(tmp_path: Path, secret: str, way: str) -> None:
    path = tmp_path / "a.yaml"
    text = RABBIT.format(password="x", number=2).partition("  b:")[0]
    environ: dict[str, str] = {}
    sets: list[str] = []
    if way == "environment":
        environ["BROADWAY_PIPELINES__A__PRODUCER__PASSWORD"] = f"{secret}\n"
    elif way == "set":
        sets.append(f"pipelines.a.producer.password={secret}\n")
    else:
        url = f"amqp://u:{quote(secret, safe='')}@h/"
        text = text.replace("      host: h\n      password: x\n", "")
        (tmp_path / "secret").write_bytes(f"\ufeff{url}\r\n".encode())
        environ["BROADWAY_PIPELINES__A__PRODUCER__URL_FILE"] = str(tmp_path / "secret")
    path.write_text(text)
    settings = read_settings([path], assignments=sets, environ=environ)
    build_pipelines(settings)
    _, given = arguments(settings.pipelines["a"]["producer"], ())
    assert (URL(given["url"]).password if way == "file" else RabbitMQOptions(**given).password) == secret


def test_null_in_a_default_means_nothing_and_in_a_variable_it_is_text(tmp_path: Path) -> None:
    text = RABBIT.format(password="${PW:-null}", number=2).partition("  b:")[0]
    assert passwords(tmp_path, "a.yaml", text) == [(None, 2)]
    assert passwords(tmp_path, "a.yaml", text, PW="null") == [("null", 2)]


def test_a_section_may_come_from_a_variable_and_be_added_to(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        ONE + "http: ${HTTP:-null}\n",
        environ={
            "BROADWAY_PIPELINES__ORDERS__PRODUCER": "{kind: queue, path: 007, queue: null}",
            "BROADWAY_PIPELINES__ORDERS__PRODUCER__QUEUE": "123",
            "BROADWAY_PIPELINES__ORDERS__CONTEXT": "{a: 5, b: '5'}",
        },
        sets=("pipelines.orders.batchers={slow: null, default: {batch_size: 5}}",),
    )
    assert settings.http is None
    (built,) = build_pipelines(settings)
    assert (source_of(built).options.path, source_of(built).options.queue) == ("007", "123")
    assert built.context == {"a": 5, "b": "5"}
    assert {name: one.batch_size for name, one in built.batchers.items()} == {"default": 5}


def test_a_plug_in_gets_what_its_arguments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found(DummyProducer):
        def __init__(self, url: str, size: int = 1, more: object = None, *, names: tuple[str, ...] = ()) -> None:
            super().__init__()
            self.got = (url, size, more, names)

    monkeypatch.setattr("broadway_py.producers.kinds.producer_class", lambda _: Found)
    text = ONE.replace(
        "{kind: queue, path: q.db, queue: orders}",
        '{kind: found, url: "${A}", size: "${A}", more: "${A}", names: ["${A}"]}',
    )
    (built,) = build_pipelines(read(tmp_path, text, environ={"A": "5"}))
    assert source_of(built).got == ("5", 5, "5", ["5"])


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("${PLACE", "expected ${NAME} or ${NAME:-default} where ${ stands; write $${ for ${ itself"),
        ("${PLACE:?no}", "expected ${NAME} or ${NAME:-default} where ${ stands; write $${ for ${ itself"),
        ("${A:-${B}}", "the default of ${A:-…} contains another ${; expected plain text"),
    ],
)
def test_a_variable_that_is_none_is_refused(tmp_path: Path, written: str, sentence: str) -> None:
    text = ONE.replace("q.db", f'"{written}"')
    assert refusal(tmp_path, text) == f"a.yaml:4: pipelines.orders.producer.path: {sentence}"


def test_a_variable_in_another_locale_is_read_as_utf8(tmp_path: Path) -> None:
    text = ONE.replace("queue: orders", 'queue: "${Q}"')
    # As Python gives it in the locale "C".
    settings = read(tmp_path, text, environ={"Q": "ü".encode().decode("ascii", "surrogateescape")})
    assert settings.pipelines["orders"]["producer"]["queue"] == "ü"
    assert refusal(tmp_path, text, environ={"Q": b"\xfc".decode("ascii", "surrogateescape")}) == (
        "a.yaml:4: pipelines.orders.producer.queue: expected UTF-8 text, but the environment variable Q has "
        "bytes that are not UTF-8"
    )


@pytest.mark.parametrize(("log", "came"), [("false", "bool"), ("0", "int"), ("[]", "list"), ("''", "str")])
def test_a_log_that_is_no_section_is_refused(tmp_path: Path, log: str, came: str) -> None:
    assert refusal(tmp_path, f"{ONE}log: {log}\n") == f"a.yaml:7: log: expected a section of settings, got {came}"


def test_a_log_of_null_has_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, f"{ONE}log: null\n").log.level == "info"
