"""A real RabbitMQ for tests: a node of our own, or one that the environment names."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aio_pika
from aio_pika.abc import AbstractChannel, UnderlayConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from tests.support.erlang import NodeRefusedError, binary
from tests.support.eventually import PATIENCE, eventually
from tests.support.given_broker import Made, noting
from tests.support.rabbitmq_node import PASSWORD, USER, Node, parsed_version

__all__ = ["Counts", "RabbitMQ", "given_url"]


#: What the test's own connection is called at the broker.
_OURS: Final = "the test itself"

#: What the leader of a quorum queue calls what `rabbit_amqqueue:info` tells of a classic one.
_OF_QUORUM_QUEUES: Final = {
    "messages_ready": "num_ready_messages",
    "messages_unacknowledged": "num_checked_out",
    "consumers": "num_consumers",
}


def given_url() -> str | None:
    """The broker that the user runs, from ``BROADWAY_TEST_AMQP_URL``."""
    return os.environ.get("BROADWAY_TEST_AMQP_URL") or None


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages of one queue, from the broker's mouth."""

    ready: int
    unacked: int


@dataclass
class RabbitMQ:
    """What one test sees of the broker: a virtual host of its own, or that of the given URL."""

    url: str
    vhost: str
    #: None: the broker is the user's.
    node: Node | None
    #: False: the test says that it runs on any broker.
    looks_inside: bool = True
    #: Of every producer that the test puts into a settings file.
    settings: dict[str, Any] = field(default_factory=dict)
    _connection: aio_pika.abc.AbstractConnection | None = field(default=None, repr=False)
    _channel: AbstractChannel | None = field(default=None, repr=False)

    @classmethod
    def on_node(cls, node: Node) -> RabbitMQ:
        """A new virtual host on *node*."""
        vhost = f"test-{uuid.uuid4().hex[:12]}"
        allowed = ", ".join([binary(".*")] * 3)
        node.ask(
            f"ok = rabbit_vhost:add({binary(vhost)}, {binary(USER)}), rabbit_auth_backend_internal:set_permissions"
            f"({binary(USER)}, {binary(vhost)}, {allowed}, {binary(USER)})"
        )
        return cls(f"amqp://{USER}:{PASSWORD}@127.0.0.1:{node.port}/{quote(vhost, safe='')}", vhost, node)

    @classmethod
    def given(cls, url: str) -> RabbitMQ:
        """The virtual host of *url*, on a broker that is not ours."""
        return cls(url, unquote(urlsplit(url).path[1:]) or "/", None, looks_inside=False)

    def remove(self) -> None:
        """Delete the virtual host, with all that is in it."""
        if self.node is not None:
            self.node.ask(f"rabbit_vhost:delete({binary(self.vhost)}, {binary(USER)})")

    def through(self, port: int) -> str:
        """The URL, by way of a proxy on *port*."""
        return self._at(f"{self._login}@127.0.0.1:{port}")

    def with_password(self, password: str) -> str:
        """The URL, with another password."""
        host, port = self.address
        return self._at(f"{self.user}:{quote(password, safe='')}@{host}:{port}")

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's, such as (4, 3, 6), as it tells every client; inside :meth:`client`."""
        transport = self._connection.transport if self._connection is not None else None
        assert isinstance(transport, UnderlayConnection), "use it inside `async with rabbitmq.client():`"
        return parsed_version(str(transport.connection.server_properties["version"]))

    @property
    def user(self) -> str:
        """Who the tests are at the broker."""
        return unquote(self._login.partition(":")[0])

    @property
    def password(self) -> str:
        """Of the user."""
        return unquote(self._login.partition(":")[2])

    @property
    def secret(self) -> str:
        """What must show up nowhere: the password; a given one, which may be any word, only as it stands in the URL."""
        return self._login if self.node is None else self.password

    @property
    def _login(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[0] or "guest:guest"

    def _at(self, netloc: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(netloc=netloc))

    @property
    def where(self) -> str:
        """The URL as errors show it."""
        host, port = self.address
        return f"amqp://***@{host}:{port}/{self.vhost}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 5672

    # --- as a user of the broker ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RabbitMQ]:
        """A connection of the test's own, apart from that of what is tested. A block within a block has a new one."""
        before = self._connection, self._channel
        self._connection = self._channel = None
        with noting() as made:
            await self._connected()
            try:
                yield self
            finally:
                if self.node is None:
                    # The virtual host stays, so what was made in it must go.
                    await self._delete(made)
                await self.disconnect()
                self._connection, self._channel = before

    async def _connected(self) -> None:
        """See that the test's own connection and channel are there: a fault may have hit them, too."""
        # `is_closed` tells of our own closing only.
        if self._connection is not None and not self._connection.connected.is_set():
            await self.disconnect()
        if self._connection is None:
            self._connection = await aio_pika.connect(self.url, client_properties={"connection_name": _OURS})
            self._channel = None
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel()

    async def disconnect(self) -> None:
        """Close the test's own connection; what needs it opens it again."""
        if self._connection is not None:
            await self._connection.close()
        self._connection = self._channel = None

    async def _delete(self, made: Made) -> None:
        await self._connected()
        for queue in sorted(made.queues):
            await self.channel.queue_delete(queue)
        for exchange in sorted(made.exchanges):
            await self.channel.exchange_delete(exchange)

    @property
    def channel(self) -> AbstractChannel:
        """The test's own channel, with publisher confirms; inside :meth:`client`."""
        assert self._channel is not None, "use it inside `async with rabbitmq.client():`"
        return self._channel

    async def declare(self, queue: str = "work", **arguments: Any) -> str:
        """Declare a durable queue; its name."""
        await self._connected()
        return (await self.channel.declare_queue(queue, durable=True, arguments=arguments or None)).name

    async def declare_with_dead_letters(self, queue: str = "work", **arguments: Any) -> str:
        """A queue, with these arguments besides, whose rejected messages go to ``<queue>.dead``."""
        dead = await self.declare(f"{queue}.dead")
        return await self.declare(
            queue, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, **arguments}
        )

    async def publish(
        self,
        bodies: Sequence[bytes],
        *,
        queue: str = "work",
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Put *bodies* on *queue*, in order; returns when the broker has confirmed them all."""
        exchange = self.channel.default_exchange
        for body in bodies:
            message = aio_pika.Message(body, headers=dict(headers or {}), delivery_mode=2, **properties)
            await exchange.publish(message, routing_key=queue)

    async def delete_queue(self, queue: str = "work") -> None:
        """Delete *queue*, also under a consumer, as an operator would."""
        await self._connected()
        await self.channel.queue_delete(queue)

    async def ready(self, queue: str = "work") -> int | None:
        """Messages of *queue* that wait to be delivered, as any client may ask; None: there is no such queue."""
        await self._connected()
        assert self._connection is not None
        # On a channel of its own: the broker closes it where there is no such queue.
        async with self._connection.channel(publisher_confirms=False) as channel:
            try:
                found = await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return None
            return found.declaration_result.message_count

    async def until_ready(self, count: int | None, queue: str = "work", *, timeout: float = PATIENCE) -> None:
        """Wait until :meth:`ready` says *count*."""

        async def seen() -> bool:
            return await self.ready(queue) == count

        await eventually(seen, what=f"{count} messages of {queue} are ready", timeout=timeout)

    # --- from inside the broker -----------------------------------------------------------------------------------

    @property
    def inside(self) -> RabbitMQ | None:
        """Itself, free to look inside; None on a given broker. For what a test of any broker looks at besides."""
        return None if self.node is None else replace(self, looks_inside=True)

    async def counts(self, queue: str = "work") -> Counts:
        """Ready and unacknowledged messages of *queue*, exact at this moment."""
        return Counts(*await self._numbers(queue, "messages_ready", "messages_unacknowledged"))

    async def held_outside(self, queue: str) -> int:
        """Messages in all queues of this virtual host but *queue*, unacknowledged ones too; exact at this moment."""
        # What `info` says of quorum queues is seconds old.
        quorum = (
            "(fun() -> {ok, M, _} = ra:consistent_query(amqqueue:get_pid(Q), {rabbit_fifo, overview, []}),"
            " maps:get(num_messages, case M of #{machine := Inner} -> Inner; _ -> M end) end)()"
        )
        classic = "proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))"
        return int(
            await self._ask(
                f"lists:sum([case amqqueue:get_type(Q) of rabbit_quorum_queue -> {quorum}; _ -> {classic} end"
                f" || Q <- rabbit_amqqueue:list({binary(self.vhost)}),"
                f" element(4, amqqueue:get_name(Q)) =/= {binary(queue)}])"
            )
        )

    async def until(self, queue: str = "work", *, ready: int, unacked: int) -> None:
        """Wait until *queue* counts so many messages."""
        wanted = Counts(ready, unacked)

        async def seen() -> bool:
            return await self.counts(queue) == wanted

        # Not yet: a quorum queue that has no leader at this moment.
        await eventually(seen, what=f"{queue} holds {wanted}", ignoring=NodeRefusedError)

    async def until_alone(self) -> None:
        """Wait until the test's own connection and channel are all that is left in this virtual host."""

        async def alone() -> bool:
            return (await self.connections(), await self.channels()) == (1, 1)

        await eventually(alone, what="every connection and channel but the test's own is gone")

    async def consumers(self, queue: str = "work") -> int:
        """How many consumers *queue* has."""
        (count,) = await self._numbers(queue, "consumers")
        return count

    async def until_consumed_by(self, count: int, queue: str = "work") -> None:
        """Wait until *queue* has *count* consumers."""

        async def seen() -> bool:
            return await self.consumers(queue) == count

        await eventually(seen, what=f"{queue} has {count} consumers", ignoring=NodeRefusedError)

    async def connections(self) -> int:
        """Connections to this virtual host, the test's own included."""
        return int(await self._ask(f"length({self._pids()})"))

    async def connection_names(self) -> list[str]:
        """The names that the connections to this virtual host gave themselves."""
        named = (
            f"[N || P <- {self._pids()},"
            " [{_, Fields}] <- [rabbit_networking:connection_info(P, [client_properties])],"
            ' {<<"connection_name">>, _, N} <- Fields]'
        )
        return re.findall(r'<<"([^"]*)">>', await self._ask(named))

    async def certificate_subjects(self) -> list[str]:
        """Whom the certificates are made out to that clients of this virtual host have shown."""
        subject = "[{_, S}] <- [rabbit_networking:connection_info(P, [peer_cert_subject])]"
        return re.findall(r"CN=\w+", await self._ask(f"[S || P <- {self._others()}, {subject}]"))

    async def allow(self, *, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Permissions of the tests' user in this virtual host, as patterns of names."""
        patterns = ", ".join(binary(pattern) for pattern in (configure, write, read))
        await self._ask(
            f"rabbit_auth_backend_internal:set_permissions"
            f"({binary(USER)}, {binary(self.vhost)}, {patterns}, {binary(USER)})"
        )

    async def channels(self) -> int:
        """Channels in this virtual host, the test's own included."""
        mine = f"(catch rabbit_channel:info(P, [vhost])) == [{{vhost, {binary(self.vhost)}}}]"
        return int(await self._ask(f"length([P || P <- rabbit_channel:list(), {mine}])"))

    async def close_connections(self, why: str) -> None:
        """Have the broker close every connection to this virtual host but the test's own, as an operator would."""
        # One that ends by itself at this moment does not answer.
        close = f'rabbit_networking:close_connection(P, "{why}")'
        gone = "exit:{_, {gen_server, call, _}} -> gone"
        await self._ask(f"[try {close} catch {gone} end || P <- {self._others()}], ok")

    async def until_connected(self, copies: int, queue: str = "work") -> None:
        """Wait until *copies* consumers of *queue*, with one connection and one channel each, are all that is there
        besides the test's own.
        """

        async def seen() -> bool:
            channels = await self._ask(
                f"Others = {self._others()}, length([C || C <- rabbit_channel:list(),"
                " [{_, P}] <- [catch rabbit_channel:info(C, [connection])], lists:member(P, Others)])"
            )
            connections = await self._ask(f"length({self._others()})")
            return (await self.consumers(queue), int(connections), int(channels)) == (copies, copies, copies)

        await eventually(seen, timeout=30, what=f"there are {copies} consumers, with a connection and a channel each")

    async def crash_queue(self, queue: str = "work") -> None:
        """End the process of *queue*, as a defect of the broker would: its consumers are cancelled, it comes back."""
        await self._ask(f"{{ok, Q}} = rabbit_amqqueue:lookup({self._name_of(queue)}), exit(amqqueue:get_pid(Q), kill)")

    def _pids(self) -> str:
        mine = f"(catch rabbit_networking:connection_info(P, [vhost])) == [{{vhost, {binary(self.vhost)}}}]"
        return f"[P || P <- rabbit_networking:connections(), {mine}]"

    def _others(self) -> str:
        ours = f'lists:member({{<<"connection_name">>, longstr, {binary(_OURS)}}}, Said)'
        # One that ends between the two looks is nobody's.
        info = "catch rabbit_networking:connection_info(P, [client_properties])"
        said = f"{{client_properties, Said}} <- case {info} of L when is_list(L) -> L; _ -> [] end"
        return f"[P || P <- {self._pids()}, {said}, not {ours}]"

    async def _numbers(self, queue: str, *items: str) -> list[int]:
        # `info` of a quorum queue is seconds old; its leader knows.
        exact = ", ".join(_OF_QUORUM_QUEUES[item] for item in items)
        # As a tuple: Erlang prints a list of small numbers as if it were text.
        found = await self._ask(
            f"{{ok, Q}} = rabbit_amqqueue:lookup({self._name_of(queue)}), list_to_tuple(case amqqueue:get_type(Q) of"
            "  rabbit_quorum_queue ->"
            "    {ok, M, _} = ra:consistent_query(amqqueue:get_pid(Q), {rabbit_fifo, overview, []}),"
            f"   [maps:get(K, M) || K <- [{exact}]];"
            f" _ -> [V || {{_, V}} <- rabbit_amqqueue:info(Q, [{', '.join(items)}])]"
            " end)"
        )
        return _numbers_in(found)

    def _name_of(self, queue: str) -> str:
        return f"rabbit_misc:r({binary(self.vhost)}, queue, {binary(queue)})"

    async def _ask(self, expression: str) -> str:
        assert self.node is not None, "there is no looking inside a broker that was given"
        assert self.looks_inside, "a test marked any_broker does not look inside the broker: take the mark away"
        return await asyncio.to_thread(self.node.ask, expression)


def _numbers_in(printed: str) -> list[int]:
    return [int(number) for number in printed.strip("{}").split(",")]
