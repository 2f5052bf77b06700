"""Decides who decides about a failed message: the message itself, the failure policy, or the settings of its source."""

from __future__ import annotations

from typing import NamedTuple

from broadway_py._core.failure import Verdict
from broadway_py.errors import RetryLater, Unavailable
from broadway_py.foreign import is_a

__all__ = ["FailureAuthority"]


class FailureAuthority(NamedTuple):
    """Knows which setting decides about the failed messages of one source.

    The first setting that was given decides:

    =====================================  =====================  ========================  =========================
    ``configure_ack`` of the message       ``failure=``           ``on_failure=``           what decides
                                           of the pipeline        of the source
    =====================================  =====================  ========================  =========================
    configured                             given or not           given or not              ``configure_ack``
    not configured                         given                  given or not              the policy: ``failure=``
    not configured                         not given              given                     ``on_failure=``
    not configured                         not given              not given                 the policy: the default
    =====================================  =====================  ========================  =========================

    In the first and the third row, the policy decides all the same about a retry, if

    * a service that the handlers need is away, and the failure may be its fault, or
    * the handler asked for another delivery: it raised ``RetryLater`` or ``Unavailable``.

    A pipeline with ``failure=None`` has no policy. Nobody asks there: the acknowledger's ``ack`` decides.
    """

    #: True: the user has given ``failure=`` to the pipeline. False: its policy is the default one.
    failure_is_given: bool
    #: True: the user has given ``on_failure=`` to the source.
    on_failure_is_given: bool

    @property
    def policy_decides(self) -> bool:
        """Returns whether the policy decides about every message that configures nothing for itself."""
        return self.failure_is_given or not self.on_failure_is_given

    @property
    def policy_overrides_source(self) -> bool:
        """Returns whether ``on_failure=`` is given to the source, but has no effect."""
        return self.failure_is_given and self.on_failure_is_given

    def policy_decides_about(
        self, verdict: Verdict, error: BaseException | None, *, is_configured: bool, is_blameless: bool
    ) -> bool:
        """Returns whether the policy decides about one failed message. If not, the acknowledger's ``ack`` does.

        Args:
            verdict: what the policy says about the message.
            error: the exception that failed the message, if there was one.
            is_configured: True if ``configure_ack`` of the message says what happens to it.
            is_blameless: True if the failure may be the fault of a service that is away.
        """
        if self.policy_decides and not is_configured:
            return True
        return verdict.action == "retry" and (is_blameless or is_a(error, (RetryLater, Unavailable)))
