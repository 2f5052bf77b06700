"""Tells which version of broadway-py is installed, and which libraries of its extras. None of them is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple

__all__ = ["EXTRAS", "Extra", "extras", "package_version"]

#: Extra -> the libraries that it installs.
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "daemon": ("aiohttp", "prometheus-client", "rich", "typer"),
    "flow": ("cloudpickle", "tqdm"),
    "otel": ("opentelemetry-api",),
    "rabbitmq": ("aio-pika", "aiormq", "pamqp", "yarl", "aiohappyeyeballs"),
    "ray": ("cloudpickle", "ray"),
    "reload": ("watchfiles",),
    "speed": ("uvloop",),
    "sqs": ("aiobotocore",),
}
#: uvloop does not exist for this platform.
_WITHOUT_UVLOOP: Final = "win32"


class Extra(NamedTuple):
    """What is installed of an extra."""

    name: str
    #: Library -> its version; None: it is not installed.
    versions: Mapping[str, str | None]

    def __str__(self) -> str:
        """Returns the versions, and what installs the libraries that are missing."""
        missing = [library for library, found in self.versions.items() if found is None]
        install = f"not installed: pip install 'broadway-py[{self.name}]'"
        if len(missing) == len(self.versions):
            return install
        shown = ", ".join(f"{library} {found}" for library, found in self.versions.items() if found is not None)
        return f"{shown}; {', '.join(missing)} {install}" if missing else shown


def extras() -> list[Extra]:
    """Returns what is installed of each extra that this platform can have."""
    return [
        Extra(name, {library: _version_of(library) for library in libraries})
        for name, libraries in EXTRAS.items()
        if not (name == "speed" and sys.platform == _WITHOUT_UVLOOP)
    ]


def package_version() -> str:
    """Returns the installed version of broadway-py; "unknown" if it was never installed."""
    return _version_of("broadway-py") or "unknown"


def _version_of(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
