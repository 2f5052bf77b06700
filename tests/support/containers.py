"""Brokers from containers: whether the suite takes them, and one container that ends with the run.

As a program (``make test``) it says ``containers`` or ``local``, and sees that the images are there.

The images are those of docker-compose.yml. Each container is in this machine's own network: a listener that is shut
refuses connections, and clients come from 127.0.0.1, as with a local program. Published ports would put a proxy of the
engine between, which takes every connection, whether or not a broker stands behind it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["Container", "ContainersUnavailableError", "Keeper", "asked_for", "image_of", "unavailable", "wanted"]

_VARIABLE: Final = "BROADWAY_TEST_BROKERS"
_COMPOSE: Final = Path(__file__).resolve().parents[2] / "docker-compose.yml"
#: Waits for the end of its input, which ends with us, in whatever way we end. ``--volumes``: those without a name.
_KEEPER: Final = 'cat >/dev/null; exec docker rm --force --volumes "$0" >/dev/null 2>&1'


class ContainersUnavailableError(Exception):
    """Containers are asked for and cannot be had; the text says why, and what to do."""


def asked_for() -> bool:
    """Whether ``BROADWAY_TEST_BROKERS`` asks for containers."""
    return os.environ.get(_VARIABLE) == "containers"


def wanted() -> bool:
    """Whether the brokers of this run come from containers: by ``BROADWAY_TEST_BROKERS``, else where an engine answers.

    Raises:
        ContainersUnavailableError: they are asked for, and there is no engine; or the variable has another value.
    """
    given = os.environ.get(_VARIABLE, "")
    if given not in {"", "containers", "local"}:
        raise ContainersUnavailableError(
            f"{_VARIABLE} is 'containers' or 'local', not {given!r}; without it containers are taken where an engine "
            f"answers"
        )
    if given == "local":
        return False
    why = unavailable()
    if asked_for() and why is not None:
        raise ContainersUnavailableError(
            f"{_VARIABLE}=containers asks for a container engine, but {why}; start one, or say {_VARIABLE}=local"
        )
    return why is None


@functools.cache  # the report's head, the choice of tests and each broker ask
def unavailable() -> str | None:
    """Why no brokers can come from containers; None: an engine of this machine answers."""
    if shutil.which("docker") is None:
        return "there is no program docker in PATH"
    try:
        ran = subprocess.run(
            ["docker", "info", "--format", "{{json .}}"], capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return "`docker info` gave no answer in 20 s"
    try:
        said: dict[str, Any] = json.loads(ran.stdout)
    except ValueError:
        said = {}
    # Without an engine there is what the client knows of itself, and a reason.
    if not said.get("ServerVersion"):
        errors = said.get("ServerErrors") or ran.stderr.strip().splitlines()[-1:]
        return f"`docker info` says: {'; '.join(errors) or f'nothing, with exit code {ran.returncode}'}"
    if said.get("Name") != socket.gethostname() or any("rootless" in one for one in said.get("SecurityOptions") or []):
        return (
            f"the engine that answers ({said.get('OperatingSystem')}, host name {said.get('Name')}) has a network of "
            "its own (another machine, a virtual machine, or rootless), and tests need containers in this machine's"
        )
    return None


def image_of(service: str) -> str:
    """The image of a *service* in docker-compose.yml: what is tested is what is run."""
    image: str = yaml.safe_load(_COMPOSE.read_text())["services"][service]["image"]
    return image


class Keeper:
    """A small process that removes the container called *name* when :meth:`remove` says so, or when we end."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", _KEEPER, name],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
        )

    def remove(self) -> None:
        """Have the container removed; it is gone afterwards."""
        self._process.communicate()


class Container:
    """A container of *image*, in this machine's network; it is removed by :meth:`remove`, or when this process ends.

    Args:
        image: with its tag; it is pulled where it is not there.
        environment: of its first process.
        folder: of this machine, found inside under the same path; None: nothing of this machine is.
        run: the program to start, as the user of this process; None: what the image starts, as the image's user.
    """

    def __init__(
        self,
        image: str,
        *,
        environment: Mapping[str, str],
        folder: Path | None = None,
        run: Sequence[str] | None = None,
    ) -> None:
        # Taken from the library here: whoever runs no containers does not pay for it.
        from docker.errors import DockerException  # noqa: PLC0415  # see above
        from docker.types import Ulimit  # noqa: PLC0415  # see above
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415  # see above
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # see above

        # A third image, which watches over us by the engine's socket; the process below does as much.
        testcontainers_config.ryuk_disabled = True
        # Erlang has a table as long as this, and engines allow a milliard.
        options: dict[str, Any] = {
            "network": "host",
            "ulimits": [Ulimit(name="nofile", soft=20_000, hard=20_000)],
        }
        if run is not None:
            options |= {"entrypoint": list(run), "user": f"{os.getuid()}:{os.getgid()}"}
        self.name = f"broadway-test-{uuid.uuid4().hex[:12]}"
        self._container = DockerContainer(image, name=self.name, env=dict(environment)).with_kwargs(**options)
        if folder is not None:
            self._container.with_volume_mapping(str(folder), str(folder), "rw")
        self._keeper = Keeper(self.name)
        with contextlib.ExitStack() as undone:
            undone.callback(self.remove)
            try:
                self._container.start()
            except DockerException as error:
                raise ContainersUnavailableError(
                    f"no container of {image}, an image of docker-compose.yml, can be started: {error}; correct that, "
                    f"or set {_VARIABLE}=local"
                ) from error
            undone.pop_all()

    def inside(self, program: str, *options: str) -> list[str]:
        """The command that runs *program* in the container; standard input and output are its own.

        Args:
            program: to run.
            options: of ``docker exec``.
        """
        return ["docker", "exec", "--interactive", *options, self.name, program]

    def ended(self) -> bool:
        """Whether its first process has ended."""
        container = self._container.get_wrapped_container()
        container.reload()
        return bool(container.status == "exited")

    def log_tail(self) -> str:
        """The last of what it wrote to standard output and error."""
        return "\n".join(part.decode(errors="replace")[-2000:] for part in self._container.get_logs())

    def remove(self) -> None:
        """End it at once, as a crash of its machine would, and delete its files."""
        self._keeper.remove()
        self._container.get_docker_client().client.close()


def main() -> int:
    """Print what the brokers come from; before containers, pull images that are missing, however long that takes."""
    try:
        chosen = wanted()
    except ContainersUnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    images = [image_of("rabbitmq"), image_of("localstack")] if chosen else []
    for image in images:
        there = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
        if (
            there.returncode != 0
            and subprocess.run(["docker", "pull", image], stdout=sys.stderr, check=False).returncode
        ):
            print(
                f"the image {image} is not on this machine and cannot be pulled; correct that, or set "
                f"{_VARIABLE}=local",
                file=sys.stderr,
            )
            return 1
    print("containers" if chosen else "local")
    return 0


if __name__ == "__main__":
    sys.exit(main())
