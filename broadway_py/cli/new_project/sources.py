"""What a new project has for each kind of source: settings, commands, and sentences of its README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["SOURCES", "SourceTexts"]


@dataclass(frozen=True, slots=True)
class SourceTexts:
    """The texts of one kind of source."""

    #: The extras of broadway-py that it needs.
    extras: str
    #: What it is called in a sentence.
    called: str
    #: The section ``producer``, as lines of YAML.
    producer: str
    #: What must be done before the pipeline runs, in the README: commands with comments.
    start: str
    #: The same, as one command.
    start_command: str
    #: Where dead letters are.
    dead_letters: str
    #: The rows of the README's table of files.
    more_files: str
    #: How long the first result of a window takes; empty: no time.
    first_result: str = ""


SOURCES: Final[Mapping[str, SourceTexts]] = {
    "queue": SourceTexts(
        extras="daemon",
        called="a queue in a file",
        producer="""\
    producer: {kind: queue, path: var/queue.db, queue: orders}""",
        start="",
        start_command="",
        dead_letters="`broadway dlq ls --config settings.yaml` lists those in the file of the queue.",
        more_files="| `var/` | the queue, and what the pipeline stores |\n",
    ),
    "rabbitmq": SourceTexts(
        extras="daemon,rabbitmq",
        called="a queue of RabbitMQ",
        producer="""\
    producer:
      kind: rabbitmq
      queue: orders
      url: ${AMQP_URL:-amqp://guest:guest@127.0.0.1/}
      # Makes the queue if it is missing. Leave both out if somebody else makes it.
      declare: active
      declare_options: {arguments: {x-queue-type: quorum}}""",
        start="docker compose up --detach --wait  # RabbitMQ; or set AMQP_URL to yours\n",
        start_command="docker compose up --detach --wait",
        dead_letters="`broadway dlq ls --config settings.yaml` lists those in the queue `orders.dead`.",
        more_files="| `docker-compose.yml` | a RabbitMQ to try things out |\n| `var/` | what the pipeline stores |\n",
    ),
    "sqs": SourceTexts(
        extras="daemon,sqs",
        called="a queue of SQS",
        producer="""\
    producer:
      kind: sqs
      queue_url: ${QUEUE_URL:-http://127.0.0.1:4566/000000000000/orders}
      region: ${AWS_REGION:-eu-central-1}
      # By its name, in the account of the queue.
      dead_letter_queue: ${DEAD_LETTER_QUEUE:-orders-dead}""",
        start="""\
docker compose up --detach --wait  # LocalStack; or set QUEUE_URL and DEAD_LETTER_QUEUE to yours
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test  # LocalStack takes any; in each terminal
""",
        start_command="docker compose up --detach --wait; export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test",
        dead_letters="`broadway dlq ls --config settings.yaml` lists those in the queue `orders-dead`.",
        more_files="""\
| `docker-compose.yml`, `localstack/` | an SQS to try things out, and its queues |
| `var/` | what the pipeline stores |
""",
        first_result="""
SQS may still deliver what an earlier process held, so the first result comes after half a minute.""",
    ),
}
