"""Host names in the form that DNS uses, for look-ups and for the names in certificates."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from yarl import URL

__all__ = ["EXPECTED", "certificate_name", "host_in", "wire_name"]

#: The error text for a wrong name. It does not show the name: in a badly formed URL this part may hold a password.
EXPECTED: Final = (
    "expected the name of a host, such as mq.example: letters, digits, - and _, at most 63 between two dots, and 253 "
    "in all; or an address, such as 192.0.2.1 or 2001:db8::1"
)
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
_LONGEST: Final = 253


def wire_name(host: str) -> str:
    """Returns *host* in its common form: lower-case ASCII letters. An address stays an address.

    Other letters are encoded by IDNA 2008 (``bücher`` is ``xn--bcher-kva``). Python itself uses the older IDNA, and
    would look up another host for some names. A dot at the end stays: it says that the name is complete. Only
    ``localhost.`` loses its dot, because some resolvers do not know it.

    Raises:
        ValueError: no host can have that name.
    """
    address, percent, zone = host.partition("%")
    if ":" in address:
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise ValueError(EXPECTED) from None
        if bool(percent) != bool(zone) or not zone.isprintable() or re.search(r"[\s/%\]]", zone):
            raise ValueError(EXPECTED)
        return address.lower() + percent + zone
    try:
        name = (URL.build(scheme="amqp", host=host).raw_host or "").lower()
    except ValueError:  # UnicodeError is included
        raise ValueError(EXPECTED) from None
    labels = name.removesuffix(".").split(".")
    if len(name.removesuffix(".")) > _LONGEST or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(EXPECTED)
    return "localhost" if name == "localhost." else name


def certificate_name(host: str) -> str:
    """Returns the name that the certificate of *host* carries: without the dot at the end and without an address zone.

    Raises:
        ValueError: no host can have that name.
    """
    return wire_name(host).removesuffix(".").partition("%")[0]


def host_in(url: URL) -> str:
    """Returns the host of *url* in the form of :func:`wire_name`.

    Raises:
        ValueError: there is none, or no host can have that name.
    """
    raw = url.raw_host or ""
    # A name is used as it was encoded, because decoding and encoding may change it. An address needs its decoded zone.
    return wire_name((url.host or "") if ":" in raw else raw)
