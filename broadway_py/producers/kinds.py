"""Makes the producers that a settings file names by their ``kind``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, get_type_hints

from broadway_py.errors import OptionsError, did_you_mean, gathered
from broadway_py.log import logger
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.text_files import NotText, content_of, decoded, without_end
from broadway_py.written import Written, has_written, opened, read_as

__all__ = ["ENTRY_POINT_GROUP", "arguments", "build", "build_all", "kinds", "producer_class"]

log = logger("broadway_py.producers")

#: Plug-ins register their producer classes here; the entry point's name is the ``kind``.
ENTRY_POINT_GROUP: Final = "broadway_py.producers"

# kind -> module, class, what it needs, the extra that installs it
_BUILT_IN: Final[Mapping[str, tuple[str, str, str]]] = {
    "queue": ("broadway_py.producers.queue", "QueueProducer", ""),
    "rabbitmq": ("broadway_py.producers.rabbitmq", "RabbitMQProducer", "rabbitmq"),
    "sqs": ("broadway_py.producers.sqs", "SQSProducer", "sqs"),
}


def kinds() -> list[str]:
    """Returns every kind that a settings file may name, plug-ins included. Imports nothing."""
    return sorted({*_BUILT_IN, *_plug_ins()})


def producer_class(kind: str) -> type[AnyProducer]:
    """Returns the class of *kind*. Its connector library is imported here.

    Raises:
        OptionsError: there is no such kind, or what it needs is not installed. The error has no path.
    """
    if kind in _BUILT_IN:
        module, name, extra = _BUILT_IN[kind]
        try:
            return _checked(kind, getattr(import_module(module), name))
        except ImportError as missing:
            raise OptionsError(
                (),
                f"the kind {kind!r} needs {_distribution(missing)}, which is not installed: "
                f"pip install 'broadway-py[{extra}]'",
            ) from missing
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
    wrong: list[OptionsError] = []
    made, settings, secrets = _read(section, path, wrong)
    read: dict[str, str] = {}
    for field, file in secrets.items():
        with gathered(wrong):
            read |= _contents({field: file}, path)
    if not wrong:
        constructed, description = _described(made, settings, secrets, read, path)
        return description if secrets else constructed
    unread = secrets.keys() - read.keys()
    try:
        _construct(made, {**settings, **read}, path)
    except OptionsError as refused:
        # An error about a field whose file could not be read says nothing.
        wrong += [one for one in refused.all() if one.path[len(path) :][:1] not in {(field,) for field in unread}]
    raise OptionsError.of(wrong)


def arguments(section: Any, path: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Returns the kind and the arguments that :func:`build` would use. Secrets are read from their files.

    Raises:
        OptionsError: as :func:`build` does, except for what the class itself would refuse.
    """
    section = opened(section)
    wrong: list[OptionsError] = []
    made, settings, secrets = _read(section, path, wrong)
    if wrong:
        raise OptionsError.of(wrong)
    return str(section["kind"]), _typed(made, {**settings, **_contents(secrets, path)})


def _read(
    section: object, path: Sequence[str], wrong: list[OptionsError]
) -> tuple[type[AnyProducer], dict[str, Any], dict[str, str]]:
    """Returns the class, its arguments, and the names of files with further arguments, by argument.

    Errors about these names of files are added to *wrong*.
    """
    section = opened(section)
    if not isinstance(section, Mapping):
        raise OptionsError(path, f"expected a section of settings with a kind, got {type(section).__name__}")
    settings = {str(key): value for key, value in section.items()}
    kind = settings.pop("kind", None)
    if not isinstance(kind, str):
        raise OptionsError((*path, "kind"), f"required: the kind of source; known here: {', '.join(kinds())}")
    try:
        made = producer_class(kind)
    except OptionsError as refused:
        raise refused.under(*path, "kind") from refused.__cause__
    secrets = _secrets(made, settings, path, wrong)
    return made, settings, secrets


def _described(
    made: type[AnyProducer],
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    found: Mapping[str, str],
    path: Sequence[str],
) -> tuple[AnyProducer, ProducerDescription]:
    """Returns what *settings* and the contents *found* of the files *secrets* make, and the description of it.

    The description reads the files again when it is renewed.
    """
    constructed = _construct(made, {**settings, **found}, path)
    try:
        description = described(constructed)
    except OptionsError as refused:
        raise refused.under(*path, "kind") from None

    def renew() -> ProducerDescription | None:
        try:
            now = _contents(secrets, path)
            return None if now == found else _described(made, settings, secrets, now, path)[1]
        except OptionsError as wrong:
            # The mount may be changing at this moment. The last secrets may still be valid; if not, the broker says so.
            log.warning("a secret cannot be read again; using its last value", reason=str(wrong))
            return None

    if secrets:
        description.renew_by(renew)
    return constructed, description


def _construct(made: type[AnyProducer], settings: Mapping[str, Any], path: Sequence[str]) -> AnyProducer:
    try:
        inspect.signature(made).bind(**settings)
    except TypeError:
        _explain_arguments(made, settings, path)
        raise
    try:
        return made(**_typed(made, settings))
    except OptionsError as wrong:
        raise wrong.under(*path) from None
    except (TypeError, ValueError) as wrong:
        raise OptionsError(path, str(wrong)) from wrong


def _typed(made: type[AnyProducer], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns *settings*, with values that came as text converted to the types that *made* wants."""
    if _is_ours(made):
        return dict(settings)  # the options check them: they know their fields
    try:
        hints = get_type_hints(vars(_owner(made))["__init__"])
    except Exception:  # noqa: BLE001  # code of the user: names that exist only for a type checker
        hints = {}
    known = _known(made)
    # An argument without a name of its own is most likely passed on to our class.
    passed_on = any(map(_is_ours, made.__mro__))
    return {
        name: value
        if name not in known and passed_on
        else read_as(hints.get(name, Any), value)
        if has_written(value)
        else value
        for name, value in settings.items()
    }


def _owner(made: type) -> type:
    """Returns the class that defines how *made* is constructed."""
    return next(base for base in made.__mro__ if "__init__" in vars(base))


def _is_ours(made: type) -> bool:
    return _owner(made).__module__.startswith("broadway_py.producers.")


def _explain_arguments(made: Callable[..., AnyProducer], settings: Mapping[str, Any], path: Sequence[str]) -> None:
    known = _known(made)
    open_ended = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(made).parameters.values())
    wrong = [
        OptionsError(
            (*path, name), f"unknown setting; known here: {', '.join(sorted(known))}{did_you_mean(name, known)}"
        )
        for name in settings
        if name not in known and not open_ended
    ]
    wrong += [
        OptionsError((*path, name), "required, but missing")
        for name, parameter in known.items()
        if parameter.default is parameter.empty and name not in settings
    ]
    if wrong:
        raise OptionsError.of(wrong)


def _known(made: Callable[..., AnyProducer]) -> dict[str, inspect.Parameter]:
    kinds_of_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(made).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds_of_name}


def _secrets(
    made: Callable[..., AnyProducer], settings: dict[str, Any], path: Sequence[str], wrong: list[OptionsError]
) -> dict[str, str]:
    """Takes the names of files out of *settings* and returns them by argument."""
    known = _known(made)
    found: dict[str, str] = {}
    for name in list(settings):
        field = name.removesuffix("_file")
        if name in known or field == name or field not in known:
            continue
        file = settings.pop(name)
        if field in settings:
            wrong.append(OptionsError((*path, name), f"give {field} or {name}, not both"))
        elif not isinstance(file, str):
            wrong.append(OptionsError((*path, name), f"expected the name of a file, got {type(file).__name__}"))
        else:
            found[field] = str(file)
    return found


def _contents(secrets: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, file in secrets.items():
        place = (*path, f"{field}_file")
        try:
            found[field] = Written(without_end(decoded(content_of(file))))
        except NotText as wrong:
            raise OptionsError(place, f"the file {file!r} is not {wrong.encoding} text: {wrong}") from None
        except ValueError as unreadable:
            raise OptionsError(place, str(unreadable)) from None
    return found


def _checked(kind: str, found: object) -> type[AnyProducer]:
    if isinstance(found, type) and issubclass(found, AnyProducer):
        return found
    raise OptionsError(
        (),
        f"the kind {kind!r} leads to {found!r}, which is not a subclass of broadway_py.Producer or ProducerDescription",
    )


def _plug_ins() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}


def _distribution(missing: ImportError) -> str:
    return {"aio_pika": "aio-pika", "aiormq": "aio-pika", "aiobotocore": "aiobotocore", "botocore": "aiobotocore"}.get(
        (missing.name or "").partition(".")[0], missing.name or str(missing)
    )
