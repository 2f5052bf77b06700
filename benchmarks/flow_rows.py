"""The rows of Flow, and their bars."""

from __future__ import annotations

from typing import Final

from benchmarks.row import Bar, Program, Row

__all__ = ["FLOW_BARS", "FLOW_ROWS"]

_MILLION: Final = 1_000_000
_WORDS: Final = "benchmarks.flow_words"
_LOOP: Final = "benchmarks.limits.flow_words_loop"
_BYTEWAX: Final = "benchmarks.limits.flow_words_bytewax"
_NUMBERS: Final = "benchmarks.flow_numbers"
_INTERPRETERS: Final = "benchmarks.limits.flow_start_interpreters"
_CALLS: Final = "benchmarks.flow_calls"
_POOL: Final = "benchmarks.limits.flow_calls_pool"

_COUNT_BY: Final = Program("count_by", _WORDS, ("count_by",))
_RUN: Final = Program("ours, none kept", _NUMBERS, ("--run",))


def _calls(runner: str, title: str, calls: int) -> Row:
    programs = Program("limit", _POOL, (runner,)), Program("ours", _CALLS, (runner,))
    return Row(f"flow_{runner}", title, calls, programs)


FLOW_ROWS: Final = (
    Row(
        "flow_words",
        "count the words of a file, two processes; the limit is a plain loop",
        8 * _MILLION,
        (
            Program("limit", _LOOP),
            _COUNT_BY,
            Program("reduce, combine", _WORDS, ("combine",)),
            Program("partition, reduce", _WORDS, ("partition",)),
            Program("count_by, lines from the parent", _WORDS, ("count_by", "--lines")),
            Program("reduce, combine, lines from the parent", _WORDS, ("combine", "--lines")),
        ),
        growth=_COUNT_BY,
        # A smaller text would have fewer of the rare words, and so less to keep.
        growth_from=1.0,
        is_flat=True,
    ),
    Row(
        "flow_words_peer",
        "the same beside other libraries",
        8 * _MILLION,
        (
            Program("limit", _LOOP),
            Program("Dask bag", "benchmarks.limits.flow_words_dask", environment="dask"),
            Program("Bytewax", _BYTEWAX, environment="bytewax"),
            Program("Bytewax, one process", _BYTEWAX, ("--processes=1",), environment="bytewax"),
            Program("multiprocessing.Pool", "benchmarks.limits.flow_words_pool"),
            _COUNT_BY,
        ),
    ),
    Row(
        "flow_words_ray",
        "the same on Ray, two nodes with one processor each, without the start; the limit is plain tasks of Ray",
        8 * _MILLION,
        (
            Program("limit", "benchmarks.limits.flow_words_ray"),
            Program("plain loop", _LOOP),
            *(
                Program(f"{name}, {runner}", _WORDS, (way, "--without-start", *more))
                for name, way in (("count_by", "count_by"), ("reduce, combine", "combine"), ("partition", "partition"))
                for runner, more in (("processes", ()), ("Ray", ("--ray",)))
            ),
        ),
    ),
    Row(
        "flow_numbers",
        "integers: map, filter, map, in one process; the limit is a list comprehension",
        10 * _MILLION,
        (
            Program("limit", "benchmarks.limits.flow_numbers_comprehension"),
            Program("ours", _NUMBERS),
            Program("ours, 2 stages", _NUMBERS, ("--stages=2",)),
            _RUN,
        ),
        growth=_RUN,
        is_flat=True,
    ),
    Row(
        "flow_start",
        "one element, two processes, from the start to the result; the limit starts two interpreters",
        1,
        (
            Program("limit", _INTERPRETERS),
            Program("limit, with asyncio and cloudpickle", _INTERPRETERS, ("--imports",)),
            Program("ours", "benchmarks.flow_start"),
        ),
    ),
    _calls("threads", "blocking calls of 1 s, two for each stage; the limit is a pool of as many threads", 1_000),
    _calls("tasks", "async calls of 1 s, two for each stage; the limit is as many tasks", 10_000),
)


# At most so many times the time of the loop, or of a peer, is one over it times the rate.
_WORDS_AT_MOST: Final = (
    ("count_by", 0.65, 0.52),
    ("reduce, combine", 0.85, 0.70),
    ("partition, reduce", 1.6, 1.2),
    ("count_by, lines from the parent", 0.80, None),
    ("reduce, combine, lines from the parent", 1.0, None),
)


def _words_bars() -> tuple[Bar, ...]:
    bars = []
    for ours, at_most, aim in _WORDS_AT_MOST:
        bars.append(Bar("flow_words", 1 / at_most, over="limit", ours=ours))
        if aim is not None:
            bars.append(Bar("flow_words", 1 / aim, over="limit", ours=ours, when="aim"))
    return tuple(bars)


FLOW_BARS: Final = (
    *_words_bars(),
    Bar("flow_words_peer", 1 / 0.6, over="Dask bag", ours="count_by"),
    Bar("flow_words_peer", 1 / 0.6, over="Bytewax", ours="count_by"),
    Bar("flow_words_peer", 1 / 0.6, over="Bytewax, one process", ours="count_by"),
    Bar("flow_words_peer", 1 / 1.1, over="multiprocessing.Pool", ours="count_by", when="aim"),
    Bar("flow_words_ray", 1 / 1.3, over="count_by, processes", ours="count_by, Ray"),
    Bar("flow_words_ray", 1 / 1.3, over="reduce, combine, processes", ours="reduce, combine, Ray"),
    Bar("flow_words_ray", 1 / 1.2, over="limit", ours="count_by, Ray"),
    Bar("flow_words_ray", 1 / 1.2, over="limit", ours="reduce, combine, Ray"),
    Bar("flow_words_ray", 1 / 2.0, over="partition, processes", ours="partition, Ray"),
    *(Bar("flow_numbers", 0.8, over="limit", ours=ours) for ours in ("ours", "ours, 2 stages")),
    *(Bar("flow_numbers", 1.0, over="limit", ours=ours, when="aim") for ours in ("ours", "ours, 2 stages")),
    Bar("flow_numbers", 1024 / 80, ours="ours, none kept", figure="processes_per_gib"),  # at most 80 MiB
    # In half a second; in a quarter.
    Bar("flow_start", 120, figure="runs_per_minute"),
    Bar("flow_start", 240, figure="runs_per_minute", when="aim"),
    # In three seconds.
    Bar("flow_threads", 20, figure="runs_per_minute"),
    Bar("flow_tasks", 20, figure="runs_per_minute"),
)
