from __future__ import annotations

from typing import Any

import pytest

from broadway_py import FailurePolicy, Pipeline
from broadway_py.errors import OptionsError
from broadway_py.producers import SQSProducer
from broadway_py.producers.kinds import build
from broadway_py.producers.sqs.settings.options import Disposition, SQSOptions, wire_name
from tests.support.conformance import conforms

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as error:
        SQSOptions(**{"queue_url": "orders", **settings})
    return str(error.value)


@conforms("S-014")
def test_the_queue_is_required() -> None:
    with pytest.raises(OptionsError) as error:
        SQSProducer(region="eu-central-1")

    assert str(error.value) == "queue_url: required, but missing"


def test_partitions_are_refused_with_the_reason_beside_other_mistakes() -> None:
    """Other sources have them. Whoever sets them wants several workers with windows."""
    with pytest.raises(OptionsError) as error:
        build({"kind": "sqs", "queue_url": "orders", "partitions": 4, "parts": 4}, ("pipelines", "shop", "producer"))
    reason, unknown = map(str, error.value.all())
    assert reason == (
        "pipelines.shop.producer.partitions: a queue of SQS has no partitions; leave this out, and with aggregators "
        "set workers: 1, so that one process reads the queue and has all keys"
    )
    assert unknown.startswith("pipelines.shop.producer.parts: unknown setting; known here: attribute_names, ")


@conforms("S-015", "S-016", "S-017")
@pytest.mark.parametrize("queue", [None, "", 7])
def test_the_queue_must_be_named_by_text(queue: object) -> None:
    assert complaint(queue_url=queue).startswith("queue_url: expected ")


@conforms("S-018")
def test_a_queue_is_named_by_its_url_or_by_its_name() -> None:
    assert SQSProducer(URL).options.queue_url == URL
    assert (SQSOptions(queue_url=URL).queue_name, SQSOptions(queue_url=URL).region_name) == ("orders", "eu-central-1")
    assert (SQSOptions(queue_url="orders.fifo").queue_name, SQSOptions(queue_url="orders.fifo").is_fifo) == (
        "orders.fifo",
        True,
    )


@pytest.mark.parametrize(
    "queue", ["", "or ders", "https://", "ftp://host/queue", "https://user:secret@host/1/q", "a" * 81]
)
def test_what_is_neither_url_nor_name_is_refused_and_not_shown(queue: str) -> None:
    assert complaint(queue_url=queue) == (
        "queue_url: expected the URL of a queue, such as "
        "https://sqs.eu-central-1.amazonaws.com/123456789012/orders, or its name"
    )


@conforms("S-019", "S-022", "S-025")
def test_what_is_not_set_is_not_asked_for() -> None:
    options = SQSOptions(queue_url="orders")

    assert options.attribute_names is None
    assert options.message_attribute_names is None
    # The original leaves the wait out, which mostly means a busy loop of short polls; ours waits as long as SQS allows.
    assert options.wait_time_seconds == 20


@conforms("S-020", "S-021")
def test_the_attributes_of_sqs_are_named_in_our_words() -> None:
    names = (
        "sender_id",
        "sent_timestamp",
        "approximate_receive_count",
        "approximate_first_receive_timestamp",
        "sequence_number",
        "message_deduplication_id",
        "message_group_id",
        "aws_trace_header",
    )

    assert SQSOptions(queue_url="orders", attribute_names=names).attribute_names == names
    assert SQSOptions(queue_url="orders", attribute_names="all").attribute_names == "all"
    assert [wire_name(name) for name in names] == [
        "SenderId",
        "SentTimestamp",
        "ApproximateReceiveCount",
        "ApproximateFirstReceiveTimestamp",
        "SequenceNumber",
        "MessageDeduplicationId",
        "MessageGroupId",
        "AWSTraceHeader",
    ]
    assert complaint(attribute_names=["sender_id", "message_grup_id"]) == (
        f"attribute_names: no such attribute: 'message_grup_id'; known here: {', '.join(names)}; "
        "did you mean 'message_group_id'?, got ['sender_id', 'message_grup_id']"
    )
    assert complaint(attribute_names="some") == (
        f"attribute_names: expected 'all' or a list of names out of {', '.join(names)}, got 'some'"
    )


@conforms("S-023", "S-024")
def test_the_senders_attributes_are_named_by_text() -> None:
    assert SQSOptions(queue_url="orders", message_attribute_names=["a", "b.*"]).message_attribute_names == ("a", "b.*")
    assert SQSOptions(queue_url="orders", message_attribute_names="all").message_attribute_names == "all"
    # The original's sentence names another option.
    assert complaint(message_attribute_names=["a", 7]) == (
        "message_attribute_names: expected names that are non-empty text, got ['a', 7]"
    )
    assert complaint(message_attribute_names="some") == (
        "message_attribute_names: expected 'all' or a list of names, got 'some'"
    )


@conforms("S-026")
def test_a_receive_waits_for_0_to_20_whole_seconds() -> None:
    assert [SQSOptions(queue_url="q", wait_time_seconds=wait).wait_time_seconds for wait in (0, 10, "20s")] == [
        0,
        10,
        20,
    ]
    assert complaint(wait_time_seconds=-1) == "wait_time_seconds: expected greater than or equal to 0, got -1"
    assert complaint(wait_time_seconds=21) == "wait_time_seconds: expected less than or equal to 20, got 21"
    assert (
        complaint(wait_time_seconds=1.5)
        == "wait_time_seconds: expected whole seconds, because SQS knows no others, got 1.5"
    )
    assert complaint(wait_time_seconds="an atom").startswith("wait_time_seconds: expected a duration in seconds")


@conforms("S-027", "S-028")
def test_a_receive_brings_1_to_10_messages() -> None:
    assert SQSOptions(queue_url="q").max_number_of_messages == 10
    assert SQSOptions(queue_url="q", max_number_of_messages=1).max_number_of_messages == 1
    assert complaint(max_number_of_messages=0) == "max_number_of_messages: expected greater than or equal to 1, got 0"
    assert complaint(max_number_of_messages=11) == "max_number_of_messages: expected less than or equal to 10, got 11"


@conforms("S-029", "S-030")
def test_region_and_endpoint_are_settings_and_credentials_are_not() -> None:
    options = SQSOptions(queue_url="q", region="eu-west-1", endpoint_url="http://127.0.0.1:4566", profile="orders")

    assert (options.region_name, options.endpoint) == ("eu-west-1", "http://127.0.0.1:4566")
    assert (SQSOptions(queue_url="q").region_name, SQSOptions(queue_url="q").endpoint) == (None, None)
    assert complaint(endpoint_url="sometext") == (
        "endpoint_url: expected http://host:port or https://host, without user and password"
    )
    assert complaint(access_key_id="AKIA").startswith("access_key_id: unknown setting; known here: ")


@conforms("S-031", "S-032")
def test_visibility_is_0_to_43200_whole_seconds_or_what_the_queue_says() -> None:
    assert SQSOptions(queue_url="q").visibility_timeout is None
    assert [SQSOptions(queue_url="q", visibility_timeout=v).visibility_timeout for v in (0, 43_200, "12h")] == [
        0,
        43_200,
        43_200,
    ]
    assert complaint(visibility_timeout=-1) == "visibility_timeout: expected greater than or equal to 0, got -1"
    assert (
        complaint(visibility_timeout=142_857) == "visibility_timeout: expected less than or equal to 43200, got 142857"
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("ack", Disposition("ack")),
        ("noop", Disposition("noop")),
        ("nack", Disposition("nack", 0)),
        (["nack", 30], Disposition("nack", 30)),
        (("nack", "1m"), Disposition("nack", 60)),
    ],
)
def test_what_becomes_of_a_message_is_said_in_one_word_or_two(given: object, read: Disposition) -> None:
    options = SQSOptions(queue_url="q", on_failure=given, on_success=given)

    assert (options.on_success, options.on_failure) == (read, read)


def test_what_becomes_of_a_message_is_checked() -> None:
    expected = "expected ack, noop, nack, [nack, seconds] or dead_letter"
    assert complaint(on_failure="requeue") == f"on_failure: {expected}, got 'requeue'"
    assert complaint(on_success=["nack"]).startswith(f"on_success: {expected}")
    assert complaint(on_failure=["nack", 43_201]).startswith(
        "on_failure: expected a delay from 0 to 43200 seconds after nack"
    )
    assert complaint(on_success="dead_letter") == (
        "on_success: expected ack, noop, nack or [nack, seconds], got dead_letter"
    )
    assert complaint(on_failure="dead_letter") == (
        "on_failure: dead_letter needs dead_letter_queue: name the queue, or leave on_failure out"
    )
    assert complaint(dead_letter_queue="orders") == (
        "dead_letter_queue: this is the queue itself, so its dead letters would come again for ever"
    )


class Plain(Pipeline[bytes]):
    """Does nothing: it is only built."""

    async def handle_message(self, message: Any) -> None: ...


@pytest.mark.parametrize("dead_letter", ["orders-dead", "broker"])
def test_a_policy_cannot_name_dead_letters_that_the_producer_names(dead_letter: str) -> None:
    for settings in ({}, {"dead_letter_queue": "orders-dead"}):
        with pytest.raises(OptionsError) as refused:
            Plain(producer=SQSProducer("orders", **settings), failure=FailurePolicy(dead_letter=dead_letter))
        assert str(refused.value) == (
            "failure.dead_letter: with SQS the producer decides where dead letters go: name the queue in its "
            "dead_letter_queue, or use the redrive policy of the queue, and leave dead_letter out here"
        )


@pytest.mark.parametrize(
    "policy", [FailurePolicy(attempts=3), FailurePolicy(final="drop", classify={ValueError: "dead_letter"})]
)
def test_a_policy_that_was_given_and_settings_that_delete_its_dead_letters_are_refused(policy: FailurePolicy) -> None:
    with pytest.raises(OptionsError) as refused:
        Plain(producer=SQSProducer("orders", on_failure="ack"), failure=policy)
    assert str(refused.value) == (
        "failure: dead letters would be deleted, because no dead_letter_queue is set and on_failure is ack; set "
        "dead_letter_queue, or leave on_failure out if the queue has a redrive policy, or choose drop"
    )


def test_what_loses_no_dead_letter_that_somebody_wants_is_taken() -> None:
    given = FailurePolicy(attempts=3)
    Plain(producer=SQSProducer("orders", on_failure="ack", dead_letter_queue="dead"), failure=given)
    Plain(producer=SQSProducer("orders", on_failure="ack"), failure=FailurePolicy(final="drop"))
    Plain(producer=SQSProducer("orders", on_failure="ack"), failure=None)
    # It goes before the default policy: nobody has asked for dead letters.
    Plain(producer=SQSProducer("orders", on_failure="ack"))
    Plain(producer=SQSProducer("orders"), failure=given)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("127.0.0.1:4566", None),
        ("sqs.example.com", None),
        ("sqs.eu-central-1.amazonaws.com", "eu-central-1"),
        ("SQS.EU-CENTRAL-1.amazonaws.com", "eu-central-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("sqs.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("sqs-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("sqs-fips.us-east-1.api.aws", "us-east-1"),
        ("sqs.eu-west-1.api.aws", "eu-west-1"),
        ("sqs.cn-northwest-1.api.amazonwebservices.com.cn", "cn-northwest-1"),
        ("sqs.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
        ("sqs.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"),
        ("sqs.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1"),
        ("sqs.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("vpce-0123456789abcdef0-abcdefgh.sqs.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ("vpce-0123456789abcdef0-abcdefgh-us-east-2a.sqs.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ("vpce-0123456789abcdef0-abcdefgh.sqs.cn-north-1.vpce.amazonaws.com.cn", "cn-north-1"),
        ("eu-west-1.queue.amazonaws.com", "eu-west-1"),
        ("cn-north-1.queue.amazonaws.com.cn", "cn-north-1"),
        ("queue.amazonaws.com", "us-east-1"),
        ("sqs.us-east-1.localhost.localstack.cloud:4566", "us-east-1"),
    ],
)
def test_the_host_in_the_url_is_asked_and_says_the_region(host: str, region: str | None) -> None:
    options = SQSOptions(queue_url=f"https://{host}/123456789012/orders")
    assert (options.endpoint, options.region_name) == (f"https://{host.lower()}", region)


def test_an_endpoint_and_a_region_that_are_given_go_before_the_url() -> None:
    assert SQSOptions(queue_url="http://127.0.0.1:4566/0/q", endpoint_url="http://h:1").endpoint == "http://h:1"
    assert SQSOptions(queue_url=URL, endpoint_url="http://h:1", region="us-east-1").region_name == "us-east-1"


def test_a_region_that_the_host_is_not_in_is_refused() -> None:
    assert complaint(queue_url=URL, region="us-east-1") == (
        "region: got us-east-1, but the host in queue_url is in eu-central-1, and would refuse every request: leave "
        "region out, or correct one of the two"
    )


def test_dead_letters_are_sent_to_the_host_that_is_asked_or_refused() -> None:
    endpoint = "https://vpce-1.sqs.eu-central-1.vpce.amazonaws.com"
    assert complaint(queue_url=f"{endpoint}/1/orders", dead_letter_queue=URL) == (
        "dead_letter_queue: its host is sqs.eu-central-1.amazonaws.com, that of queue_url is "
        "vpce-1.sqs.eu-central-1.vpce.amazonaws.com, and all requests go to one host: write both with the same host, "
        "or give dead_letter_queue by its name alone"
    )
    SQSOptions(queue_url=f"{endpoint}/1/orders", dead_letter_queue=f"{endpoint}/1/dead")
    SQSOptions(queue_url=f"{endpoint}/1/orders", dead_letter_queue="dead")
    SQSOptions(queue_url=f"{endpoint}/1/orders", dead_letter_queue=URL, endpoint_url="http://h:1")


def test_a_settings_file_names_it_by_its_kind() -> None:
    producer = build({"kind": "sqs", "queue_url": "orders", "visibility_timeout": "5m", "name": "in"}, ("producer",))

    assert isinstance(producer, SQSProducer)
    assert (producer.name, producer.options.visibility_timeout) == ("in", 300)
    with pytest.raises(OptionsError) as error:
        build({"kind": "sqs", "queue_url": "orders", "max_polls": 0}, ("pipelines", "a", "producer"))
    assert str(error.value) == "pipelines.a.producer.max_polls: expected greater than or equal to 1, got 0"
