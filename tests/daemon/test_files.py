from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broadway_py.daemon.settings.files import Document, merge, read_file
from broadway_py.errors import OptionsError
from broadway_py.written import parse_value


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "http: {host: localhost, port: 80}\n"),
        ("a.toml", '[http]\nhost = "localhost"\nport = 80\n'),
        ("a.json", '{"http": {"host": "localhost", "port": 80}}'),
    ],
)
def test_yaml_toml_and_json_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert read_file(write(tmp_path, name, text)).data == {"http": {"host": "localhost", "port": 80}}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_file(write(tmp_path, "a.yaml", "# later\n")).data == {}


def test_yaml_knows_the_line_of_each_setting(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "http:\n  host: localhost\n  port: 80\nproducers:\n  - kind: queue\n")

    origins = read_file(path).origins

    assert origins[("http", "port")].place == f"{path}:3"
    assert origins[("producers", "0", "kind")].place == f"{path}:5"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.yaml", "a: 1\nb: [1\n", "{path}:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "a.yaml",
            "a: {b: ${X}}\n",
            (
                "{path}:1: not valid YAML: expected ',' or '}}', but got '{{'; "
                "put quotes around ${{…}} inside {{ }} or [ ]"
            ),
        ),
        ("a.yaml", "- 1\n", "{path}: expected a mapping of settings, got a list"),
        (
            "a.yaml",
            "http:\n  port: 1\n  host: x\n  port: 2\n",
            (
                "{path}:4: http.port: given twice in one file, first on line 2; keep one of the two, or give them "
                "different names"
            ),
        ),
        ("a.yaml", "a: &a\n  b: *a\n", "{path}:1: a.b: an alias (*name) that contains itself"),
        ("a.json", "{\n 1}", "{path}:2: not valid JSON: Expecting property name enclosed in double quotes"),
        (
            "a.json",
            '{"a": 1,\n\t"a": 2}',
            (
                "{path}:2: a: given twice in one file, first on line 1; keep one of the two, or give them "
                "different names"
            ),
        ),
        ("a.toml", "a = 1\na = 2\n", "{path}:2: not valid TOML: Cannot overwrite a value"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == sentence.format(path=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as refused:
        read_file(tmp_path / "no.yaml")
    assert str(refused.value) == f"{tmp_path}/no.yaml: cannot be read: No such file or directory"


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"name: M\xfcnchen\n")
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == (
        f"{path}:1: expected UTF-8 text, but the byte in column 8 is not UTF-8; save the file as UTF-8"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1_000", 1000),
        ("0.5", 0.5),
        ("true", True),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("007", "007"),
        ("", ""),
        ("null", None),
        ("500ms", "500ms"),
        ("{batch_size: 5}", {"batch_size": 5}),
        ("[1, 2]", [1, 2]),
        ("pass #word: x", "pass #word: x"),
        ("a: b", "a: b"),
        ("'5'", "5"),
        ("{broken", "{broken"),
        ("amqp://u:p@h/", "amqp://u:p@h/"),
    ],
)
def test_text_is_typed_as_in_yaml_but_never_mangled(text: str, value: object) -> None:
    assert parse_value(text) == value


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    document = Document()
    for part in parts:
        document = merge(document, Document(part))
    return document.data


def test_later_files_win_field_by_field() -> None:
    first = {"pipelines": {"a": {"processors": {"concurrency": 2, "max_demand": 5}}, "b": {"class": "m:B"}}}
    second = {"pipelines": {"a": {"processors": {"concurrency": 9}}, "b": None}}
    assert merged(first, second) == {"pipelines": {"a": {"processors": {"concurrency": 9, "max_demand": 5}}, "b": None}}


def test_a_producer_of_another_kind_replaces_the_whole_section() -> None:
    first = {"producer": {"kind": "queue", "path": "q.db"}}
    second = {"producer": {"kind": "rabbitmq", "queue": "q"}}
    assert merged(first, second) == second


MEANINGLESS = ": cannot be read: it has a number, a key or a tag without a meaning; put quotes around text"

TEXTS = {
    "a.yaml": "http:\n  host: ünï\n  port: 80\n",
    "a.toml": '[http]\nhost = "ünï"\nport = 80\n',
    "a.json": '{"http":\n {"host": "ünï",\n  "port": 80}}\n',
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_a_file_is_read_however_its_editor_saved_it(
    tmp_path: Path, name: str, end: str, encoding: str, last: bool
) -> None:
    text = TEXTS[name].replace("\n", end)
    path = tmp_path / name
    path.write_bytes((text if last else text.removesuffix(end)).encode(encoding))

    found = read_file(path)

    assert found.data == {"http": {"host": "ünï", "port": 80}}
    assert found.origins[("http", "port")].place == f"{path}:3"


@pytest.mark.parametrize("name", TEXTS)
def test_the_place_of_what_is_no_text_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\r\n\r\n  ab\xe4\xe9")
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == (
        f"{path}:3: expected UTF-8 text, but the byte in column 5 is not UTF-8; save the file as UTF-8"
    )
    path.write_bytes("a\n".encode("utf-16") + b"\x00")
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == (
        f"{path}:2: expected UTF-16 text, but the byte in column 1 is not UTF-16; save the file as UTF-8"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:\n\tgeheim: 1\n", ":2: not valid YAML: a tab where only spaces are allowed; indent with spaces"),
        ("a: `geheim\n", ":1: not valid YAML: text that begins with ` needs quotes around it"),
        (
            "a: *geheim\n",
            (
                ":1: not valid YAML: an alias (*name) that no anchor (&name) defines; "
                "text that begins with * needs quotes around it"
            ),
        ),
        (
            "a: !geheim x\n",
            (
                ":1: not valid YAML: a tag (!name), which settings do not support; "
                "text that begins with ! needs quotes around it"
            ),
        ),
        (
            "a: &geheim 1\nb: &geheim 2\n",
            (
                ":2: not valid YAML: an anchor (&name) that is defined twice; "
                "text that begins with & needs quotes around it"
            ),
        ),
        ("a: \x07geheim\n", ":1: not valid YAML: the character U+0007 is not allowed"),
        ("[" * 3000, ": cannot be read: its lists and sections are nested too deeply"),
        (f"a: {'1' * 5000}\n", MEANINGLESS),
        ("a: !!int geheim\n", MEANINGLESS),
        ("a: &a\n  <<: *a\n", ":1: a: an alias (*name) that contains itself"),
    ],
)
def test_what_yaml_does_not_take_is_said_without_showing_it(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == f"{path}{sentence}"


@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_a_number_beyond_all_bounds_is_refused(tmp_path: Path, name: str) -> None:
    number = "1" * 5000
    path = write(tmp_path, name, f'{{"a": {number}}}' if name == "a.json" else f"a = {number}\n")
    with pytest.raises(OptionsError) as refused:
        read_file(path)
    assert str(refused.value) == f"{path}{MEANINGLESS}"
