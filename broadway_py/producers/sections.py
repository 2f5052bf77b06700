"""Makes an object from a section of settings that names its class by a ``kind`` and has the arguments beside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar, get_type_hints

from broadway_py.errors import OptionsError, did_you_mean, gathered
from broadway_py.text_files import NotText, content_of, decoded, without_end
from broadway_py.written import Written, has_written, opened, read_as

__all__ = ["KindSection", "class_in", "parameters_of", "read_section", "takes_any_argument"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KindSection(Generic[T]):
    """A section whose class is found, and whose arguments are not checked yet."""

    made: type[T]
    #: The arguments that the section gives plainly.
    settings: Mapping[str, Any]
    #: The name of a file for each argument that is given by file.
    files: Mapping[str, str]
    path: tuple[str, ...]
    #: What is wrong about the names of files.
    wrong: Sequence[OptionsError]

    def contents(self) -> dict[str, str]:
        """Returns what the files hold now, by argument.

        Raises:
            OptionsError: a file cannot be read, or is not text.
        """
        return {field: _content(field, file, self.path) for field, file in self.files.items()}

    def checked_contents(self) -> dict[str, str]:
        """Returns what the files hold now, by argument, if all settings that can be checked by themselves are right.

        Raises:
            OptionsError: a file cannot be read, or another setting is wrong; it has all of them.
        """
        wrong = list(self.wrong)
        found: dict[str, str] = {}
        for field, file in self.files.items():
            with gathered(wrong):
                found[field] = _content(field, file, self.path)
        if not wrong:
            return found
        unread = self.files.keys() - found.keys()
        try:
            self.construct(found)
        except OptionsError as refused:
            # An error about a field whose file could not be read says nothing.
            start = len(self.path)
            wrong += [one for one in refused.all() if one.path[start:][:1] not in {(field,) for field in unread}]
        raise OptionsError.of(wrong)

    def arguments(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """Returns all arguments, with those in files as *contents* say, in the types that the class wants."""
        return _typed(self.made, {**self.settings, **contents})

    def construct(self, contents: Mapping[str, str]) -> T:
        """Makes the object, with the arguments in files as *contents* say.

        Raises:
            OptionsError: an argument is unknown, missing or wrong; the error has its whole path.
        """
        try:
            inspect.signature(self.made).bind(**self.settings, **contents)
        except TypeError:
            _explain_arguments(self.made, {**self.settings, **contents}, self.path)
            raise
        try:
            return self.made(**self.arguments(contents))
        except OptionsError as wrong:
            raise wrong.under(*self.path) from None
        except (TypeError, ValueError) as wrong:
            raise OptionsError(self.path, str(wrong)) from wrong


def read_section(
    section: object, path: Sequence[str], class_of: Callable[[str], type[T]], missing: Callable[[], str]
) -> KindSection[T]:
    """Finds the class of *section*, and takes its arguments apart.

    Args:
        section: ``{kind: …, …}``. If the class has an argument such as ``url``, it may have ``url_file`` instead.
        path: where the section is.
        class_of: returns the class of a kind, or raises OptionsError without a path.
        missing: returns the problem of a section without a kind.

    Raises:
        OptionsError: it is no section, or has no kind, or there is no class for it.
    """
    section = opened(section)
    if not isinstance(section, Mapping):
        raise OptionsError(path, f"expected a section of settings with a kind, got {type(section).__name__}")
    settings = {str(key): value for key, value in section.items()}
    kind = settings.pop("kind", None)
    if not isinstance(kind, str):
        raise OptionsError((*path, "kind"), missing())
    try:
        made = class_of(kind)
    except OptionsError as refused:
        raise refused.under(*path, "kind") from refused.__cause__
    wrong: list[OptionsError] = []
    files = _files(made, settings, path, wrong)
    return KindSection(made, settings, files, tuple(path), wrong)


def class_in(kind: str, module: str, name: str, extra: str) -> Any:
    """Returns the class *name* of *module*. Its connector library is imported here.

    Raises:
        OptionsError: the library of *kind* is not installed; *extra* installs it. The error has no path.
    """
    try:
        return getattr(import_module(module), name)
    except ImportError as missing:
        raise OptionsError(
            (),
            f"the kind {kind!r} needs {_distribution(missing)}, which is not installed: "
            f"pip install 'broadway-py[{extra}]'",
        ) from missing


def _typed(made: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns *settings*, with values that came as text converted to the types that *made* wants."""
    if _is_ours(made):
        return dict(settings)  # the options check them: they know their fields
    try:
        hints = get_type_hints(vars(_owner(made))["__init__"])
    except Exception:  # noqa: BLE001  # code of the user: names that exist only for a type checker
        hints = {}
    known = parameters_of(made)
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


def _explain_arguments(made: Callable[..., object], settings: Mapping[str, Any], path: Sequence[str]) -> None:
    known = parameters_of(made)
    wrong = [
        OptionsError(
            (*path, name), f"unknown setting; known here: {', '.join(sorted(known))}{did_you_mean(name, known)}"
        )
        for name in settings
        if name not in known and not takes_any_argument(made)
    ]
    wrong += [
        OptionsError((*path, name), "required, but missing")
        for name, parameter in known.items()
        if parameter.default is parameter.empty and name not in settings
    ]
    if wrong:
        raise OptionsError.of(wrong)


def parameters_of(made: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Returns the arguments that *made* takes by name."""
    kinds_of_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(made).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds_of_name}


def takes_any_argument(made: Callable[..., object]) -> bool:
    """Returns whether *made* takes arguments of any name."""
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(made).parameters.values())


def _files(
    made: Callable[..., object], settings: dict[str, Any], path: Sequence[str], wrong: list[OptionsError]
) -> dict[str, str]:
    """Takes the names of files out of *settings* and returns them by argument."""
    known = parameters_of(made)
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


def _content(field: str, file: str, path: Sequence[str]) -> str:
    place = (*path, f"{field}_file")
    try:
        return Written(without_end(decoded(content_of(file))))
    except NotText as wrong:
        raise OptionsError(place, f"the file {file!r} is not {wrong.encoding} text: {wrong}") from None
    except ValueError as unreadable:
        raise OptionsError(place, str(unreadable)) from None


def _distribution(missing: ImportError) -> str:
    # Our packages say in their own words what they need, and chain the error that names the library.
    cause = missing.__cause__ if isinstance(missing.__cause__, ImportError) else missing
    return {"aio_pika": "aio-pika", "aiormq": "aio-pika", "aiobotocore": "aiobotocore", "botocore": "aiobotocore"}.get(
        (cause.name or "").partition(".")[0], cause.name or str(missing)
    )
