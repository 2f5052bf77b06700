"""Settings that are right each by itself, but do not go together, or with what becomes of failed messages."""

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

#: What can become of a failed message that the broker has forgotten already.
_WITHOUT_THE_BROKER: Final = frozenset({"drop", "stop"})


def refuse_copies_that_shut_each_other_out(copies: Sequence[RabbitMQOptions]) -> None:
    """Of two that consume one queue, neither may want it alone: the other would never be let in.

    Raises:
        OptionsError: one does.
    """
    # The broker gives each copy another queue for "".
    consumed = Counter((copy.where, queue) for copy in copies for queue in copy.queues if queue)
    for copy in copies:
        alone = _wants_it_alone(copy)
        shared = next((queue for queue in copy.queues if consumed[copy.where, queue] > 1), None)
        if alone is not None and shared is not None:
            raise OptionsError(
                ("concurrency",),
                f"{consumed[copy.where, shared]} copies would consume queue {shared!r}, which {alone} keeps for one "
                "of them, and the others would never be let in: set concurrency: 1, or leave that out",
            )


def _wants_it_alone(options: RabbitMQOptions) -> str | None:
    """The setting by which the broker lets in no other connection."""
    if options.consume_options.exclusive:
        return "consume_options.exclusive"
    return "declare_options.exclusive" if options.declare_options.exclusive else None


def rejects_unasked(options: RabbitMQOptions) -> bool:
    """Whether, without a failure policy, what failed is rejected though nobody has said so."""
    return "on_failure" not in options.model_fields_set and not options.consume_options.no_ack


def requeues_up_to(options: RabbitMQOptions) -> int | None:
    """How often a message comes back that is to come back for ever, where a limit of the declared queue ends that."""
    limit = options.declare_options.arguments.get("x-delivery-limit", -1)
    requeues = "reject_and_requeue" in (options.on_success, options.on_failure)
    return limit if requeues and options.declares_quorum and isinstance(limit, int) and limit >= 0 else None


def loses_late_retries(options: RabbitMQOptions) -> bool:
    """Whether a retry that returns while its queue is full is lost, as far as we declare that queue ourselves."""
    wanted = options.declare_options.arguments
    refuses = str(wanted.get("x-overflow", "")).startswith("reject-publish")
    is_limited = "x-max-length" in wanted or "x-max-length-bytes" in wanted
    # A classic queue lets go of a message without asking whether it arrived.
    asks = not waits_in_classic_queues(options) and not any(map(options.is_passing, options.queues))
    return refuses and is_limited and not asks and not options.consume_options.no_ack


def waits_in_classic_queues(options: RabbitMQOptions) -> bool:
    """Whether retries wait in classic queues because the settings say so."""
    return options.retry_arguments.get("x-queue-type") == "classic"


def refuse_losing(options: RabbitMQOptions, plan: FailurePlan, pipeline: str | None = None) -> None:
    """Refuse a *plan* for failed messages that *options* of one copy cannot carry out.

    Args:
        options: of the copy, merged.
        plan: of the pipeline.
        pipeline: its name, where that is known already.

    Raises:
        OptionsError: dead letters would come back to the queue itself, or have no place; or ``reject`` would delete
            messages; or they are gone before they fail.
    """
    if options.consume_options.no_ack:
        _refuse_too_late(plan)
        return
    wrong: list[OptionsError] = []
    if plan.dead_letter in options.queues:
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
                "reject deletes messages for good, unless the queue has a dead-letter exchange: if it has one, say "
                "dead_letter: broker; else choose dead_letter or drop",
            )
        )
    if wrong:
        raise OptionsError.of(wrong)


def _refuse_too_late(plan: FailurePlan) -> None:
    beyond = sorted(plan.actions - _WITHOUT_THE_BROKER)
    if plan.is_given and beyond:
        raise OptionsError(
            ("failure",),
            "with consume_options.no_ack a message is gone when it is handed out, and nothing can become of it but "
            f"drop or stop, got {', '.join(beyond)}: leave out failure, or no_ack",
        )


def _refuse_unusable_names(options: RabbitMQOptions, plan: FailurePlan, pipeline: str | None) -> None:
    # The names that we derive from that of a queue fit, as that one is limited so that they do.
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
                f"name of a queue: {wrong}; say failure.dead_letter, or change the name",
            ) from None
