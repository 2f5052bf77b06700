"""Why a server's certificate was not accepted."""

from __future__ import annotations

import ssl
from typing import Final

__all__ = ["broken_rule", "certificate_error"]

#: OpenSSL's numbers for certificates that break RFC 5280, from `X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA` to
#: `X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3`. Only who sets `ssl.VERIFY_X509_STRICT` hears of them.
_STRICT: Final = range(80, 94)


def broken_rule(error: ssl.SSLCertVerificationError) -> str | None:
    """What to say behind "the certificate of …" when it was not strict enough; None: something else is wrong with it.

    Python 3.13 and newer look that closely. The certificate may be one that every other program takes.
    """
    if error.verify_code not in _STRICT:
        return None
    return (
        f"or that of its authority breaks a rule of RFC 5280, and Python 3.13 and newer insist on it: "
        f"{error.verify_message.rstrip('.')}; have both issued anew with the extensions of RFC 5280 "
        "(Basic Constraints, Key Usage, Subject and Authority Key Identifier)"
    )


def certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate that *error* was raised for, if it was one."""
    seen: BaseException | None = error
    while seen is not None:
        # Libraries derive errors of theirs from it, which do not know what OpenSSL said.
        if isinstance(seen, ssl.SSLCertVerificationError) and hasattr(seen, "verify_code"):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
