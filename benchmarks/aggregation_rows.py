"""The rows with aggregators, and their bars."""

from __future__ import annotations

from typing import Final

from benchmarks.row import Bar, Program, Row

__all__ = ["AGGREGATION_BARS", "AGGREGATION_ROWS"]

_MILLION: Final = 1_000_000
_OURS: Final = "benchmarks.aggregation"
_BYTEWAX: Final = "benchmarks.limits.windows_bytewax"
_START: Final = "benchmarks.aggregation_start"
_RABBITMQ: Final = "benchmarks.rabbitmq_drain"
_QUEUE: Final = "benchmarks.queue_drain"

_DURABLE: Final = Program("ours, durable", _OURS, ("identified",))

#: Of Bytewax: the more keys, the fewer messages, because each costs it more.
_ONE_IN: Final = {100: 2, 1_000: 4, 10_000: 10}


def _bytewax(keys: int, *, recovery: bool = False) -> Program:
    name = f"Bytewax with recovery, {keys:,} keys" if recovery else f"Bytewax, {keys:,} keys"
    arguments = (f"--keys={keys}", *(("--recovery",) if recovery else ()))
    return Program(name, _BYTEWAX, arguments, environment="bytewax", one_in=_ONE_IN[keys])


def _ours(keys: int, kind: str = "memory") -> Program:
    # Bytewax stores its state each 10 s by default, which is once in this run. Ours stores it each 10,000 messages,
    # which is some 30 times in a second, and acks no message before. Bytewax has no identities of messages.
    held = () if kind == "memory" else ("--max-demand=20000",)
    said = {"memory": "", "durable": "durable, without identities, ", "identified": "durable, "}
    return Program(f"ours, {said[kind]}{keys:,} keys", _OURS, (kind, f"--keys={keys}", *held))


def _filled(kind: str, said: str, keys: int) -> Program:
    return Program(f"{said}, {keys:,} keys", _OURS, (kind, f"--keys={keys}", "--fill"))


AGGREGATION_ROWS: Final = (
    Row(
        "aggregation",
        "the same events through a pipeline with an aggregator",
        _MILLION,
        (
            Program("limit", "benchmarks.limits.aggregation_dict"),
            Program("ours", _OURS, ("memory",)),
            _DURABLE,
            Program("ours, durable, without identities", _OURS, ("durable",)),
        ),
        growth=_DURABLE,
    ),
    Row(
        "aggregation_peer",
        "the same beside Bytewax, with fewer keys",
        _MILLION // 2,
        (
            *(_bytewax(keys) for keys in _ONE_IN),
            _bytewax(1_000, recovery=True),
            *(_ours(keys) for keys in _ONE_IN),
            _ours(1_000, "identified"),
            _ours(1_000, "durable"),
        ),
    ),
    Row(
        "aggregation_keys",
        "the same into windows that are open for each key, and stay open",
        _MILLION // 2,
        (
            _filled("memory", "in memory", 100),
            _filled("memory", "in memory", _MILLION),
            _filled("identified", "durable", 100),
            _filled("identified", "durable", _MILLION),
        ),
    ),
    Row(
        "aggregation_start",
        "start with a full state file, until it is ready: identities a second",
        _MILLION,
        (
            Program("20,000 open", _START, ("--one-in=50",)),
            Program("1,000,000 open", _START, ("--one-in=1",)),
        ),
    ),
    Row(
        "aggregation_rabbitmq",
        "RabbitMQ, drain a full queue, 256 B, with a batcher, and with a durable aggregator",
        200_000,
        (
            Program("with a batcher", _RABBITMQ, ("--config=rabbitmq_batch_5000.yaml",)),
            Program("ours", _RABBITMQ, ("--config=rabbitmq_aggregation.yaml",)),
        ),
        needs_broker=True,
    ),
    Row(
        "aggregation_queue",
        "embedded queue, drain a full file, 256 B, with a batcher, and with a durable aggregator",
        200_000,
        (
            Program("with a batcher", _QUEUE, ("--config=queue_batch.yaml",)),
            Program("ours", _QUEUE, ("--config=queue_aggregation.yaml",)),
        ),
    ),
)

AGGREGATION_BARS: Final = (
    Bar("aggregation", 0.25 * _MILLION),
    Bar("aggregation", 0.3, over="limit"),
    Bar("aggregation", 0.1 * _MILLION, ours="ours, durable"),
    Bar("aggregation", 0.12, over="limit", ours="ours, durable"),
    Bar("aggregation_peer", 2.0, over="Bytewax, 100 keys", ours="ours, 100 keys"),
    Bar("aggregation_peer", 20.0, over="Bytewax, 10,000 keys", ours="ours, 10,000 keys"),
    Bar("aggregation_peer", 3.0, over="Bytewax with recovery, 1,000 keys", ours="ours, durable, 1,000 keys"),
    # A message costs at most twice as much.
    *(
        Bar("aggregation_keys", 0.5, over=f"{kind}, 100 keys", ours=f"{kind}, 1,000,000 keys")
        for kind in ("in memory", "durable")
    ),
    # Ready in 2 s, and in 5 s.
    Bar("aggregation_start", _MILLION / 2, ours="20,000 open"),
    Bar("aggregation_start", _MILLION / 5, ours="1,000,000 open"),
    Bar("aggregation_rabbitmq", 0.75, over="with a batcher"),
    Bar("aggregation_queue", 0.5, over="with a batcher"),
)
