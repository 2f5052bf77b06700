"""The lines of files: by ranges of bytes, in any encoding, with the place of each."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.flow.failure import FilePlace, LinePlace, place_of
from broadway_py.flow.stages import file_lines
from broadway_py.flow.stages.file_lines import FileRange, UnreadableLineError, lists_of, ranges_of

CONTENT = "first\n\nthird line\r\nvierte Zeile: äöü\nlast"
LINES = ["first", "", "third line", "vierte Zeile: äöü", "last"]


def read(path: Path, *, encoding: str = "utf-8", range_bytes: int = 1_000_000, chunk: int = 500) -> list[str]:
    ranges = ranges_of((str(path),), encoding, range_bytes)
    return [line for part in ranges for lines, _ in lists_of(part, encoding, lambda: chunk) for line in lines]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("range_bytes", [1, 2, 3, 7, 20, 1_000])
@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_each_line_is_read_once_wherever_the_ranges_are_cut(tmp_path: Path, range_bytes: int, chunk: int) -> None:
    path = written(tmp_path / "words.txt", CONTENT)

    assert read(path, range_bytes=range_bytes, chunk=chunk) == LINES


@given(st.text("ab\n\r", max_size=60), st.integers(1, 12), st.integers(1, 9))
def test_ranges_and_blocks_of_any_size_give_the_lines_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: str, range_bytes: int, block_bytes: int
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.txt", content)
    expected = [line.removesuffix("\r") for line in content.split("\n")]
    if expected[-1] == "" and not content.endswith("\r"):
        del expected[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_lines, "_BLOCK_BYTES", block_bytes)
        assert read(path, range_bytes=range_bytes) == expected


def test_a_line_longer_than_several_ranges_belongs_to_the_range_in_which_it_begins(tmp_path: Path) -> None:
    path = written(tmp_path / "words.txt", f"a\n{'b' * 50}\nc\n")
    ranges = list(ranges_of((str(path),), "utf-8", 10))

    assert [[line for lines, _ in lists_of(part, "utf-8", lambda: 500) for line in lines] for part in ranges] == [
        ["a", "b" * 50],
        [],
        [],
        [],
        [],
        ["c"],
    ]


@pytest.mark.parametrize("content", ["", "\n", "a", "a\n", "\r\n"])
def test_small_files(tmp_path: Path, content: str) -> None:
    assert read(written(tmp_path / "words.txt", content)) == {"": [], "\n": [""], "\r\n": [""]}.get(content, ["a"])


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "cp037", "utf-7", "gb18030"],
)
@pytest.mark.parametrize("range_bytes", [5, 1_000])
def test_encodings(tmp_path: Path, encoding: str, range_bytes: int) -> None:
    path = written(tmp_path / "words.txt", CONTENT.encode(encoding))

    assert read(path, encoding=encoding, range_bytes=range_bytes) == LINES


def test_a_signature_alone_is_no_line(tmp_path: Path) -> None:
    signature = "".encode("utf-8-sig")

    assert read(written(tmp_path / "empty.txt", signature), encoding="utf-8-sig") == []
    assert read(written(tmp_path / "line.txt", signature + b"\n"), encoding="utf-8-sig") == [""]


def test_a_packed_file_is_one_range(tmp_path: Path) -> None:
    path = written(tmp_path / "words.txt.gz", gzip.compress(CONTENT.encode()))

    assert list(ranges_of((str(path),), "utf-8", 5)) == [FileRange(str(path), 0, None)]
    assert read(path, range_bytes=5, chunk=2) == LINES


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_place_of_a_line_is_known(tmp_path: Path, suffix: str) -> None:
    plain = "".join(f"line {number}\n" for number in range(1, 201)).encode()
    path = written(tmp_path / f"words.txt{suffix}", gzip.compress(plain) if suffix else plain)

    for part in ranges_of((str(path),), "utf-8", 97):
        for lines, first in lists_of(part, "utf-8", lambda: 3):
            for index, line in enumerate(lines):
                assert place_of(first, index) == f"{path}, {line}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_each_list_may_have_another_length(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "words.txt", "a\nb\nc\nd\ne\nf\n".encode(encoding))
    (part,) = ranges_of((str(path),), encoding, 1_000)
    sizes = iter([1, 3, 2])

    lists = list(lists_of(part, encoding, lambda: next(sizes)))

    assert [lines for lines, _ in lists] == [["a"], ["b", "c", "d"], ["e", "f"]]
    assert [place_of(first, 0) for _, first in lists] == [f"{path}, line {number}" for number in (1, 2, 5)]


def test_the_place_is_also_known_where_the_bytes_say_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "words.txt", "a\nb\nc".encode("utf-16"))
    (part,) = ranges_of((str(path),), "utf-16", 1)

    assert list(lists_of(part, "utf-16", lambda: 2)) == [
        (["a", "b"], LinePlace(str(path), 1)),
        (["c"], LinePlace(str(path), 3)),
    ]
    assert place_of(LinePlace(str(path), 3), 0) == f"{path}, line 3"


def test_the_place_of_a_line_in_a_file_that_has_gone(tmp_path: Path) -> None:
    assert place_of(FilePlace(str(tmp_path / "gone"), 40, 2), 3) == f"{tmp_path}/gone, 5 lines behind byte 40"


@pytest.mark.parametrize(("encoding", "line"), [("utf-8", 3), ("utf-16", 3)])
def test_a_line_that_does_not_decode_is_found(tmp_path: Path, encoding: str, line: int) -> None:
    content = b"a\nb\n\xff\nc\n" if encoding == "utf-8" else "a\nb\n".encode(encoding) + b"\x00\xd8\x00\xd8"
    path = written(tmp_path / "words.txt", content)

    with pytest.raises(UnreadableLineError) as raised:
        read(path, encoding=encoding)

    assert isinstance(raised.value.__cause__, UnicodeDecodeError)
    assert place_of(raised.value.first, raised.value.index) == f"{path}, line {line}"
