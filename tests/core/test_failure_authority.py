"""Who decides about a failed message: the message itself, the failure policy, or the settings of its source."""

from __future__ import annotations

import itertools
from typing import Final, get_args

import pytest

from broadway_py._core.failure import Action, Verdict
from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.errors import Reject, RetryLater, Unavailable

#: ``configure_ack`` was called, ``failure=`` is given, ``on_failure=`` is given -> what decides.
TABLE: Final[dict[tuple[bool, bool, bool], str]] = {
    (True, True, True): "configure_ack",
    (True, True, False): "configure_ack",
    (True, False, True): "configure_ack",
    (True, False, False): "configure_ack",
    (False, True, True): "the policy",
    (False, True, False): "the policy",
    (False, False, True): "on_failure=",
    (False, False, False): "the policy",
}

#: Errors by which the handler asks for another delivery, and others.
ASKING: Final = (RetryLater(), Unavailable())
NOT_ASKING: Final = (None, ValueError(), OSError(), Reject("no"))


def asks_again(verdict: Verdict, error: BaseException | None, *, is_blameless: bool) -> bool:
    """The one exception to the table: the policy retries for a reason outside the message."""
    return verdict.action == "retry" and (is_blameless or error in ASKING)


@pytest.mark.parametrize(("configured", "failure", "on_failure"), TABLE)
def test_the_first_setting_that_was_given_decides(configured: bool, failure: bool, on_failure: bool) -> None:
    authority = FailureAuthority(failure_is_given=failure, on_failure_is_given=on_failure)
    decides = TABLE[configured, failure, on_failure]

    for action, error, is_blameless in itertools.product(get_args(Action), (*ASKING, *NOT_ASKING), (True, False)):
        verdict = Verdict(action)
        expected = decides == "the policy" or asks_again(verdict, error, is_blameless=is_blameless)
        got = authority.policy_decides_about(verdict, error, is_configured=configured, is_blameless=is_blameless)
        assert got is expected, (action, error, is_blameless)


@pytest.mark.parametrize(
    ("action", "error", "is_blameless", "policy_decides"),
    [
        ("retry", ValueError(), False, False),
        ("retry", ValueError(), True, True),
        ("retry", RetryLater(), False, True),
        ("retry", Unavailable(), False, True),
        ("retry", Reject("no"), False, False),
        ("retry", None, False, False),
        ("dead_letter", RetryLater(), True, False),
        ("drop", Unavailable(), True, False),
        ("reject", RetryLater(), True, False),
        ("stop", Unavailable(), True, False),
    ],
)
@pytest.mark.parametrize("configured", [True, False])
def test_a_retry_for_a_reason_outside_the_message_goes_before_on_failure(
    action: Action, error: BaseException | None, is_blameless: bool, policy_decides: bool, *, configured: bool
) -> None:
    authority = FailureAuthority(failure_is_given=False, on_failure_is_given=True)

    assert policy_decides is authority.policy_decides_about(
        Verdict(action), error, is_configured=configured, is_blameless=is_blameless
    )


@pytest.mark.parametrize(
    ("failure", "on_failure", "policy_decides", "overrides"),
    [(True, True, True, True), (True, False, True, False), (False, True, False, False), (False, False, True, False)],
)
def test_a_source_knows_whether_the_policy_decides(
    failure: bool, on_failure: bool, policy_decides: bool, overrides: bool
) -> None:
    authority = FailureAuthority(failure_is_given=failure, on_failure_is_given=on_failure)

    assert authority.policy_decides is policy_decides
    assert authority.policy_overrides_source is overrides
