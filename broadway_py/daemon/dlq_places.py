"""Which dead letters are meant: by a file and a name, by the URL of a broker, or by the settings of a pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from broadway_py.daemon.dlq import Letters
from broadway_py.daemon.dlq_queue import opened
from broadway_py.daemon.loader import pipeline_class
from broadway_py.daemon.settings import Settings
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.options import FailurePolicy
from broadway_py.producers.kinds import arguments

__all__ = ["Place", "of_queue", "of_settings", "of_url"]

_NOT_FOR_SQS = (
    "broadway dlq is not for SQS: look into the dead letter queue with AWS's own tools, and put letters back with its "
    "redrive: in the console, or aws sqs start-message-move-task with --destination-arn"
)

#: A way to open them.
Place = Callable[[], AbstractAsyncContextManager[Letters]]


def of_queue(reference: str) -> Place:
    """Those of the embedded queue ``FILE.db:NAME``.

    Raises:
        OptionsError: it is the URL of a broker.
    """
    if _is_of_sqs(reference):
        raise OptionsError((), _NOT_FOR_SQS)
    if "://" in reference:
        raise OptionsError((), "--queue: a broker is named by --url, or by --config; --queue names a queue there")
    return lambda: opened(reference)


def of_url(url: str, queue: str) -> Place:
    """Those of the RabbitMQ queue *queue*, in ``<queue>.dead``.

    Raises:
        OptionsError: the URL is none, or what RabbitMQ needs is not installed.
    """
    if _is_of_sqs(url):
        raise OptionsError((), _NOT_FOR_SQS)
    try:
        return _of_rabbitmq({"queue": queue, "url": url}, None)
    except OptionsError as wrong:
        raise wrong.under("--url") if wrong.path != ("url",) else OptionsError(("--url",), wrong.problem) from None


def of_settings(settings: Settings, pipeline: str | None, queue: str | None) -> Place:
    """Those of what *pipeline* of *settings* reads; *queue* says which one, where it reads several.

    Raises:
        OptionsError: there is no such pipeline, or its source keeps none that can be looked at.
    """
    names = list(settings.pipelines)
    if pipeline is None and len(names) == 1:
        pipeline = names[0]
    if pipeline is None:
        raise OptionsError((), f"--pipeline is needed: the settings have several, {', '.join(names)}")
    if pipeline not in names:
        raise OptionsError(
            (),
            f"--pipeline {pipeline}: no such pipeline; known here: {', '.join(names)}{did_you_mean(pipeline, names)}",
        )
    section = settings.pipelines[pipeline]
    path = ("pipelines", pipeline, "producer")
    kind, fields = arguments(section.get("producer"), path)
    if kind == "queue":
        return of_queue(f"{fields.get('path')}:{fields.get('queue')}")
    if kind == "sqs":
        raise OptionsError((*path, "kind"), _NOT_FOR_SQS)
    if kind != "rabbitmq":
        raise OptionsError((*path, "kind"), f"the dead letters of the kind {kind!r} cannot be looked at from here")
    queues = fields.get("queue")
    if isinstance(queues, list) and queue not in queues:
        raise OptionsError((), f"--queue is needed: the pipeline reads several, {', '.join(map(str, queues))}")
    if isinstance(queues, list):
        fields["queue"] = queue
    try:
        return _of_rabbitmq(fields, _place_of_policy(section, ("pipelines", pipeline, "class")))
    except OptionsError as wrong:
        raise wrong.under(*path) from None


def _is_of_sqs(reference: str) -> bool:
    """Whether somebody has tried the URL of a queue of SQS, today's or that of its first years."""
    return re.match(r"https?://(sqs\.|[^/]+\.queue\.amazonaws\.)", reference) is not None


def _place_of_policy(section: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    policy = section.get("failure")
    if isinstance(policy, Mapping) and "dead_letter" in policy:
        return cast("str | None", policy["dead_letter"])
    own = pipeline_class(section.get("class"), path).failure
    return own.dead_letter if isinstance(own, FailurePolicy) else None


def _of_rabbitmq(fields: Mapping[str, Any], dead: str | None) -> Place:
    if dead == "broker":
        raise OptionsError(
            (), "the dead letters are where the queue's own dead-letter exchange leads: name that queue by --url"
        )
    try:
        from broadway_py.daemon import dlq_rabbitmq  # noqa: PLC0415  # needs an extra
        from broadway_py.producers.rabbitmq import RabbitMQOptions  # noqa: PLC0415  # an extra
    except ImportError:
        raise OptionsError((), "this needs aio-pika: pip install 'broadway-py[rabbitmq]'") from None
    options = RabbitMQOptions(**fields)
    return lambda: dlq_rabbitmq.opened(options, dead or f"{options.queues[0]}.dead")
