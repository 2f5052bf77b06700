"""Says why a server's certificate was not accepted."""

from __future__ import annotations

import ssl
from typing import Final

__all__ = ["broken_rule", "certificate_error"]

#: OpenSSL's error numbers for certificates that break RFC 5280, from `X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA` to
#: `X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3`. They occur only with `ssl.VERIFY_X509_STRICT`.
_STRICT: Final = range(80, 94)


def broken_rule(error: ssl.SSLCertVerificationError) -> str | None:
    """Returns the text that follows "the certificate of …" when it breaks RFC 5280; None: the error is another one.

    Python 3.13 and newer check this. Other programs may accept the certificate.
    """
    if error.verify_code not in _STRICT:
        return None
    return (
        f"or that of its authority breaks a rule of RFC 5280, which Python 3.13 and newer enforce: "
        f"{error.verify_message.rstrip('.')}; issue both again with the extensions of RFC 5280 "
        "(Basic Constraints, Key Usage, Subject and Authority Key Identifier)"
    )


def certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """Returns the certificate error that caused *error*; None: it had another cause."""
    seen: BaseException | None = error
    while seen is not None:
        # Libraries have subclasses of it that lack OpenSSL's error number.
        if isinstance(seen, ssl.SSLCertVerificationError) and hasattr(seen, "verify_code"):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
