from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.daemon.reload.difference import Difference, difference, refusals
from broadway_py.daemon.reload.resolved import Resolved, keeping, resolved
from broadway_py.daemon.settings.settings import Log, Settings, read_settings

ORDERS = {"class": "shop:Orders", "producer": {"kind": "queue", "path": "q.db", "queue": "orders"}}
REFUNDS = {"class": "shop:Refunds", "producer": {"kind": "queue", "path": "q.db", "queue": "refunds"}}


def read(folder: Path, text: object, *assignments: str, environ: Mapping[str, str] | None = None) -> Settings:
    file = folder / "settings.yaml"
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return read_settings([file], assignments=assignments, environ=environ or {})


def at(folder: Path, text: object, *assignments: str, environ: Mapping[str, str] | None = None) -> Resolved:
    return resolved(read(folder, text, *assignments, environ=environ))


def names(found: Difference) -> dict[str, tuple[str, ...]]:
    kinds = {"unchanged": found.unchanged, "changed": found.changed, "new": found.new, "gone": found.gone}
    return {kind: some for kind, some in kinds.items() if some}


def test_each_pipeline_is_unchanged_changed_new_or_gone(tmp_path: Path) -> None:
    before = at(tmp_path, {"pipelines": {"orders": ORDERS, "refunds": REFUNDS, "old": ORDERS}})
    changed = {**REFUNDS, "processors": {"concurrency": 3}}
    after = at(tmp_path, {"pipelines": {"new": ORDERS, "refunds": changed, "orders": ORDERS}})
    assert difference(before, after) == Difference(
        unchanged=("orders",),
        changed=("refunds",),
        new=("new",),
        gone=("old",),
        log=False,
        http=False,
        workers=(1, 1),
    )


def test_a_pipeline_is_known_by_its_name_and_not_by_its_key(tmp_path: Path) -> None:
    before = at(tmp_path, {"pipelines": {"orders": ORDERS}})
    under_another_key = at(tmp_path, {"pipelines": {"shop": {**ORDERS, "name": "orders"}}})
    assert names(difference(before, under_another_key)) == {"unchanged": ("orders",)}
    renamed = at(tmp_path, {"pipelines": {"orders": {**ORDERS, "name": "shop"}}})
    assert names(difference(before, renamed)) == {"new": ("shop",), "gone": ("orders",)}


def test_the_place_and_the_order_of_a_setting_do_not_count(tmp_path: Path) -> None:
    before = at(tmp_path, "pipelines:\n  orders: {class: a:B, own: '0-3', processors: {concurrency: 3, max_demand: 4}}")
    for text in (
        "pipelines:\n\n  orders:\n    processors: {max_demand: 4, concurrency: 3}\n    own: 0-3\n    class: a:B",
        "pipelines:\n  orders: &o {own: 0-3, processors: {max_demand: 4, concurrency: 3}, class: a:B}\nworkers: 1",
    ):
        assert names(difference(before, at(tmp_path, text))) == {"unchanged": ("orders",)}


@pytest.mark.parametrize(
    ("environ", "kind"), [({"N": "3"}, "unchanged"), ({"N": "4"}, "changed"), ({"N": "3.0"}, "changed")]
)
def test_a_variable_counts_by_its_value(tmp_path: Path, environ: dict[str, str], kind: str) -> None:
    section = "pipelines:\n  orders:\n    class: a:B\n    processors:\n      concurrency: %s"
    before = at(tmp_path, section % "3")
    assert names(difference(before, at(tmp_path, section % "${N}", environ=environ))) == {kind: ("orders",)}
    again = at(tmp_path, section % "${N}", environ={"N": "3"})
    assert names(difference(again, at(tmp_path, section % "${N}", environ=environ))) == {kind: ("orders",)}


def test_a_section_given_as_text_counts_by_its_value(tmp_path: Path) -> None:
    text = {"pipelines": {"orders": {"class": "a:B", "processors": {"concurrency": 3}}}}
    as_text = at(tmp_path, {"pipelines": {"orders": {"class": "a:B"}}}, "pipelines.orders.processors={concurrency: 3}")
    assert names(difference(at(tmp_path, text), as_text)) == {"unchanged": ("orders",)}


@pytest.mark.parametrize(("old", "new"), [("1", "1.0"), ("1", "true"), ("'1'", "1"), ("[1, 2]", "[2, 1]"), ("~", "''")])
def test_values_of_other_types_or_in_another_order_differ(tmp_path: Path, old: str, new: str) -> None:
    section = "pipelines:\n  orders: {class: a:B, context: {x: %s}}"
    before, after = at(tmp_path, section % old), at(tmp_path, section % new)
    assert names(difference(before, after)) == {"changed": ("orders",)}
    assert names(difference(after, after)) == {"unchanged": ("orders",)}


def test_not_a_number_is_no_change_and_what_is_nested_too_deeply_to_compare_is_one(tmp_path: Path) -> None:
    section = "pipelines:\n  orders: {class: a:B, context: {x: .nan}}"
    assert names(difference(at(tmp_path, section), at(tmp_path, section))) == {"unchanged": ("orders",)}
    first, second = (Settings({"orders": {"context": nested(2_000)}}, 1, None, Log(), {}) for _ in range(2))
    assert names(difference(resolved(first), resolved(second))) == {"changed": ("orders",)}


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("place", ["producer", "publishers", "list"])
def test_a_secret_that_was_written_anew_changes_the_pipelines_that_name_it(tmp_path: Path, place: str) -> None:
    secret = tmp_path / "url"
    named = {"kind": "rabbitmq", "queue": "orders", "url_file": str(secret)}
    places: dict[str, dict[str, Any]] = {
        "producer": {"producer": named},
        "publishers": {"publishers": {"out": named}},
        "list": {"producer": [ORDERS["producer"], named]},
    }
    section = {"class": "a:B", **places[place]}
    settings = read(tmp_path, {"pipelines": {"orders": section, "refunds": REFUNDS}})
    secret.write_text("amqp://one")
    before = resolved(settings)
    assert names(difference(before, resolved(settings))) == {"unchanged": ("orders", "refunds")}
    secret.write_text("amqp://two")
    after = resolved(settings)
    assert names(difference(before, after)) == {"unchanged": ("refunds",), "changed": ("orders",)}
    secret.unlink()
    assert names(difference(after, resolved(settings))) == {"unchanged": ("refunds",), "changed": ("orders",)}
    assert "amqp" not in repr(before.marks)


def test_log_http_and_workers_are_told(tmp_path: Path) -> None:
    text = {"pipelines": {"orders": ORDERS}}
    before = at(tmp_path, text)
    after = at(tmp_path, {**text, "log": {"level": "debug"}, "http": None, "workers": 3})
    found = difference(before, after)
    assert (found.log, found.http, found.workers) == (True, True, (1, 3))
    defaults = at(tmp_path, {**text, "log": {}, "http": {"port": 8080}})
    same = difference(before, defaults)
    assert (same.log, same.http, same.workers) == (False, False, (1, 1))


def test_what_needs_a_restart_is_refused(tmp_path: Path) -> None:
    text = {"pipelines": {"orders": ORDERS}}

    def refused(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        found = difference(at(tmp_path, {**text, **before}), at(tmp_path, {**text, **after}))
        return [str(one) for one in refusals(found)]

    http = "http: a change of this section takes effect at a restart only; put it back to reload the others"
    assert refused({"log": {"level": "debug"}}, {"pipelines": {"refunds": REFUNDS}}) == []
    assert refused({"workers": 2}, {"workers": 5}) == []
    assert refused({}, {"http": {"port": 1}}) == [http]
    for before, after in ((1, 2), (2, 1)):
        assert refused({"workers": before}, {"workers": after, "http": None}) == [
            http,
            (
                f"workers: a change from {before} to {after} takes effect at a restart only, because pipelines move "
                "into other processes; put it back to reload the others"
            ),
        ]


def test_what_could_not_start_stays_as_it_was_for_the_next_reload(tmp_path: Path) -> None:
    old = at(tmp_path, {"pipelines": {"a": ORDERS, "b": ORDERS}})
    new = at(tmp_path, {"pipelines": {"x": {**REFUNDS, "name": "a"}, "b": REFUNDS, "c": REFUNDS}, "log": {}})
    now = keeping(old, new, {"a", "c"})
    assert names(difference(now, new)) == {"unchanged": ("b",), "changed": ("a",), "new": ("c",)}
    assert names(difference(now, old)) == {"unchanged": ("a",), "changed": ("b",)}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=10,
    )
)
def test_a_section_equals_itself(context: object) -> None:
    settings = Settings({"orders": {"class": "a:B", "context": context}}, 1, None, Log(), {})
    assert names(difference(resolved(settings), resolved(settings))) == {"unchanged": ("orders",)}
