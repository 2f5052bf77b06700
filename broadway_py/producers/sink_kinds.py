"""Makes the sinks that a settings file names by their ``kind``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.log import logger
from broadway_py.producers.publishing import ConnectingSink
from broadway_py.producers.sections import KindSection, class_in, read_section
from broadway_py.publisher import Sink

__all__ = ["BUILT_IN", "SINK_KINDS", "build_sink", "sink_class"]

log = logger("broadway_py.publisher")

#: kind -> module, class, the extra that installs what it needs
BUILT_IN: Final[Mapping[str, tuple[str, str, str]]] = {
    "queue": ("broadway_py.producers.queue_sink", "QueuePublisher", ""),
    "rabbitmq": ("broadway_py.producers.rabbitmq", "RabbitMQPublisher", "rabbitmq"),
    "sqs": ("broadway_py.producers.sqs", "SQSPublisher", "sqs"),
}

#: Every kind that a settings file may name.
SINK_KINDS: Final[tuple[str, ...]] = tuple(BUILT_IN)


def build_sink(section: object, path: Sequence[str]) -> Sink:
    """Makes a sink from ``{kind: …, …}``. The other fields are the arguments of its class.

    If the class has an argument such as ``url``, the section may have ``url_file`` instead: the name of a file with the
    value. The file is read again after a failure.

    Raises:
        OptionsError: a setting is wrong, or a library is not installed; the error has its whole path.
    """
    written = read_section(section, path, sink_class, _missing)
    return _made(written, written.checked_contents())


def sink_class(kind: str) -> type[ConnectingSink]:
    """Returns the class of *kind*. Its connector library is imported here.

    Raises:
        OptionsError: there is no such kind, or what it needs is not installed. The error has no path.
    """
    if kind not in BUILT_IN:
        known = ", ".join(SINK_KINDS)
        raise OptionsError((), f"unknown kind {kind!r}; known here: {known}{did_you_mean(kind, SINK_KINDS)}")
    return cast("type[ConnectingSink]", class_in(kind, *BUILT_IN[kind]))


def _missing() -> str:
    return f"required: the kind of sink; known here: {', '.join(SINK_KINDS)}"


def _made(section: KindSection[ConnectingSink], found: Mapping[str, str]) -> ConnectingSink:
    """Returns what *section* makes with the contents *found* of its files. After a failure it reads them again."""
    sink = section.construct(found)

    def renew() -> ConnectingSink | None:
        try:
            now = section.contents()
            return None if now == found else _made(section, now)
        except OptionsError as wrong:
            # The mount may be changing at this moment. The last values may still be valid; if not, the broker says so.
            log.warning("a setting cannot be read again from its file; using its last value", reason=str(wrong))
            return None

    if section.files:
        sink.renew_by(renew)
    return sink
