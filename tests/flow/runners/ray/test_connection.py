"""The connection of a program to Ray: which cluster it leads to, and what goes over with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.support.eventually import eventually_sync
from tests.support.ray_cluster import living_workers

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    eventually_sync(lambda: not living_workers(), what="all workers have ended")


def flow(**settings: Any) -> Any:
    return Flow.from_iterable(range(3)).map(works.same).using("ray", workers=1, **settings)


def test_another_cluster_than_that_of_the_program_is_refused(ray_cluster: Any) -> None:
    with leaves_nothing("ray"), pytest.raises(FlowFailed) as raised:
        flow(address="127.0.0.1:1").to_list()

    assert str(raised.value) == (
        f"ray: expected the cluster at 127.0.0.1:1, but this program is connected to the one at {ray_cluster.address}: "
        "end what uses that first, or leave address= out"
    )
    assert flow(address=ray_cluster.address).to_list() == [0, 1, 2]
    assert flow(address=f"localhost:{ray_cluster.address.rpartition(':')[2]}").to_list() == [0, 1, 2]


@pytest.mark.parametrize(
    ("environment", "name"), [({"working_dir": "."}, "working_dir"), ({"py_modules": ["tests"]}, "py_modules")]
)
def test_what_is_sent_from_this_machine_is_refused_if_the_program_is_connected_already(
    environment: dict[str, Any], name: str
) -> None:
    with leaves_nothing("ray"), pytest.raises(FlowFailed) as raised:
        flow(runtime_env=environment).to_list()

    assert str(raised.value) == (
        f"ray: using.runtime_env.{name} is sent from this machine when the program connects to Ray, and it is "
        "connected already: give it to ray.init(), or use a URI"
    )


#: The program itself cannot import the module.
SENDS: Final = """
import sys
from broadway_py import Flow

def double(number):
    import of_the_working_dir
    return of_the_working_dir.double(number)

flow = Flow.from_iterable([1, 2, 3]).map(double)
for _ in range(2):
    environment = {"working_dir": sys.argv[1], "excludes": ["left_out.txt"], "env_vars": {"A": "b"}}
    print(flow.using("ray", workers=1, runtime_env=environment).to_list())
"""


def test_a_working_directory_goes_to_the_workers(tmp_path: Path) -> None:
    (tmp_path / "of_the_working_dir.py").write_text("def double(number):\n    return 2 * number\n")
    (tmp_path / "left_out.txt").touch()

    ran = subprocess.run(
        [sys.executable, "-c", SENDS, tmp_path], capture_output=True, text=True, check=False, timeout=120
    )

    assert ran.stdout == "[2, 4, 6]\n[2, 4, 6]\n", ran.stderr


def test_a_runtime_environment_that_ray_refuses_is_told() -> None:
    with leaves_nothing("ray"), pytest.raises(FlowFailed) as raised:
        flow(runtime_env={"env_vars": {"A": 1}}).to_list()

    assert re.fullmatch("ray: expected that workers can be made: .+", str(raised.value))


def test_each_of_many_sources_of_files_asks_for_its_ranges(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(20)]
    for path in paths:
        path.write_text(f"{path.stem}\n")
    merged = Flow.merge([Flow.from_files(path).map(works.same) for path in paths])

    with leaves_nothing("ray"):
        found = merged.map(int).using("ray", workers=2).to_list()

    assert sorted(found) == list(range(20))
