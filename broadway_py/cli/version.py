"""``broadway --version``: what is installed, for a person who asks for help."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from broadway_py.installed import extras, package_version

__all__ = ["version_lines"]


def version_lines() -> Iterator[str]:
    """Yields the lines: version, Python and platform in the first one, then one for each extra."""
    yield (
        f"broadway {package_version()}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()} {platform.machine()}"
    )
    found = extras()
    width = max(len(extra.name) for extra in found)
    for extra in found:
        yield f"  {extra.name:<{width}}  {extra}"
