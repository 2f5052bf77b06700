"""``broadway config``: shows what the settings come to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import typer
import yaml

from broadway_py.cli.arguments import Assignments, Files
from broadway_py.cli.endings import sentences
from broadway_py.daemon.settings.settings import read_settings

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

#: The column in which origins begin, unless a line is longer.
_WIDEST: Final = 70


@commands.callback()
def _config() -> None:
    """Show what the settings come to, and where each value comes from.

    [bold]Examples[/]

      broadway config show orders.yaml --origin
    """


@commands.command()
def show(
    files: Files,
    with_origin: Annotated[
        bool, typer.Option("--origin", help="Say beside each value where it comes from: file and line, …")
    ] = False,
    form: Annotated[Literal["yaml", "json"], typer.Option("--format", help="How to print the settings.")] = "yaml",
    assignments: Assignments = None,
) -> None:
    """Print every setting that counts, after FILE, the environment, --set, the class and the defaults are put together.

    Passwords and URLs with passwords are hidden. Nothing is connected to.

    With [bold]--origin[/], each value has its origin beside it: a file and a line, an
    environment variable, --set, the class that sets it, or "default".

    [bold]Examples[/]

      broadway config show orders.yaml

      broadway config show base.yaml production.yaml --origin

      broadway config show orders.yaml --format json | jq .pipelines.orders.processors
    """
    from broadway_py.daemon.pipelines.resolved import resolved_settings  # noqa: PLC0415  # keeps --help fast

    with sentences():
        tree = resolved_settings(read_settings(files, assignments=assignments or []))
    if form == "json":
        typer.echo(json.dumps(_plain(tree, with_origin=with_origin), indent=2, ensure_ascii=False))
        return
    lines = list(_lines(tree, ""))
    column = min(_WIDEST, max(len(text) for text, _ in lines))
    for text, origin in lines:
        typer.echo(f"{text:<{column}}  # {origin}" if with_origin and origin else text)


def _plain(tree: Any, *, with_origin: bool) -> Any:
    """Returns *tree* as JSON can write it."""
    if isinstance(tree, dict):
        return {name: _plain(one, with_origin=with_origin) for name, one in tree.items()}
    if isinstance(tree, list):
        return [_plain(one, with_origin=with_origin) for one in tree]
    return {"value": tree.value, "origin": tree.origin} if with_origin else tree.value


def _lines(tree: Any, indent: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of *tree* in YAML, each with the origin of its value."""
    for name, inner in tree.items():
        start = f"{indent}{_in_yaml(str(name))}:"
        if isinstance(inner, dict):
            yield start, ""
            yield from _lines(inner, f"{indent}  ")
        elif isinstance(inner, list):
            yield start, ""
            for one in inner:
                yield from _item(one, f"{indent}  ")
        else:
            yield f"{start} {_in_yaml(inner.value)}", inner.origin


def _item(tree: Any, indent: str) -> Iterator[tuple[str, str]]:
    """Yields the lines of an item of a list. A dash stands in front of the first one."""
    if not isinstance(tree, dict):
        yield f"{indent}- {_in_yaml(tree.value)}", tree.origin
        return
    for number, (text, origin) in enumerate(_lines(tree, f"{indent}  ")):
        yield text if number else f"{indent}- {text.lstrip()}", origin


def _in_yaml(value: object) -> str:
    """Returns *value* on one line, as a settings file has it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000)
    text = text.removesuffix("...\n").strip()
    if "\n" in text:
        text = json.dumps(value, ensure_ascii=False)
    return text.replace("${", "$${")
