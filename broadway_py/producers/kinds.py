"""Makes the producers that a settings file names by their ``kind``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.log import logger
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.producers.sections import KindSection, class_in, read_section
from broadway_py.written import opened

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "arguments", "build", "build_all", "kinds", "producer_class"]

log = logger("broadway_py.producers")

#: Plug-ins register their producer classes here; the entry point's name is the ``kind``.
ENTRY_POINT_GROUP: Final = "broadway_py.producers"

#: kind -> module, class, the extra that installs what it needs
BUILT_IN: Final[Mapping[str, tuple[str, str, str]]] = {
    "queue": ("broadway_py.producers.queue", "QueueProducer", ""),
    "rabbitmq": ("broadway_py.producers.rabbitmq", "RabbitMQProducer", "rabbitmq"),
    "sqs": ("broadway_py.producers.sqs", "SQSProducer", "sqs"),
}


def kinds() -> list[str]:
    """Returns every kind that a settings file may name, plug-ins included. Imports nothing."""
    return sorted({*BUILT_IN, *_plug_ins()})


def producer_class(kind: str) -> type[AnyProducer]:
    """Returns the class of *kind*. Its connector library is imported here.

    Raises:
        OptionsError: there is no such kind, or what it needs is not installed. The error has no path.
    """
    if kind in BUILT_IN:
        return _checked(kind, class_in(kind, *BUILT_IN[kind]))
    plug_in = _plug_ins().get(kind)
    if plug_in is None:
        known = kinds()
        raise OptionsError((), f"unknown kind {kind!r}; known here: {', '.join(known)}{did_you_mean(kind, known)}")
    try:
        return _checked(kind, plug_in.load())
    except (ImportError, AttributeError) as broken:
        raise OptionsError(
            (), f"the plug-in for the kind {kind!r} ({plug_in.value}) cannot be loaded: {broken}"
        ) from broken


def build_all(section: object, path: Sequence[str]) -> AnyProducer | list[AnyProducer]:
    """Makes the producer, or the list of producers, that the settings section at *path* describes.

    Raises:
        OptionsError: a setting is wrong; the error has its whole path.
    """
    section = opened(section)
    if not isinstance(section, list):
        return build(section, path)
    if not section:
        raise OptionsError(path, "expected one producer or a list of them, got an empty list")
    made: list[AnyProducer] = []
    wrong: list[OptionsError] = []
    for index, one in enumerate(section):
        try:
            made.append(build(one, (*path, str(index))))
        except OptionsError as refused:
            wrong += refused.all()
    if wrong:
        raise OptionsError.of(wrong)
    return made


def build(section: object, path: Sequence[str]) -> AnyProducer:
    """Makes one producer from ``{kind: …, …}``. The other fields are the arguments of its class.

    If the class has an argument such as ``url``, the section may have ``url_file`` instead: the name of a file with the
    value. The file is read again at each connect. Without such a file, what is returned is an object of the class.

    Raises:
        OptionsError: a setting is wrong; the error has its whole path.
    """
    written = _read(section, path)
    constructed, description = _described(written, written.checked_contents())
    return description if written.files else constructed


def arguments(section: Any, path: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Returns the kind and the arguments that :func:`build` would use. Secrets are read from their files.

    Raises:
        OptionsError: as :func:`build` does, except for what the class itself would refuse.
    """
    written = _read(section, path)
    if written.wrong:
        raise OptionsError.of(written.wrong)
    return str(opened(section)["kind"]), written.arguments(written.contents())


def _read(section: object, path: Sequence[str]) -> KindSection[AnyProducer]:
    return read_section(section, path, producer_class, _missing)


def _missing() -> str:
    return f"required: the kind of source; known here: {', '.join(kinds())}"


def _described(section: KindSection[AnyProducer], found: Mapping[str, str]) -> tuple[AnyProducer, ProducerDescription]:
    """Returns what *section* makes with the contents *found* of its files, and the description of it.

    The description reads the files again when it is renewed.
    """
    constructed = section.construct(found)
    try:
        description = described(constructed)
    except OptionsError as refused:
        raise refused.under(*section.path, "kind") from None

    def renew() -> ProducerDescription | None:
        try:
            now = section.contents()
            return None if now == found else _described(section, now)[1]
        except OptionsError as wrong:
            # The mount may be changing at this moment. The last secrets may still be valid; if not, the broker says so.
            log.warning("a secret cannot be read again; using its last value", reason=str(wrong))
            return None

    if section.files:
        description.renew_by(renew)
    return constructed, description


def _checked(kind: str, found: object) -> type[AnyProducer]:
    if isinstance(found, type) and issubclass(found, AnyProducer):
        return found
    raise OptionsError(
        (),
        f"the kind {kind!r} leads to {found!r}, which is not a subclass of broadway_py.Producer or ProducerDescription",
    )


def _plug_ins() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}
