"""The files of the live page, and the paths under which they are served."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

from broadway_py.daemon.http.answers import Handler

__all__ = ["PAGE_FILES", "page_file"]

_SCRIPT: Final = "text/javascript"
#: By path: the file in the folder ``page``, and its type.
PAGE_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{
        f"/page/{name}": (name, _SCRIPT)
        for name in (
            "aggregators.js",
            "cards.js",
            "charts.js",
            "controls.js",
            "daemon.js",
            "dom.js",
            "explanations.js",
            "figures.js",
            "main.js",
            "overview.js",
            "panels.js",
            "pipeline.js",
            "stages.js",
        )
    },
}


def page_file(name: str, content_type: str) -> Handler:
    """Returns what answers with the file *name*."""
    # The file is read once, so that the page is served even when no descriptor is free.
    text = files("broadway_py.daemon.http").joinpath("page", name).read_text(encoding="utf-8")

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=content_type)

    return page
