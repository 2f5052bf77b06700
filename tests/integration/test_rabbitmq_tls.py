"""TLS to a real RabbitMQ: it works, it lets nobody listen, and each thing that is wrong with it has its sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import bodies, data, opened, refusal, settle, take
from tests.integration.aftermath import unharmed, until_lost
from tests.integration.gated_pipelines import PREFETCH, Hands, Work
from tests.integration.storms import FAULTS, own_node, weather
from tests.support.certificates import Authority, Certificate
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import PASSWORD, USER, Node

pytestmark = pytest.mark.integration

#: The first bytes of a TLS conversation: a handshake record, and in it the greeting of a client.
CLIENT_HELLO = b"\x16\x03"


@pytest.fixture
def node(rabbitmq: RabbitMQ) -> Node:
    return own_node(rabbitmq)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def over_tls(
    broker: RabbitMQ, port: int, *, trusting: Authority | None = None, showing: Certificate | None = None
) -> str:
    """The URL of a port that speaks TLS."""
    query = [] if trusting is None else [f"cafile={trusting.file}"]
    if showing is not None:
        query += [f"certfile={showing.certificate}", f"keyfile={showing.key}"]
    return f"{broker.through(port).replace('amqp:', 'amqps:')}?{'&'.join(query)}"


def where(broker: RabbitMQ, port: int, scheme: str = "amqps") -> str:
    """How an error shows it."""
    return f"{scheme}://***@127.0.0.1:{port}/{broker.vhost}"


@pytest.fixture
def port(node: Node, authority: Authority) -> Iterator[int]:
    """A port with a good certificate."""
    certificate = authority.issue("broker")
    with node.tls_listener(certificate.certificate, certificate.key) as port:
        yield port


@pytest.fixture
async def proxy(port: int) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", port) as proxy:
        yield proxy


# --- it works, and it is closed ---------------------------------------------------------------------------------------


async def test_nobody_on_the_way_sees_who_we_are_or_what_we_say(
    rabbitmq: RabbitMQ, authority: Authority, proxy: FaultProxy
) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish(bodies(30))
    async with opened(RabbitMQProducer("work", over_tls(rabbitmq, proxy.port, trusting=authority))) as copy:
        messages = await take(copy, 30)
        assert data(messages) == bodies(30)
        await settle(messages)
    await rabbitmq.until(ready=0, unacked=0)
    assert proxy.heard.startswith(CLIENT_HELLO)
    for clear in (b"AMQP", b"PLAIN", PASSWORD.encode(), USER.encode(), b"work"):
        assert clear not in proxy.heard


@pytest.mark.any_broker
async def test_without_tls_all_of_it_can_be_heard(rabbitmq: RabbitMQ) -> None:
    """So that the test above cannot pass by being deaf."""
    await rabbitmq.declare()
    async with FaultProxy(*rabbitmq.address) as proxy:
        async with opened(RabbitMQProducer("work", rabbitmq.through(proxy.port))):
            pass
        assert proxy.heard.startswith(b"AMQP")
        assert b"PLAIN" in proxy.heard
        assert b"work" in proxy.heard


@pytest.mark.faults
@pytest.mark.parametrize("name", ["cut", "reset", "black-hole", "slow-link", "closed-by-the-broker", "queue-recreated"])
async def test_over_tls_a_working_pipeline_goes_on_by_itself_after(
    job: Job,
    hands: Hands,
    proxy: FaultProxy,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    *,
    name: str,
) -> None:
    url = over_tls(job.broker, proxy.port, trusting=authority)
    await weather(FAULTS[name], job, hands, proxy, caplog, url=url)


# --- what is wrong with it --------------------------------------------------------------------------------------------


async def complaint(url: str) -> str:
    error = await refusal(RabbitMQProducer("work", url))
    assert type(error) is ProducerError
    return str(error)


async def test_a_certificate_of_an_authority_that_we_do_not_trust(
    rabbitmq: RabbitMQ, proxy: FaultProxy, tmp_path: Path
) -> None:
    others = Authority(tmp_path, "others")
    sentence = (
        f"no trusted authority has signed the certificate of {where(rabbitmq, proxy.port)}: "
        "unable to get local issuer certificate; name its authority in tls.ca_file, or add it to those of the system"
    )
    assert await complaint(over_tls(rabbitmq, proxy.port, trusting=others)) == sentence
    assert await complaint(over_tls(rabbitmq, proxy.port)) == sentence
    assert PASSWORD.encode() not in proxy.heard
    assert b"AMQP" not in proxy.heard


async def test_a_certificate_of_another_host(rabbitmq: RabbitMQ, node: Node, authority: Authority) -> None:
    wrong = authority.issue("wrong", host="mq.example")
    with node.tls_listener(wrong.certificate, wrong.key) as port:
        assert await complaint(over_tls(rabbitmq, port, trusting=authority)) == (
            f"the certificate of {where(rabbitmq, port)} is for other names: IP address mismatch, certificate is "
            "not valid for '127.0.0.1'; connect by a name that it has"
        )


async def test_a_certificate_that_has_expired(rabbitmq: RabbitMQ, node: Node, authority: Authority) -> None:
    old = authority.issue("old", expired=True)
    with node.tls_listener(old.certificate, old.key) as port:
        assert await complaint(over_tls(rabbitmq, port, trusting=authority)) == (
            f"the certificate of {where(rabbitmq, port)} has expired; renew it at the broker"
        )


@pytest.mark.any_broker
async def test_a_port_that_does_not_speak_tls(rabbitmq: RabbitMQ, authority: Authority) -> None:
    _, port = rabbitmq.address
    assert await complaint(over_tls(rabbitmq, port, trusting=authority)) == (
        f"{where(rabbitmq, port)} does not use TLS; name the port that does, mostly 5671, or, if the network needs no "
        "protection, use amqp:// (with host: leave out tls)"
    )


async def test_a_port_that_speaks_nothing_but_tls(rabbitmq: RabbitMQ, port: int) -> None:
    assert await complaint(rabbitmq.through(port)) == (
        f"{where(rabbitmq, port, 'amqp')} closed the connection as soon as the login began; check the "
        "port, and whether "
        "the broker runs; if it is the port for TLS, use amqps:// (with host: tls)"
    )


# --- certificates of ours ---------------------------------------------------------------------------------------------


@pytest.fixture
def strict_port(node: Node, authority: Authority) -> Iterator[int]:
    """A port that wants to see a certificate of our authority."""
    certificate = authority.issue("broker")
    with node.tls_listener(certificate.certificate, certificate.key, clients_of=authority.file) as port:
        yield port


def hung_up(broker: RabbitMQ, port: int) -> str:
    """What is said when the reset came before the broker's last words were read."""
    return (
        f"{where(broker, port)} closed the connection while TLS was set up; check that the port is the one for TLS, "
        "and whether the broker requires a client certificate"
    )


async def test_a_broker_that_wants_to_see_a_certificate_of_ours(
    rabbitmq: RabbitMQ, authority: Authority, strict_port: int, tmp_path: Path
) -> None:
    place = where(rabbitmq, strict_port)
    said = await complaint(over_tls(rabbitmq, strict_port, trusting=authority))
    assert said in {
        f"{place} requires a client certificate; set tls.cert_file and tls.key_file",
        hung_up(rabbitmq, strict_port),
    }

    stranger = Authority(tmp_path, "others").issue("stranger")
    said = await complaint(over_tls(rabbitmq, strict_port, trusting=authority, showing=stranger))
    assert said in {
        f"{place} does not accept the client certificate: unknown ca; use one from an authority that the broker trusts",
        hung_up(rabbitmq, strict_port),
    }

    await rabbitmq.declare()
    ours = authority.issue("ours")
    async with opened(RabbitMQProducer("work", over_tls(rabbitmq, strict_port, trusting=authority, showing=ours))):
        assert await rabbitmq.certificate_subjects() == ["CN=ours"]


async def test_a_renewed_certificate_is_shown_at_the_next_connect(
    rabbitmq: RabbitMQ, authority: Authority, strict_port: int, job: Job, hands: Hands
) -> None:
    await job.publish(100)
    ours = authority.issue("ours")
    async with FaultProxy("127.0.0.1", strict_port) as proxy:
        url = over_tls(rabbitmq, proxy.port, trusting=authority, showing=ours)
        pipeline = Work(producer=RabbitMQProducer("work", url, prefetch_count=PREFETCH), context=hands)
        async with unharmed(pipeline, job):
            await job.until_noted(100)
            # There may be a second connection, which looks for delay queues of a former version.
            assert set(await rabbitmq.certificate_subjects()) == {"CN=ours"}
            renewed = authority.issue("renewed")
            renewed.certificate.replace(ours.certificate)
            renewed.key.replace(ours.key)
            proxy.cut()
            await until_lost(pipeline)
            await pipeline.ready(30)

            async def shown() -> bool:
                # The broker may not have noticed the end of the old connection yet, nor listed the new one.
                return await rabbitmq.certificate_subjects() == ["CN=renewed"]

            await eventually(shown, what="the only connection has shown the renewed certificate")
