"""Makes the files of a new project, and writes all of them or none."""

from __future__ import annotations

import json
import keyword
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from broadway_py.cli.new_project.sources import SOURCES
from broadway_py.errors import OptionsError

__all__ = ["next_steps", "project_files", "refuse_name", "write_project"]

#: How the package stores files whose names mean something to a tool. Each template ends with ``.in``.
_NAMES: Final = {"gitignore": ".gitignore", "gitkeep": "var/.gitkeep"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_BATCHES: Final = {
    "does": "stores them in batches in `var/orders.db`",
    "table": "orders",
    "shown": """\
This shows three orders. The other two lines of `orders.jsonl` cannot be handled, and become dead letters. Send the file
again: each order is still stored once.""",
    "repeats": "Storing an order again changes nothing, because its id is the key of the table.",
    "options": """\
    batchers: {default: {batch_size: 100, batch_timeout: 1s}}
    context: {database: var/orders.db}
""",
}
_WINDOWS: Final = {
    "does": "adds up the revenue of each customer and minute in `var/revenue.db`",
    "table": "revenue",
    "shown": """\
This shows the revenue of two customers in the first minute. The last line of `orders.jsonl` is in a minute that is not
over yet, and the line of nobody becomes a dead letter. Send the file again: its orders are too late by then, and become
dead letters, too.""",
    "repeats": "The windows count it once.",
    "options": """\
    # The windows are kept here, and survive a crash.
    state: {path: var/windows.db}
    aggregators: {revenue: {delay: 10s}}
    context: {database: var/revenue.db}
""",
}


def refuse_name(name: str) -> None:
    """Refuses a name that no package of Python can have, or that hides another one.

    Raises:
        OptionsError: says why, and which name would do.
    """
    if not _NAME.fullmatch(name):
        why = "it is not the name of a Python package, which has letters, digits and _ alone, and begins with a letter"
    elif keyword.iskeyword(name) or keyword.issoftkeyword(name):
        why = "it is a word of the language Python"
    elif name in sys.stdlib_module_names:
        why = "it is the name of a module of Python itself, which it would hide"
    elif name in ("broadway_py", "tests"):
        why = "it is the name of another package of the project"
    else:
        return
    raise OptionsError((), f"new {name}: {why}; take another name, such as {_fitting(name)}")


def _fitting(name: str) -> str:
    fit = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "orders"
    if fit[0].isdigit():
        fit = f"project_{fit}"
    taken = keyword.iskeyword(fit) or keyword.issoftkeyword(fit) or fit in sys.stdlib_module_names
    return f"my_{fit}" if taken or fit in ("broadway_py", "tests") else fit


def project_files(name: str, source: str, *, has_windows: bool, schema: Mapping[str, Any]) -> dict[str, str]:
    """Returns the text of each file of the project, by its path.

    Args:
        name: the name of the package.
        source: the kind of source.
        has_windows: whether it adds up messages in windows, instead of storing them in batches.
        schema: the JSON Schema of settings files.
    """
    texts = SOURCES[source]
    what = {**_WINDOWS, "shown": _WINDOWS["shown"] + texts.first_result} if has_windows else _BATCHES
    words = {
        **what,
        "name": name,
        "extras": texts.extras,
        "source": texts.called,
        "producer": texts.producer,
        "start": texts.start,
        "dead_letters": texts.dead_letters,
        "more_files": texts.more_files,
    }
    files = {"broadway.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"}
    templates = resources.files("broadway_py.cli.new_project") / "templates"
    for folder in ("common", "windows" if has_windows else "batches", source):
        for path, template in _templates(templates / folder):
            files[_path(path, name)] = _filled(template, words)
    return files


def next_steps(folder: Path, source: str) -> list[str]:
    """Returns the three commands to type next."""
    start = SOURCES[source].start_command
    return [
        f"cd {shlex.quote(str(folder))} && pip install --editable '.[dev]' && python -m pytest",
        f"{start}{'; ' if start else ''}broadway run settings.yaml",
        "broadway send settings.yaml orders.jsonl    # in a second terminal",
    ]


def _templates(folder: Traversable, at: str = "") -> Iterator[tuple[str, str]]:
    # A source without files of its own, as the embedded queue, has no folder.
    for one in folder.iterdir() if folder.is_dir() else ():
        if one.is_dir():
            yield from _templates(one, f"{at}{one.name}/")
        elif one.name.endswith(".in"):
            yield at + one.name.removesuffix(".in"), one.read_text(encoding="utf-8")


def _path(template: str, name: str) -> str:
    if template in ("init.py", "pipeline.py"):
        return f"{name}/{'__init__' if template == 'init.py' else 'pipeline'}.py"
    return _NAMES.get(template, template)


def _filled(template: str, words: Mapping[str, str]) -> str:
    """Returns *template* with each ``{{word}}`` replaced."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], template)


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Writes *files* into *folder*, which is made if it is missing. After an error nothing of them is left.

    Raises:
        OptionsError: the folder is not empty, or cannot be written.
    """
    try:
        is_there = folder.exists()
        if is_there and (not folder.is_dir() or any(folder.iterdir())):
            what = "the directory is not empty" if folder.is_dir() else "it is a file"
            raise OptionsError(
                (), f"{folder}: {what}, and nothing is overwritten; choose another place with --directory"
            )
        place = folder if is_there else folder.parent
        if not is_there:
            _make(place)
        _write_all(folder, files, place / f".new-{secrets.token_hex(4)}", is_there=is_there)
    except OSError as failed:
        raise OptionsError((), f"{folder}: cannot be written: {failed.strerror}") from failed


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OptionsError((), f"{folder}: cannot be made: a part of this path is a file") from None


def _write_all(folder: Path, files: Mapping[str, str], unfinished: Path, *, is_there: bool) -> None:
    """Writes *files* into *unfinished*, and moves them when all are written."""
    moved: list[Path] = []
    try:
        for name, text in files.items():
            file = unfinished / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            if text.startswith("#!"):
                file.chmod(file.stat().st_mode | 0o111)
        if not is_there:
            unfinished.rename(folder)
            return
        moved = [folder / one.name for one in unfinished.iterdir()]
        for one in moved:
            (unfinished / one.name).rename(one)
        unfinished.rmdir()
    except BaseException:
        for one in (unfinished, *moved):
            if one.is_dir():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink(missing_ok=True)
        raise
