"""Hosts as DNS writes their names: which name is looked up, and whose certificate is taken."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import pytest
from aiormq.exceptions import AMQPConnectionError

from broadway_py.errors import OptionsError
from broadway_py.producers.hosts import EXPECTED, certificate_name, wire_name
from broadway_py.producers.rabbitmq import RabbitMQOptions
from broadway_py.producers.rabbitmq.connection.connection import Connection
from broadway_py.producers.rabbitmq.settings.address import Target
from broadway_py.producers.sqs import SQSOptions
from tests.support.certificates import Authority
from tests.support.eventually import PATIENCE

#: Nobody has such a name.
NOBODY: Final = [
    *(
        "a..b",
        ".example",
        "example..",
        "..",
        "*.example",
        "a b",
        "a/b",
        "bü cher",
        "a_*",
        "exa%6Dple",
        "a\0b",
        "\ud800",
    ),
    *(
        "a" * 64,
        "ü" * 63,
        ".".join(["a" * 50] * 6),
        "::g",
        "fe80::1%",
        "fe80::1%a b",
        "1:2",
        "mq.example:5671",
        "[::1]:1",
    ),
]


@pytest.mark.parametrize(
    ("written", "asked", "certified"),
    [
        ("mq.example", "mq.example", "mq.example"),
        ("MQ.Example.COM.", "mq.example.com.", "mq.example.com"),
        ("rabbit_mq", "rabbit_mq", "rabbit_mq"),
        ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example.", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        # The older IDNA, which Python has, would ask strasse.de: somebody else.
        ("straße.de", "xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("xn--strae-oqa.de", "xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("büch_er.de", "xn--bch_er-3ya.de", "xn--bch_er-3ya.de"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah", "xn--r8jz45g.xn--zckzah"),
        ("localhost.", "localhost", "localhost"),
        ("LocalHost", "localhost", "localhost"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1", "2001:db8::1"),
        ("FE80::1%Eth0", "fe80::1%Eth0", "fe80::1"),
        (".".join(["a" * 63] * 3 + ["b" * 61]) + ".", ".".join(["a" * 63] * 3 + ["b" * 61]) + ".", None),
    ],
)
def test_a_name_is_asked_and_certified_as_dns_has_it(written: str, asked: str, certified: str | None) -> None:
    assert wire_name(written) == asked
    assert certificate_name(written) == (certified or asked.rstrip("."))
    # What it makes stays as it is.
    assert wire_name(asked) == asked


@pytest.mark.parametrize("name", ["", *NOBODY])
def test_a_name_that_no_host_can_have_is_refused(name: str) -> None:
    for reading in (wire_name, certificate_name):
        with pytest.raises(ValueError, match=r"\Aexpected the name of a host") as wrong:
            reading(name)
        assert str(wrong.value) == EXPECTED


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQOptions(queue="q", **settings)
    return str(wrong.value)


def test_a_wrong_name_is_told_by_its_setting_and_not_shown_where_a_password_may_stand() -> None:
    assert complaint(url="amqp://bob:secret@a..b/") == f"url: the host in it: {EXPECTED}"
    assert complaint(url=["amqp://h/", "amqps://*.mq/"]) == f"url: the host in it: {EXPECTED}"
    assert complaint(host=["h", "a..b"]) == f"host: {EXPECTED}"
    rest = "; without a port, and one name that the certificate has, not a pattern"
    assert complaint(url="amqps://h", tls={"server_name": "*.mq"}) == f"tls.server_name: {EXPECTED}{rest}, got '*.mq'"
    assert complaint(url="amqps://h", tls={"server_name": ""}) == f"tls.server_name: {EXPECTED}{rest}, got ''"


@pytest.mark.parametrize("name", ["mq.example.", "bücher.example", "fe80::1%eth0", "rabbit_mq", "LocalHost"])
def test_a_host_and_a_url_mean_the_same_host(name: str) -> None:
    in_url = f"[{name}]" if ":" in name else name
    (by_host,) = RabbitMQOptions(queue="q", host=name, tls={}).targets()
    (by_url,) = RabbitMQOptions(queue="q", url=f"amqps://{in_url}:5671", tls={}).targets()
    (quoted,) = RabbitMQOptions(queue="q", url=f"amqps://{in_url.replace('%', '%25')}", tls={}).targets()
    assert by_host.where == by_url.where == quoted.where
    assert by_host.url.host == by_url.url.host


class Broker:
    """A port that speaks TLS with one certificate, and a resolver that leads every name there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.authority = Authority(folder)
        #: The names that were looked up.
        self.asked: list[str] = []
        #: The name that the client said to the server (SNI); None: none, as for an address.
        self.wanted: list[str | None] = []
        self._patch = monkeypatch

    async def takes(self, certified: str, **settings: Any) -> bool:
        """Whether somebody with *settings* talks to a broker whose certificate is made out to *certified*."""
        certificate = self.authority.issue("broker", host=certified)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate, certificate.key)
        context.sni_callback = lambda _socket, name, _context: self.wanted.append(name)
        gone = asyncio.Event()

        async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # The first words of AMQP are heard, so the certificate was taken; then we hang up.
            heard.append(await reader.read(8))
            writer.close()
            gone.set()

        heard: list[bytes] = []
        server = await asyncio.start_server(end, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()

        async def look_up(host: str, _port: int, **_: Any) -> list[Any]:
            self.asked.append(host)
            host.encode("ascii")  # as the system would ask
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        self._patch.setattr(loop, "getaddrinfo", look_up)
        tls = {"ca_file": str(self.authority.file), **settings.pop("tls", {})}
        target: Target
        (target,) = RabbitMQOptions(queue="q", tls=tls, **settings).targets()
        connection = Connection(target, target.tls.context(), 15, "test")
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.connect()
        except AMQPConnectionError as failed:
            refused = isinstance(failed.__cause__, ssl.SSLCertVerificationError)
        else:
            raise AssertionError("it hung up")
        finally:
            await connection.end()
            server.close()
            await server.wait_closed()
        if not refused:
            await asyncio.wait_for(gone.wait(), PATIENCE)
            assert heard == [b"AMQP\x00\x00\t\x01"]
        return not refused


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("host", "certified", "wanted"),
    [
        ("mq.example", "mq.example", "mq.example"),
        ("mq.example.", "mq.example", "mq.example"),
        ("MQ.Example", "mq.example", "mq.example"),
        ("mq.example", "MQ.EXAMPLE", "mq.example"),
        ("mq.my.example.", "*.my.example", "mq.my.example"),
        ("rabbit_mq.example", "rabbit_mq.example", "rabbit_mq.example"),
        ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bücher.my.example.", "*.my.example", "xn--bcher-kva.my.example"),
        ("straße.de", "xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("::1", "::1", None),
        ("fe80::1%lo", "fe80::1", None),
        ("127.0.0.1", "127.0.0.1", None),
    ],
)
async def test_the_certificate_of_a_host_is_taken(
    broker: Broker, host: str, certified: str, wanted: str | None
) -> None:
    assert await broker.takes(certified, host=host)
    assert broker.asked == [wire_name(host)]
    assert broker.wanted == [wanted]
    # The same, told by the name that the certificate must carry.
    assert await broker.takes(certified, host="elsewhere.example", tls={"server_name": host})


@pytest.mark.parametrize(
    ("host", "certified"),
    [
        ("mq.example", "example"),
        ("mq.example", "*.mq.example"),
        ("a.mq.my.example", "*.my.example"),
        ("mq.my.example", "m*.my.example"),
        # OpenSSL has a pattern stand for letters, digits and - alone.
        ("rabbit_mq.my.example", "*.my.example"),
        # A pattern for all of a top-level domain.
        ("mq.example", "*.example"),
        ("straße.de", "strasse.de"),
        ("bücher.example", "bucher.example"),
        ("127.0.0.1", "*.0.0.1"),
        ("::1", "::2"),
        ("fe80::1%lo", "fe80::2"),
    ],
)
async def test_the_certificate_of_another_host_is_not(broker: Broker, host: str, certified: str) -> None:
    assert not await broker.takes(certified, host=host)
    assert not await broker.takes(certified, host="elsewhere.example", tls={"server_name": host})


# --- SQS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("SQS.eu-central-1.amazonaws.com.", "https://sqs.eu-central-1.amazonaws.com."),
        ("bücher.example:4566", "https://xn--bcher-kva.example:4566"),
        ("[::1]:4566", "https://[::1]:4566"),
        ("[fe80::1%25eth0]:4566", "https://[fe80::1%eth0]:4566"),
        ("[fe80::1%eth0]", "https://[fe80::1%eth0]"),
        ("local-stack", "https://local-stack"),
    ],
)
def test_the_endpoint_of_a_queue_is_the_host_as_dns_has_it(host: str, endpoint: str) -> None:
    assert SQSOptions(queue_url=f"https://{host}/1/orders").endpoint == endpoint
    assert SQSOptions(queue_url="orders", endpoint_url=f"https://{host}").endpoint == endpoint


def test_one_host_is_one_however_it_is_written() -> None:
    SQSOptions(
        queue_url="https://sqs.eu-central-1.amazonaws.com/1/orders",
        dead_letter_queue="https://SQS.eu-central-1.amazonaws.com.:443/1/dead",
    )


def test_what_the_client_library_would_not_take_is_told_before() -> None:
    sentence = (
        "the AWS client library takes no host with _ in its name, nor with - at the end of a part: give the host "
        "another name, or write its address"
    )
    for host in ("local_stack:4566", "-a.example", "a-.example"):
        for field, settings in {
            "queue_url": {"queue_url": f"http://{host}/1/orders"},
            "endpoint_url": {"queue_url": "orders", "endpoint_url": f"http://{host}"},
        }.items():
            with pytest.raises(OptionsError) as wrong:
                SQSOptions(**settings)
            assert str(wrong.value) == f"{field}: {sentence}"
    # The queue's URL as LocalStack tells it, which is not where requests go.
    SQSOptions(queue_url="http://local_stack:4566/1/orders", endpoint_url="http://127.0.0.1:4566")
