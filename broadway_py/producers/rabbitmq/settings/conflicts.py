"""Checks settings that are valid alone, but conflict with each other or with the failure policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from broadway_py.errors import OptionsError, gathered
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq.settings.arguments import queue_name
from broadway_py.producers.rabbitmq.settings.options import BY_THE_BROKER, RabbitMQOptions

__all__ = [
    "loses_late_retries",
    "refuse_copies_that_shut_each_other_out",
    "refuse_losing",
    "rejects_unasked",
    "requeues_up_to",
    "waits_in_classic_queues",
]

#: What can be done with a failed message that the broker no longer has.
_WITHOUT_THE_BROKER: Final = frozenset({"drop", "stop"})


def refuse_copies_that_shut_each_other_out(copies: Sequence[RabbitMQOptions]) -> None:
    """Refuses *copies* that consume the same queue if one of them wants it exclusively: the others could not connect.

    Raises:
        OptionsError: there is such a copy.
    """
    # For the name "" the broker gives each copy a different queue.
    consumed = Counter((copy.where, queue) for copy in copies for queue in copy.queues if queue)
    for copy in copies:
        alone = _wants_it_alone(copy)
        shared = next((queue for queue in copy.queues if consumed[copy.where, queue] > 1), None)
        if alone is not None and shared is not None:
            raise OptionsError(
                ("concurrency",),
                f"{consumed[copy.where, shared]} copies would consume queue {shared!r}, but {alone} lets only one of "
                f"them consume it; set concurrency: 1, or leave {alone} out",
            )


def _wants_it_alone(options: RabbitMQOptions) -> str | None:
    """Returns the name of the setting that makes the broker refuse other connections; None: there is none."""
    if options.consume_options.exclusive:
        return "consume_options.exclusive"
    return "declare_options.exclusive" if options.declare_options.exclusive else None


def rejects_unasked(options: RabbitMQOptions) -> bool:
    """Returns whether failed messages are rejected by default, without a failure policy."""
    return not options.on_failure_is_given and not options.consume_options.no_ack


def requeues_up_to(options: RabbitMQOptions) -> int | None:
    """Returns the declared queue's delivery limit, if messages are requeued without end; None: there is none."""
    limit = options.declare_options.arguments.get("x-delivery-limit", -1)
    requeues = "reject_and_requeue" in (options.on_success, options.on_failure)
    return limit if requeues and options.declares_quorum and isinstance(limit, int) and limit >= 0 else None


def loses_late_retries(options: RabbitMQOptions) -> bool:
    """Returns whether a retry that returns to a full queue is lost, for queues that we declare."""
    wanted = options.declare_options.arguments
    refuses = str(wanted.get("x-overflow", "")).startswith("reject-publish")
    is_limited = "x-max-length" in wanted or "x-max-length-bytes" in wanted
    # A classic queue passes a message on without a confirm that it arrived.
    asks = not waits_in_classic_queues(options) and not any(map(options.is_passing, options.queues))
    return refuses and is_limited and not asks and not options.consume_options.no_ack


def waits_in_classic_queues(options: RabbitMQOptions) -> bool:
    """Returns whether the settings make retries wait in classic queues."""
    return options.retry_arguments.get("x-queue-type") == "classic"


def refuse_losing(options: RabbitMQOptions, plan: FailurePlan, pipeline: str | None = None) -> None:
    """Refuses a *plan* for failed messages that a copy with *options* cannot carry out.

    Args:
        options: the merged options of the copy.
        plan: the pipeline's plan.
        pipeline: the pipeline's name, if it is known already.

    Raises:
        OptionsError: dead letters would come back to the queue itself, or have no queue; or ``reject`` would delete
            messages; or messages are gone before they fail.
    """
    if options.consume_options.no_ack:
        _refuse_too_late(plan)
        return
    wrong: list[OptionsError] = []
    if plan.dead_letter in options.all_queues:
        wrong.append(
            OptionsError(
                ("failure", "dead_letter"),
                f"{plan.dead_letter!r} is consumed here, so its dead letters would come back; name another queue",
            )
        )
    with gathered(wrong):
        _refuse_unusable_names(options, plan, pipeline)
    rejects = options.on_failure in ("reject", "reject_and_requeue_once")
    if "reject" in plan.actions and rejects and plan.dead_letter != BY_THE_BROKER:
        wrong.append(
            OptionsError(
                ("failure",),
                "reject deletes messages, unless the queue has a dead-letter exchange; if it has one, set "
                "dead_letter: broker; else choose dead_letter or drop",
            )
        )
    if wrong:
        raise OptionsError.of(wrong)


def _refuse_too_late(plan: FailurePlan) -> None:
    beyond = sorted(plan.actions - _WITHOUT_THE_BROKER)
    if plan.authority.failure_is_given and beyond:
        raise OptionsError(
            ("failure",),
            "with consume_options.no_ack the broker forgets a message when it delivers it, so a failed message can "
            f"only be dropped or stop the pipeline; got {', '.join(beyond)}: leave out failure, or no_ack",
        )


def _refuse_unusable_names(options: RabbitMQOptions, plan: FailurePlan, pipeline: str | None) -> None:
    # Names that we derive from a queue's name always fit, because that name is limited.
    if plan.dead_letter is not None:
        try:
            queue_name(plan.dead_letter)
        except ValueError as wrong:
            raise OptionsError(("failure", "dead_letter"), f"not the name of a queue: {wrong}") from None
    elif pipeline is not None and any(not queue or queue.startswith("amq.") for queue in options.queues):
        try:
            queue_name(f"{pipeline}.dead")
        except ValueError as wrong:
            raise OptionsError(
                ("name",),
                "the dead letters of a queue that the broker names go to <name of the pipeline>.dead, which is not the "
                f"name of a queue: {wrong}; set failure.dead_letter, or change the name",
            ) from None
