"""Decides who may send requests to the HTTP port, and who may control the pipelines."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from aiohttp import web

from broadway_py.daemon.http.answers import Handler, json_answer
from broadway_py.daemon.settings.token_file import read_token
from broadway_py.errors import OptionsError
from broadway_py.limit import MINUTE_S
from broadway_py.log import logger
from broadway_py.producers.hosts import certificate_name

__all__ = ["Access", "as_dns", "is_loopback", "same_site"]

log = logger("broadway_py.daemon")

#: Methods that only read.
_READING: Final = ("GET", "HEAD")
#: How many addresses are told apart when wrong tokens are counted.
_MOST_ADDRESSES: Final = 20


class Access:
    """Decides whether a request may change something.

    With a token file, such a request needs the token. Without one, every client may send it if only this machine
    reaches the port, and nobody otherwise. Wrong tokens are counted in the log, and nobody is locked out: a token is
    too long to be guessed over a network.

    Args:
        token_file: the file with the token. None: there is no token.
        is_local: True if only this machine reaches the port.
    """

    def __init__(self, token_file: str | None, *, is_local: bool) -> None:
        self._token_file = token_file
        self._is_local = is_local
        self._wrong = _WrongTokens()
        self._trouble: str | None = None

    def close(self) -> None:
        """Logs what is still to be said."""
        self._wrong.close()

    async def tell(self, _request: web.Request) -> web.Response:
        """Answers whether control is open, needs the token, or is refused and why."""
        control, why = self._control()
        return json_answer({"control": control, "why": why})

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Passes on a request that only reads, or that may change something. Answers any other with 401 or 403."""
        if request.method not in _READING and (refused := self._refusal(request)) is not None:
            return refused
        return await handler(request)

    def _control(self) -> tuple[Literal["open", "token", "refused"], str | None]:
        if self._token_file is not None:
            return ("refused", _UNUSABLE) if self._token() is None else ("token", None)
        return ("open", None) if self._is_local else ("refused", _REFUSED)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._token_file is None:
            return None if self._is_local else json_answer({"error": _REFUSED}, status=403)
        token = self._token()
        if token is None:
            return json_answer({"error": _UNUSABLE}, status=403)
        given = request.headers.getall("Authorization", [])
        scheme, _, credentials = given[0].strip().partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return _unauthorized("control needs the token; send it in the header Authorization: Bearer TOKEN")
        if not hmac.compare_digest(credentials.strip().encode(errors="surrogateescape"), token.encode()):
            self._wrong.note(request.remote)
            return _unauthorized("this is not the token of the daemon, which is in the file that http.token_file names")
        return None

    def _token(self) -> str | None:
        assert self._token_file is not None  # noqa: S101  # the callers have looked
        token, trouble = None, None
        try:
            token = read_token(self._token_file)
        except OptionsError as refused:
            trouble = str(refused.under("http", "token_file"))
        if trouble is not None and trouble != self._trouble:
            log.error("control over HTTP is refused until the token can be read", reason=trouble)
        self._trouble = trouble
        return token


_REFUSED: Final = (
    "control is refused, because other machines can reach this port and there is no token; set http.token_file to a "
    "file that holds one"
)
_UNUSABLE: Final = (
    "control is refused, because the token in the file of http.token_file cannot be used now; the log of the daemon "
    "says why"
)


def _unauthorized(error: str) -> web.Response:
    answer = json_answer({"error": error}, status=401)
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


class _WrongTokens:
    """Logs that wrong tokens came, how many, and from which addresses: at once, then at most once in a minute."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._quiet: asyncio.TimerHandle | None = None

    def note(self, address: str | None) -> None:
        """Counts one wrong token from *address*."""
        known = address or "unknown"
        self._counts[known if known in self._counts or len(self._counts) < _MOST_ADDRESSES else "others"] += 1
        if self._quiet is None:
            self._say()

    def close(self) -> None:
        """Logs those that are counted and not logged yet."""
        if self._quiet is not None:
            self._quiet.cancel()
        self._write()

    def _say(self) -> None:
        self._quiet = asyncio.get_running_loop().call_later(MINUTE_S, self._say) if self._counts else None
        self._write()

    def _write(self) -> None:
        if self._counts:
            log.warning(
                "requests with a wrong token came to the HTTP port",
                count=self._counts.total(),
                addresses=dict(self._counts),
            )
        self._counts.clear()


def same_site(known: str | None) -> Any:
    """Returns a middleware that keeps pages of other sites from reading or changing anything here.

    A browser sends JSON from another site only after it has asked this server, which never allows it. A site whose own
    name leads to this machine would pass that check. So on a loopback address only names of this machine are served.

    Args:
        known: the loopback address's name in the settings, in the form of DNS. None: the whole network may send
            requests.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if known is not None and not all(is_loopback(host) or host == known for host in _hosts_of(request)):
            return json_answer({"error": "send this to an address of this machine, such as 127.0.0.1"}, status=403)
        if request.method not in _READING and request.content_type != "application/json":
            return json_answer({"error": "send this with the header Content-Type: application/json"}, status=415)
        return await handler(request)

    return check


def _hosts_of(request: web.Request) -> Iterator[str]:
    """Yields the names by which the client calls this server: from the header, and from the request line.

    Proxies get the name in the request line. Without any name (HTTP/1.0) it is the address to which the client has
    connected.
    """
    for host in (request.headers.get("Host", request.host), request.host):
        yield as_dns(host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host)


def as_dns(host: str, form: Callable[[str], str] = certificate_name) -> str:
    """Returns *host* in the *form* that DNS uses, or unchanged if it is no valid host name."""
    try:
        return form(host)
    except ValueError:
        return host


def is_loopback(host: str) -> bool:
    """Returns whether *host* is a name or an address by which a machine reaches itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
