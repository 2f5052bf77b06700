"""Broadway: producers, processors, batchers, settlement and drain."""

from broadway_py.pipeline.pipeline import DrainReport, Pipeline, Settled, all_running
from broadway_py.pipeline.settlement.settler import ack_immediately
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["DrainReport", "Pipeline", "PipelineStats", "Settled", "ack_immediately", "all_running"]
