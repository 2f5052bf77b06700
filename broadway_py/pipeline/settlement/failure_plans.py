"""Tells the sources of a pipeline what it does with failed messages, and checks that they can carry it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.errors import OptionsError, gathered
from broadway_py.log import logger
from broadway_py.options import FailurePolicy
from broadway_py.producer import FailurePlan
from broadway_py.producer_description import ProducerDescription

__all__ = ["check_sources", "log_which_policy_counts", "plan_of"]

log = logger("broadway_py.pipeline")


def check_sources(
    producers: Iterable[ProducerDescription], policy: FailurePolicy | None, *, failure_is_given: bool
) -> None:
    """Check that each of *producers* can carry out *policy*.

    Raises:
        OptionsError: a producer cannot.
    """
    wrong: list[OptionsError] = []
    for producer in producers:
        with gathered(wrong):
            plan = None if policy is None else plan_of(policy, producer, failure_is_given=failure_is_given)
            producer.check_failure(plan)
    if wrong:
        # Several producers may give the same error.
        raise OptionsError.of({str(one): one for one in wrong}.values())


def log_which_policy_counts(
    pipeline: str, producers: Mapping[str, ProducerDescription], *, failure_is_given: bool
) -> None:
    """Log which setting counts if both the pipeline and a producer have one for failed messages."""
    for name, producer in producers.items():
        if FailureAuthority(failure_is_given, producer.on_failure_is_given).policy_overrides_source:
            log.info("failure= overrides the producer's on_failure=", pipeline=pipeline, producer=name)


def plan_of(policy: FailurePolicy, source: ProducerDescription, *, failure_is_given: bool) -> FailurePlan:
    """Returns what *source* needs to know about *policy*."""
    actions: set[str] = {policy.final, *policy.classify.values()}
    delays: tuple[float, float] | None = None
    if policy.attempts > 1:
        actions.add("retry")
        # The bounds of what FailureRules draws.
        first, most = policy.backoff
        delays = (first / 2.0, min(most, first * 2.0 ** min(policy.attempts - 2, 60)))
    return FailurePlan(
        frozenset(actions),
        policy.dead_letter,
        FailureAuthority(failure_is_given, source.on_failure_is_given),
        delays,
    )
