"""Names of hosts as DNS writes them: what is looked up, and what a certificate has to carry."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from yarl import URL

__all__ = ["EXPECTED", "certificate_name", "host_in", "wire_name"]

#: What a wrong name is told. It is not shown: a URL that was put together wrongly may have a password there.
EXPECTED: Final = (
    "expected the name of a host, such as mq.example: letters, digits, - and _, at most 63 between two dots, and 253 "
    "in all; or an address, such as 192.0.2.1 or 2001:db8::1"
)
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}")
_LONGEST: Final = 253


def wire_name(host: str) -> str:
    """*host* in the form in which everybody means the same by it: small ASCII letters, an address as it is.

    Letters beyond ASCII become what IDNA 2008 makes of them (``bücher`` is ``xn--bcher-kva``). Python itself would use
    the older IDNA, and look up another host for some names. A dot at the end stays: it says that the name is complete
    (but for ``localhost.``, which not every resolver knows).

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
    except ValueError:  # a UnicodeError is one
        raise ValueError(EXPECTED) from None
    labels = name.removesuffix(".").split(".")
    if len(name.removesuffix(".")) > _LONGEST or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(EXPECTED)
    return "localhost" if name == "localhost." else name


def certificate_name(host: str) -> str:
    """The name that the certificate of *host* carries: neither the dot at the end nor the zone of an address is in it.

    Raises:
        ValueError: no host can have that name.
    """
    return wire_name(host).removesuffix(".").partition("%")[0]


def host_in(url: URL) -> str:
    """The host in *url*, as :func:`wire_name` has it.

    Raises:
        ValueError: there is none, or no host can have that name.
    """
    raw = url.raw_host or ""
    # Names as they were encoded, for a decoded one may be encoded as another; addresses with their zone decoded.
    return wire_name((url.host or "") if ":" in raw else raw)
