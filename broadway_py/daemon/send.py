"""Puts lines on a queue, to try things out or to load the lines of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Any, BinaryIO, Final

from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import OptionsError
from broadway_py.producers.kinds import arguments
from broadway_py.written import opened

__all__ = ["Target", "lines_of", "queue_file", "send_lines", "target_of"]

# How many lines are sent to the broker at once.
_CHUNK: Final = 500

Put = Callable[[Sequence[bytes]], Awaitable[None]]
#: Opens a queue and gives a function: ``await put(lines)`` returns when the queue has stored the lines.
Target = Callable[[], AbstractAsyncContextManager[Put]]


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yields the lines of *stream* without their line ends. Empty lines are left out."""
    for line in stream:
        text = line.rstrip(b"\r\n")
        if text:
            yield text


async def send_lines(lines: Iterable[bytes], target: Target, progress: Callable[[int], object]) -> int:
    """Puts *lines* on *target* and calls *progress* with the count so far. Returns how many lines were put.

    Raises:
        ProducerError: the queue cannot be reached or refuses. The lines that *progress* has counted are stored.
    """
    sent = 0
    source = iter(lines)
    async with target() as put:
        while chunk := list(islice(source, _CHUNK)):
            await put(chunk)
            sent += len(chunk)
            progress(sent)
    return sent


def queue_file(reference: str) -> Target:
    """Returns the target for the embedded queue that ``FILE.db:NAME`` names.

    Raises:
        OptionsError: *reference* does not have this form.
    """
    path, colon, name = reference.rpartition(":")
    if not colon or not path or not name:
        raise OptionsError((), f"--queue {reference}: expected FILE:NAME, such as var/queue.db:orders")
    return _embedded(path, name)


def target_of(settings: Settings, pipeline: str | None) -> Target:
    """Returns the target for the queue that *pipeline* of *settings* reads.

    *pipeline* may be None if there is only one.

    Raises:
        OptionsError: there is no such pipeline, or lines cannot be put on its source.
    """
    pipeline = settings.choose_pipeline(pipeline)
    path = ("pipelines", pipeline, "producer")
    section = opened(settings.pipelines[pipeline].get("producer"))
    if not isinstance(section, Mapping):
        raise OptionsError(path, "expected one producer section in the settings to send to; or use --queue FILE:NAME")
    kind, fields = arguments(section, path)
    make = _TARGETS.get(kind)
    if make is None:
        raise OptionsError((*path, "kind"), f"cannot send to the kind {kind!r}; send works for {', '.join(_TARGETS)}")
    try:
        return make(fields)
    except OptionsError as wrong:
        raise wrong.under(*path) from None


def _file(fields: Mapping[str, Any]) -> Target:
    for field in ("path", "queue"):
        if not isinstance(fields.get(field), str):
            raise OptionsError((field,), "required, but missing")
    return _embedded(fields["path"], fields["queue"])


def _embedded(path: str, name: str) -> Target:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Put]:
        from broadway_py.queue import Queue  # noqa: PLC0415  # opened only when sent to

        async with Queue(path, name) as queue:

            async def put(lines: Sequence[bytes]) -> None:
                await queue.put_many(lines)

            yield put

    return opened


def _rabbitmq(fields: Mapping[str, Any]) -> Target:
    from broadway_py.producers.rabbitmq.sending import sending  # noqa: PLC0415  # an extra
    from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions  # noqa: PLC0415  # an extra

    options = RabbitMQOptions(**fields)
    if not options.queues[0]:
        raise OptionsError(
            ("queue",), "the broker gives this queue a new name for each consumer; name the queue to send to"
        )
    return lambda: sending(options)


def _sqs(fields: Mapping[str, Any]) -> Target:
    from broadway_py.producers.sqs.sending import sending  # noqa: PLC0415  # an extra
    from broadway_py.producers.sqs.settings.options import SQSOptions  # noqa: PLC0415  # an extra

    options = SQSOptions(**fields)
    return lambda: sending(options)


_TARGETS: Final[Mapping[str, Callable[[Mapping[str, Any]], Target]]] = {
    "queue": _file,
    "rabbitmq": _rabbitmq,
    "sqs": _sqs,
}
