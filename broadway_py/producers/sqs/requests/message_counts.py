"""How many messages wait in the queue of a source, by SQS's own approximate counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Final

from broadway_py.producer import SourceMessages
from broadway_py.producers.sqs.requests.client import DELAYED, READY, REDRIVE, Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Kind, Trouble

__all__ = ["MessageCounts"]

# The texts of the client speak of the queue itself.
_TROUBLES: Final[Mapping[Kind, str]] = {
    "gone": "the dead letter queue does not exist",
    "refused": (
        "AWS refused to tell how many messages the dead letter queue has; allow sqs:GetQueueAttributes and "
        "sqs:GetQueueUrl on it"
    ),
}


class MessageCounts:
    """Counts the messages of one queue, and those of its dead letter queue.

    The dead letter queue is that of the settings, or else that of the queue's redrive policy.

    Args:
        client: makes the requests: two for each count, and one more to find the queue of a redrive policy.
        queue_info: knows the queue.
    """

    def __init__(self, client: Client, queue_info: QueueInfo) -> None:
        self._client = client
        self._queue_info = queue_info
        # The dead letter queue of the redrive policy: its ARN and its URL.
        self._redrive: tuple[str, str] | None = None

    async def take(self) -> SourceMessages:
        """Returns the numbers of this moment. A queue that nobody may look at, or that is missing, has no number.

        Raises:
            Trouble: SQS or the queue is not available.
        """
        found = await self._client.counts(self._queue_info.url)
        dead: int | None = None
        trouble: str | None = None
        try:
            url = self._queue_info.dead_letter_url or await self._url_by(found.get(REDRIVE))
            if url is not None:
                dead = _number(await self._client.counts(url), READY)
        except Trouble as refused:
            trouble = _TROUBLES.get(refused.kind, "SQS does not tell how many messages the dead letter queue has")
        return SourceMessages(_number(found, READY), _number(found, DELAYED), dead, trouble)

    async def _url_by(self, policy: str | None) -> str | None:
        """Returns the URL of the queue that the redrive *policy* names; None: there is no such policy."""
        arn: object = None
        if policy is not None:
            with contextlib.suppress(ValueError, AttributeError):
                arn = json.loads(policy).get("deadLetterTargetArn")
        if not isinstance(arn, str):
            return None
        if self._redrive is None or self._redrive[0] != arn:
            self._redrive = (arn, await self._client.url_of_arn(arn))
        return self._redrive[1]


def _number(found: Mapping[str, str], name: str) -> int | None:
    said = found.get(name, "")
    return int(said) if said.isdecimal() else None
