"""``broadway check --connect`` on a real RabbitMQ: each planted trouble has its sentence, and nothing is changed."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.storms import own_node
from tests.support.certificates import Authority
from tests.support.connect_check import Said, connect_check, settings_file
from tests.support.daemon import daemon
from tests.support.erlang import binary
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import PASSWORD, USER, Node

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("plain")]

PLACE = "pipelines.orders.producer"
#: What every user may do who has all permissions.
ALL = ".*"


@pytest.fixture
def node(rabbitmq: RabbitMQ) -> Node:
    return own_node(rabbitmq)


@pytest.fixture
def limited(rabbitmq: RabbitMQ, node: Node) -> Iterator[Callable[..., str]]:
    """Makes the URL of a user who has only these permissions: regular expressions of names."""
    name = f"limited-{uuid.uuid4().hex[:8]}"
    node.ask(f"rabbit_auth_backend_internal:add_user({binary(name)}, {binary(PASSWORD)}, {binary(USER)})")

    def url(*, configure: str = ALL, write: str = ALL, read: str = ALL) -> str:
        of = ", ".join(map(binary, (configure, write, read)))
        node.ask(
            f"rabbit_auth_backend_internal:set_permissions({binary(name)}, {binary(rabbitmq.vhost)}, {of}, "
            f"{binary(USER)})"
        )
        return rabbitmq.url.replace(f"{USER}:", f"{name}:")

    yield url
    node.ask(f"rabbit_auth_backend_internal:delete_user({binary(name)}, {binary(USER)})")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def over_tls(broker: RabbitMQ, port: int, trusting: Authority) -> str:
    """The URL of a port that speaks TLS."""
    return f"{broker.through(port).replace('amqp:', 'amqps:')}?cafile={trusting.file}"


@contextmanager
def http_server() -> Iterator[int]:
    """A port that answers HTTP, as that of a management page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Quiet(BaseHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the name of the library
        pass


async def _ignore(_message: object) -> None:
    pass


async def said(folder: Path, url: str, *options: str, more: dict[str, Any] | None = None, **producer: Any) -> Said:
    """What the command says of a pipeline that reads the queue ``work`` there."""
    source = {"kind": "rabbitmq", "queue": "work", "url": url, **producer}
    return await connect_check(settings_file(folder, source, **(more or {})), *options)


def refused(broker: RabbitMQ, user: str, what: str, permission: str) -> str:
    """The broker's words; from 4.0 on it names the permission."""
    named = f"{permission} access" if broker.version >= (4,) else "access"
    return f"ACCESS_REFUSED - {named} to {what} in vhost '{broker.vhost}' refused for user '{user}'"


def user_of(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


def assert_alone(found: Said, sentence: str, *, code: int = 2) -> None:
    """This is the only thing that is not right."""
    assert found.wrong == [f"broadway: {sentence}"]
    assert found.code == code
    assert not any(PASSWORD in line for line in [*found.right, *found.wrong])


# --- what is right ----------------------------------------------------------------------------------------------------


async def test_what_is_right_has_a_line_each(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.declare("done")
    await rabbitmq.channel.declare_exchange("news", "topic")
    await rabbitmq.publish([b"1", b"2", b"3"])
    version = ".".join(map(str, rabbitmq.version))
    login = (
        f"RabbitMQ {version} at {rabbitmq.where} accepts the login; its clock is not known, because AMQP does not tell "
        "the time"
    )

    found = await said(
        tmp_path,
        rabbitmq.url,
        bindings=[{"exchange": "news", "routing_key": "orders.#"}],
        more={
            "failure": {"attempts": 3},
            "publishers": {
                "out": {"kind": "rabbitmq", "url": rabbitmq.url, "queue": "done"},
                "events": {"kind": "rabbitmq", "url": rabbitmq.url, "exchange": "news"},
            },
        },
    )

    assert (found.code, found.wrong) == (0, [])
    assert found.right == [
        f"{PLACE}: {login}",
        f"{PLACE}: queue 'work' on {rabbitmq.where} is there: 3 messages ready, 0 consumers",
        f"{PLACE}: exchange 'news' on {rabbitmq.where} is there, to be bound",
        (f"{PLACE}: queue 'work.dead' on {rabbitmq.where}, for dead letters, is there: 0 messages ready, 0 consumers"),
        f"{PLACE}: this user may publish failed messages on {rabbitmq.where}",
        f"pipelines.orders.publishers.out: {login}",
        (f"pipelines.orders.publishers.out: queue 'done' on {rabbitmq.where} is there: 0 messages ready, 0 consumers"),
        f"pipelines.orders.publishers.out: this user may publish to queue 'done' on {rabbitmq.where}",
        f"pipelines.orders.publishers.events: {login}",
        f"pipelines.orders.publishers.events: exchange 'news' on {rabbitmq.where} is there",
        f"pipelines.orders.publishers.events: this user may publish to exchange 'news' on {rabbitmq.where}",
        "ok: 1 pipeline: orders",
    ]


async def test_nothing_is_consumed_declared_bound_or_published(rabbitmq: RabbitMQ, node: Node, tmp_path: Path) -> None:
    """Also where all of it would be done at a start."""
    await rabbitmq.declare("work")
    await rabbitmq.declare("seen")
    await rabbitmq.declare("quorum", **{"x-queue-type": "quorum"})
    fan = await rabbitmq.channel.declare_exchange("fan", "fanout")
    await (await rabbitmq.channel.get_queue("seen")).bind(fan)
    await rabbitmq.publish([b"1", b"2"])
    await rabbitmq.publish([b"3"], queue="quorum")

    def names() -> tuple[str, ...]:
        of = binary(rabbitmq.vhost)
        return (
            node.ask(f"lists:sort([element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list({of})])"),
            node.ask(f"lists:sort([element(4, element(2, E)) || E <- rabbit_exchange:list({of})])"),
            node.ask(f"length(rabbit_binding:list({of}))"),
        )

    before = names()

    found = await said(
        tmp_path,
        rabbitmq.url,
        queue=["work", "new", "quorum"],
        declare="active",
        bindings=[{"exchange": "fan", "queue": "work"}],
        more={
            "failure": {"attempts": 3},
            "publishers": {
                "fan": {"kind": "rabbitmq", "url": rabbitmq.url, "exchange": "fan"},
                "new": {"kind": "rabbitmq", "url": rabbitmq.url, "queue": "new-out", "declare": "active"},
            },
        },
    )

    assert names() == before
    assert [await rabbitmq.ready(one) for one in ("work", "seen", "quorum")] == [2, 0, 1]
    taken = await (await rabbitmq.channel.get_queue("work")).get()
    assert taken is not None
    assert not taken.redelivered  # it was never handed out
    await taken.nack()
    lines = "\n".join(found.right)
    assert f"queue 'new' on {rabbitmq.where} is not there yet; the pipeline declares it" in lines
    assert f"queue 'new.dead' on {rabbitmq.where}, for dead letters, will be declared" in lines
    assert f"queue 'new-out' on {rabbitmq.where} is not there yet; the pipeline declares it" in lines


async def test_json_has_the_same(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    found = await said(tmp_path, rabbitmq.url, "--json")

    rows = json.loads("\n".join(found.right))
    assert found.code == 2
    assert found.wrong == []
    assert [(one["path"], one["level"]) for one in rows] == [
        (PLACE, "right"),
        (f"{PLACE}.queue", "wrong"),
        (PLACE, "right"),
        (PLACE, "right"),
    ]
    assert rows[1]["text"] == (f"queue 'work' does not exist on {rabbitmq.where}; create it or set declare: active")


# --- the way to the broker --------------------------------------------------------------------------------------------


async def test_a_host_that_is_not_known(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    url = rabbitmq.url.replace("127.0.0.1", "no-such-host.invalid")
    assert_alone(
        await said(tmp_path, url),
        f"a.yaml:7: {PLACE}.url: cannot reach {rabbitmq.where.replace('127.0.0.1', 'no-such-host.invalid')}: the host "
        "name is not known; check host and port, and whether the broker runs",
        code=1,
    )


async def test_a_port_where_nobody_listens(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    port = free_port()
    assert_alone(
        await said(tmp_path, rabbitmq.through(port)),
        f"a.yaml:7: {PLACE}.url: cannot reach amqp://***@127.0.0.1:{port}/{rabbitmq.vhost}: connection refused; check "
        "host and port, and whether the broker runs",
        code=1,
    )


async def test_a_host_that_does_not_answer(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert_alone(
            await said(tmp_path, rabbitmq.through(port), "--timeout", "0.5"),
            f"a.yaml:7: {PLACE}.url: no answer from amqp://***@127.0.0.1:{port}/{rabbitmq.vhost} within 0.5 s; check "
            "host and port, and the network",
            code=1,
        )


async def test_the_port_of_another_protocol(
    rabbitmq: RabbitMQ, node: Node, authority: Authority, tmp_path: Path
) -> None:
    """A management page, and the port for TLS."""
    certificate = authority.issue("broker")
    with http_server() as web, node.tls_listener(certificate.certificate, certificate.key) as tls:
        for port, protocol in ((web, "HTTP"), (tls, "TLS")):
            assert_alone(
                await said(tmp_path, rabbitmq.through(port)),
                f"a.yaml:7: {PLACE}.url: what answers at amqp://***@127.0.0.1:{port}/{rabbitmq.vhost} speaks "
                f"{protocol}, and not AMQP 0-9-1; name the port of AMQP, mostly 5672, or 5671 with amqps:// (with "
                "host: tls); 15672 is the port of RabbitMQ's management page",
            )


async def test_a_certificate_that_is_not_trusted(
    rabbitmq: RabbitMQ, node: Node, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.issue("broker")
    others = Authority(tmp_path, "others")
    with node.tls_listener(certificate.certificate, certificate.key) as port:
        assert_alone(
            await said(tmp_path, over_tls(rabbitmq, port, others)),
            f"a.yaml:7: {PLACE}.url: no trusted authority has signed the certificate of "
            f"amqps://***@127.0.0.1:{port}/{rabbitmq.vhost}: unable to get local issuer certificate; name its "
            "authority in tls.ca_file, or add it to those of the system",
        )


async def test_a_certificate_for_another_name(
    rabbitmq: RabbitMQ, node: Node, authority: Authority, tmp_path: Path
) -> None:
    wrong = authority.issue("wrong", host="mq.example")
    with node.tls_listener(wrong.certificate, wrong.key) as port:
        assert_alone(
            await said(tmp_path, over_tls(rabbitmq, port, authority)),
            f"a.yaml:7: {PLACE}.url: the certificate of amqps://***@127.0.0.1:{port}/{rabbitmq.vhost} is for other "
            "names: IP address mismatch, certificate is not valid for '127.0.0.1'; connect by a name that it has",
        )


async def test_a_certificate_that_has_expired(
    rabbitmq: RabbitMQ, node: Node, authority: Authority, tmp_path: Path
) -> None:
    old = authority.issue("old", expired=True)
    with node.tls_listener(old.certificate, old.key) as port:
        assert_alone(
            await said(tmp_path, over_tls(rabbitmq, port, authority)),
            f"a.yaml:7: {PLACE}.url: the certificate of amqps://***@127.0.0.1:{port}/{rabbitmq.vhost} has expired; "
            "renew it at the broker",
        )


async def test_a_certificate_that_is_not_checked_is_noted(
    rabbitmq: RabbitMQ, node: Node, authority: Authority, tmp_path: Path
) -> None:
    await rabbitmq.declare_with_dead_letters()
    certificate = authority.issue("broker")
    with node.tls_listener(certificate.certificate, certificate.key) as port:
        source = {"host": f"127.0.0.1:{port}", "virtual_host": rabbitmq.vhost, "username": USER, "password": PASSWORD}
        file = settings_file(tmp_path, {"kind": "rabbitmq", "queue": "work", **source, "tls": {"verify": False}})
        assert_alone(
            await connect_check(file),
            f"a.yaml:12: {PLACE}.tls.verify: the certificate of amqps://127.0.0.1:{port}/{rabbitmq.vhost} is not "
            "checked, so another machine could take its place; name its authority in tls.ca_file, and leave tls.verify "
            "out",
            code=0,
        )


async def test_a_wrong_password(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    assert_alone(
        await said(tmp_path, rabbitmq.with_password("not-it")),
        f"a.yaml:7: {PLACE}.url: RabbitMQ at {rabbitmq.where} refused the login; check user and password in the url",
    )


async def test_a_virtual_host_that_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    url = rabbitmq.url.replace(rabbitmq.vhost, "no-such-vhost")
    assert_alone(
        await said(tmp_path, url),
        f"a.yaml:7: {PLACE}.url: RabbitMQ at {rabbitmq.where.replace(rabbitmq.vhost, 'no-such-vhost')} refused the "
        "virtual host; check that it exists and that the user may enter it",
    )


async def test_one_of_several_addresses_is_wrong(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    port = free_port()
    found = await connect_check(
        settings_file(tmp_path, {"kind": "rabbitmq", "queue": "work", "url": [rabbitmq.url, rabbitmq.through(port)]})
    )
    assert_alone(
        found,
        f"a.yaml:7: {PLACE}.url: cannot reach amqp://***@127.0.0.1:{port}/{rabbitmq.vhost}: connection refused; check "
        "host and port, and whether the broker runs",
        code=1,
    )
    assert f"{PLACE}: queue 'work' on {rabbitmq.where} is there: 0 messages ready, 0 consumers" in found.right


# --- queues and exchanges ---------------------------------------------------------------------------------------------


async def test_a_queue_that_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    assert_alone(
        await said(tmp_path, rabbitmq.url),
        f"a.yaml:6: {PLACE}.queue: queue 'work' does not exist on {rabbitmq.where}; create it or set declare: active",
    )


async def test_each_queue_of_a_source_with_partitions_is_looked_at_once(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare("work.0")
    await rabbitmq.declare("work.dead")
    found = await said(tmp_path, rabbitmq.url, partitions=2)
    assert_alone(
        found,
        f"a.yaml:6: {PLACE}.queue: queue 'work.1' does not exist on {rabbitmq.where}; create it or set declare: active",
    )
    assert found.right[1:] == [
        f"{PLACE}: queue 'work.0' on {rabbitmq.where} is there: 0 messages ready, 0 consumers",
        (f"{PLACE}: queue 'work.dead' on {rabbitmq.where}, for dead letters, is there: 0 messages ready, 0 consumers"),
        f"{PLACE}: this user may publish failed messages on {rabbitmq.where}",
    ]


async def test_arguments_that_do_not_fit(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare("work", **{"x-max-priority": 5})
    await rabbitmq.declare("work.dead")
    found = await said(tmp_path, rabbitmq.url, declare="active", declare_options={"arguments": {"x-max-priority": 10}})
    [sentence] = found.wrong
    assert sentence == (
        f"broadway: a.yaml:9: {PLACE}.declare_options: queue 'work' on {rabbitmq.where} cannot be used as asked: "
        f"PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'work' in vhost '{rabbitmq.vhost}': "
        "received '10' but current is '5'; make declare_options and consume_options fit the queue, or set declare: "
        "passive"
    )
    assert found.code == 2


async def test_a_classic_queue_where_a_quorum_queue_was_asked_for(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare("work", **{"x-queue-type": "classic"})
    await rabbitmq.declare("work.dead")
    found = await said(
        tmp_path, rabbitmq.url, declare="active", declare_options={"arguments": {"x-queue-type": "quorum"}}
    )
    [sentence] = found.wrong
    assert sentence.startswith(
        f"broadway: a.yaml:9: {PLACE}.declare_options: queue 'work' on {rabbitmq.where} cannot be used as asked: "
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type'"
    )
    assert found.code == 2


async def test_the_exchange_of_a_binding_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    assert_alone(
        await said(tmp_path, rabbitmq.url, bindings=[{"exchange": "news"}]),
        f"a.yaml:9: {PLACE}.bindings.0.exchange: a binding of queue 'work' on {rabbitmq.where} cannot be made: "
        f"NOT_FOUND - no exchange 'news' in vhost '{rabbitmq.vhost}'; create the exchange",
    )


async def test_the_queue_for_dead_letters_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    assert_alone(
        await said(
            tmp_path,
            rabbitmq.url,
            dead_letter_declare="passive",
            more={"failure": {"attempts": 1, "dead_letter": "graveyard"}},
        ),
        f"a.yaml:8: {PLACE}.dead_letter_declare: queue 'graveyard' on {rabbitmq.where}, for failed messages, does not "
        "exist; create it or set dead_letter_declare: active",
    )


async def test_the_dead_letter_exchange_of_the_queue_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    arguments = {"x-dead-letter-exchange": "gone"}
    await rabbitmq.declare("work", **arguments)
    assert_alone(
        await said(
            tmp_path,
            rabbitmq.url,
            declare="active",
            declare_options={"arguments": arguments},
            more={"failure": {"attempts": 1, "dead_letter": "broker"}},
        ),
        f"a.yaml:11: {PLACE}.declare_options.arguments.x-dead-letter-exchange: dead letters go to an exchange that is "
        f"missing, so they are deleted: NOT_FOUND - no exchange 'gone' in vhost '{rabbitmq.vhost}'; create the "
        "exchange",
    )


async def test_a_queue_for_dead_letters_that_is_full(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead", **arguments)
    await rabbitmq.publish([b"1", b"2"], queue="work.dead")
    assert_alone(
        await said(tmp_path, rabbitmq.url, dead_letter_arguments=arguments),
        f"a.yaml:4: {PLACE}: queue 'work.dead' on {rabbitmq.where}, for failed messages, is full: it takes 2 messages "
        "and refuses more; look at its dead letters, and replay or purge them",
        code=1,
    )


async def test_a_queue_that_has_a_consumer_and_takes_one_at_a_time(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    arguments = {"x-single-active-consumer": True}
    await rabbitmq.declare("work", **arguments)
    await rabbitmq.declare("work.dead")
    queue = await rabbitmq.channel.get_queue("work")
    tag = await queue.consume(_ignore)
    found = await said(tmp_path, rabbitmq.url, declare="active", declare_options={"arguments": arguments})
    await queue.cancel(tag)
    assert_alone(
        found,
        f"a.yaml:4: {PLACE}: queue 'work' on {rabbitmq.where} has 1 consumer already, and x-single-active-consumer "
        "gives messages to one at a time; a pipeline that starts now waits",
        code=0,
    )


async def test_a_sink_whose_queue_or_exchange_is_missing(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    sink = {"kind": "rabbitmq", "url": rabbitmq.url}
    found = await said(
        tmp_path,
        rabbitmq.url,
        more={"publishers": {"out": {**sink, "queue": "done"}, "news": {**sink, "exchange": "news"}}},
    )
    assert found.code == 2
    assert found.wrong == [
        (
            "broadway: a.yaml:12: pipelines.orders.publishers.out.queue: there is no queue 'done' on "
            f"{rabbitmq.where}; create it, or set declare: active"
        ),
        (
            f"broadway: a.yaml:16: pipelines.orders.publishers.news.exchange: there is no exchange 'news' on "
            f"{rabbitmq.where}; create it"
        ),
    ]


# --- permissions ------------------------------------------------------------------------------------------------------


async def test_no_permission_to_declare(rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path) -> None:
    await rabbitmq.declare("work.dead")
    url = limited(configure=r"work\..*")
    words = refused(rabbitmq, user_of(url), "queue 'work'", "configure")
    sentence = (
        f"this user has no permission for queue 'work' on {rabbitmq.where}: {words}; give the user the permission to "
        "configure it, or change the url"
    )
    assert_alone(await said(tmp_path, url, declare="active"), f"a.yaml:8: {PLACE}.declare: {sentence}")

    await rabbitmq.declare("work")
    found = await said(tmp_path, url, declare="active", declare_options={"durable": True})
    assert_alone(found, f"a.yaml:9: {PLACE}.declare_options: {sentence}")


async def test_no_permission_to_read(rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    url = limited(read="nothing")
    words = refused(rabbitmq, user_of(url), "queue 'work'", "read")
    assert_alone(
        await said(tmp_path, url),
        f"a.yaml:6: {PLACE}.queue: this user has no permission for queue 'work' on {rabbitmq.where}: {words}; give the "
        "user the permission to read it, or change the url",
    )


async def test_no_permission_to_publish_dead_letters(
    rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path
) -> None:
    await rabbitmq.declare_with_dead_letters()
    url = limited(write="nothing")
    words = refused(rabbitmq, user_of(url), "exchange 'amq.default'", "write")
    assert_alone(
        await said(tmp_path, url),
        f"a.yaml:4: {PLACE}: this user may not publish to queue 'work.dead' on {rabbitmq.where}: {words}; give the "
        "user the permission to write to the default exchange",
    )


async def test_no_permission_to_declare_the_queues_for_failed_messages(
    rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path
) -> None:
    await rabbitmq.declare("work")
    url = limited(configure="nothing")
    found = await said(tmp_path, url, more={"failure": {"attempts": 3}})
    assert found.code == 2
    for line, queue, setting in zip(
        found.wrong,
        ("work.dead", "work.retry.125.q2"),
        (".dead_letter_declare", ".retry_arguments"),
        strict=True,
    ):
        words = refused(rabbitmq, user_of(url), f"queue '{queue}'", "configure")
        assert line == (
            f"broadway: a.yaml:4: {PLACE}{setting}: queue '{queue}' on {rabbitmq.where}, for failed messages, may not "
            f"be declared by this user: {words}; give the user the permission, or let somebody else declare it and set "
            "dead_letter_declare: passive"
        )


async def test_no_permission_to_bind(rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.channel.declare_exchange("news", "topic")
    url = limited(read="work")
    words = refused(rabbitmq, user_of(url), "exchange 'news'", "read")
    assert_alone(
        await said(tmp_path, url, bindings=[{"exchange": "news"}]),
        f"a.yaml:9: {PLACE}.bindings.0.exchange: this user has no permission for queue 'work' on {rabbitmq.where}: "
        f"{words}; give the user the permission to write to it, and to read exchange 'news', or change the url",
    )


async def test_no_permission_to_publish_to_a_sink(
    rabbitmq: RabbitMQ, limited: Callable[..., str], tmp_path: Path
) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.channel.declare_exchange("news", "fanout")
    url = limited(write=r"amq\.default")
    words = refused(rabbitmq, user_of(url), "exchange 'news'", "write")
    assert_alone(
        await said(
            tmp_path,
            rabbitmq.url,
            more={"publishers": {"news": {"kind": "rabbitmq", "url": url, "exchange": "news"}}},
        ),
        f"a.yaml:12: pipelines.orders.publishers.news.exchange: this user may not publish to exchange 'news' on "
        f"{rabbitmq.where}: {words}; give the user the permission to write to exchange 'news'",
    )


async def test_a_broker_that_accepts_no_messages(rabbitmq: RabbitMQ, node: Node, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    with node.memory_alarm():
        found = await said(tmp_path, rabbitmq.url, "--timeout", "3")
    assert_alone(
        found,
        f"a.yaml:4: {PLACE}: RabbitMQ at {rabbitmq.where} accepts no messages for now, because it is out of memory or "
        "of disk space; free some there, or raise its limit",
        code=1,
    )


# --- beside a running pipeline, and cut short -------------------------------------------------------------------------


async def test_a_running_daemon_is_not_disturbed(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare_with_dead_letters()
    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url}
    file = settings_file(tmp_path, source)
    with daemon(tmp_path, file) as running:
        await eventually(lambda: running.get("/readyz")[0] == 200, what="the pipeline consumes")
        before = len(running.log)
        found = await connect_check(file)
        assert found.wrong == []
        assert f"{PLACE}: queue 'work' on {rabbitmq.where} is there: 0 messages ready, 1 consumer" in found.right
        await rabbitmq.publish([b"1"])
        await rabbitmq.until(ready=0, unacked=0)
        assert not [line for line in running.log[before:] if line["level"] == "error"]
