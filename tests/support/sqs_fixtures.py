"""Fixtures that give a test a real SQS; loaded as a pytest plugin.

It is the endpoint in ``BROADWAY_TEST_SQS_URL``, else a LocalStack of our own, in a container where an engine answers
and in ``.cache/localstack`` elsewhere, started with the first test that asks for it and ended with the run; else none:
then the test is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.containers import image_of, wanted
from tests.support.localstack import (
    CREDENTIALS,
    REGION,
    SQS,
    LocalStack,
    LocalStackContainer,
    LocalStackProcess,
    given_endpoint,
    localstack_program,
    sqs_at,
)


def _image() -> str | None:
    """The image of our LocalStack; None: it is no container, because an endpoint is named, or no engine answers."""
    return image_of("localstack") if given_endpoint() is None and wanted() else None


def _choice() -> str:
    if given_endpoint() is not None:
        return "the endpoint in BROADWAY_TEST_SQS_URL"
    image = _image()
    if image is not None:
        return f"a container of our own, of {image}"
    if localstack_program() is not None:
        return "a LocalStack of our own in .cache/localstack"
    return "none: set BROADWAY_TEST_SQS_URL, or run `make localstack`; its tests are skipped"


def pytest_report_header() -> str:
    return f"sqs: {_choice()}"


@pytest.fixture(scope="session")
def sqs_endpoint() -> Iterator[str]:
    """Where SQS answers in this run."""
    given = given_endpoint()
    if given is not None:
        yield given
        return
    image, python = _image(), localstack_program()
    server: LocalStack
    if image is not None:
        server = LocalStackContainer(image)
    elif python is not None:
        server = LocalStackProcess(python)
    else:
        pytest.skip(f"no SQS: {_choice()}")
    try:
        server.start()
        yield server.endpoint
    finally:
        server.remove()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and region as AWS programs find them; those of the machine are not touched."""
    if given_endpoint() is not None:
        return  # with an endpoint of the user's, the credentials are the user's, too
    for name, value in (CREDENTIALS | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def sqs(sqs_endpoint: str, aws_environment: None) -> AsyncIterator[SQS]:
    """Queues of the test's own."""
    async with sqs_at(sqs_endpoint) as found:
        yield found
