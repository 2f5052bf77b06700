"""Turns errors of the client library into one of a few kinds, and one sentence that says what to do."""

from __future__ import annotations

import traceback
from typing import Any, Final, Literal

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.certificates import certificate_error
from broadway_py.producers.sqs.settings.options import SQSOptions

__all__ = ["Kind", "Trouble", "entry_kind", "of_error", "refused_entries", "refused_request"]

#: ``away``: no answer, or a broken one; ``busy``: throttled, or too many in flight; ``expired``: the credentials have
#: expired; ``refused``: no credentials, or no permission; ``gone``: no such queue; ``stale``: the receipt handle is not
#: valid any more; ``wrong``: SQS does not accept the request.
Kind = Literal["away", "busy", "expired", "refused", "gone", "stale", "wrong"]

#: The modules of the client library that read and renew credentials.
_CREDENTIALS: Final = frozenset({"aiobotocore.credentials", "botocore.credentials"})

_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(
        (
            "OverLimit",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
            "KmsThrottled",
            "KMS.ThrottlingException",
        ),
        "busy",
    ),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"), "expired"),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSecurity",
            "InvalidSignatureException",
            "KMS.AccessDeniedException",
            "KmsAccessDenied",
            "KmsDisabled",
            "MissingAuthenticationToken",
            "NotAuthorized",
            "OptInRequired",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
        ),
        "refused",
    ),
    **dict.fromkeys(
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            "AWS.SimpleQueueService.QueueDeletedRecently",
            "InvalidAddress",
            "NonExistentQueue",
            "QueueDeletedRecently",
            "QueueDoesNotExist",
        ),
        "gone",
    ),
    **dict.fromkeys(
        (
            "AWS.SimpleQueueService.MessageNotInflight",
            "InvalidParameterValue",
            "InvalidParameterValueException",
            "MessageNotInflight",
            "ReceiptHandleIsInvalid",
        ),
        "stale",
    ),
    **dict.fromkeys(("InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout"), "away"),
}


class Trouble(ProducerError):
    """A request that failed. The text may be shown; :attr:`kind` is the kind of trouble."""

    def __init__(self, kind: Kind, text: str) -> None:
        self.kind: Kind = kind
        super().__init__(text)

    def as_loss(self) -> ProducerError:
        """Returns the error for the pipeline, which waits longer if we were refused."""
        return SourceRefused(str(self)) if self.kind in ("refused", "expired") else ProducerError(str(self))


def entry_kind(failed: dict[str, Any]) -> Kind:
    """Returns the kind of trouble of one entry in the ``Failed`` list of a batch."""
    known = _KINDS.get(str(failed.get("Code", "")))
    if known is not None:
        return known
    return "wrong" if failed.get("SenderFault") else "away"


def refused_entries(options: SQSOptions) -> Trouble:
    """Returns the trouble of a batch that AWS accepted, but of which it refused some or all entries."""
    return Trouble(
        "refused",
        f"SQS queue {options.queue_name!r}: AWS refused to settle messages; "
        "allow sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue",
    )


def refused_request(options: SQSOptions, request: str) -> Trouble:
    """Returns the trouble of a batch that AWS accepted, but of which it refused all entries for want of permission."""
    return Trouble(
        "refused",
        f"SQS queue {options.queue_name!r}: AWS refused {request}; allow sqs:{request}, or check the credentials",
    )


def of_error(error: BaseException, request: str, options: SQSOptions) -> Trouble:
    """Returns the trouble for *error*. *request* raised it (its name in the IAM action: ReceiveMessage)."""
    queue = f"SQS queue {options.queue_name!r}"
    if isinstance(error, ClientError):
        return _of_answer(error, request, queue)
    kind, text = _of_way(error, request, options)
    return Trouble(kind, f"{queue}: {text}")


def _of_way(error: BaseException, request: str, options: SQSOptions) -> tuple[Kind, str]:
    """Returns kind and text of an error that came before SQS answered."""
    match error:
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError() | TokenRetrievalError():
            where = "set them in the environment, a profile, or the role of this machine"
            return ("refused", f"no usable AWS credentials ({type(error).__name__}); {where}")
        case ProfileNotFound():
            return ("refused", f"there is no AWS profile {options.profile!r}; check the setting profile")
        case NoRegionError():
            return ("wrong", "no AWS region is set; set region, such as eu-central-1, or AWS_REGION")
        case ReadTimeoutError() | ConnectTimeoutError() | TimeoutError():
            return ("away", f"no answer to {request} in time; check the network")
        case EndpointConnectionError():
            return ("away", "SQS cannot be reached; check region, endpoint_url and the network")
        case SSLError():
            return ("away", _of_certificate(error))
        case HTTPClientError():
            return ("away", f"the connection broke during {request}")
    return _of_elsewhere(error, request)


def _of_certificate(error: SSLError) -> str:
    refused = certificate_error(error)
    if refused is None:
        return "the endpoint's TLS certificate is not accepted"
    said = refused.verify_message.rstrip(".")
    return f"the endpoint's TLS certificate is not accepted: {said}; name a private authority in AWS_CA_BUNDLE"


def _of_elsewhere(error: BaseException, request: str) -> tuple[Kind, str]:
    """Returns kind and text of an error without a class of its own, by the module that raised it."""
    modules = {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)}
    if modules & _CREDENTIALS:
        where = "check credential_process, the profile, and this machine's clock"
        return ("expired", f"the AWS credentials could not be read or renewed ({type(error).__name__}); {where}")
    if isinstance(error, OSError):
        return ("away", f"the connection broke during {request}")
    return ("wrong", f"{request} could not be made ({type(error).__name__})")


def _of_answer(error: ClientError, request: str, queue: str) -> Trouble:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # The query-compatible header gives older names to some errors. The class has the current name.
    kind = _KINDS.get(code) or _KINDS.get(type(error).__name__)
    if kind is None:
        kind = "away" if status >= 500 else "busy" if status == 429 else "wrong"
    match kind:
        case "busy" if code == "OverLimit" or type(error).__name__ == "OverLimit":
            text = f"{queue}: too many messages are in flight (OverLimit); settle them, or ask AWS for a higher quota"
        case "busy":
            text = f"{queue}: {request} is throttled ({code})"
        case "expired":
            text = f"{queue}: the AWS credentials have expired ({code}); renew them"
        case "refused":
            text = f"{queue}: AWS refused {request} ({code}); allow sqs:{request}, or check the credentials"
        case "gone":
            text = f"{queue} does not exist in this region and account; create it, or check queue_url and region"
        case "away":
            text = f"{queue}: SQS failed on {request} ({code or status})"
        case _:
            text = f"{queue}: SQS did not accept {request} ({code or status})"
    return Trouble(kind, text)
