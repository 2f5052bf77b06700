"""The four ways count the same, and the flows of the talk give its numbers."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from broadway_py.examples import wordcount
from broadway_py.examples.wordcount import Counts

WAYS = [wordcount.in_memory, wordcount.lazily, wordcount.split_side_by_side, wordcount.with_flow]


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(wordcount.text(200)))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_each_way_counts_every_word(way: Callable[[Path], Counts], made_up: Path) -> None:
    assert way(made_up) == Counter(made_up.read_text().split())


def test_one_seed_makes_the_same_text_with_a_few_frequent_words() -> None:
    words = Counter(" ".join(wordcount.text(200)).split())

    assert list(wordcount.text(20)) == list(wordcount.text(20)) != list(wordcount.text(20, seed=2))
    assert sum(words.values()) == 2_000
    assert words["word0"] > 100 > words["word20"]


def test_a_list_of_all_words_needs_more_memory_than_a_generator(made_up: Path) -> None:
    whole, lazy = (wordcount.measured(way, made_up) for way in (wordcount.in_memory, wordcount.lazily))

    assert whole.counts == lazy.counts
    assert whole.most_bytes > 1.5 * lazy.most_bytes
    assert min(whole.seconds, lazy.seconds) > 0
    assert not tracemalloc.is_tracing()


def test_without_partition_a_word_is_counted_in_each_stage() -> None:
    assert sorted(wordcount.unpartitioned()) == [
        ("are", 1),
        ("are", 1),
        ("blue", 1),
        ("red", 1),
        ("roses", 1),
        ("violets", 1),
    ]


def test_with_partition_a_word_is_counted_once() -> None:
    assert sorted(wordcount.partitioned()) == [("are", 2), ("blue", 1), ("red", 1), ("roses", 1), ("violets", 1)]


def test_the_last_window_of_ten_numbers_is_empty() -> None:
    assert wordcount.sums_of_ten().to_list() == [55, 155, 255, 355, 455, 555, 655, 755, 855, 955, 0]


def test_a_window_emits_what_is_asked_for() -> None:
    counts = {"roses": 1, "are": 2, "red": 1, "violets": 1, "blue": 1}

    assert {name: flow.to_list() for name, flow in wordcount.endings().items()} == {
        'emit("events")': list(counts.items()),
        'emit("state")': [counts],
        'emit("nothing")': [],
        "on_trigger(told)": ["stage 0, done: 5 words"],
    }


async def test_a_flow_runs_in_the_background() -> None:
    report = await wordcount.in_background()

    assert (report.elements_in, report.elements_out) == (2, 6)


def test_the_program_says_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    wordcount.main(["--lines", "50", "--runner", "threads"])

    said = capsys.readouterr().out
    for part in ("list: ", "generator: ", "split: ", "flow: ", "500 words", "most often: word0"):
        assert part in said
    assert wordcount.unpartitioned().explain() in said
    assert wordcount.partitioned().explain() in said
    assert "are 1, are 1, blue 1" in said
    assert "are 2, blue 1" in said
    assert "955, 0]" in said
    assert "2 lines went in, 6 words came out" in said


async def test_the_program_runs_in_a_notebook_where_a_loop_is_running(capsys: pytest.CaptureFixture[str]) -> None:
    wordcount.main(["--lines", "10"])

    assert capsys.readouterr().out.endswith("start() and wait(): 2 lines went in, 6 words came out\n")


def test_the_program_counts_a_file_that_it_is_given(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wordcount.main([str(made_up)])

    assert f"the words of text.txt, {made_up.stat().st_size:,} bytes" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        wordcount.main([str(tmp_path / "no.txt")])

    assert capsys.readouterr().err.endswith(f"error: there is no file {tmp_path}/no.txt\n")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit, match="2"):
        wordcount.main([str(picture)])

    assert capsys.readouterr().err.endswith(f"error: the file {picture} is not text in UTF-8\n")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        wordcount.main(["--help"])

    said = capsys.readouterr().out
    for part in ("generator", "partition()", "things to try", "--runner threads", "docs/flow.md"):
        assert part in said
