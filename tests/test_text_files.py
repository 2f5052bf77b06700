"""Files whose names are in the settings: what is read, what is cut, and the sentence when there is nothing to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadway_py.text_files import content_of, without_end, without_line_break


def test_the_content_of_a_file_comes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\0\r\n")
    assert content_of(f"{tmp_path}/secret") == b"\xff\0\r\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [("no", "No such file or directory"), ("", "Is a directory"), ("a\0b", "no file can have that name")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    file = f"{tmp_path}/{name}"
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole sentence is compared
        content_of(file)
    assert str(refused.value) == f"the file {file!r} cannot be read: {why}"


@pytest.mark.parametrize(
    ("text", "once", "all_of_them"),
    [("a", "a", "a"), ("a\n", "a", "a"), ("a\r\n", "a", "a"), ("a\n\r\n", "a\n", "a"), ("a\n\n", "a\n", "a")],
)
def test_one_line_break_or_all_are_cut_at_the_end(text: str, once: str, all_of_them: str) -> None:
    assert (without_line_break(text), without_end(text)) == (once, all_of_them)
