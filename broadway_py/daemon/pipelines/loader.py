"""Makes pipelines from settings: imports the class, builds its producer and merges the options."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from broadway_py.aggregator import State
from broadway_py.daemon.pipelines.owners import owners_of
from broadway_py.daemon.settings.files import SettingPath
from broadway_py.daemon.settings.settings import Settings, news
from broadway_py.errors import DefinitionError, OptionsError, did_you_mean, gathered
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.option_sources import merged_options
from broadway_py.producer import Producer
from broadway_py.producers.kinds import build_all
from broadway_py.producers.sink_kinds import build_sink
from broadway_py.state.place import refuse_place
from broadway_py.storage.errors import StorageError
from broadway_py.written import opened

__all__ = ["build_pipelines", "check_pipelines", "checked_pipelines", "pipeline_class", "pipeline_parts"]


def build_pipelines(settings: Settings, *, share: tuple[int, int] = (0, 1)) -> list[Pipeline[Any]]:
    """Returns every pipeline of *settings*, built but not started.

    *share* is ``(index, workers)``: the number of this worker, and how many workers there are.

    Raises:
        OptionsError: a setting is wrong. The error names the file and line where they are known.
    """
    built, wrong = _build_all(settings, share)
    if wrong:
        cause = next((one.__cause__ for one in wrong if one.__cause__ is not None), None)
        raise settings.located(OptionsError.of(wrong)) from cause
    for pipeline in built.values():
        pipeline._counts_sources = settings.http is not None and settings.http.source_messages
    return list(built.values())


def check_pipelines(
    settings: Settings, told: Collection[SettingPath] = (), *, here: list[OptionsError] | None = None
) -> list[OptionsError]:
    """Returns everything that is wrong with the pipelines of *settings*. The list is empty if all can be built.

    Args:
        settings: the settings.
        told: settings that were reported before. They are left out.
        here: gets what is only wrong with this machine, so that the pipelines could not start on it; None: do not look.
    """
    return checked_pipelines(settings, told, here=here)[1]


def checked_pipelines(
    settings: Settings, told: Collection[SettingPath] = (), *, here: list[OptionsError] | None = None
) -> tuple[Mapping[str, Pipeline[Any]], list[OptionsError]]:
    """Does the same as :func:`check_pipelines`. Returns also the pipelines that could be built, by their keys."""
    built, wrong = _build_all(settings, (0, settings.workers))
    if here is not None:
        here += map(settings.located, _unusable_places(built, settings.workers))
    return built, [settings.located(one) for one in news((one for each in wrong for one in each.all()), told)]


def pipeline_parts(settings: Settings, key: str) -> tuple[type[Pipeline[Any]], dict[str, Any]]:
    """Returns the class of the pipeline *key*, and the arguments that its constructor gets in a daemon of one worker.

    All pipelines of *settings* are built first, so the settings are checked as a daemon does.

    Raises:
        OptionsError: as :func:`build_pipelines`.
    """
    build_pipelines(settings, share=(0, settings.workers))
    section, path = settings.pipelines[key], ("pipelines", key)
    made = pipeline_class(section.get("class"), (*path, "class"))
    options = {field: value for field, value in section.items() if field not in ("class", "producer", "name")}
    options |= _with_sinks(options, path, [])
    options |= _with_publishers(options, path, [])
    arguments = merged_options(made, options)
    if section.get("producer") is not None:
        arguments["producer"] = build_all(section["producer"], (*path, "producer"))
    return made, {"name": str(section.get("name", key)), **arguments}


def _build_all(settings: Settings, share: tuple[int, int]) -> tuple[dict[str, Pipeline[Any]], list[OptionsError]]:
    """Returns the pipelines that can be built, by their keys, and what is wrong with the others or between them."""
    wrong: list[OptionsError] = []
    names = _names(settings.pipelines, wrong)
    built: dict[str, Pipeline[Any]] = {}
    for key, section in settings.pipelines.items():
        try:
            built[key] = _build(key, names[key], section, share)
        except OptionsError as refused:
            wrong.append(refused)
    return built, [*wrong, *_shared_states(built)]


def _shared_states(built: Mapping[str, Pipeline[Any]]) -> Iterator[OptionsError]:
    # Two pipelines may have one directory if they own different partitions, each with a file of its own.
    first: dict[tuple[str, str | None], str] = {}
    for key, pipeline in built.items():
        state = pipeline.state
        if not isinstance(state, State) or state.is_memory or not pipeline._keeps_state:
            continue
        if (other := first.setdefault((os.path.realpath(state.path), pipeline.own), key)) != key:
            what = "its windows" if built[other].aggregators else "the ids of handled messages"
            yield OptionsError(
                ("pipelines", key, "state"),
                f"the pipeline {other!r} keeps {what} in {state.path!r}, too, and a file belongs to one pipeline "
                "at a time, so this one would wait until that one ends; choose another path",
            )


def _unusable_places(built: Mapping[str, Pipeline[Any]], workers: int) -> Iterator[OptionsError]:
    owners = owners_of(built.values(), workers)
    for key, pipeline in built.items():
        state = pipeline.state
        if not isinstance(state, State) or state.is_memory or not pipeline._keeps_state:
            continue
        of_workers = owners.get(pipeline.name)
        owned = None if of_workers is None else [number for some in of_workers.values() for number in some]
        try:
            refuse_place(state.path, owned)
        except StorageError as refused:
            yield OptionsError(("pipelines", key, "state"), str(refused))


def _look_here() -> None:
    # `python -m` does the same: the user's module is usually in the directory where the command runs.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _names(sections: Mapping[str, Mapping[str, Any]], wrong: list[OptionsError]) -> dict[str, str]:
    """Returns the name of each pipeline. A wrong name is added to *wrong*, and the pipeline's key takes its place."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for key, section in sections.items():
        name = section.get("name", key)
        names[key] = key
        if not isinstance(name, str) or not name:
            came = "empty text" if name == "" else type(name).__name__
            quotes = "; put quotes around it" if isinstance(name, int | float) else ""
            wrong.append(OptionsError(("pipelines", key, "name"), f"expected a name, got {came}{quotes}"))
            continue
        names[key] = name = str(name)
        if name not in owners:
            owners[name] = key
            continue
        # The user must change the section that has `name:`.
        changed, other = (key, owners[name]) if "name" in section else (owners[name], key)
        wrong.append(
            OptionsError(
                ("pipelines", changed, "name"),
                f"{name!r} is already the name of pipelines.{other}; "
                "names label logs and metrics, so give each pipeline its own",
            )
        )
    return names


def _build(key: str, name: str, section: Mapping[str, Any], share: tuple[int, int]) -> Pipeline[Any]:
    path = ("pipelines", key)
    options = {field: value for field, value in section.items() if field not in ("class", "producer", "name")}
    wrong: list[OptionsError] = []
    made: type[Pipeline[Any]] | None = None
    producer: Any = None
    try:
        made = pipeline_class(section.get("class"), (*path, "class"))
    except OptionsError as refused:
        wrong.append(refused)
    try:
        producer = section.get("producer")
        if producer is not None:
            producer = build_all(producer, (*path, "producer"))
    except OptionsError as refused:
        wrong.append(refused)
    options |= _with_sinks(options, path, wrong)
    options |= _with_publishers(options, path, wrong)
    try:
        # The options are checked here too, so that all errors are reported at once. Without the class only errors that
        # do not depend on it count.
        merged_options(Pipeline if made is None else made, options)
    except OptionsError as refused:
        found = refused.under(*path).all()
        wrong += found if made is not None else [one for one in found if not _depends_on_class(one.path[2:])]
    if made is not None and wrong:
        told = {one.path[len(path)] for each in wrong for one in each.all() if len(one.path) > len(path)}
        rest = {option: value for option, value in options.items() if option not in told}
        stand_in = producer
        if "producer" in told:
            # It has no partitions, so what depends on them is not checked.
            stand_in, rest["own"], share = _Unknown(), None, (0, 1)
        more: list[OptionsError] = []
        # The user's own constructor may fail because of the options that are left out.
        with contextlib.suppress(Exception), gathered(more):
            made.from_settings(rest, name=name, producer=stand_in, path=path, share=share)
        # What is wrong inside of an option that is left out need not be wrong with it.
        wrong += [one for one in more if len(one.path) <= len(path) + 1 or one.path[len(path)] not in told]
    if made is None or wrong:
        raise OptionsError.of(wrong) from next((one.__cause__ for one in wrong if one.__cause__), None)
    try:
        return made.from_settings(options, name=name, producer=producer, path=path, share=share)
    except DefinitionError as refused:
        raise OptionsError((*path, "class"), str(refused)) from refused


def _with_sinks(
    options: Mapping[str, Any], path: tuple[str, ...], wrong: list[OptionsError]
) -> dict[str, Mapping[str, Any]]:
    """Returns the section ``aggregators`` of *options*, with a sink in the place of each section ``emit_to``.

    If the settings of a sink are wrong, the error is added to *wrong*, and the sink is left out.
    """
    section = opened(options.get("aggregators"))
    if not isinstance(section, Mapping):
        return {}
    made: dict[str, Any] = {}
    for name, said in section.items():
        made[name] = settings = opened(said)
        if isinstance(settings, Mapping) and opened(settings.get("emit_to")) is not None:
            made[name] = {field: value for field, value in settings.items() if field != "emit_to"}
            with gathered(wrong):
                sink = build_sink(settings["emit_to"], (*path, "aggregators", str(name), "emit_to"))
                made[name]["emit_to"] = sink
    return {"aggregators": made}


def _with_publishers(
    options: Mapping[str, Any], path: tuple[str, ...], wrong: list[OptionsError]
) -> dict[str, Mapping[str, Any]]:
    """Returns the section ``publishers`` of *options*, with a sink in the place of each entry.

    If the settings of one are wrong, the error is added to *wrong*, and it is left out.
    """
    section = opened(options.get("publishers"))
    if not isinstance(section, Mapping):
        return {}
    made: dict[str, Any] = {}
    for name, said in section.items():
        if opened(said) is None:
            made[name] = None
            continue
        with gathered(wrong):
            made[name] = build_sink(said, (*path, "publishers", str(name)))
    return {"publishers": made}


class _Unknown(Producer):
    """Takes the place of a wrong producer, so that conflicts among the other settings are reported too."""

    keeps_keys_apart = True


def _depends_on_class(path: tuple[str, ...]) -> bool:
    """Returns whether the class may add to what is at *path*, such as a section, so that an error is not certain."""
    match path:
        case ("processors" | "batch_defaults" | "failure" | "rate_limit" | "state",):
            return True
        case ("batchers" | "aggregators", _) | ("state", "path"):
            return True
    return False


def pipeline_class(reference: object, path: tuple[str, ...]) -> type[Pipeline[Any]]:
    """Returns the class that ``"module:Class"`` names. The current directory is searched first.

    Raises:
        OptionsError: *reference* has another form, the module is missing or fails, it has no such name, or the name is
            not that of a Pipeline.
    """
    _look_here()
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
            path, f"{reference!r} is a {what}, not a pipeline; expected a subclass of broadway_py.Pipeline"
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
    except Exception as failed:  # any error of the user's module is reported with its type and text
        raise _failed_import(name, path, failed) from failed


def _failed_import(name: str, path: tuple[str, ...], failed: Exception) -> OptionsError:
    frames = [frame for frame in extract_tb(failed.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return OptionsError(
        path, f"the module {name!r} failed while it was imported: {type(failed).__name__}: {failed}{place}"
    )
