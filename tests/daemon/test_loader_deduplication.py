"""``deduplicate_by`` and its state in settings files: read, and each mistake with its file and line."""

from __future__ import annotations

from pathlib import Path

from broadway_py import State
from broadway_py.daemon.pipelines.loader import check_pipelines
from tests.daemon.test_loader import build, refusal, section, settings_of

PLAIN = "tests.daemon.pipelines:Plain"
ONCE = "    deduplicate_by: id\n    state: {path: ids.db, dedup: 1h}\n"


def test_it_is_read_with_its_state(tmp_path: Path) -> None:
    (pipeline,) = build(tmp_path, section(PLAIN, ONCE))

    assert pipeline.deduplicate_by == "id"
    assert pipeline.state == State("ids.db", dedup=3600)


def test_a_later_file_turns_it_off(tmp_path: Path) -> None:
    (pipeline,) = build(tmp_path, section(PLAIN, ONCE), "pipelines: {orders: {deduplicate_by: null}}")

    assert pipeline.deduplicate_by is None


def test_a_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, section(PLAIN, ONCE.replace("by: id", "by: ids"))) == (
        "0.yaml:5: pipelines.orders.deduplicate_by: expected 'id' or null, got 'ids'; a function is written in the "
        "class"
    )


def test_it_needs_a_state(tmp_path: Path) -> None:
    assert refusal(tmp_path, section(PLAIN, "    deduplicate_by: id\n")) == (
        "0.yaml:2: pipelines.orders.state: required with deduplicate_by, but missing: the file that keeps the ids of "
        "handled messages, such as var/shop.db"
    )


def test_several_workers_are_refused(tmp_path: Path) -> None:
    (wrong,) = check_pipelines(settings_of(tmp_path, "workers: 2\n" + section(PLAIN, ONCE)))

    assert str(wrong).replace(f"{tmp_path}/", "") == (
        "0.yaml:6: pipelines.orders.deduplicate_by: a key must have one owner, but 2 workers read the same source; set "
        "workers: 1, leave deduplicate_by out, or part the source (partitions), so that each worker owns some of the "
        "partitions"
    )


def test_two_pipelines_do_not_have_one_file(tmp_path: Path) -> None:
    text = "pipelines:\n" + "".join(
        f"  {name}:\n    class: {PLAIN}\n    producer: {{kind: queue, path: q.db, queue: {name}}}\n{ONCE}"
        for name in ("orders", "returns")
    )
    (wrong,) = check_pipelines(settings_of(tmp_path, text))

    assert str(wrong).replace(f"{tmp_path}/", "") == (
        "0.yaml:11: pipelines.returns.state: the pipeline 'orders' keeps the ids of handled messages in 'ids.db', too, "
        "and a file belongs to one pipeline at a time, so this one would wait until that one ends; choose another path"
    )
