"""The house stands on its floors: a module imports only from below, in no circle; only the outermost print or exit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = "broadway_py"
ROOT: Final = Path(__file__).resolve().parents[1] / PACKAGE

#: Room (a module or package right under broadway_py) -> floor. A room imports from lower floors and from itself.
FLOORS: Final[dict[str, float]] = {
    "foreign": -1,
    "abilities": 0,
    "errors": 0,
    "limit": 0,
    "error_text": 0.2,
    "message": 0.5,
    "events": 0,
    "machine": 0,
    "request_counts": 0,
    "text_files": 0,
    "written": 0,
    "forks": 0,
    "log": 0.5,
    "acknowledger": 1,
    "clock": 0,
    "telemetry": 1,
    "options": 2,
    "_core": 3,
    "stage": 4,
    "storage": 4,
    "producer": 4,
    "state": 5,
    "pipeline": 6,
    "flow": 6,
    "producers": 7,
    "metrics": 7,
    "testing": 7,
    "queue": 7.5,  # a door too: the embedded queue for users, on top of its producer
    "examples": 8,
    "daemon": 8,
    "cli": 9,
}

#: Room (a module or package right under broadway_py.pipeline) -> floor inside that; the same rule.
FLOORS_OF_PIPELINE: Final[dict[str, float]] = {
    "contexts": -1,
    "stats": -1,
    "settlement": 0,
    "intake": 1,
    "poison": 1,
    "processes": 1,
    "callbacks": 2,
    "stages": 3,
    "runtime": 4,
    "lifecycle": 5,
    "option_sources": 5,
    "submit": 5.5,
    "pipeline": 6,
    "": 7,  # the package itself, which re-exports
}

#: The front door re-exports everything up to floor 7: who imports it stands above all of that.
FRONT_DOOR: Final = 7.5

#: Producers are a wing of their own: they see the floors below this one only, never a pipeline.
WING, WING_SEES_BELOW = "producers", 5

#: What reaches the terminal or ends the process, and the rooms (or modules) that may.
PRINTS: Final = {"cli"}
EXITS: Final = {"cli", "daemon", "__main__"}
LEAVES: Final = {"broadway_py.forks", "broadway_py.pipeline.processes.child", "daemon"}

#: Libraries of extras: only the parts that need them import them.
OPTIONAL: Final = (
    "aio_pika",
    "aiobotocore",
    "aiohttp",
    "aiormq",
    "botocore",
    "prometheus_client",
    "pydantic_settings",
    "typer",
    "uvloop",
)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, by its dotted name."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


def is_module(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(dotted: str) -> str:
    """``broadway_py.pipeline.stages.batcher`` is in the room ``pipeline``; the front door's room is ``""``."""
    return dotted.split(".")[1] if "." in dotted else ""


def room_of_pipeline(dotted: str) -> str:
    """``broadway_py.pipeline.stages.batcher`` is in the room ``stages`` of it; the package itself is ``""``."""
    return dotted.split(".")[2] if dotted.count(".") > 1 else ""


def imports(dotted: str, tree: ast.AST, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and target of every import of ours: at the top, inside functions, under TYPE_CHECKING, by import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = dotted.split(".")[: len(dotted.split(".")) - node.level + is_package]
                base = ".".join([*inside, *([node.module] if node.module else [])])
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield node.lineno, inner if base.startswith(PACKAGE) and is_module(inner) else base
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "importlib.import_module", "__import__"}:
            target = node.args[0] if node.args else None
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def complaints(dotted: str, source: str, *, is_package: bool = False) -> list[str]:
    """What the module's source does that its floor does not allow."""
    tree = ast.parse(source)
    own = room(dotted)
    found = []
    if own not in {"", "__main__"}:
        for line, target in imports(dotted, tree, is_package=is_package):
            if target.split(".")[0] == PACKAGE and (reason := why_refused(dotted, target)) is not None:
                found.append(f"{dotted}:{line} imports {target}: {reason}")
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = called(call)
        if name == "print" and own not in PRINTS:
            found.append(f"{dotted}:{call.lineno} prints: only {', '.join(sorted(PRINTS))} may")
        elif name in {"sys.exit", "exit", "quit", "SystemExit"} and own not in EXITS:
            found.append(f"{dotted}:{call.lineno} exits: only {', '.join(sorted(EXITS))} may")
        elif name == "os._exit" and not {own, dotted} & LEAVES:
            found.append(f"{dotted}:{call.lineno} leaves the process: only {', '.join(sorted(LEAVES))} may")
    return found


def why_refused(dotted: str, target: str) -> str | None:
    own = room(dotted)
    if own != "pipeline" or room(target) != "pipeline":
        return refused(own, room(target))
    inner, above = room_of_pipeline(dotted), room_of_pipeline(target)
    if inner == above:
        return None
    for each in (inner, above):
        if each not in FLOORS_OF_PIPELINE:
            return f"{each} has no floor: give it one in FLOORS_OF_PIPELINE"
    if FLOORS_OF_PIPELINE[above] >= FLOORS_OF_PIPELINE[inner]:
        return f"floor {FLOORS_OF_PIPELINE[above]:g} is not below floor {FLOORS_OF_PIPELINE[inner]:g} of pipeline"
    return None


def circle_in(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in a circle, the first of them twice; none when there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        circle: list[str] = found.args[1]
        return circle
    return []


def refused(own: str, target: str) -> str | None:
    if own not in FLOORS:
        return f"{own} has no floor: give it one in FLOORS"
    if target == own:
        return None
    above = FRONT_DOOR if target == "" else FLOORS.get(target)
    if above is None:
        return f"{target} has no floor"
    if own == WING and above >= WING_SEES_BELOW:
        return f"{WING} sees the floors below {WING_SEES_BELOW} only"
    if above >= FLOORS[own]:
        return f"floor {above:g} is not below floor {FLOORS[own]:g}"
    return None


def test_a_module_imports_only_from_lower_floors() -> None:
    assert [
        complaint
        for dotted, path in modules()
        for complaint in complaints(dotted, path.read_text(), is_package=is_package(path))
    ] == []


def test_every_room_of_the_package_has_a_floor() -> None:
    rooms = {room(dotted) for dotted, _ in modules()} - {"", "__main__"}
    inner = {room_of_pipeline(dotted) for dotted, _ in modules() if room(dotted) == "pipeline"}

    assert rooms - set(FLOORS) == set()
    assert inner == set(FLOORS_OF_PIPELINE)


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {
        dotted: {target for _, target in imports(dotted, ast.parse(path.read_text()), is_package=is_package(path))}
        for dotted, path in modules()
    }

    assert circle_in(graph) == []


def test_a_circle_is_found() -> None:
    assert circle_in({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) in (
        ["a", "c", "b", "a"],
        ["b", "a", "c", "b"],
        ["c", "b", "a", "c"],
    )
    assert circle_in({"a": ["b", "c"], "b": ["c"]}) == []


@pytest.mark.parametrize(
    ("dotted", "source", "complaint"),
    [
        ("broadway_py.events", "import broadway_py.errors", "floor 0 is not below floor 0"),
        ("broadway_py._core.rate", "from broadway_py.stage import Link", "floor 4 is not below floor 3"),
        ("broadway_py.stage.link", "from broadway_py import daemon", "floor 8 is not below floor 4"),
        ("broadway_py.stage.link", "from broadway_py import Pipeline", "floor 7.5 is not below floor 4"),
        ("broadway_py.pipeline.drain", "def late():\n    import broadway_py.daemon", "floor 8 is not below floor 6"),
        (
            "broadway_py.pipeline.drain",
            "if TYPE_CHECKING:\n    from broadway_py.cli import main",
            "floor 9 is not below floor 6",
        ),
        ("broadway_py.pipeline.drain", "import_module('broadway_py.metrics')", "floor 7 is not below floor 6"),
        ("broadway_py.stage.link", "from ..pipeline import drain", "floor 6 is not below floor 4"),
        (
            "broadway_py.producers.memory",
            "from broadway_py.pipeline import x",
            "producers sees the floors below 5 only",
        ),
        ("broadway_py.producers.memory", "from broadway_py.state import x", "producers sees the floors below 5 only"),
        (
            "broadway_py.pipeline.settlement.settler",
            "from broadway_py.pipeline.stages.stage import PipelineStage",
            "floor 3 is not below floor 0 of pipeline",
        ),
        (
            "broadway_py.pipeline.poison.journal",
            "if TYPE_CHECKING:\n    from broadway_py.pipeline.processes import jobs",
            "floor 1 is not below floor 1 of pipeline",
        ),
        (
            "broadway_py.pipeline.helpers",
            "from broadway_py.pipeline.stats import PipelineStats",
            "helpers has no floor: give it one in FLOORS_OF_PIPELINE",
        ),
        ("broadway_py.utils", "import broadway_py.errors", "utils has no floor: give it one in FLOORS"),
        ("broadway_py.stage.link", "print('x')", "prints: only cli may"),
        ("broadway_py.metrics", "import sys\nsys.exit(1)", "exits: only __main__, cli, daemon may"),
        ("broadway_py.pipeline.drain", "raise SystemExit(1)", "exits: only __main__, cli, daemon may"),
        (
            "broadway_py.cli",
            "os._exit(1)",
            "leaves the process: only broadway_py.forks, broadway_py.pipeline.processes.child, daemon may",
        ),
    ],
)
def test_what_a_floor_does_not_allow_is_found(dotted: str, source: str, complaint: str) -> None:
    (found,) = complaints(dotted, source)

    assert found.endswith(complaint)


@pytest.mark.parametrize(
    ("dotted", "source"),
    [
        ("broadway_py.producers.memory", "from broadway_py.producer import Producer"),
        ("broadway_py.producers.rabbitmq.consumer", "from broadway_py.producers.rabbitmq.link import Link"),
        ("broadway_py.examples.shipments", "from broadway_py import Pipeline"),
        ("broadway_py.daemon.http.server", "import aiohttp\nfrom broadway_py.metrics import collect"),
        ("broadway_py", "from broadway_py.pipeline import Pipeline"),
        ("broadway_py.pipeline.stages.processor", "from broadway_py.pipeline.stages.stage import PipelineStage"),
        ("broadway_py.pipeline.stages.stage", "from broadway_py.pipeline.callbacks.call import Call"),
        ("broadway_py.pipeline.callbacks.call", "from broadway_py.stage import Wake"),
        ("broadway_py.daemon.watchdog", "os._exit(75)"),
        ("broadway_py.pipeline.processes.child", "os._exit(1)"),
        ("broadway_py.cli", "print('x')\nsys.exit(2)"),
    ],
)
def test_what_a_floor_allows_is_let_through(dotted: str, source: str) -> None:
    assert complaints(dotted, source) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import broadway_py",
        "import broadway_py; [getattr(broadway_py, name) for name in broadway_py.__all__ if name != 'run']",
        "from broadway_py.producers import DummyProducer, MemoryProducer, QueueProducer",
        "import broadway_py.testing",
    ],
)
def test_the_front_door_imports_no_library_of_an_extra(statement: str) -> None:
    program = f"import sys; {statement}; print([name for name in {OPTIONAL!r} if name in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout, ran.stderr) == ("[]\n", "")


# --- the rooms of the daemon and of the connectors --------------------------------------------------------------------

#: Wing -> its rooms, each with its floor; "" are the files beside them. A room imports from lower ones and from itself.
WINGS: Final[Mapping[str, Mapping[str, int]]] = {
    "broadway_py.daemon": {
        "settings": 0,
        "logs": 1,
        "process": 2,
        "pipelines": 3,
        "http": 4,
        "dead_letters": 4,
        "workers": 5,
        "": 6,
    },
    "broadway_py.producers.rabbitmq": {
        "settings": 0,
        "wire": 0,
        "connection": 1,
        "topology": 2,
        "deliveries": 3,
        "retries": 4,
        "settlements": 5,
        "": 6,
    },
    "broadway_py.producers.sqs": {
        "settings": 0,
        "requests": 1,
        "deliveries": 2,
        "visibility": 3,
        "dead_letters": 3,
        "settlements": 4,
        "": 5,
    },
}


def arrows(dotted: str, source: str, *, is_package: bool = False) -> set[str]:
    """What of ours the module imports, anywhere in its *source*."""
    found = imports(dotted, ast.parse(source), is_package=is_package)
    return {target for _, target in found if target.split(".")[0] == PACKAGE} - {dotted}


def wing_complaints(drawn: Mapping[str, Collection[str]]) -> list[str]:
    """Which of these imports go up inside a wing, or round in a circle of files."""
    found = []
    for wing, floors in WINGS.items():
        for own in (dotted for dotted in drawn if dotted.startswith(f"{wing}.")):
            from_room = own.removeprefix(f"{wing}.").rpartition(".")[0]
            if from_room not in floors:
                found.append(f"{wing}.{from_room} has no floor: give it one in WINGS")
                continue
            for target in sorted(each for each in drawn[own] if each.startswith(f"{wing}.")):
                to_room = target.removeprefix(f"{wing}.").rpartition(".")[0]
                if from_room != to_room and floors.get(to_room, 0) >= floors[from_room]:
                    found.append(f"{own} imports {target}: {to_room or wing} is not below {from_room}")
    try:
        TopologicalSorter(drawn).prepare()
    except CycleError as circle:
        found.append(f"a circle of files: {' <- '.join(circle.args[1])}")
    return found


def test_rooms_of_a_wing_import_from_lower_ones_and_files_in_no_circle() -> None:
    drawn = {
        dotted: arrows(dotted, path.read_text(), is_package=path.name == "__init__.py")
        for dotted, path in modules()
        if dotted.startswith(("broadway_py.daemon", "broadway_py.producers"))
    }

    assert wing_complaints(drawn) == []


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        (
            {"broadway_py.daemon.settings.files": "from broadway_py.daemon.logs.logs import flush"},
            "logs is not below settings",
        ),
        (
            {"broadway_py.daemon.http.server": "def late():\n    import broadway_py.daemon.dead_letters.letters"},
            "dead_letters is not below http",
        ),
        (
            {"broadway_py.producers.sqs.requests.client": "from broadway_py.producers.sqs import producer"},
            "broadway_py.producers.sqs is not below requests",
        ),
        (
            {"broadway_py.daemon.tools.x": "import broadway_py.daemon.settings.files"},
            "broadway_py.daemon.tools has no floor: give it one in WINGS",
        ),
        (
            {
                "broadway_py.daemon.logs.logs": "from broadway_py.daemon.logs import log_writer",
                "broadway_py.daemon.logs.log_writer": "if TYPE_CHECKING:\n    import broadway_py.daemon.logs.logs",
            },
            "broadway_py.daemon.logs.logs <- broadway_py.daemon.logs.log_writer <- broadway_py.daemon.logs.logs",
        ),
    ],
)
def test_what_goes_up_or_round_in_a_wing_is_found(sources: dict[str, str], complaint: str) -> None:
    (found,) = wing_complaints({dotted: arrows(dotted, source) for dotted, source in sources.items()})

    assert found.endswith(complaint)
