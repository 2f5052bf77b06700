"""What a stored result says about itself, without the types of its aggregator."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.aggregation.outcome import Result
from broadway_py.pipeline.aggregation.records import Records, ResultFacts, facts_of
from broadway_py.state.codec import Codec


@pytest.mark.parametrize(
    ("key_type", "key"),
    [(str, "de"), (str, 'a,b]"\n[7,8,'), (int, -3), (tuple[str, int], ("x,1", 2)), (float, float("inf")), (bool, True)],
)
@pytest.mark.parametrize("value", [[], ["a,b", "]]", "\n"]])
def test_facts_are_read_whatever_the_key_and_the_value_are(key_type: Any, key: Any, value: list[str]) -> None:
    codec: Codec[Any, Any] = Codec(key_type, list[str])
    records = Records("sums", codec, lambda _, value: value, 1)
    result = Result(4, "60_120", key, 60, 120, value, 17, 3, "late", is_last=False, replaces=("0_60",))
    name, content = records.result(result)

    assert facts_of(content) == ResultFacts(name, 3, "late", 120)
