"""Reads the host and the region out of a queue's URL."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from broadway_py.producers.hosts import wire_name

__all__ = ["endpoint_of", "host_of", "is_url", "refuse_host", "region_of", "split"]

#: eu-central-1, us-gov-west-1, us-isob-east-1, eusc-de-east-1.
_REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d{1,2}")
#: The labels of a host name directly before the region: in every partition of AWS, with FIPS or without, for dual-stack
#: and VPC endpoints, and for LocalStack.
_BEFORE_THE_REGION: Final = frozenset({"sqs", "sqs-fips"})
#: The labels between two dots that the AWS client library accepts.
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]+(?<!-)")
_PORTS: Final = {"http": 80, "https": 443}
#: The label directly after the region, in the host names of old queues.
_BEHIND_THE_REGION: Final = "queue"
#: The only such host name without a region.
_OLDEST: Final = "queue.amazonaws.com"


def is_url(queue: str) -> bool:
    """Returns whether *queue* is a URL. If not, it is a name."""
    return "://" in queue


def split(url: str) -> Any:
    """Returns the parts of *url*; None: it is not a complete http or https URL."""
    try:
        parts = urlsplit(url)
        complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if complete else None


def refuse_host(url: str) -> None:
    """Refuses a complete *url* whose host cannot be used.

    Raises:
        ValueError: no host can have that name, or the AWS client library does not accept it.
    """
    name = _host(url)
    if ":" not in name and not all(map(_LABEL.fullmatch, name.removesuffix(".").split("."))):
        raise ValueError(
            "the AWS client library takes no host with _ in its name, nor with - at the end of a part: give the host "
            "another name, or write its address"
        )


def host_of(url: str) -> str:
    """Returns the host of *url*, with its port if it is not the default one. Equal hosts give equal texts."""
    parts = urlsplit(url)
    host, port = _host(url).removesuffix("."), parts.port
    shown = f"[{host}]" if ":" in host else host
    return shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"


def endpoint_of(url: str) -> str:
    """Returns where requests about the queue at *url* go: exactly the host in the URL."""
    parts = urlsplit(url)
    host = _host(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _host(url: str) -> str:
    """Returns the host of *url* in the form of DNS."""
    host = urlsplit(url).hostname or ""
    # In a URL, the % before the zone of an address may be written as %25.
    return wire_name(unquote(host) if ":" in host else host)


def region_of(url: str) -> str | None:
    """Returns the region in the host of *url*; None: it has none, as hosts outside AWS."""
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
