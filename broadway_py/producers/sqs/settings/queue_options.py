"""The settings that say where an SQS queue is. Its producers and its sinks share them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator

from broadway_py.conflict import Conflict
from broadway_py.options import Options
from broadway_py.producers.sqs.settings.endpoint import endpoint_of, host_of, is_url, refuse_host, region_of, split

__all__ = ["QueueUrl", "SQSQueueOptions"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")


def _names_a_queue(value: str) -> str:
    if _NAME.fullmatch(value):
        return value
    parts = split(value)
    if parts is None or parts.username is not None or not parts.path.strip("/"):
        raise ValueError(
            "expected the URL of a queue, such as https://sqs.eu-central-1.amazonaws.com/123456789012/orders, "
            "or its name"
        )
    return value


#: The URL of a queue, or its name in the account of the credentials.
QueueUrl = Annotated[str, Field(strict=True), AfterValidator(_names_a_queue)]


class SQSQueueOptions(Options):
    """Where a queue of SQS is.

    There are no settings for credentials. They are found as in every AWS program (environment, profile, web identity,
    the role of the machine).
    """

    #: The queue's URL, or its name in the account of the credentials.
    queue_url: QueueUrl
    #: The region, such as eu-central-1. None: as the host in the queue's URL says, else as AWS programs find it
    #: (AWS_REGION).
    region: str | None = None
    #: The address of SQS, for example LocalStack or a VPC endpoint. None: the host in the queue's URL. If the queue is
    #: given by its name: the address from AWS (or AWS_ENDPOINT_URL_SQS).
    endpoint_url: str | None = Field(None, repr=False)
    #: A profile of the AWS config files, which may name a role to assume. None: AWS_PROFILE, or none.
    profile: str | None = None

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        # The value is not shown, because it may hold a password.
        if value is not None and ((parts := split(value)) is None or parts.username is not None):
            raise ValueError("expected http://host:port or https://host, without user and password")
        if value is not None:
            refuse_host(value)
        return value

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        if not is_url(self.queue_url) or self.endpoint_url is not None:
            return
        try:
            refuse_host(self.queue_url)
        except ValueError as wrong:
            # If endpoint_url is set, the host in the queue's URL is not used, and need not be valid.
            yield Conflict(("queue_url",), str(wrong), frozenset({"queue_url", "endpoint_url"}))
            return
        named = region_of(self.queue_url)
        if self.region is not None and named is not None and named != self.region:
            yield Conflict(
                ("region",),
                f"got {self.region}, but the host in queue_url is in {named}, and would refuse every request: "
                "leave region out, or correct one of the two",
                frozenset({"region", "queue_url", "endpoint_url"}),
            )

    @property
    def host(self) -> str | None:
        """Returns the host in the queue's URL; None: it has none, or the host is not used or cannot be used."""
        if not is_url(self.queue_url) or self.endpoint_url is not None:
            return None
        try:
            refuse_host(self.queue_url)
        except ValueError:
            return None
        return host_of(self.queue_url)

    @property
    def is_fifo(self) -> bool:
        """Returns whether the queue is a FIFO queue, which keeps the order within each message group."""
        return self.queue_url.endswith(".fifo")

    @property
    def queue_name(self) -> str:
        """Returns the queue's name alone, for texts."""
        return self.queue_url.rstrip("/").rpartition("/")[2]

    @property
    def endpoint(self) -> str | None:
        """Returns where requests go; None: where AWS says, for a queue that is given by its name."""
        if self.endpoint_url is not None:
            return endpoint_of(self.endpoint_url) + (split(self.endpoint_url).path or "")
        return endpoint_of(self.queue_url) if is_url(self.queue_url) else None

    @property
    def region_name(self) -> str | None:
        """Returns the region; None: the settings do not tell it."""
        if self.region is not None or not is_url(self.queue_url):
            return self.region
        return region_of(self.queue_url)
