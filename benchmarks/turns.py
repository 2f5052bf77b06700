"""Runs the programs of a row in turn (A B A B), each in a fresh interpreter, and collects what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import rabbitmq_queue, sqs_queue
from benchmarks.broker import NoBrokerError, running_broker
from benchmarks.peers import PeerAbsentError, interpreter
from benchmarks.rows import GROWTH_STEPS, Figure, Program, Row

__all__ = ["ENVIRONMENT", "Results", "Run", "take_turns"]

_ROOT: Final = Path(__file__).parent.parent
_QUEUE: Final = "benchmark"
#: A run that takes longer than this hangs.
_RUN_S: Final = 600
#: What every program finds in its environment, the peers' too: what the files in ``deploy/`` set for the daemon.
ENVIRONMENT: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one program: what each of its processes printed."""

    measurements: tuple[dict[str, Any], ...]

    @property
    def rate(self) -> float:
        """Messages a second, the rates of all processes added."""
        return sum(float(one["messages"]) / float(one["seconds"]) for one in self.measurements)

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per message."""
        messages = sum(int(one["messages"]) for one in self.measurements)
        return sum(float(one["cpu_seconds"]) for one in self.measurements) * 1e6 / messages

    @property
    def seconds(self) -> float:
        """How long it took; of several processes, the slowest."""
        return max(float(one["seconds"]) for one in self.measurements)

    @property
    def peak_bytes(self) -> int:
        """The most memory of one of its processes, or of one that they started."""
        return max(
            max(int(one["peak_rss_bytes"]), int(one.get("children_peak_rss_bytes", 0))) for one in self.measurements
        )

    def figure(self, name: Figure) -> float:
        """What a bar speaks of."""
        if name == "rate":
            return self.rate
        if name == "messages_per_cpu_second":
            return 1e6 / self.cpu_us
        if name == "runs_per_minute":
            return 60.0 / self.seconds
        if name == "processes_per_gib":
            return 2**30 / self.peak_bytes
        if name == "per_second_of_p99":
            return 1.0 / float(self.measurements[0]["p99_seconds"])
        return float(self.measurements[0][name])


@dataclass(slots=True)
class Results:
    """What came out of one row: the runs of each program, without the first, and who could not take part."""

    row: Row
    runs: dict[str, list[Run]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    #: By how many times the work.
    growth: dict[int, list[Run]] = field(default_factory=dict)


def take_turns(row: Row, *, rounds: int, scale: float, growth: bool) -> Results:
    """Run every program of *row* *rounds* times, in turn; the first round is thrown away.

    Args:
        row: what to measure.
        rounds: at least two.
        scale: times the row's number of messages.
        growth: also measure at several times the work.
    """
    results = Results(row)
    with ExitStack() as stack:
        url = ""
        if row.needs_broker:
            try:
                url = stack.enter_context(running_broker(row.broker))
            except NoBrokerError as none:
                results.absent = {program.name: str(none) for program in row.programs}
                return results
        present = _present(row.programs, results)
        messages = max(1, round(row.messages * scale))
        for number in range(rounds):
            for program in present:
                run = _run(program, max(1, messages // program.one_in), url, row)
                if number > 0:
                    results.runs.setdefault(program.name, []).append(run)
                _say(f"{row.name} {number + 1}/{rounds} {program.name}: {run.rate:,.0f}/s")
    if growth and row.growth is not None:
        _grow(row, row.growth, results, rounds, max(1, int(messages * row.growth_from)))
    return results


def _grow(row: Row, program: Program, results: Results, rounds: int, smallest: int) -> None:
    for number in range(rounds):
        for step in GROWTH_STEPS:
            run = _run(program, smallest * step, "", row)
            if number > 0:
                results.growth.setdefault(step, []).append(run)
            _say(f"{row.name} {number + 1}/{rounds} {step} x the work: {run.rate:,.0f}/s")


def _present(programs: Iterable[Program], results: Results) -> list[Program]:
    present = []
    for program in programs:
        try:
            interpreter(program.environment)
        except PeerAbsentError as why:
            results.absent[program.name] = str(why)
        else:
            present.append(program)
    return present


def _run(program: Program, messages: int, url: str, row: Row) -> Run:
    if not url:
        return Run(_measurements(program, messages, ()))
    before = 0 if row.is_offered or row.is_filled else messages
    if row.broker == "sqs":
        sqs_queue.fill(url, _QUEUE, before)
    else:
        rabbitmq_queue.fill(url, _QUEUE, before, body_bytes=row.body_bytes, queue_type=row.queue_type)
    measured = _measurements(program, messages, ("--url", url, "--queue", _QUEUE))
    remaining = (sqs_queue if row.broker == "sqs" else rabbitmq_queue).left(url, _QUEUE)
    expected = messages if row.is_filled else 0
    if remaining != expected:
        raise RuntimeError(f"{program.name}: expected {expected} messages on the broker, {remaining} are left")
    return Run(measured)


def _measurements(program: Program, messages: int, more: Sequence[str]) -> tuple[dict[str, Any], ...]:
    command = [
        interpreter(program.environment),
        "-m",
        program.module,
        *program.arguments,
        f"--messages={messages}",
        "--gate",
        *more,
    ]
    environment = os.environ | ENVIRONMENT
    with ExitStack() as stack:
        processes = []
        for _ in range(program.copies):
            process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            processes.append(stack.enter_context(process))
            # Called before the wait for its end, and nothing to a process that has ended: none outlives a failed run.
            stack.callback(process.kill)
        # Everybody has loaded what it needs before anybody begins.
        for process in processes:
            _line(process, program, expected="ready")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        measured = []
        for process in processes:
            printed, _ = process.communicate(timeout=_RUN_S)
            if process.returncode != 0:
                raise RuntimeError(f"{program.name} ({program.module}) ended with exit code {process.returncode}")
            measured.append(_checked(json.loads(printed), messages))
        return tuple(measured)


def _line(process: subprocess.Popen[str], program: Program, *, expected: str) -> None:
    assert process.stdout is not None
    came = process.stdout.readline().strip()
    if came != expected:
        raise RuntimeError(f"{program.name} ({program.module}): expected {expected!r} first, got {came!r}")


def _checked(measurement: dict[str, Any], messages: int) -> dict[str, Any]:
    if measurement["messages"] != messages:
        raise RuntimeError(f"expected {messages} messages, {measurement['program']} counted {measurement['messages']}")
    return measurement


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
