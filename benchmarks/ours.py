"""How ours is run when it is measured: as it ships, from a settings file, with its metrics scraped each second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest

from broadway_py import Pipeline
from broadway_py.daemon.process.collector import quieten_collector
from broadway_py.daemon.settings.settings import Settings, read_settings
from broadway_py.metrics import PipelineCollector

__all__ = ["PACKAGES", "all_acked", "scraped", "settings_of"]

CONFIG: Final = Path(__file__).parent / "config"
#: Whose versions belong to a measurement of ours.
PACKAGES: Final = ("broadway-py", "pydantic", "prometheus-client")
_SCRAPE_S: Final = 1.0


def settings_of(file: str, environ: Mapping[str, str]) -> Settings:
    """The settings in ``benchmarks/config/<file>``, read as the daemon reads them at its start."""
    # It does this, too, once. Like imports it is no part of the work, in the peers' programs either.
    quieten_collector()
    return read_settings([CONFIG / file], environ=environ)


@asynccontextmanager
async def scraped(pipeline: Pipeline[Any]) -> AsyncIterator[None]:
    """Run the block while Prometheus, so to speak, asks for the metrics of *pipeline* each second."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(lambda: [pipeline.stats()]))
    scraping = asyncio.create_task(_scrape(registry), name="scrape")
    try:
        yield
    finally:
        scraping.cancel()
        await asyncio.wait({scraping})
        generate_latest(registry)


async def _scrape(registry: CollectorRegistry) -> None:
    while True:
        await asyncio.sleep(_SCRAPE_S)
        generate_latest(registry)


def all_acked(pipeline: Pipeline[Any], messages: int) -> None:
    """Raises RuntimeError unless the pipeline's own books agree: *messages* came in, and each was acked."""
    received = sum(producer.received for producer in pipeline.stats().producers)
    acked = sum(producer.outcomes.get("acked", 0) for producer in pipeline.stats().producers)
    if (received, acked) != (messages, messages):
        raise RuntimeError(f"expected {messages} messages, all acked; the books say {received} received, {acked} acked")
