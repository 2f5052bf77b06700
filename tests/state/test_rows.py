from __future__ import annotations

from contextlib import closing

from broadway_py.state.rows import enroll, store
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.store import Commit
from tests.state.conftest import REVENUE
from tests.support.noted_statements import noting


def test_checkpoints_of_all_sizes_and_aggregators_need_few_statements() -> None:
    names = ("one", "two", "three")
    counts = range(1, 520, 11)
    with closing(noting(STATE_SCHEMA)) as connection:
        tables, _ = enroll(connection, "test", dict.fromkeys(names, REVENUE), None)
        for number, count in enumerate(counts, 1):
            rows = [(bucket, b"row", 1) for bucket in range(count)]
            results = [(number * 1_000 + one, b"{}\n[]", 1) for one in range(count)]
            for name in names:
                store(connection, tables[name], Commit(name, number, b"{}", appended=rows, results=results))

        assert len(connection.statements) < 60
        found = connection.execute(
            "SELECT aggregator, count(*), (SELECT count(*) FROM results WHERE results.aggregator = rows.aggregator) "
            "FROM accumulators AS rows GROUP BY aggregator"
        )
        assert list(found) == [(tables[name].id, sum(counts), sum(counts)) for name in names]
