"""From settings to pipelines: import the class, build its producer, merge the options."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from broadway_py.daemon.settings import Settings
from broadway_py.errors import DefinitionError, OptionsError, did_you_mean
from broadway_py.pipeline import Pipeline
from broadway_py.producers.kinds import build_all

__all__ = ["build_pipelines", "check_pipelines", "pipeline_class"]


def build_pipelines(settings: Settings, *, share: tuple[int, int] = (0, 1)) -> list[Pipeline[Any]]:
    """Every pipeline of *settings*, built and not started.

    *share* is ``(index, workers)``: which worker this process is, out of how many.

    Raises:
        OptionsError: the first thing that is wrong, located by file and line where they are known.
    """
    _look_here()
    try:
        names = _names(settings.pipelines)
        return [_build(key, names[key], section, share) for key, section in settings.pipelines.items()]
    except OptionsError as wrong:
        raise settings.located(wrong) from wrong.__cause__


def check_pipelines(settings: Settings) -> list[OptionsError]:
    """What is wrong with each pipeline of *settings*; empty when all can be built."""
    _look_here()
    wrong: list[OptionsError] = []
    try:
        names = _names(settings.pipelines)
    except OptionsError as clash:
        return [settings.located(clash)]
    for key, section in settings.pipelines.items():
        try:
            _build(key, names[key], section, (0, settings.workers))
        except OptionsError as found:
            wrong.append(settings.located(found))
    return wrong


def _look_here() -> None:
    # As `python -m` does: the user's module usually lies where the command is run.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _names(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for key, section in sections.items():
        name = section.get("name", key)
        if not isinstance(name, str) or not name:
            raise OptionsError(("pipelines", key, "name"), f"expected a name, got {type(name).__name__}")
        names[key] = name
    owners: dict[str, str] = {}
    for key, name in names.items():
        if name in owners:
            # The section that says `name:` is the one to change.
            changed, other = (key, owners[name]) if "name" in sections[key] else (owners[name], key)
            raise OptionsError(
                ("pipelines", changed, "name"),
                f"{name!r} is already the name of pipelines.{other}; "
                "names label logs and metrics, so give each pipeline its own",
            )
        owners[name] = key
    return names


def _build(key: str, name: str, section: Mapping[str, Any], share: tuple[int, int]) -> Pipeline[Any]:
    path = ("pipelines", key)
    options = {field: value for field, value in section.items() if field not in ("class", "producer", "name")}
    made = pipeline_class(section.get("class"), (*path, "class"))
    producer = section.get("producer")
    if producer is not None:
        producer = build_all(producer, (*path, "producer"))
    try:
        return made.from_settings(options, name=name, producer=producer, path=path, share=share)
    except DefinitionError as wrong:
        raise OptionsError((*path, "class"), str(wrong)) from wrong


def pipeline_class(reference: object, path: tuple[str, ...]) -> type[Pipeline[Any]]:
    """The class that ``"module:Class"`` names.

    Raises:
        OptionsError: the form is another, the module is missing or fails, it has no such name, or that is no Pipeline.
    """
    if reference is None:
        raise OptionsError(path, "required, but missing; expected 'module:Class', such as 'orders:Orders'")
    module_name, colon, attribute = str(reference).partition(":")
    if not isinstance(reference, str) or not colon or not module_name or not attribute:
        raise OptionsError(path, f"expected 'module:Class', such as 'orders:Orders', got {reference!r}")
    found = _import(module_name, path)
    for part in attribute.split("."):
        inner = getattr(found, part, None)
        if inner is None:
            known = [name for name, value in vars(found).items() if isinstance(value, type)]
            raise OptionsError(path, f"the module {module_name!r} has no {attribute!r}{did_you_mean(attribute, known)}")
        found = inner
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        what = "class" if isinstance(found, type) else type(found).__name__
        raise OptionsError(
            path, f"{reference!r} is a {what}, but no pipeline; expected a subclass of broadway_py.Pipeline"
        )
    return found


def _import(name: str, path: tuple[str, ...]) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise OptionsError(
                path,
                f"there is no module {missing.name!r}, neither in the current directory nor among the installed "
                "packages; check the name, or run from the directory that holds it",
            ) from None
        raise _failed_import(name, path, missing) from missing
    except DefinitionError as wrong:
        raise OptionsError(path, str(wrong)) from wrong
    except Exception as failed:  # any error of the user's module is reported as what it is
        raise _failed_import(name, path, failed) from failed


def _failed_import(name: str, path: tuple[str, ...], failed: Exception) -> OptionsError:
    frames = [frame for frame in extract_tb(failed.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return OptionsError(
        path, f"the module {name!r} failed while it was imported: {type(failed).__name__}: {failed}{place}"
    )
