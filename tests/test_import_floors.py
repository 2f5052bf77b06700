"""The house stands on its floors: a module imports only from below, in no circle; only the outermost print or exit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = "broadway_py"
ROOT: Final = Path(__file__).resolve().parents[1] / PACKAGE

#: House (a package) -> its rooms (the modules and packages right in it), each with its floor. "" is the package itself,
#: which re-exports. A room imports from lower rooms of each house that it is in, and from itself.
FLOORS: Final[Mapping[str, Mapping[str, float]]] = {
    "broadway_py": {
        "foreign": -1,
        "abilities": 0,
        "conflict": 0,
        "errors": 0,
        "limit": 0,
        "error_text": 0.2,
        "durations": 0.2,
        "arguments": 0.3,
        "message": 0.5,
        "events": 0,
        "examination": 0,
        "installed": 0,
        "machine": 0,
        "request_counts": 0,
        "text_files": 0,
        "written": 0,
        "forks": 0,
        "log": 0.5,
        "hand_over": 0.7,
        "trace_place": 0.7,
        "acknowledger": 1,
        "publisher": 1,
        "clock": 0,
        "telemetry": 1,
        "tracing": 1.2,
        "otel": 1.5,
        "options": 2,
        "_core": 3,
        "aggregates": 3.5,
        "aggregator": 3.5,
        "result_message": 3.7,
        "stage": 4,
        "storage": 4,
        "process": 4,
        "producer": 4,
        "producer_description": 4.5,
        "state": 5,
        "pipeline": 6,
        "flow": 6,
        "producers": 7,
        "metrics": 7,
        "testing": 8.5,
        "queue": 7.5,  # a door too: the embedded queue for users, on top of its producer
        "": 7.5,  # the front door re-exports everything up to floor 7: who imports it stands above all of that
        "examples": 8,
        "daemon": 8,
        "cli": 9,
        "__main__": 10,
    },
    "broadway_py.pipeline": {
        "contexts": -1,
        "tracers": -1,
        "stats": -1,
        "sources": -1,
        "publishing": 0,
        "settlement": 0,
        "aggregation": 2.5,
        "deduplication": 2.7,
        "intake": 1,
        "poison": 1,
        "processes": 1,
        "callbacks": 2,
        "stages": 3,
        "runtime": 4,
        "lifecycle": 5,
        "aggregator_options": 4.5,
        "publisher_options": 4.5,
        "deduplication_options": 4.7,
        "option_sources": 5,
        "submit": 5.5,
        "pipeline": 6,
        "": 7,
    },
    "broadway_py.process": {
        "frames": 0,
        "parent_watch": 0,
        "packed_errors": 1,
        "connection": 1,
        "parent_socket": 1,
        "child": 2,
        "worker_process": 2,
        "": 3,
    },
    "broadway_py.flow": {
        "counts": 0,
        "frames": 0,
        "keys": 0,
        "report": 0,
        "description": 1,
        "operator_errors": 1.5,
        "failure": 1.6,
        "work": 2,
        "plan": 2,
        "progress": 2.5,
        "stages": 3,
        "running": 4,
        "flow": 5,
        "": 6,
    },
    "broadway_py.flow.description": {
        "operators": 0,
        "settings": 0,
        "layers": 1,
        "checks": 2,
        "sources": 3,
        "chain": 3,
        "explain": 4,
        "": 9,
    },
    "broadway_py.flow.work": {
        "calls": 0.6,
        "layer_text": 2,
        "layer_code": 2.2,
        "layer_functions": 2.3,
        "emitter": 2.2,
        "joins": 2.2,
        "stage_windows": 2.2,
        "panes": 2.4,
        "after": 2.4,
        "gathering": 2.6,
        "global_window": 2.6,
        "combiner": 2.6,
        "windows": 2.6,
        "work": 3,
        "": 9,
    },
    "broadway_py.flow.stages": {
        "cutting": 0.7,
        "read_bytes": 0.7,
        "file_lines": 0.8,
        "in_memory": 0.8,
        "in_thread": 0.8,
        "list_size": 0.8,
        "order": 1,
        "file_turns": 1,
        "running_stage": 1,
        "routing": 3,
        "exchange": 4,
        "intake": 4,
        "flow_exit": 5,
        "stage": 5,
        "memory_stage": 5.2,
        "subscribed_stage": 5.2,
        "source_stage": 5.2,
        "giving": 5.5,
        "reading": 5.5,
        "": 9,
    },
    "broadway_py.flow.running": {
        "carried": 1,
        "socket_pairs": 1,
        "failed_worker": 2,
        "flow_events": 2,
        "placement": 3.5,
        "remote": 5,
        "runners": 6,
        "one_run": 6.3,
        "loop_thread": 6.6,
        "run": 7,
        "runnable": 7.5,
        "": 9,
    },
    "broadway_py.daemon": {
        "settings": 0,
        "logs": 1,
        "process": 2,
        "reload": 2.5,
        "pipelines": 3,
        "http": 4,
        "connect_check": 4,
        "dead_letters": 4,
        "workers": 5,
        "runner": 6,
        "sending": 6,
        "json_schema": 6,
        "reference": 6,
        "__main__": 6,
        "": 7,
    },
    "broadway_py.testing": {
        "quiet": 0,
        "outcomes": 0,
        "clock": 1,
        "broker": 1,
        "broker_producer": 2,
        "callback_threads": 2,
        "settings_files": 2,
        "exchange": 3,
        "pipeline_harness": 4,
        "driving": 4,
        "killed_reader": 5,
        "contract": 6,
        "harnesses": 5,
        "plugin": 6,
        "": 9,
    },
    "broadway_py.producers.rabbitmq": {
        "routing_key": 0,
        "settings": 0,
        "wire": 0,
        "connection": 1,
        "topology": 2,
        "deliveries": 3,
        "retries": 4,
        "examination": 5,
        "settlements": 5,
        "sending": 6,
        "session": 6,
        "reader": 6.5,
        "producer": 7,
        "sink": 7,
        "": 8,
    },
    "broadway_py.producers.sqs": {
        "settings": 0,
        "requests": 1,
        "deliveries": 2,
        "examination": 2,
        "visibility": 3,
        "dead_letters": 3,
        "settlements": 4,
        "trace_attributes": 0,
        "sending": 5,
        "session": 5,
        "lost_copies": 5.3,
        "reader": 5.6,
        "producer": 6,
        "sink": 6,
        "": 7,
    },
}

#: Producers are a wing of their own: they see the floors below this one only, never a pipeline.
WING, WING_SEES_BELOW = "producers", 5

#: The room that decides. It has no loop, no clock and no log, and keeps nothing that changes for the whole process.
PURE: Final = "_core"
IMPURE: Final = {"asyncio", "broadway_py.clock", "broadway_py.log", "logging", "structlog", "threading", "time"}

#: What reaches the terminal or ends the process, and the rooms (or modules) that may.
PRINTS: Final = {"cli", "examples"}
EXITS: Final = {"cli", "daemon", "examples", "__main__"}
LEAVES: Final = {"broadway_py.forks", "broadway_py.process.parent_socket", "broadway_py.process.parent_watch", "daemon"}

#: Libraries of extras: only the parts that need them import them.
OPTIONAL: Final = (
    "aio_pika",
    "aiobotocore",
    "aiohttp",
    "aiormq",
    "botocore",
    "cloudpickle",
    "opentelemetry",
    "prometheus_client",
    "pydantic_settings",
    "ray",
    "tqdm",
    "typer",
    "uvloop",
    "watchfiles",
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


def room(dotted: str, house: str = PACKAGE) -> str | None:
    """``broadway_py.pipeline.stages.batcher`` is in the room ``pipeline``, and in ``stages`` of the house ``pipeline``.

    The house itself is in ``""``. None: the module is not in *house*.
    """
    if dotted == house:
        return ""
    return dotted.removeprefix(f"{house}.").split(".")[0] if dotted.startswith(f"{house}.") else None


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
    if own == PURE:
        found += impurities(dotted, tree, is_package=is_package)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = called(call)
        if name == "print" and own not in PRINTS:
            found.append(f"{dotted}:{call.lineno} prints: only {', '.join(sorted(PRINTS))} may")
        elif name in {"sys.exit", "exit", "quit", "SystemExit"} and own not in EXITS:
            found.append(f"{dotted}:{call.lineno} exits: only {', '.join(sorted(EXITS))} may")
        elif name == "os._exit" and not {own, dotted} & LEAVES:
            found.append(f"{dotted}:{call.lineno} leaves the process: only {', '.join(sorted(LEAVES))} may")
    return found


def impurities(dotted: str, tree: ast.Module, *, is_package: bool) -> Iterator[str]:
    """What a module of the room that decides may not have."""
    for line, target in imports(dotted, tree, is_package=is_package):
        if target in IMPURE:
            yield f"{dotted}:{line} imports {target}: what decides has no loop, no clock and no log"
    for node in tree.body:
        # An empty container is there to be filled.
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_empty(node.value):
            yield f"{dotted}:{node.lineno} keeps something for the whole process: give it to an object"


def is_empty(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return not value.args and not value.keywords
    return ast.unparse(value) in {"{}", "[]"}


def why_refused(dotted: str, target: str) -> str | None:
    """Why the module *dotted* may not import *target*: in one of the houses of both, that is not below it."""
    for house, floors in FLOORS.items():
        own, other = room(dotted, house), room(target, house)
        if own is None or other is None or own == other:
            continue
        for each in (own, other):
            if each not in floors:
                return f"{each} has no floor: give it one in FLOORS[{house!r}]"
        if house == PACKAGE and own == WING and floors[other] >= WING_SEES_BELOW:
            return f"{WING} sees the floors below {WING_SEES_BELOW} only"
        if floors[other] >= floors[own]:
            return f"floor {floors[other]:g} is not below floor {floors[own]:g} of {house}"
    return None


def circle_in(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in a circle, the first of them twice; none when there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        circle: list[str] = found.args[1]
        return circle
    return []


def test_a_module_imports_only_from_lower_floors() -> None:
    assert [
        complaint
        for dotted, path in modules()
        for complaint in complaints(dotted, path.read_text(), is_package=is_package(path))
    ] == []


@pytest.mark.parametrize("house", FLOORS)
def test_every_room_of_a_house_has_a_floor_and_every_floor_a_room(house: str) -> None:
    rooms = {room(dotted, house) for dotted, _ in modules()} - {None}

    assert rooms == set(FLOORS[house])


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
        ("broadway_py.events", "import broadway_py.errors", "floor 0 is not below floor 0 of broadway_py"),
        ("broadway_py._core.rate", "from broadway_py.stage import Link", "floor 4 is not below floor 3 of broadway_py"),
        ("broadway_py.stage.link", "from broadway_py import daemon", "floor 8 is not below floor 4 of broadway_py"),
        ("broadway_py.stage.link", "from broadway_py import Pipeline", "floor 7.5 is not below floor 4 of broadway_py"),
        (
            "broadway_py.pipeline.drain",
            "def late():\n    import broadway_py.daemon",
            "floor 8 is not below floor 6 of broadway_py",
        ),
        (
            "broadway_py.pipeline.drain",
            "if TYPE_CHECKING:\n    from broadway_py.cli import main",
            "floor 9 is not below floor 6 of broadway_py",
        ),
        (
            "broadway_py.pipeline.drain",
            "import_module('broadway_py.metrics')",
            "floor 7 is not below floor 6 of broadway_py",
        ),
        ("broadway_py.stage.link", "from ..pipeline import drain", "floor 6 is not below floor 4 of broadway_py"),
        (
            "broadway_py.producers.memory",
            "from broadway_py.pipeline import x",
            "producers sees the floors below 5 only",
        ),
        ("broadway_py.producers.memory", "from broadway_py.state import x", "producers sees the floors below 5 only"),
        (
            "broadway_py.pipeline.settlement.settler",
            "from broadway_py.pipeline.stages.stage import PipelineStage",
            "floor 3 is not below floor 0 of broadway_py.pipeline",
        ),
        (
            "broadway_py.pipeline.poison.journal",
            "if TYPE_CHECKING:\n    from broadway_py.pipeline.processes import jobs",
            "floor 1 is not below floor 1 of broadway_py.pipeline",
        ),
        (
            "broadway_py.pipeline.helpers",
            "from broadway_py.pipeline.stats import PipelineStats",
            "helpers has no floor: give it one in FLOORS['broadway_py.pipeline']",
        ),
        (
            "broadway_py.daemon.settings.files",
            "from broadway_py.daemon.logs.logs import flush",
            "floor 1 is not below floor 0 of broadway_py.daemon",
        ),
        (
            "broadway_py.daemon.http.server",
            "def late():\n    import broadway_py.daemon.dead_letters.letters",
            "floor 4 is not below floor 4 of broadway_py.daemon",
        ),
        (
            "broadway_py.producers.sqs.requests.client",
            "from broadway_py.producers.sqs import producer",
            "floor 6 is not below floor 1 of broadway_py.producers.sqs",
        ),
        (
            "broadway_py.producers.rabbitmq.session",
            "from broadway_py.producers.rabbitmq import RabbitMQProducer",
            "floor 8 is not below floor 6 of broadway_py.producers.rabbitmq",
        ),
        (
            "broadway_py.daemon.tools.x",
            "import broadway_py.daemon.settings.files",
            "tools has no floor: give it one in FLOORS['broadway_py.daemon']",
        ),
        ("broadway_py.utils", "import broadway_py.errors", "utils has no floor: give it one in FLOORS['broadway_py']"),
        (
            "broadway_py._core.rate",
            "from broadway_py.log import logger",
            "imports broadway_py.log: what decides has no loop, no clock and no log",
        ),
        ("broadway_py._core.rate", "import time", "imports time: what decides has no loop, no clock and no log"),
        (
            "broadway_py._core.rate",
            "_COSTS: Final[dict[str, int]] = {}",
            "keeps something for the whole process: give it to an object",
        ),
        (
            "broadway_py._core.rate",
            "seen = Counter()",
            "keeps something for the whole process: give it to an object",
        ),
        ("broadway_py.stage.link", "print('x')", "prints: only cli, examples may"),
        ("broadway_py.metrics", "import sys\nsys.exit(1)", "exits: only __main__, cli, daemon, examples may"),
        ("broadway_py.pipeline.drain", "raise SystemExit(1)", "exits: only __main__, cli, daemon, examples may"),
        (
            "broadway_py.cli",
            "os._exit(1)",
            (
                "leaves the process: only broadway_py.forks, broadway_py.process.parent_socket, "
                "broadway_py.process.parent_watch, daemon may"
            ),
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
        ("broadway_py.producers.rabbitmq.session", "from broadway_py.producers.rabbitmq.wire.envelope import X"),
        ("broadway_py.examples.shipments", "from broadway_py import Pipeline"),
        ("broadway_py.daemon.http.server", "import aiohttp\nfrom broadway_py.metrics import collect"),
        ("broadway_py", "from broadway_py.pipeline import Pipeline"),
        ("broadway_py.pipeline.stages.processor", "from broadway_py.pipeline.stages.stage import PipelineStage"),
        ("broadway_py.pipeline.stages.stage", "from broadway_py.pipeline.callbacks.call import Call"),
        ("broadway_py.pipeline.callbacks.call", "from broadway_py.stage import Wake"),
        ("broadway_py.daemon.watchdog", "os._exit(75)"),
        ("broadway_py.process.parent_socket", "os._exit(1)"),
        ("broadway_py.cli", "print('x')\nsys.exit(2)"),
        ("broadway_py._core.rate", "def f():\n    found = {}\nNAMES = {'a': 1}"),
        ("broadway_py.stage.link", "_known = {}"),
    ],
)
def test_what_a_floor_allows_is_let_through(dotted: str, source: str) -> None:
    assert complaints(dotted, source) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import broadway_py",
        (
            "import broadway_py; [getattr(broadway_py, name) for name in broadway_py.__all__ "
            "if name not in {'run', 'RabbitMQPublisher', 'RabbitMQSink', 'SQSPublisher', 'SQSSink'}]"
        ),
        "from broadway_py.producers import DummyProducer, MemoryProducer, QueueProducer",
        "from broadway_py.testing import FakeClock, harness",
    ],
)
def test_the_front_door_imports_no_library_of_an_extra(statement: str) -> None:
    program = f"import sys; {statement}; print([name for name in {OPTIONAL!r} if name in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (ran.stdout, ran.stderr) == ("[]\n", "")
