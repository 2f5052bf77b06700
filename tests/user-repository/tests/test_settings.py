"""The settings of each place, checked as the daemon does. This imports the client libraries of the brokers."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import Fakes, order

from broadway_py import OptionsError
from broadway_py.testing import Harnesses, harness

SETTINGS = Path(__file__).parents[1] / "settings"


@pytest.mark.parametrize(
    ("file", "environ", "attempts"),
    [
        ("rabbitmq.yaml", {"AMQP_URL": "amqp://shop:secret@broker/"}, 5),
        (
            "sqs.yaml",
            dict.fromkeys(("QUEUE_URL", "ACCEPTED_URL"), "https://sqs.eu-central-1.amazonaws.com/1/orders"),
            4,
        ),
    ],
)
async def test_the_settings_of_each_place(
    broadway: Harnesses, file: str, environ: dict[str, str], attempts: int
) -> None:
    services = Fakes()
    services.store.broken = 99
    h = broadway.from_settings(SETTINGS / file, environ=environ, context=services)
    async with h:
        await h.send(order(1, delivery="download"), id="a")
        await h.advance(60)
        assert h.outcomes["a"].attempt == attempts


def test_a_variable_that_is_missing_is_told() -> None:
    with pytest.raises(OptionsError, match=r"rabbitmq\.yaml:4: pipelines\.orders\.producer\.url: .*AMQP_URL"):
        harness.from_settings(SETTINGS / "rabbitmq.yaml", context=Fakes())
