"""Ours: messages of this process through a whole pipeline of ``benchmarks/config/memory.yaml``."""

from __future__ import annotations

from benchmarks.measure import Ids, Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.sdk import MODES, set_up
from broadway_py import Pipeline
from broadway_py.daemon.pipelines.loader import pipeline_class
from broadway_py.producers import MemoryProducer


def build(name: str, messages: int, *, tracing: bool = False) -> Pipeline[int]:
    """The pipeline of that name, with a source of *messages* ids."""
    section = {**settings_of("memory.yaml", {}).pipelines[name], "tracing": tracing}
    made = pipeline_class(section.pop("class"), ("pipelines", name, "class"))
    return made.from_settings(section, name=name, producer=MemoryProducer(range(messages)))


async def measure(name: str, messages: int, *, gate: bool, tracing: bool = False) -> None:
    """Run the pipeline once, until its source has ended and everything is settled, and print the measurement."""
    pipeline = build(name, messages, tracing=tracing)
    ids = pipeline.ids = Ids(messages)  # type: ignore[attr-defined]  # every pipeline in that file has it
    meter = Meter(gate=gate)
    async with pipeline, scraped(pipeline):
        await pipeline.wait()
    ids.check()
    all_acked(pipeline, messages)
    meter.report(name, messages, *PACKAGES)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("pipeline", help="its name in the settings file")
    parser.add_argument("--tracing", choices=MODES, default="off", help="whether it makes traces (off)")
    asked = parser.parse_args()
    tracing = set_up(asked.tracing)
    run_async(measure(asked.pipeline, asked.messages, gate=asked.gate, tracing=tracing))
