"""Examines the queue or exchange to which a sink publishes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiormq.exceptions import ChannelClosed

from broadway_py.errors import ProducerError
from broadway_py.examination import Finding
from broadway_py.producers.rabbitmq.connection import publish_errors
from broadway_py.producers.rabbitmq.examination.brokers import Brokers
from broadway_py.producers.rabbitmq.examination.permissions import try_to_declare, try_to_publish
from broadway_py.producers.rabbitmq.examination.queues import declare_as_it_is, depth, look_for_exchange
from broadway_py.producers.rabbitmq.settings.queue_options import DeclareOptions
from broadway_py.producers.rabbitmq.settings.sink_options import RabbitMQSinkOptions

__all__ = ["examine_target"]


async def examine_target(options: RabbitMQSinkOptions) -> AsyncGenerator[Finding, None]:
    """Yields what is found out about the place in *options*, whose ``connect_timeout`` is the time for each step."""
    brokers = Brokers(options)
    try:
        async with aclosing(brokers.connect()) as connecting:
            async for finding in connecting:
                yield finding
        if brokers.connection is None:
            return
        async with aclosing(_examined(brokers, options)) as findings:
            async for finding in findings:
                yield finding
    except ProducerError as lost:
        yield Finding("away", str(lost))
    finally:
        await brokers.close()


async def _examined(brokers: Brokers, options: RabbitMQSinkOptions) -> AsyncGenerator[Finding, None]:
    exchange = options.exchange or ""
    place = f"exchange {exchange!r}" if exchange else f"queue {options.queue!r}"
    setting = ("exchange",) if exchange else ("queue",)
    try:
        if exchange:
            await brokers.ask(look_for_exchange(brokers, exchange))
            yield Finding("right", f"{place} on {brokers.where} is there")
        else:
            yield await _queue(brokers, options, options.queue or "")
    except ChannelClosed as refused:
        yield Finding("wrong", str(publish_errors.of_sink(refused, place, brokers.where)), setting)
        return
    try:
        key = (options.routing_key if exchange else options.queue) or ""
        await brokers.ask(try_to_publish(brokers.channel, exchange, key))
    except ChannelClosed as refused:
        said = publish_errors.of_refused_write(refused, place, exchange, brokers.where)
        yield Finding("wrong", str(said), setting)
    else:
        await brokers.look_for_alarm()
        yield Finding("right", f"this user may publish to {place} on {brokers.where}")


async def _queue(brokers: Brokers, options: RabbitMQSinkOptions, queue: str) -> Finding:
    """Returns what the queue is like. Raises ChannelClosed if it cannot be declared, or is another one."""
    named = f"queue {queue!r} on {brokers.where}"
    found = await brokers.ask(depth(brokers, queue))
    if found is None:
        if options.declare == "passive":
            return Finding("wrong", publish_errors.of_missing_place(f"queue {queue!r}", brokers.where), ("queue",))
        await brokers.ask(try_to_declare(brokers.channel, queue, options.queue_arguments))
        return Finding("right", f"{named} is not there yet; the pipeline declares it")
    if options.declare == "active":
        await brokers.ask(declare_as_it_is(brokers, queue, DeclareOptions(), options.queue_arguments))
    return Finding("right", f"{named} is there: {found}")
