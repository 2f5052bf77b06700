"""The generator of the composed system, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.dashboards import DEPLOY
from tests.support.daemon import daemon
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

# It publishes and consumes nothing: one way to take deliveries off the socket is enough.
pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("plain")]


async def test_the_generator_feeds_the_queue_that_a_pipeline_reads_and_goes_on_once_it_is_there(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    fed = tmp_path / "rabbitmq.yaml"
    producer = {"kind": "rabbitmq", "queue": "shipments", "url": rabbitmq.url}
    fed.write_text(yaml.safe_dump({"pipelines": {"shipments": {"class": "unused:Class", "producer": producer}}}))
    section = yaml.safe_load((DEPLOY / "generator" / "generator.yaml").read_text())["pipelines"]["to-rabbitmq"]
    section["context"]["settings"] = str(fed)
    settings = tmp_path / "generator.yaml"
    settings.write_text(yaml.safe_dump({"pipelines": {"to-rabbitmq": section}}))

    with daemon(DEPLOY / "generator", settings, environ={"PYTHONDONTWRITEBYTECODE": "1"}) as running:
        # The queue is not there yet: what cannot be sent is forgotten.
        failed = running.until_logged("a message failed")
        assert "no queue 'shipments'" in failed["reason"]
        await rabbitmq.declare("shipments")

        async def waiting() -> bool:
            return (await rabbitmq.counts("shipments")).ready > 100

        await eventually(waiting, timeout=30, what="a hundred shipments are on the queue")
        assert running.terminated()[0] == 0
