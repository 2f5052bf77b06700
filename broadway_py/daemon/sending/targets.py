"""Opens the queues that lines are put on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import OptionsError
from broadway_py.producers.kinds import arguments
from broadway_py.publisher import Outgoing
from broadway_py.written import opened

__all__ = ["Put", "Target", "queue_file", "target_of"]

Put = Callable[[Sequence[Outgoing]], Coroutine[Any, Any, None]]
#: Opens a queue and gives a function: ``await put(lines)`` returns when the queue has stored the lines. It raises
#: PublishError if it has stored some of them only.
Target = Callable[[], AbstractAsyncContextManager[Put]]


def queue_file(reference: str) -> Target:
    """Returns the target for the embedded queue that ``FILE.db:NAME`` names. Keys are stored with the lines.

    Raises:
        OptionsError: *reference* does not have this form.
    """
    path, colon, name = reference.rpartition(":")
    if not colon or not path or not name:
        raise OptionsError((), f"--queue {reference}: expected FILE:NAME, such as var/queue.db:orders")
    return _embedded(path, name)


def target_of(settings: Settings, pipeline: str | None, *, has_keys: bool = False) -> Target:
    """Returns the target for the queue that *pipeline* of *settings* reads.

    Args:
        settings: all settings.
        pipeline: the pipeline. It may be None if there is only one.
        has_keys: True if the lines have keys.

    Raises:
        OptionsError: there is no such pipeline, or lines cannot be put on its source, or they need keys.
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
        return make(fields, has_keys=has_keys)
    except OptionsError as wrong:
        raise wrong.under(*path) from None


def _file(fields: Mapping[str, Any], *, has_keys: bool) -> Target:  # noqa: ARG001  # it takes lines of both kinds
    for field in ("path", "queue"):
        if not isinstance(fields.get(field), str):
            raise OptionsError((field,), "required, but missing")
    return _embedded(fields["path"], fields["queue"])


def _embedded(path: str, name: str) -> Target:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Put]:
        from broadway_py.queue import NewMessage, Queue  # noqa: PLC0415  # opened only when sent to

        async with Queue(path, name) as queue:

            async def put(lines: Sequence[Outgoing]) -> None:
                await queue.put_many([NewMessage(data=line.data, key=line.key) for line in lines])

            yield put

    return opened


def _rabbitmq(fields: Mapping[str, Any], *, has_keys: bool) -> Target:
    from broadway_py.producers.rabbitmq.sending import sending  # noqa: PLC0415  # an extra
    from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions  # noqa: PLC0415  # an extra

    options = RabbitMQOptions(**fields)
    if not options.queues[0]:
        raise OptionsError(
            ("queue",), "the broker gives this queue a new name for each consumer; name the queue to send to"
        )
    if options.partitions is not None and not has_keys:
        raise OptionsError(
            ("partitions",),
            "a line needs a key, which chooses its partition: name the field of each line that is its key with --key",
        )
    return lambda: sending(options)


def _sqs(fields: Mapping[str, Any], *, has_keys: bool) -> Target:  # noqa: ARG001  # it takes lines of both kinds
    from broadway_py.producers.sqs.sending import sending  # noqa: PLC0415  # an extra
    from broadway_py.producers.sqs.settings.options import SQSOptions  # noqa: PLC0415  # an extra

    options = SQSOptions(**fields)
    return lambda: sending(options)


class _Make(Protocol):
    def __call__(self, fields: Mapping[str, Any], /, *, has_keys: bool) -> Target: ...


_TARGETS: Final[Mapping[str, _Make]] = {
    "queue": _file,
    "rabbitmq": _rabbitmq,
    "sqs": _sqs,
}
