"""A whole system to look at: a RabbitMQ that shows its numbers, two daemons under load, a Prometheus."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiobotocore.session import get_session

from broadway_py.examples.shipments import lines
from tests.deploy.dashboards import DEPLOY
from tests.support.daemon import ROOT, Daemon, daemon
from tests.support.localstack import CREDENTIALS, REGION
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus, program, prometheus
from tests.support.rabbitmq_node import PASSWORD, USER, Node

__all__ = ["System"]

# "orders" and "parcels" read real brokers; "harbour" feeds "shipments" over an embedded queue, at a limited rate.
SETTINGS = """\
pipelines:
  orders:
    class: broadway_py.examples.shipments:Shipments
    producer: {{kind: rabbitmq, queue: orders, declare: active, url: "{url}"}}
    processors: {{concurrency: 2}}
    batchers: {{default: {{batch_size: 10, batch_timeout: 200ms}}}}
    publishers: {{out: {{kind: queue, path: out.db, queue: out}}}}
  harbour:
    class: broadway_py.examples.shipments:Harbour
    context: {{path: queue.db, queue: shipments}}
    rate_limit: {{allowed_messages: 200, interval: 1s}}
  shipments:
    class: broadway_py.examples.shipments:Shipments
    producer: {{kind: queue, path: queue.db, queue: shipments}}
  parcels:
    class: broadway_py.examples.shipments:Shipments
    producer: {{kind: sqs, queue_url: "{queue}", region: {region}, wait_time_seconds: 1}}
    batchers: {{default: {{batch_size: 10, batch_timeout: 200ms}}}}
workers: 2
"""

# A process of its own, because a pipeline with aggregators has no second worker.
WINDOWS = """\
pipelines:
  tills:
    class: broadway_py.examples.revenue:Tills
    context: {path: orders.db, queue: orders}
  sales:
    class: broadway_py.examples.revenue:Sales
    producer: {kind: queue, path: orders.db, queue: orders}
    state: windows.db
"""


@dataclass(frozen=True, slots=True)
class System:
    """What the fixture ``system`` runs. *daemon* has two workers; another one, which is scraped too, has windows."""

    daemon: Daemon
    prometheus: Prometheus


@contextmanager
def showing_numbers(node: Node) -> Iterator[int]:
    """The port at which the node's Prometheus plugin answers, while the block runs."""
    plugins, port = node.directory / "plugins", free_port()
    before = plugins.read_text()
    # Loaded first: else loading it at the start would put its own settings in the place of these.
    node.ask(
        "application:load(rabbitmq_prometheus), "
        f'application:set_env(rabbitmq_prometheus, tcp_config, [{{ip, "127.0.0.1"}}, {{port, {port}}}])'
    )
    plugins.write_text(before.replace("].", ", rabbitmq_prometheus]."))
    node.ask(f'rabbit_plugins:ensure("{plugins}")')
    try:
        yield port
    finally:
        plugins.write_text(before)
        node.ask(f'rabbit_plugins:ensure("{plugins}")')


@contextmanager
def fed(settings: Path, pipeline: str) -> Iterator[None]:
    """Shipments for *pipeline*, one in twenty broken, a few hundred each second while the block runs."""
    made, done = lines(1, broken=0.05), threading.Event()
    feeder = subprocess.Popen(
        [sys.executable, "-m", "broadway_py", "send", str(settings), "--pipeline", pipeline],
        cwd=settings.parent,
        env={"PYTHONPATH": str(ROOT), **CREDENTIALS},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )

    def feed() -> None:
        assert feeder.stdin is not None
        with feeder.stdin as pipe:
            while not done.wait(0.5):
                pipe.write("".join(f"{line}\n" for line in itertools.islice(made, 250)).encode())
                pipe.flush()

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        feeder.wait(30)


def scraping(targets: dict[str, list[str]], alertmanager: str | None = None) -> dict[str, Any]:
    """The configuration of deploy/, as it is but for the addresses, and looking each second.

    Without the address of an *alertmanager* it sends its alerts nowhere.
    """
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (receiver,) = config["alerting"]["alertmanagers"]
    receiver["static_configs"] = [{"targets": [] if alertmanager is None else [alertmanager]}]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    return config


async def with_queue(endpoint: str) -> str:
    """The URL of a new queue at *endpoint*."""
    async with get_session().create_client(
        "sqs",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    ) as client:
        answer = await client.create_queue(QueueName=f"parcels-{uuid.uuid4().hex[:12]}")
        # The host in it is LocalStack's own name.
        return f"{endpoint}/{answer['QueueUrl'].split('/', 3)[3]}"


@pytest.fixture(scope="module")
def system(rabbitmq_node: Node | None, sqs_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if rabbitmq_node is None:
        pytest.skip("the broker in BROADWAY_TEST_AMQP_URL may show no metrics: these tests start one of their own")
    program("prometheus")
    folder = tmp_path_factory.mktemp("system")
    settings = folder / "settings.yaml"
    url, queue = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{rabbitmq_node.port}/", asyncio.run(with_queue(sqs_endpoint))
    settings.write_text(SETTINGS.format(url=url, queue=queue, region=REGION))
    rules = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    windows = folder / "windows.yaml"
    windows.write_text(WINDOWS)
    with (
        showing_numbers(rabbitmq_node) as port,
        daemon(folder, settings, environ=CREDENTIALS) as running,
        daemon(folder, windows) as with_windows,
    ):
        daemons = [running, with_windows]
        for one in daemons:
            one.until_ready()
        broker = [f"127.0.0.1:{port}"]
        addresses = {
            "broadway": [one.url.removeprefix("http://") for one in daemons],
            "rabbitmq": broker,
            "rabbitmq_queues": broker,
        }
        with (
            fed(settings, "orders"),
            fed(settings, "parcels"),
            prometheus(folder, scraping(addresses), rules) as server,
        ):
            yield System(running, server)
