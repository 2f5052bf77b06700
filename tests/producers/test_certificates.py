"""Why a certificate is not accepted: by real handshakes, each as strict as Python 3.13 and newer are by default."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import SSLError

from broadway_py.producers.certificates import broken_rule, certificate_error
from broadway_py.producers.sqs.requests.errors import of_error
from broadway_py.producers.sqs.settings.options import SQSOptions
from tests.support.certificates import Authority, Certificate
from tests.support.localstack import CREDENTIALS, REGION

RULE = (
    "or that of its authority breaks a rule of RFC 5280, which Python 3.13 and newer enforce: "
    "Missing Authority Key Identifier; issue both again with the extensions of RFC 5280 "
    "(Basic Constraints, Key Usage, Subject and Authority Key Identifier)"
)


def refusal(authority: Authority, shown: Certificate, *, strict: bool) -> ssl.SSLCertVerificationError | None:
    """What a client who trusts *authority* has against the certificate; None: nothing."""
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(authority.file))
    theirs.load_cert_chain(shown.certificate, shown.key)
    ours.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if strict:
        ours.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = theirs.wrap_bio(to_server, to_client, server_side=True)
    client = ours.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as refused:
            return refused
    return None


def test_what_our_authority_signs_passes_the_strict_look(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert refusal(authority, authority.issue("broker"), strict=True) is None


def test_a_certificate_without_the_identifier_of_its_authority_is_named_for_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, complete=False)
    shown = authority.issue("broker")
    assert refusal(authority, shown, strict=False) is None
    refused = refusal(authority, shown, strict=True)
    assert refused is not None
    assert broken_rule(refused) == RULE


def test_other_refusals_break_no_rule(tmp_path: Path) -> None:
    authority, others = Authority(tmp_path), Authority(tmp_path, "others")
    for shown in (
        others.issue("others"),
        authority.issue("host", host="mq.example"),
        authority.issue("x", expired=True),
    ):
        refused = refusal(authority, shown, strict=True)
        assert refused is not None
        assert broken_rule(refused) is None


def test_the_refusal_is_found_below_what_libraries_make_of_it() -> None:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_code, refused.verify_message = 10, "certificate has expired"
    wrapped = ssl.SSLCertVerificationError(1, "a library's own, without the number")
    wrapped.__cause__ = refused
    error = RuntimeError("the endpoint")
    error.__context__ = wrapped
    assert certificate_error(error) is refused
    assert certificate_error(refused) is refused
    assert certificate_error(OSError("cut")) is None


async def asked(tmp_path: Path, authority: Authority, shown: Certificate, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the sentence of the SQS producer is when its endpoint shows this certificate."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = SQSOptions(queue_url=f"https://127.0.0.1:{port}/000000000000/work", region=REGION)
        config = AioConfig(retries={"total_max_attempts": 1})
        async with get_session().create_client(
            "sqs",
            region_name=REGION,
            endpoint_url=f"https://127.0.0.1:{port}",
            config=config,
            verify=str(authority.file),
        ) as client:
            with pytest.raises(SSLError) as error:
                await client.receive_message(QueueUrl=options.queue_url)
    return str(of_error(error.value, "ReceiveMessage", options))


async def test_sqs_says_why_it_does_not_accept_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, others = Authority(tmp_path), Authority(tmp_path, "others")
    assert (
        "the endpoint's TLS certificate is not accepted: unable to get local issuer certificate; "
        "name a private authority in AWS_CA_BUNDLE"
    ) in await asked(tmp_path, authority, others.issue("broker"), monkeypatch)
