"""Which host is asked about a queue, and in which region it is: read out of the queue's URL."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["endpoint_of", "host_of", "is_url", "region_of", "split"]

#: eu-central-1, us-gov-west-1, us-isob-east-1, eusc-de-east-1.
_REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d{1,2}")
#: The labels of a host name that stand right before the region, in every partition of AWS, with FIPS or without, for
#: dual-stack and VPC endpoints, and for LocalStack.
_BEFORE_THE_REGION: Final = frozenset({"sqs", "sqs-fips"})
#: The label right behind it, in the host names of old queues.
_BEHIND_THE_REGION: Final = "queue"
#: The one such host name without a region.
_OLDEST: Final = "queue.amazonaws.com"


def is_url(queue: str) -> bool:
    """Whether *queue* is a URL; else it is a name."""
    return "://" in queue


def split(url: str) -> Any:
    """The parts of *url*; None when it is no complete one of http or https."""
    try:
        parts = urlsplit(url)
        complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if complete else None


def host_of(url: str) -> str:
    """The host in *url*, with its port if it names one."""
    return urlsplit(url).netloc.lower()


def endpoint_of(url: str) -> str:
    """Where requests about the queue at *url* go: to the host that is written there, and to no other."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def region_of(url: str) -> str | None:
    """The region that the host in *url* names; None when it names none, as hosts that are not of AWS."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == _OLDEST:
        return "us-east-1"
    labels = host.split(".")
    for label, following in pairwise(labels):
        if label in _BEFORE_THE_REGION and _REGION.fullmatch(following):
            return following
        if following == _BEHIND_THE_REGION and _REGION.fullmatch(label):
            return label
    return None
