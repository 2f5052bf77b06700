"""``broadway windows``: looking at the file of open windows."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broadway_py._core.aggregation.outcome import Results
from broadway_py.cli import app
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.aggregation.result_rows import rows_of
from broadway_py.state.codec import Codec
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import AggregatorFacts, Commit

FACTS = {
    "revenue": AggregatorFacts(1, "fixed windows of 60 s", "str", "int"),
    "visits": AggregatorFacts(1, "sessions of 300 s", "str", "int"),
}
MINUTE = 60_000_000
START = 1_764_460_800_000_000


def windows(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["windows", *map(str, arguments)])


async def fill(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open(FACTS)
    for number in (1, 2):
        appended = [(START, b"canary" * 100, 20), (START + number * MINUTE, b"x" * 10, 1)]
        await store.commit(
            Commit("revenue", number, b"{}", appended, identities=bytes(32), results=[(number, b"canary", 1)])
        )
    await store.commit(Commit("visits", 1, b"{}", [(17, b"canary", 1_200)]))
    await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path / "shop.db"))
    return tmp_path / "shop.db"


@pytest.mark.parametrize("command", ["ls", "show", "results", "close", "remove", "verify", "backup"])
def test_every_command_teaches_with_examples(command: str) -> None:
    shown = windows(command, "--help")
    assert shown.exit_code == 0
    assert "Examples" in shown.stdout
    assert f"broadway windows {command} " in shown.stdout


def test_ls_lists_the_aggregators_without_keys_and_values(path: Path) -> None:
    listed = windows("ls", path)

    assert listed.exit_code == 0
    assert listed.stdout.splitlines() == [
        "aggregator  windows                checkpoint  buckets  accumulators  size     identities  results due  note",
        "revenue     fixed windows of 60 s  2           3        42            1,220 B  4           2",
        "visits      sessions of 300 s      1           1        1,200         6 B      0           0",
        f"the file has {path.stat().st_size:,} B, of which 0 B are free",
    ]


def test_ls_of_a_new_file_says_that_there_is_nothing(tmp_path: Path) -> None:
    async def make() -> None:
        store = SQLiteStore(tmp_path / "new.db")
        await store.open({})
        await store.close()

    asyncio.run(make())

    assert windows("ls", tmp_path / "new.db").stdout.splitlines()[0] == "no aggregators"


def test_an_aggregator_that_the_pipeline_has_not_is_unused_and_can_be_removed(path: Path) -> None:
    async def start() -> None:
        store = SQLiteStore(path)
        await store.open({"visits": FACTS["visits"]})
        await store.close()

    refused = windows("remove", path, "revenue")
    assert refused.exit_code == 1
    assert "the pipeline had the aggregator 'revenue' when it started last; nothing was changed" in refused.stderr
    asyncio.run(start())

    assert windows("ls", path).stdout.splitlines()[1].endswith("  unused")
    assert windows("remove", path, "revenue").stdout == "revenue is removed\n"
    assert [line.split()[0] for line in windows("ls", path).stdout.splitlines()[1:-1]] == ["visits"]


def test_show_lists_the_windows_by_their_start(path: Path) -> None:
    assert windows("show", path, "revenue").stdout.splitlines() == [
        "start                 rows  accumulators  size     last checkpoint",
        "2025-11-30T00:00:00Z  2     40            1,200 B  2",
        "2025-11-30T00:01:00Z  1     1             10 B     1",
        "2025-11-30T00:02:00Z  1     1             10 B     2",
    ]
    assert windows("show", path, "visits").stdout.splitlines() == [
        "start  rows  accumulators  size  last checkpoint",
        "17     1     1,200         6 B   1",
    ]


def test_an_unknown_aggregator_is_named_with_the_known_ones(path: Path) -> None:
    refused = windows("show", path, "revenu")

    assert refused.exit_code == 1
    assert refused.stderr == (
        f"broadway: state file {path}: it has no aggregator 'revenu', but revenue, visits; did you mean 'revenue'?\n"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused = windows("ls", tmp_path / "no.db")

    assert refused.exit_code == 1
    assert refused.stderr == (
        f"broadway: state file {tmp_path / 'no.db'}: there is no such file: give the path in `state` of the pipeline\n"
    )


def test_verify_says_what_is_damaged(path: Path) -> None:
    assert windows("verify", path).stdout == "nothing is damaged\n"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE accumulators SET entries = 7 WHERE bucket = 17")
    found = windows("verify", path)

    assert found.exit_code == 1
    assert found.stdout == "aggregator 'visits': its accumulators of bucket 17, checkpoint 1, are damaged\n"
    assert found.stderr == (
        f"broadway: {path} is damaged in 1 place: stop everything that uses it and restore it from a backup\n"
    )


def test_backup_writes_a_copy_once(path: Path, tmp_path: Path) -> None:
    to = tmp_path / "copy.db"
    done = windows("backup", path, to)

    assert done.exit_code == 0
    assert done.stdout == f"{to.stat().st_size:,} B written to {to}\n"
    assert windows("ls", to).stdout == windows("ls", path).stdout
    refused = windows("backup", path, to)
    assert refused.exit_code == 1
    assert refused.stderr == f"broadway: backup {to}: the file exists: choose another path, or remove it\n"


def test_a_backup_of_a_damaged_file_says_so(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE results SET content = x'00'")
    to = tmp_path / "copy.db"
    done = windows("backup", path, to)

    assert done.exit_code == 1
    assert done.stderr == (
        f"broadway: {to} was written, but it is damaged, and so is {path}: see broadway windows verify\n"
    )


async def fill_results(path: Path) -> None:
    codec: Codec[str, str] = Codec(str, str)
    records = Records("revenue", codec, lambda _, value: value, 1)
    due = [
        Results(1, "0_60", START, START + MINUTE, "watermark", False, (), [("de", 5, 1, "canary")]),
        Results(2, "0_60", START, START + MINUTE, "late", True, (), [("de", 6, 2, "canary")]),
        Results(3, "c0", None, None, "count", True, (), [("\x1b[2J", 7, 1, "canary")]),
    ]
    store = SQLiteStore(path)
    await store.open(FACTS)
    _, stored = await rows_of(records, due, is_stored=True)
    await store.commit(Commit("revenue", 1, b"{}", [], results=stored))
    await store.close()


@pytest.fixture
def late(tmp_path: Path) -> Path:
    """A file with three due results. The escape character in a key would clear the terminal."""
    asyncio.run(fill_results(tmp_path / "late.db"))
    return tmp_path / "late.db"


def test_results_lists_what_is_due_with_ids_and_without_values(late: Path) -> None:
    listed = windows("results", late)

    assert listed.exit_code == 0
    assert listed.stdout.splitlines() == [
        "aggregator  number  window end            trigger    size   note  result",
        'revenue     1       2025-11-30T00:01:00Z  watermark  150 B        revenue/0_60/"de"#1',
        'revenue     2       2025-11-30T00:01:00Z  late       144 B        revenue/0_60/"de"#2',
        'revenue     3       none                  count      134 B        revenue/c0/"\\u001b[2J"#1',
    ]


def test_results_says_that_nothing_is_due(open_windows: Path) -> None:
    assert windows("results", open_windows).stdout == "no results are due\n"


def names_of(path: Path) -> list[str]:
    """The last column, which has no blanks in these tests."""
    return [line.split()[-1] for line in windows("results", path).stdout.splitlines()[1:]]


def test_drop_notes_the_named_results_for_the_process_that_has_the_file(late: Path) -> None:
    first, second, third = names_of(late)

    async def drop_beside_the_process() -> tuple[Result, list[int]]:
        store = SQLiteStore(late)
        await store.open(FACTS)
        done = await asyncio.to_thread(windows, "results", late, "--drop", second, "--drop", second)
        unwanted = await store.unwanted("revenue")
        await store.close()
        return done, unwanted

    dropped, unwanted = asyncio.run(drop_beside_the_process())
    assert dropped.exit_code == 0
    assert dropped.stdout == "1 result is removed before the next try, or when the pipeline starts next\n"
    assert unwanted == [2]
    assert names_of(late) == [first, second, third]
    assert windows("results", late).stdout.splitlines()[2] == (
        'revenue     2       2025-11-30T00:01:00Z  late       144 B  dropped  revenue/0_60/"de"#2'
    )
    assert windows("results", late, *(f"--drop={name}" for name in names_of(late))).stdout == (
        "3 results are removed before the next try, or when the pipeline starts next\n"
    )
    assert windows("verify", late).stdout == "nothing is damaged\n"


def test_drop_of_an_unknown_result_drops_nothing(late: Path) -> None:
    first, *_ = names_of(late)
    refused = windows("results", late, "--drop", first, "--drop", "revenue/0_60#7")

    assert refused.exit_code == 1
    assert refused.stderr == f"broadway: no result revenue/0_60#7 is due in {late}; nothing was changed\n"
    assert len(names_of(late)) == 3


async def fill_wishes(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open(FACTS)
    await store.commit(Commit("revenue", 1, b'{"engine":{"shape":"fixed(size=60.0, offset=0.0)"}}', []))
    await store.commit(Commit("visits", 1, b'{"engine":{"shape":"count"}}', []))
    await store.close()


@pytest.fixture
def open_windows(tmp_path: Path) -> Path:
    asyncio.run(fill_wishes(tmp_path / "open.db"))
    return tmp_path / "open.db"


def wish_in(path: Path, aggregator: str) -> object:
    """The wishes of all operators together, without their number."""

    async def ask() -> object:
        store = SQLiteStore(path)
        await store.open(FACTS)
        wish = (await store.load(aggregator)).close_wish
        await store.close()
        return None if wish is None else ("before", wish.before)

    return asyncio.run(ask())


def test_close_asks_for_the_next_start(open_windows: Path) -> None:
    asked = windows("close", open_windows, "--aggregator", "revenue", "--before", "2025-11-30T01:00:00.5+01:00")

    assert asked.exit_code == 0
    assert asked.stdout == (
        "the windows that end by 2025-11-30T01:00:00.5+01:00 of revenue close when the pipeline starts next\n"
    )
    assert wish_in(open_windows, "revenue") == ("before", START + 500_000)
    assert wish_in(open_windows, "visits") is None
    assert windows("verify", open_windows).stdout == "nothing is damaged\n"


def test_close_without_a_time_asks_for_all_windows(open_windows: Path) -> None:
    asked = windows("close", open_windows, "--aggregator", "visits")

    assert asked.stdout == "all windows of visits close when the pipeline starts next\n"
    assert windows("ls", open_windows).stdout.splitlines()[2].endswith("  closes with the next start")
    assert wish_in(open_windows, "visits") == ("before", None)


@pytest.mark.parametrize("time", ["2025-11-30T01:00:00", "yesterday", "17"])
def test_a_time_without_its_zone_is_refused(open_windows: Path, time: str) -> None:
    refused = windows("close", open_windows, "--aggregator", "revenue", "--before", time)

    assert refused.exit_code == 2
    assert refused.stderr == (
        f"broadway: --before: expected a time with its zone, such as 2026-05-01T12:00:00Z, got {time}\n"
    )
    assert wish_in(open_windows, "revenue") is None


def test_windows_of_count_have_no_end_to_close_by(open_windows: Path) -> None:
    refused = windows("close", open_windows, "--aggregator", "visits", "--before", "2025-11-30T01:00:00Z")

    assert refused.exit_code == 2
    assert refused.stderr == ("broadway: --before: windows of count have no end: leave it out; nothing was changed\n")
    assert wish_in(open_windows, "visits") is None


def test_close_names_an_unknown_aggregator(open_windows: Path) -> None:
    refused = windows("close", open_windows, "--aggregator", "revenu")

    assert refused.exit_code == 1
    assert "it has no aggregator 'revenu', but revenue, visits; did you mean 'revenue'?" in refused.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a pipeline with partitions has it. Number 10 comes after 2."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in (0, 2, 10):
        asyncio.run(fill_results(folder / f"{number}.db"))
    (folder / "notes.db").write_text("no state")
    return folder


def test_ls_of_a_folder_says_the_partition(folder: Path) -> None:
    lines = windows("ls", folder).stdout.splitlines()

    assert lines[0].split()[:2] == ["partition", "aggregator"]
    assert [line.split()[:2] for line in lines[1:7]] == [
        [partition, name] for partition in ("0", "2", "10") for name in ("revenue", "visits")
    ]
    assert [line.partition(":")[0] for line in lines[7:]] == ["partition 0", "partition 2", "partition 10"]


def test_show_of_a_folder_says_the_partition(folder: Path) -> None:
    assert windows("show", folder, "revenue").stdout == "no open windows\n"
    asyncio.run(fill(folder / "1.db"))

    assert windows("show", folder, "revenue").stdout.splitlines()[:2] == [
        "partition  start                 rows  accumulators  size     last checkpoint",
        "1          2025-11-30T00:00:00Z  2     40            1,200 B  2",
    ]


def test_results_of_a_folder_are_dropped_by_their_names(folder: Path) -> None:
    lines = windows("results", folder).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["partition", *["0"] * 3, *["2"] * 3, *["10"] * 3]
    windows("results", folder, "--drop", 'revenue/0_60/"de"#2')

    dropped = [line.split()[0] for line in windows("results", folder).stdout.splitlines() if "  dropped  " in line]
    assert dropped == ["0", "2", "10"]


def test_close_and_remove_take_each_file_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for number in range(2):
        asyncio.run(fill_wishes(folder / f"{number}.db"))
    assert windows("close", folder, "--aggregator", "visits").exit_code == 0

    assert [wish_in(folder / f"{number}.db", "visits") for number in range(2)] == [("before", None)] * 2
    assert windows("remove", folder, "visits").exit_code == 1


def test_verify_of_a_folder_says_which_partition_is_damaged(folder: Path) -> None:
    assert windows("verify", folder).stdout == "nothing is damaged\n"
    with closing(sqlite3.connect(folder / "10.db")) as connection, connection:
        connection.execute("UPDATE results SET content = x'00' WHERE sequence = 1")

    assert windows("verify", folder).stdout == "partition 10: aggregator 'revenue': its results 1 to 3 are damaged\n"


def test_a_folder_is_backed_up_into_a_new_folder(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    done = windows("backup", folder, to)

    assert done.exit_code == 0
    copies = sorted(to.glob("*.db"))
    assert [one.name for one in copies] == ["0.db", "10.db", "2.db"]
    assert done.stdout == f"{sum(one.stat().st_size for one in copies):,} B written to {to}\n"
    refused = windows("backup", folder, to)
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"broadway: backup {to}: the folder cannot be created (File exists): choose another path\n"
    )


def test_a_folder_without_state_is_refused(tmp_path: Path) -> None:
    refused = windows("ls", tmp_path)

    assert refused.exit_code == 1
    assert refused.stderr == (
        f"broadway: folder {tmp_path}: it has no file such as 0.db: give the path in `state` of the pipeline\n"
    )
