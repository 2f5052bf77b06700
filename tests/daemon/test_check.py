"""``broadway check``: everything that is wrong, in one go, each with the place that says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadway_py.daemon.pipelines.loader import build_pipelines, check_pipelines
from broadway_py.daemon.settings.settings import examine, read_settings
from broadway_py.errors import OptionsError

CLASS = "tests.daemon.pipelines:Plain"


def complaints(
    folder: Path, *files: tuple[str, str | bytes], sets: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> list[str]:
    paths = []
    for name, text in files:
        paths.append(folder / name)
        paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
    found = examine(paths, assignments=sets, environ=environ or {})
    wrong = [*found.wrong, *check_pipelines(found.settings, found.told)]
    return [str(one).replace(f"{folder}/", "") for one in wrong]


def test_all_of_it_is_told_at_once(tmp_path: Path) -> None:
    base = f"""\
pipelines:
  a:
    class: {CLASS}
    producer: {{kind: rabbitmq, queue: 5, heartbeat: 0, foo: 1}}
    processors: {{concurrency: "${{N}}", max_demand: 0}}
    batchers: {{slow: {{batch_size: x}}, other: {{batch_timeout: -1, sise: 1}}}}
    max_restarts: -1
  b:
    class: no_such:X
    name: a
    producer: [{{kind: queue, path: x}}, {{kind: quue}}, 5]
    processors: {{max_demand: q}}
  c: 7
http: {{port: x, hst: y}}
log: {{format: q}}
workers: 0
"""
    more = '[pipelines.a]\nfail_fast = "yes"\n\n[pipelines.a.failure]\nattempts = 0\n\n[surprise]\n'
    found = complaints(
        tmp_path,
        ("base.yaml", base),
        ("more.toml", more),
        sets=("x", "log.level=loud", "pipelines.a.max_seconds=${NOT_REPLACED_HERE}"),
        environ={"BROADWAY_HTPP__X": "1", "BROADWAY_PIPELINES__A__SHUTDOWN_TIMEOUT": "never"},
    )
    assert [one.rpartition(": ")[0] if "known here" in one else one for one in found] == [
        "environment variable BROADWAY_HTPP__X: unknown section 'htpp'; known here",
        "--set x: expected path=value, such as pipelines.orders.processors.concurrency=20",
        (
            "base.yaml:5: pipelines.a.processors.concurrency: the environment variable N is not set; set it, or write "
            "${N:-default} in the file"
        ),
        "more.toml:7: surprise: unknown setting; known here",
        "base.yaml:13: pipelines.c: expected a section of settings with a class, got int",
        "base.yaml:16: workers: expected greater than or equal to 1, got 0",
        "base.yaml:14: http.hst: unknown setting; known here",
        "base.yaml:14: http.port: expected a valid integer, got 'x'",
        "base.yaml:15: log.format: expected 'auto', 'json' or 'console', got 'q'",
        "--set log.level: log.level: expected 'debug', 'info', 'warning' or 'error', got 'loud'",
        (
            "base.yaml:10: pipelines.b.name: 'a' is already the name of pipelines.a; names label logs and metrics, so "
            "give each pipeline its own"
        ),
        "base.yaml:4: pipelines.a.producer.foo: unknown setting; known here",
        "base.yaml:4: pipelines.a.producer.heartbeat: expected greater than or equal to 1, got 0",
        "base.yaml:4: pipelines.a.producer.queue: expected a text or a list of texts, got 5; put quotes around it",
        "base.yaml:5: pipelines.a.processors.max_demand: expected greater than or equal to 1, got 0",
        (
            "base.yaml:6: pipelines.a.batchers.slow.batch_size: expected a positive whole number or (initial, fn), "
            "with fn(message, acc) -> ('emit' | 'cont', acc), got 'x'"
        ),
        "base.yaml:6: pipelines.a.batchers.other.sise: unknown setting; known here",
        "base.yaml:6: pipelines.a.batchers.other.batch_timeout: expected greater than 0, got -1",
        "more.toml:5: pipelines.a.failure.attempts: expected greater than or equal to 1, got 0",
        "base.yaml:7: pipelines.a.max_restarts: expected greater than or equal to 0, got -1",
        "more.toml:2: pipelines.a.fail_fast: expected true or false, got 'yes'",
        (
            "environment variable BROADWAY_PIPELINES__A__SHUTDOWN_TIMEOUT: pipelines.a.shutdown_timeout: expected a "
            "duration in seconds, or text such as '500ms', '2s', '1m', got 'never'"
        ),
        (
            "--set pipelines.a.max_seconds: pipelines.a.max_seconds: expected a duration in seconds, or text such as "
            "'500ms', '2s', '1m', got '${NOT_REPLACED_HERE}'"
        ),
        (
            "base.yaml:9: pipelines.b.class: there is no module 'no_such', neither in the current directory nor among "
            "the installed packages; check the name, or run from the directory that holds it"
        ),
        "base.yaml:11: pipelines.b.producer.0.queue: required, but missing",
        "base.yaml:11: pipelines.b.producer.1.kind: unknown kind 'quue'; known here",
        "base.yaml:11: pipelines.b.producer.2: expected a section of settings with a kind, got int",
        "base.yaml:12: pipelines.b.processors.max_demand: expected a valid integer, got 'q'",
    ]


def test_every_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert complaints(
        tmp_path, ("a.yaml", "a: [\n"), ("b.json", "{,}"), ("c.toml", "= 1"), ("d.yaml", b"\xff"), ("e.yaml", "x: 1\n")
    ) == [
        "a.yaml:2: not valid YAML: expected the node content, but found '<stream end>'",
        "b.json:1: not valid JSON: Expecting property name enclosed in double quotes",
        "c.toml:1: not valid TOML: Invalid statement",
        "d.yaml:1: expected UTF-8 text, but the byte in column 1 is not UTF-8; save the file as UTF-8",
    ]


def test_every_key_that_comes_twice_is_told(tmp_path: Path) -> None:
    text = "http: {port: 1, port: 2}\nlog: {level: info}\nlog: {}\n"
    assert complaints(tmp_path, ("a.yaml", text)) == [
        ("a.yaml:3: log: given twice in one file, first on line 2; keep one of the two, or give them different names"),
        (
            "a.yaml:1: http.port: given twice in one file, first on line 1; keep one of the two, or give them "
            "different names"
        ),
    ]


def test_what_was_merged_in_is_told_by_the_line_that_says_it(tmp_path: Path) -> None:
    text = f"""\
pipelines:
  a: &base
    class: {CLASS}
    producer: &source
      kind: queue
      path: q.db
      queue: a
    max_restarts: -1
  b:
    <<: *base
    producer:
      <<: [*source, {{queue: x, visibility: 0}}]
      queue: b
"""
    assert complaints(tmp_path, ("a.yaml", text)) == [
        "a.yaml:8: pipelines.a.max_restarts: expected greater than or equal to 0, got -1",
        "a.yaml:12: pipelines.b.producer.visibility: expected greater than 0, got 0",
        "a.yaml:8: pipelines.b.max_restarts: expected greater than or equal to 0, got -1",
    ]


def test_what_a_variable_gave_is_told_by_its_line_and_its_name(tmp_path: Path) -> None:
    text = f"pipelines:\n  a:\n    class: {CLASS}\n    max_restarts: ${{N}}\n    max_seconds: ${{A:-1}}${{B}}\n"
    assert complaints(tmp_path, ("a.yaml", text), environ={"N": "many", "B": "x"}) == [
        "a.yaml:4, environment variable N: pipelines.a.max_restarts: expected a valid integer, got 'many'",
        (
            "a.yaml:5, environment variable B: pipelines.a.max_seconds: expected a duration in seconds, or text such "
            "as '500ms', '2s', '1m': one number with the unit ms, s, m or h, got '1x'"
        ),
        "a.yaml:2: pipelines.a.producer: required, but missing; give producer=… or a class attribute `producer`",
    ]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.toml", '[pipelines.a]\nclass = "{}"\n\n# why\nmax_restarts = -1\n', 5),
        ("a.toml", '[pipelines]\na.class = "{}"\na.max_restarts = -1\n', 3),
        ("a.toml", 'pipelines.a = {{ class = "{}", max_restarts = -1 }}\n', 1),
        (
            "a.toml",
            '[pipelines."a"]\nclass = "{}"\ncontext = """\nmax_restarts = 1\n[x]\n"""\nmax_restarts = -1\n',
            7,
        ),
        ("a.json", '{{"pipelines": {{\n\t"a": {{\n\t\t"class": "{}",\n\t\t"max_restarts":\n\t\t-1}}}}}}', 4),
    ],
)
def test_toml_and_json_know_their_lines(tmp_path: Path, name: str, text: str, line: int) -> None:
    first, missing = complaints(tmp_path, (name, text.format(CLASS)))
    assert first == f"{name}:{line}: pipelines.a.max_restarts: expected greater than or equal to 0, got -1"
    assert missing.endswith(": required, but missing; give producer=… or a class attribute `producer`")


def test_tables_in_toml_lists_know_their_lines(tmp_path: Path) -> None:
    text = (
        f'[pipelines.a]\nclass = "{CLASS}"\n[[pipelines.a.producer]]\nkind = "queue"\npath = "q"\nqueue = "a"\n'
        '[[pipelines.a.producer]]\nkind = "rabbitmq"\nqueue = "b"\nheartbeat = 0\n'
        "[pipelines.a.producer.tls]\nverify = 5\n"
    )
    assert complaints(tmp_path, ("a.toml", text)) == [
        "a.toml:12: pipelines.a.producer.1.tls.verify: expected true or false, got 5",
        "a.toml:10: pipelines.a.producer.1.heartbeat: expected greater than or equal to 1, got 0",
    ]


def test_what_a_later_file_replaced_is_not_told_by_the_earlier_one(tmp_path: Path) -> None:
    base = f"pipelines:\n  a:\n    class: {CLASS}\n    producer:\n      kind: rabbitmq\n      queue: x\n"
    over = "pipelines:\n  a:\n    producer:\n      kind: queue\n      path: q.db\n"
    assert complaints(tmp_path, ("base.yaml", base), ("over.yaml", over)) == [
        "over.yaml:3: pipelines.a.producer.queue: required, but missing"
    ]


def test_run_tells_all_of_it_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("pipelines: {a: {class: x}, b: {class: y}}\n")
    with pytest.raises(OptionsError) as refused:
        build_pipelines(read_settings([path], environ={}))
    assert [str(one) for one in refused.value.all()] == [
        f"{path}:1: pipelines.a.class: expected 'module:Class', such as 'orders:Orders', got 'x'",
        f"{path}:1: pipelines.b.class: expected 'module:Class', such as 'orders:Orders', got 'y'",
    ]


def test_all_that_does_not_go_together_is_told_at_once(tmp_path: Path) -> None:
    base = f"""\
pipelines:
  a:
    class: {CLASS}
    producer:
      kind: rabbitmq
      queue: ["", q]
      url: amqp://mq
      host: mq
      port: 5672
      username: bob
      username_file: {tmp_path}/no
      password_file: {tmp_path}/no
      tls: {{}}
      auth: external
      declare_options: {{auto_delete: true, arguments: {{x-queue-type: quorum}}}}
      bindings: [{{exchange: e, queue: q}}, {{exchange: e, queue: p}}]
      consume_options: {{consumer_tag: t, priority: 1, arguments: {{x-priority: 1}}}}
      backoff_min: 5
    processors: {{max_demand: 5, min_demand: 5}}
    failure: {{backoff: [5, 1]}}
    ordered: true
"""
    found = complaints(
        tmp_path, ("a.yaml", base), environ={"BROADWAY_PIPELINES__A__PRODUCER__BACKOFF_MAX": "1s"}, sets=("workers=2",)
    )
    assert found == [
        "a.yaml:15: pipelines.a.producer.declare_options.auto_delete: a quorum queue needs auto_delete: false",
        (
            "a.yaml:17: pipelines.a.producer.consume_options.priority: give priority, or x-priority among the "
            "arguments, not both"
        ),
        "a.yaml:8: pipelines.a.producer.host: give url, or host, port and virtual_host, not both: got url and host",
        "a.yaml:9: pipelines.a.producer.port: give url, or host, port and virtual_host, not both: got url and port",
        "a.yaml:11: pipelines.a.producer.username_file: give username or username_file, not both",
        "a.yaml:12: pipelines.a.producer.password_file: the file 'no' cannot be read: No such file or directory",
        (
            "a.yaml:6: pipelines.a.producer.queue: '' is named by the broker when it is declared, but declare is "
            "'passive': set declare: active, or name the queue"
        ),
        "a.yaml:16: pipelines.a.producer.bindings.1.queue: 'p' is not consumed here, but , q",
        "a.yaml:18: pipelines.a.producer.backoff_min: expected no more than backoff_max (1), got 5",
        (
            "a.yaml:19: pipelines.a.processors.min_demand: expected less than max_demand (5), got 5: with it, a "
            "processor might never ask for messages again"
        ),
        "a.yaml:20: pipelines.a.failure.backoff: expected (first, most) with first <= most, got (5.0, 1.0)",
        "a.yaml:21: pipelines.a.ordered: needs partition_by, which says what must stay in order; got none",
    ]


def test_nothing_is_said_of_settings_that_may_not_go_with_a_wrong_one(tmp_path: Path) -> None:
    text = f"""\
pipelines:
  a:
    class: {CLASS}
    producer: {{kind: rabbitmq, queue: q, declare: activ, declare_options: {{durable: false}}, port: 1}}
    processors: {{max_demand: 0, min_demand: 50}}
"""
    assert complaints(tmp_path, ("a.yaml", text)) == [
        "a.yaml:4: pipelines.a.producer.declare: expected 'never', 'passive' or 'active', got 'activ'",
        "a.yaml:4: pipelines.a.producer.port: port and virtual_host belong to a host: give host, too",
        "a.yaml:5: pipelines.a.processors.max_demand: expected greater than or equal to 1, got 0",
    ]


def test_what_does_not_go_together_in_sqs_and_beside_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    text = f"""\
pipelines:
  a:
    class: {CLASS}
    producer:
      kind: sqs
      queue_url: https://sqs.eu-central-1.amazonaws.com/1/orders
      region: us-east-1
      on_success: dead_letter
      on_failure: dead_letter
  b:
    class: {CLASS}
    producer: {{kind: rabbitmq, queue: q, url_file: no, port: 1, queue_file: 7, heartbeat: 0}}
    ordered: true
"""
    assert complaints(tmp_path, ("a.yaml", text)) == [
        ("a.yaml:8: pipelines.a.producer.on_success: expected ack, noop, nack or [nack, seconds], got dead_letter"),
        (
            "a.yaml:9: pipelines.a.producer.on_failure: dead_letter needs dead_letter_queue: name the queue, or leave "
            "on_failure out"
        ),
        (
            "a.yaml:7: pipelines.a.producer.region: got us-east-1, but the host in queue_url is in eu-central-1, and "
            "would refuse every request: leave region out, or correct one of the two"
        ),
        "a.yaml:12: pipelines.b.producer.queue_file: give queue or queue_file, not both",
        "a.yaml:12: pipelines.b.producer.url_file: the file 'no' cannot be read: No such file or directory",
        "a.yaml:12: pipelines.b.producer.heartbeat: expected greater than or equal to 1, got 0",
        "a.yaml:12: pipelines.b.producer.port: port and virtual_host belong to a host: give host, too",
        "a.yaml:13: pipelines.b.ordered: needs partition_by, which says what must stay in order; got none",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "pipelines: {{a: {{class: {}, producer: {{kind: rabbitmq, queue: q, {}: {}}}}}}}\n"),
        ("a.toml", '[pipelines.a]\nclass = "{}"\nproducer = {{ kind = "rabbitmq", queue = "q", {} = {} }}\n'),
        (
            "a.json",
            '{{"pipelines": {{"a": {{"class": "{}", "producer": {{"kind": "rabbitmq", "queue": "q", "{}": {}}}}}}}}}',
        ),
    ],
)
@pytest.mark.parametrize("field", ["username", "password", "virtual_host", "name", "connection_name"])
@pytest.mark.parametrize("number", ["12345678", "1e5", "1.50", "true"])
def test_a_number_where_text_is_wanted_needs_quotes_and_a_secret_is_not_shown(
    tmp_path: Path, name: str, text: str, field: str, number: str
) -> None:
    # Where it came as text there is no doubt what it is.
    over = f"pipelines.a.producer.{field}={number}"
    text = text.format(CLASS, field, number)
    in_hand = {"virtual_host": ("pipelines.a.producer.host=h",)}.get(field, ())
    if name == "a.yaml" and number == "1e5":
        text = text.replace("1e5", "1.0e+5")  # what YAML 1.1 takes for one
    (line,) = complaints(tmp_path, (name, text), sets=in_hand)
    _, _, said = line.partition(f"pipelines.a.producer.{field}: ")
    is_secret = field in ("username", "password")
    came = {"12345678": "12345678", "1e5": "100000.0", "1.50": "1.5", "true": "True"}[number]
    kind = {"12345678": "an int", "true": "a bool"}.get(number, "a float")
    assert said == f"expected text, got {kind if is_secret else came}; put quotes around it"
    assert complaints(tmp_path, (name, text), sets=(over, *in_hand)) == []


def test_a_list_of_texts_is_told_which_want_quotes(tmp_path: Path) -> None:
    text = f"pipelines: {{a: {{class: {CLASS}, name: 5, producer: {{kind: rabbitmq, queue: [q, 7], host: [h, 8]}}}}}}\n"
    assert complaints(tmp_path, ("a.yaml", text)) == [
        "a.yaml:1: pipelines.a.name: expected a name, got int; put quotes around it",
        (
            "a.yaml:1: pipelines.a.producer.host: expected one text or a list of them, got ['h', 8]; put quotes around "
            "each item that is not text"
        ),
        (
            "a.yaml:1: pipelines.a.producer.queue: expected a text or a list of texts, got ['q', 7]; put quotes around "
            "each item that is not text"
        ),
    ]
