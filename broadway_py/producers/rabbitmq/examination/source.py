"""Examines what a producer needs: its queues, their bindings, and where failed messages go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError
from broadway_py.examination import Finding, counted
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq.connection import errors, publish_errors
from broadway_py.producers.rabbitmq.examination.brokers import Brokers
from broadway_py.producers.rabbitmq.examination.permissions import (
    try_to_bind,
    try_to_consume,
    try_to_declare,
    try_to_publish,
)
from broadway_py.producers.rabbitmq.examination.queues import Depth, declare_as_it_is, depth, look_for_exchange
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.settings.partitions import SINGLE_ACTIVE
from broadway_py.producers.rabbitmq.settings.queue_options import DeclareOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import delay_queue
from broadway_py.producers.rabbitmq.topology.delivery_limits import may_be_lifted

__all__ = ["examine_source"]


async def examine_source(
    options: RabbitMQOptions, pipeline: str, plan: FailurePlan | None
) -> AsyncGenerator[Finding, None]:
    """Yields what is found out about the source with *options*, whose ``connect_timeout`` is the time for each step."""
    brokers = Brokers(options)
    try:
        async with aclosing(brokers.connect()) as connecting:
            async for finding in connecting:
                yield finding
        if brokers.connection is None:
            return
        examined = _Source(brokers, options, pipeline, plan)
        for part in (examined.queues(), examined.bindings(), examined.failed_messages()):
            async with aclosing(part) as findings:
                async for finding in findings:
                    yield finding
    except ProducerError as lost:
        yield Finding("away", str(lost))
    finally:
        await brokers.close()


class _Source:
    def __init__(self, brokers: Brokers, options: RabbitMQOptions, pipeline: str, plan: FailurePlan | None) -> None:
        self._brokers = brokers
        self._options = options
        self._plan = plan
        # It publishes nothing here. It knows where failed messages go.
        self._forwarder = Forwarder(
            options,
            plan,
            Publisher(options, pipeline, SYSTEM_CLOCK),
            pipeline=pipeline,
            clock=SYSTEM_CLOCK,
            troubled=Troubled(),
        )
        #: The queues that are there. The broker names the queue "" when it is declared.
        self._there: list[str] = []

    async def queues(self) -> AsyncGenerator[Finding, None]:
        """Yields what the queues are like, and whether they may be read."""
        for queue in filter(None, self._options.all_queues):
            try:
                found = await self._brokers.ask(depth(self._brokers, queue))
                if found is not None:
                    self._there.append(queue)
                    yield Finding("right", f"queue {queue!r} on {self._brokers.where} is there: {found}")
            except ChannelClosed as refused:
                yield self._wrong(refused, ("queue",))
                continue
            async for finding in self._declared(queue, found):
                yield finding
            if found is not None:
                try:
                    await self._brokers.ask(try_to_consume(self._brokers.channel, queue))
                except ChannelClosed as refused:
                    yield self._wrong(refused, ("queue",), act="to read it")
                if found.consumers and (alone := self._shares_nothing()) is not None:
                    yield Finding(
                        "note",
                        f"queue {queue!r} on {self._brokers.where} has {counted(found.consumers, 'consumer')} "
                        f"already, and {alone} gives messages to one at a time; a pipeline that starts now waits",
                    )

    async def _declared(self, queue: str, found: Depth | None) -> AsyncGenerator[Finding, None]:
        """Yields whether *queue* can be declared, or is as it would be declared."""
        options, brokers = self._options, self._brokers
        wanted = options.declare_options
        if options.declare != "active":
            if found is None:
                yield Finding("wrong", errors.of_missing_queue(queue, brokers.where), ("queue",))
            return
        try:
            if found is None:
                await brokers.ask(try_to_declare(brokers.channel, queue, options.declare_arguments))
                yield Finding("right", f"queue {queue!r} on {brokers.where} is not there yet; the pipeline declares it")
            elif not wanted.exclusive:
                limit = await brokers.ask(declare_as_it_is(brokers, queue, wanted, options.declare_arguments))
                if limit is not None and may_be_lifted(queue, options.declare_arguments, brokers.version):
                    yield Finding(
                        "note",
                        f"queue {queue!r} on {brokers.where} was declared with a delivery limit of {limit}: messages "
                        "that come back almost that often go to the dead letters; to remove the limit, delete the "
                        "queue when it is empty, and the producer declares it",
                    )
        except ChannelClosed as refused:
            yield self._wrong(
                refused, ("declare_options",) if found is not None else ("declare",), act="to configure it"
            )

    def _shares_nothing(self) -> str | None:
        """Returns the setting that lets one consumer at a time have the queue; None: there is none."""
        if self._options.consume_options.exclusive:
            return "consume_options.exclusive"
        return SINGLE_ACTIVE if self._options.declare_arguments.get(SINGLE_ACTIVE) else None

    async def bindings(self) -> AsyncGenerator[Finding, None]:
        """Yields what is wrong with the bindings that are made at each connect."""
        brokers = self._brokers
        for index, binding in enumerate(self._options.bindings):
            setting = ("bindings", str(index), "exchange")
            try:
                await brokers.ask(look_for_exchange(brokers, binding.exchange))
                for queue in self._there:
                    if binding.queue in (None, queue):
                        await brokers.ask(try_to_bind(brokers.channel, queue, binding.exchange, binding.routing_key))
            except ChannelNotFoundEntity as missing:
                yield self._wrong(missing, setting)
            except ChannelClosed as refused:
                yield self._wrong(refused, setting, act=f"to write to it, and to read exchange {binding.exchange!r}")
            else:
                yield Finding("right", f"exchange {binding.exchange!r} on {brokers.where} is there, to be bound")

    async def failed_messages(self) -> AsyncGenerator[Finding, None]:
        """Yields whether retries and dead letters can be stored."""
        read = self._options.queues
        if self._forwarder.keeps_dead_letters:
            for dead in dict.fromkeys(map(self._forwarder.dead_letters_of, read)):
                async for finding in self._dead_letters(dead):
                    yield finding
        elif self._forwarder.leaves_dead_letters_to_the_broker:
            async for finding in self._of_the_broker():
                yield finding
        plan = self._plan
        if plan is None or not plan.authority.policy_decides or self._options.consume_options.no_ack:
            return
        if "retry" in plan.actions:
            async for finding in self._retries(read):
                yield finding
        if plan.actions & {"retry", "dead_letter"} and not self._forwarder.leaves_dead_letters_to_the_broker:
            async for finding in self._storing(read[0]):
                yield finding

    async def _dead_letters(self, dead: str) -> AsyncGenerator[Finding, None]:
        options, brokers = self._options, self._brokers
        arguments, is_ours = options.dead_letter_arguments, options.dead_letter_declare == "active"
        setting = ("dead_letter_declare",)
        try:
            found = await brokers.ask(depth(brokers, dead))
            if found is not None:
                yield Finding("right", f"queue {dead!r} on {brokers.where}, for dead letters, is there: {found}")
                if is_ours:
                    setting = ("dead_letter_arguments",)
                    await brokers.ask(declare_as_it_is(brokers, dead, DeclareOptions(), arguments))
            elif is_ours:
                await brokers.ask(try_to_declare(brokers.channel, dead, arguments))
                yield Finding("right", f"queue {dead!r} on {brokers.where}, for dead letters, will be declared")
            else:
                yield Finding("wrong", publish_errors.of_missing_own_queue(dead, brokers.where), setting)
        except ChannelClosed as refused:
            yield Finding("wrong", str(publish_errors.of_own_queue(refused, dead, brokers.where)), setting)
            return
        most = arguments.get("x-max-length")
        refuses = str(arguments.get("x-overflow", "")).startswith("reject-publish")
        if found is not None and refuses and isinstance(most, int) and found.ready >= most:
            yield Finding("away", publish_errors.of_full(dead, brokers.where, most))

    async def _of_the_broker(self) -> AsyncGenerator[Finding, None]:
        brokers = self._brokers
        exchange = self._options.declare_options.arguments.get("x-dead-letter-exchange")
        if self._options.declare != "active" or not isinstance(exchange, str):
            yield Finding(
                "note",
                "whether the queue has a dead-letter exchange is not known, because AMQP does not tell; without one "
                "dead letters are deleted: look at the queue's arguments and policies at the broker",
            )
        elif exchange:
            try:
                await brokers.ask(look_for_exchange(brokers, exchange))
            except ChannelClosed as missing:
                yield Finding(
                    "wrong",
                    f"dead letters go to an exchange that is missing, so they are deleted: {errors.words_of(missing)}; "
                    "create the exchange",
                    ("declare_options", "arguments", "x-dead-letter-exchange"),
                )
            else:
                yield Finding("right", f"exchange {exchange!r} on {brokers.where}, for dead letters, is there")

    async def _retries(self, queues: Iterable[str]) -> AsyncGenerator[Finding, None]:
        brokers = self._brokers
        for queue in filter(None, queues):
            # All delays have the same permissions. The exchange by which they return is left out: without it they
            # return by the default exchange.
            waiting = delay_queue(queue, 0.0, {}).name
            try:
                await brokers.ask(try_to_declare(brokers.channel, waiting, {}))
            except ChannelClosed as refused:
                said = publish_errors.of_own_queue(refused, waiting, brokers.where)
                yield Finding("wrong", str(said), ("retry_arguments",))

    async def _storing(self, queue: str) -> AsyncGenerator[Finding, None]:
        # Last, because a broker with an alarm reads nothing more from a connection that publishes.
        brokers = self._brokers
        place = self._forwarder.dead_letters_of(queue) if self._forwarder.keeps_dead_letters else f"{queue}.retry"
        try:
            await brokers.ask(try_to_publish(brokers.channel, "", place))
        except ChannelClosed as refused:
            said = publish_errors.of_refused_write(refused, f"queue {place!r}", "", brokers.where)
            yield Finding("wrong", str(said))
        else:
            await brokers.look_for_alarm()
            yield Finding("right", f"this user may publish failed messages on {brokers.where}")

    def _wrong(self, refused: ChannelClosed, setting: tuple[str, ...], *, act: str | None = None) -> Finding:
        return Finding("wrong", str(errors.of_open(refused, self._options, self._brokers.where, act=act)), setting)
