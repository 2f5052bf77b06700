"""Merges the users' metrics of several processes into one list. The meaning of each decides how it is added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

__all__ = ["depart_metrics", "label_worker", "merge_metrics", "speaks_of_process"]

_LASTING: Final = frozenset({"counter", "histogram", "summary"})


def merge_metrics(groups: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Returns the users' metrics of several processes as one list: samples with equal labels are added up.

    Gauges are added too (the size of a pool, a number of open files). A process that needs its own value must add its
    own label.
    """
    families: dict[tuple[str, str], Metric] = {}
    sums: dict[tuple[str, str], dict[tuple[str, tuple[tuple[str, str], ...]], float]] = defaultdict(dict)
    for family in (family for group in groups for family in group):
        key = (family.name, family.type)
        if key not in families:
            families[key] = Metric(family.name, family.documentation, family.type, family.unit)
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue  # the time of one process says nothing about a sum
            series = (sample.name, tuple(sorted(sample.labels.items())))
            before = sums[key].get(series, 0.0)
            sums[key][series] = sample.value if family.type in ("info", "stateset") else before + sample.value
    for key, series_of in sums.items():
        families[key].samples = [Sample(name, dict(labels), value) for (name, labels), value in series_of.items()]
    return list(families.values())


def depart_metrics(last: Iterable[Metric]) -> list[Metric]:
    """Returns what is kept of the metrics of a process that is gone: those that only grow."""
    return [family for family in last if family.type in _LASTING and not speaks_of_process(family)]


def label_worker(family: Metric, worker: str) -> Metric:
    """Returns *family* with the label ``worker`` if it is about one process (memory, open files, …), else unchanged."""
    if not speaks_of_process(family):
        return family
    labelled = Metric(family.name, family.documentation, family.type, family.unit)
    labelled.samples = [
        Sample(sample.name, {**sample.labels, "worker": worker}, sample.value) for sample in family.samples
    ]
    return labelled


def speaks_of_process(family: Metric) -> bool:
    """Returns True for memory, open files, garbage collection and the like, whose sums would mislead."""
    return family.name.startswith(("process_", "python_"))
