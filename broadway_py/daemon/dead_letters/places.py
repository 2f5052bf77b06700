"""Finds the dead letters: by a file and a name, by the URL of a broker, or by the settings of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, cast

from broadway_py.daemon.dead_letters.embedded_queue import opened
from broadway_py.daemon.dead_letters.letters import Letters
from broadway_py.daemon.pipelines.loader import pipeline_class
from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.options import FailurePolicy
from broadway_py.producers.kinds import arguments

__all__ = ["Place", "of_queue", "of_settings", "of_url"]

#: The suffix of a queue's dead letter queue, unless a policy names another one.
_DEAD: Final = ".dead"
#: Opens the dead letters of one queue.
Place = Callable[[], AbstractAsyncContextManager[Letters]]


def of_queue(reference: str, dead: str | None = None, to: str | None = None) -> Place:
    """Returns the place of the dead letters of the embedded queue ``FILE.db:NAME``.

    The queue has no other place for them, so *dead* and *to* must be None.

    Raises:
        OptionsError: *reference* is the URL of a broker, or *dead* or *to* is given.
    """
    if "://" in reference:
        raise OptionsError(
            (),
            "--queue: expected the name of a queue, got a URL; give the URL of the broker, or of the SQS queue, with "
            "--url",
        )
    if dead is not None:
        raise OptionsError(
            (), "--dead names a queue of RabbitMQ, but an embedded queue holds its own dead letters; leave --dead out"
        )
    if to is not None:
        raise OptionsError(
            (),
            "--to names a queue of RabbitMQ, but dead letters of an embedded queue go back into that queue; "
            "leave --to out",
        )
    return lambda: opened(reference)


def of_url(url: str, queue: str | None, dead: str | None = None, to: str | None = None) -> Place:
    """Returns the place of the dead letters that *url* names: of a RabbitMQ, or of a queue of SQS.

    At RabbitMQ they are in the queue *dead*, or else in ``<queue>.dead``. At SQS, *url* names the queue itself, and its
    dead letters are in the queue *dead*, or else where its redrive policy says.

    *queue* is the queue in which they failed. They may go back to *to*. Without it they go back to *queue*, or to the
    queue that *dead* is named after.

    Raises:
        OptionsError: no queue is named, *url* is not valid, or the extra that it needs is not installed.
    """
    if url.startswith(("http://", "https://")):
        if queue is not None:
            raise OptionsError(
                (), "--queue is for RabbitMQ and embedded queues: the URL of an SQS queue names it; leave --queue out"
            )
        try:
            return _of_sqs({"queue_url": url}, dead, to)
        except OptionsError as wrong:
            raise OptionsError(("--url",), wrong.problem) if wrong.path == ("queue_url",) else wrong from None
    if dead is None and queue is not None and queue.startswith("amq."):
        raise OptionsError(
            (),
            f"--queue {queue}: the broker chose this name, so its dead letters are in PIPELINE.dead; use --dead NAME",
        )
    kept_in = dead if queue is None or dead is not None else f"{queue}.dead"
    if kept_in is None:
        raise OptionsError(
            (), "dlq: name the queue with --queue NAME, or the queue that holds its dead letters with --dead NAME"
        )
    try:
        usual = queue or kept_in.removesuffix(_DEAD) if queue or kept_in.endswith(_DEAD) else None
        is_sure = usual is not None and kept_in == f"{usual}{_DEAD}"
        return _of_rabbitmq({"queue": queue or kept_in, "url": url}, kept_in, to, usual, is_sure=is_sure)
    except OptionsError as wrong:
        raise wrong.under("--url") if wrong.path != ("url",) else OptionsError(("--url",), wrong.problem) from None


def of_settings(
    settings: Settings, pipeline: str | None, queue: str | None, dead: str | None = None, to: str | None = None
) -> Place:
    """Returns the place of the dead letters of the queue that *pipeline* of *settings* reads.

    Args:
        settings: all settings.
        pipeline: the pipeline. It may be None if there is only one.
        queue: the queue, if the pipeline reads several.
        dead: the RabbitMQ queue that keeps them, instead of the one in the settings.
        to: the RabbitMQ queue to which they go back, instead of the one in which they failed.

    Raises:
        OptionsError: there is no such pipeline, or its source keeps no dead letters that can be read here.
    """
    pipeline = settings.choose_pipeline(pipeline)
    section = settings.pipelines[pipeline]
    path = ("pipelines", pipeline, "producer")
    kind, fields = arguments(section.get("producer"), path)
    if kind == "queue":
        _refuse_strange(queue, pipeline, [str(fields.get("queue"))])
        return of_queue(f"{fields.get('path')}:{fields.get('queue')}", dead, to)
    if kind == "sqs":
        _refuse_strange(queue, pipeline, [str(fields.get("queue_url"))])
        try:
            return _of_sqs(fields, dead, to)
        except OptionsError as wrong:
            raise wrong if wrong.path[:1] in {("--dead",), ("--to",)} else wrong.under(*path) from None
    if kind != "rabbitmq":
        raise OptionsError(
            (*path, "kind"),
            f"broadway dlq cannot read the dead letters of the kind {kind!r}; it works for queue, rabbitmq and sqs",
        )
    read = fields.get("queue")
    queues = [str(one) for one in (read if isinstance(read, list) else [read])]
    _refuse_strange(queue, pipeline, queues)
    if queue is None and len(queues) == 1:
        queue = queues[0]
    kept_in = dead or _kept_in(section, pipeline, queue, queues)
    # All partitions share one place for their dead letters, and each letter goes back to its own.
    is_divided = fields.get("partitions") is not None
    is_sure = bool(queue) and not is_divided and kept_in == f"{queue}{_DEAD}"
    try:
        return _of_rabbitmq(
            fields, kept_in, to, None if is_divided else queue or None, is_sure=is_sure, may_return_to_all=True
        )
    except OptionsError as wrong:
        raise wrong.under(*path) from None


def _refuse_strange(queue: str | None, pipeline: str, known: Sequence[str]) -> None:
    if queue is not None and queue not in known:
        reads = ", ".join(one or "one that the broker names" for one in known)
        raise OptionsError(
            (), f"--queue {queue}: pipeline {pipeline} does not read it; it reads {reads}{did_you_mean(queue, known)}"
        )


def _kept_in(section: Mapping[str, Any], pipeline: str, queue: str | None, queues: Sequence[str]) -> str:
    """Returns the queue of the dead letters of *queue*, by the rule of the producer.

    Raises:
        OptionsError: only the broker knows the queue, or *queue* is None and must be given.
    """
    place = _place_of_policy(section, ("pipelines", pipeline, "class"))
    if place == "broker":
        raise OptionsError(
            (),
            "the queue's own dead-letter exchange decides where its dead letters are; name that queue with --dead NAME",
        )
    if place is not None:
        return place
    if queue is None:
        raise OptionsError((), f"--queue is needed, because the pipeline reads several queues: {', '.join(queues)}")
    with _extra_needed():
        from broadway_py.producers.rabbitmq.retries.forwarder import dead_letters_of  # noqa: PLC0415  # needs an extra
    return dead_letters_of(queue, pipeline)


def _place_of_policy(section: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    policy = section.get("failure")
    if isinstance(policy, Mapping) and "dead_letter" in policy:
        return cast("str | None", policy["dead_letter"])
    own = pipeline_class(section.get("class"), path).failure
    return own.dead_letter if isinstance(own, FailurePolicy) else None


@contextmanager
def _extra_needed(library: str = "aio-pika", broker: str = "RabbitMQ") -> Iterator[None]:
    try:
        yield
    except ImportError:
        extra = f"pip install 'broadway-py[{broker.lower()}]'"
        raise OptionsError((), f"broadway dlq needs {library} for {broker}, which is not installed: {extra}") from None


def _of_sqs(fields: Mapping[str, Any], dead: str | None, to: str | None) -> Place:
    with _extra_needed("aiobotocore", "SQS"):
        from broadway_py.daemon.dead_letters import sqs  # noqa: PLC0415  # needs an extra
        from broadway_py.producers.sqs.settings.options import SQSOptions  # noqa: PLC0415  # an extra
    options = SQSOptions(**fields)
    kept_in, home = dead or options.dead_letter_queue, None
    try:
        looked = None if kept_in is None else sqs.to_look(options, kept_in)
    except OptionsError as wrong:
        raise OptionsError(("--dead",), wrong.problem) from None
    if to is not None:
        try:
            home = sqs.at_same_place(options, to)
        except OptionsError as wrong:
            raise OptionsError(("--to",), wrong.problem) from None
    names = [None if one is None else one.queue_name for one in (looked, home)]
    if to is not None and names[0] == names[1]:
        raise OptionsError((), f"--to {to}: expected a queue other than the one that holds the dead letters")
    return lambda: sqs.opened(options, looked, home)


def _of_rabbitmq(
    fields: Mapping[str, Any],
    kept_in: str,
    to: str | None,
    usual: str | None,
    *,
    is_sure: bool,
    may_return_to_all: bool = False,
) -> Place:
    with _extra_needed():
        from broadway_py.daemon.dead_letters import rabbitmq  # noqa: PLC0415  # needs an extra
        from broadway_py.producers.rabbitmq import RabbitMQOptions  # noqa: PLC0415  # an extra
    if to is not None and (to == kept_in or not to):
        raise OptionsError((), f"--to {to}: expected a queue other than the one that holds the dead letters")
    options = RabbitMQOptions(**fields)
    others = [one for one in options.all_queues if one] if may_return_to_all else []
    home = rabbitmq.Home(usual, others, is_sure) if to is None else rabbitmq.Home(to, is_sure=True)
    return lambda: rabbitmq.opened(options, kept_in, home)
