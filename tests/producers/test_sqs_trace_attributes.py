"""Which headers of a trace become message attributes of SQS."""

from __future__ import annotations

import pytest

from broadway_py.producers.sqs.trace_attributes import fitting

W3C = {"traceparent": "p" * 55, "tracestate": "a=b", "baggage": "tenant=blue"}
#: What the three weigh: names, the word String, values.
PARENT, STATE, BAGGAGE = 11 + 6 + 55, 10 + 6 + 3, 7 + 6 + 11
B3 = {"x-b3-traceid": "1", "x-b3-spanid": "2"}


@pytest.mark.parametrize(
    ("attributes", "room", "found"),
    [
        (7, PARENT + STATE + BAGGAGE, ["traceparent", "tracestate", "baggage"]),
        (8, 1_000, ["traceparent", "tracestate"]),
        (9, 1_000, ["traceparent"]),
        (10, 1_000, []),
        (0, PARENT + STATE + BAGGAGE - 1, ["traceparent", "tracestate"]),
        (0, PARENT + STATE - 1, ["traceparent"]),
        (0, PARENT - 1, []),
    ],
)
def test_what_does_not_fit_is_left_out_the_least_important_first(attributes: int, room: int, found: list[str]) -> None:
    assert list(fitting(W3C, attributes, room)) == found


def test_the_state_does_not_go_without_the_parent() -> None:
    assert fitting({"tracestate": "a=b", "baggage": "tenant=blue"}, 9, 1_000) == {}


@pytest.mark.parametrize(("attributes", "found"), [(8, B3), (9, {})])
def test_headers_of_other_formats_go_together_or_not_at_all(attributes: int, found: dict[str, str]) -> None:
    assert fitting(B3, attributes, 1_000) == found


def test_a_value_weighs_as_many_bytes_as_it_has_in_utf_8() -> None:
    assert fitting({"baggage": "é"}, 0, 7 + 6 + 2) == {"baggage": "é"}
    assert fitting({"baggage": "é"}, 0, 7 + 6 + 1) == {}
