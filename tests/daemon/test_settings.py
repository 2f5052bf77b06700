from __future__ import annotations

from pathlib import Path

import pytest

from broadway_py.daemon.settings import Settings, read_settings
from broadway_py.errors import OptionsError

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
        "a.yaml:8: http.prot: unknown setting; known here: host, port; did you mean 'port'?"
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
                "environment variable BROADWAY_HTTP__PROT: http.prot: unknown setting; known here: host, port; "
                "did you mean 'port'?"
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
