"""Asks a running daemon over its HTTP port, for the commands that show it or change it."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import time
import urllib.parse
import urllib.request
from typing import Any, Final

from broadway_py.daemon.dead_letters.letters import printable
from broadway_py.daemon.logs.logs import mask_credentials
from broadway_py.daemon.settings.settings import Settings
from broadway_py.daemon.settings.token_file import read_token
from broadway_py.error_text import clipped
from broadway_py.errors import BroadwayError, OptionsError
from broadway_py.producers.hosts import wire_name

__all__ = ["DaemonAway", "DaemonClient", "DaemonError", "address_of", "pipeline_path", "read_token"]

#: Seconds that a request may take until the first byte of the answer, and then until the last one.
_TIMEOUT_S: Final = 10.0
#: The longest answer that is read, in bytes. A daemon with a thousand pipelines sends a tenth of it.
_MOST_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 256 * 1024
#: The most characters that are shown of what a daemon says.
_MOST_SAID: Final = 1000
#: What a token is made of.
_VISIBLE: Final = "visible ASCII characters without spaces"

#: The hosts on which a daemon listens at all addresses, each with the one by which its own machine reaches it.
_OWN: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # nothing is bound here


class DaemonError(BroadwayError):
    """A daemon refused a request, or could not carry it out.

    Args:
        text: one sentence that says what to do.
        status: the status of the answer. None: there was no answer.
        answer: the JSON of the answer. None: it was not the answer of a daemon.
    """

    def __init__(self, text: str, status: int | None = None, answer: Any = None) -> None:
        self.status = status
        self.answer = answer
        super().__init__(text)


class DaemonAway(DaemonError):
    """No daemon answers at this address. It may answer later."""


class DaemonClient:
    """Sends requests to one daemon.

    Args:
        url: where it serves, such as ``http://127.0.0.1:8080``. A path in front of the daemon's own paths may follow.
        token: the token for requests that change something. It is sent with every request, and it is in no error.
        timeout_s: seconds that a request may take until its answer begins, and then until the answer ends.

    Raises:
        OptionsError: *url* is no such address, or *token* cannot be a token.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        if token is not None and not _may_be_token(token):
            raise OptionsError((), f"the token is not one line of {_VISIBLE}")
        self.url, is_loopback = _checked(url)
        self._token = token
        self._timeout_s = timeout_s
        # Nothing else follows a redirection or looks at the status, so the token is sent to this address only.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            # A proxy would look for the daemon on its own machine.
            urllib.request.ProxyHandler({} if is_loopback else None),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
        ):
            self._opener.add_handler(handler)

    def get(self, path: str) -> Any:
        """Returns the JSON at *path*, such as ``/api/pipelines``.

        Raises:
            DaemonAway: nobody answers at this address.
            DaemonError: the daemon refuses, or something else answers.
        """
        return self._ask(path, None)

    def post(self, path: str, body: object = None) -> Any:
        """Sends *body* as JSON to *path* and returns the JSON of the answer. None is sent as ``{}``.

        Raises:
            DaemonAway: nobody answers at this address. The request may have been carried out nevertheless.
            DaemonError: the daemon refuses, or cannot carry out the request, or something else answers.
        """
        return self._ask(path, json.dumps({} if body is None else body).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        headers = {"Accept": "application/json", "User-Agent": "broadway"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            self.url + path, data=body, headers=headers, method="GET" if body is None else "POST"
        )
        try:
            answer = self._opener.open(request, timeout=self._timeout_s)
            if answer is None:  # no handler is for this scheme, which was checked
                raise OSError
            with answer:
                status, raw = int(answer.status), self._read(answer)
        except http.client.InvalidURL:
            raise self._wrong_proxy() from None
        except (OSError, http.client.HTTPException) as failed:
            raise self._no_answer(failed) from None
        except ValueError:
            raise self._wrong_proxy() from None
        return self._answer(path, status, raw)

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        until = time.monotonic() + self._timeout_s
        parts: list[bytes] = []
        size = 0
        while part := answer.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                raise http.client.HTTPException
            if time.monotonic() > until:
                raise TimeoutError
        if answer.length:  # it ended before its announced length
            raise http.client.HTTPException
        return b"".join(parts)

    def _wrong_proxy(self) -> DaemonError:
        # The address was checked, so it is that of the environment that is wrong. It may have a password in it.
        return DaemonError(
            f"{self.url} cannot be asked through the proxy of the environment, whose address is not valid: correct "
            f"{urllib.parse.urlsplit(self.url).scheme}_proxy, or name this host in no_proxy"
        )

    def _no_answer(self, failed: Exception) -> DaemonError:
        reason = getattr(failed, "reason", failed)
        url = self.url
        if isinstance(reason, ConnectionRefusedError):
            return DaemonAway(
                f"no daemon answers at {url}: is it running? its address is http.host and http.port of the settings"
            )
        if isinstance(reason, TimeoutError):
            return DaemonAway(
                f"the daemon at {url} did not answer within {self._timeout_s:g} s: it may be overloaded or blocked; "
                "see its log, and try again"
            )
        if isinstance(reason, socket.gaierror):
            host = urllib.parse.urlsplit(url).hostname
            return DaemonAway(f"no daemon answers at {url}: no address is known for the host {host!r}; check its name")
        if isinstance(reason, ssl.SSLCertVerificationError):
            return DaemonError(
                f"the certificate of {url} is not accepted ({reason.verify_message}): use the name that it is for, or "
                "make its authority known with SSL_CERT_FILE"
            )
        if isinstance(reason, ssl.SSLError):
            return DaemonError(f"{url} does not speak TLS: the daemon itself serves http://, not https://")
        if isinstance(reason, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
            return DaemonAway(
                f"the connection to {url} ended without an answer of a daemon: it stops or starts, or another program "
                "uses this port"
            )
        why = os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno else "no connection"
        return DaemonAway(f"no daemon answers at {url} ({why}): check the address, and the network between")

    def _answer(self, path: str, status: int, raw: bytes) -> Any:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            raise self._stranger(status) from None
        if status in (200, 202):
            return answer
        said = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(said, str):
            raise self._stranger(status)
        raise DaemonError(self._refused(path, status, _shown(said)), status, answer)

    def _stranger(self, status: int) -> DaemonError:
        return DaemonError(
            f"another program than a broadway daemon answers at {self.url} (status {status}): "
            "check http.host and http.port of the settings, or the address in --url",
            status,
        )

    def _refused(self, path: str, status: int, said: str) -> str:
        daemon = f"the daemon at {self.url}"
        if status == http.HTTPStatus.UNAUTHORIZED:
            if self._token is None:
                return f"{daemon} wants a token: name the file that holds it with --token-file"
            return f"{daemon} does not accept this token: take the file that http.token_file of its settings names"
        if status == http.HTTPStatus.NOT_FOUND and said == "Not Found":
            return f"{daemon} does not know {path}: it runs an older version; install the same version on both sides"
        if status == http.HTTPStatus.FORBIDDEN:
            return f"{daemon} does not allow this: {said}"
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return f"{daemon} could not do this now: {said}"
        return f"{daemon} refuses this (status {status}): {said}"


def pipeline_path(name: str, act: str | None = None) -> str:
    """Returns the path of a pipeline, or that of *act*, such as ``pause``, for it."""
    path = f"/api/pipelines/{urllib.parse.quote(name, safe='')}"
    return path if act is None else f"{path}/{act}"


def address_of(settings: Settings) -> tuple[str, str | None]:
    """Returns the URL at which a daemon with *settings* serves on this machine, and its token if it has one.

    Raises:
        OptionsError: it serves nothing, only the system knows its port, or the file of the token cannot be used.
    """
    served = settings.http
    if served is None:
        raise OptionsError(("http",), "is null, so this daemon serves nothing and cannot be asked; give it a section")
    if served.port == 0:
        raise OptionsError(
            ("http", "port"),
            "is 0, so the system chose the port; give the address in the log line `listening` with --url",
        )
    host = _OWN.get(served.host, served.host)
    url = f"http://[{host}]:{served.port}" if ":" in host else f"http://{host}:{served.port}"
    if served.token_file is None:
        return url, None
    try:
        return url, read_token(served.token_file)
    except OptionsError as wrong:
        raise wrong.under("http", "token_file") from None


def _may_be_token(text: str) -> bool:
    # Python's own errors about headers would show the token.
    return bool(text) and all("!" <= one <= "~" for one in text)


def _checked(url: str) -> tuple[str, bool]:
    """Returns *url* as it is used, and whether it is an address of this machine.

    Raises:
        OptionsError: it is not the address of a daemon. The text does not show it, because it may hold a password.
    """
    expected = "expected the address of a daemon, such as http://127.0.0.1:8080"
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, port = wire_name(urllib.parse.unquote(parts.hostname or "")), parts.port
    except ValueError:
        raise OptionsError((), expected) from None
    if parts.scheme not in ("http", "https") or port == 0:
        raise OptionsError((), expected)
    if parts.username is not None or parts.password is not None:
        raise OptionsError((), f"{expected}, without a password: name the file that holds the token with --token-file")
    if parts.query or parts.fragment or not (parts.path.isascii() and parts.path.isprintable()) or " " in parts.path:
        raise OptionsError((), expected)
    place = f"[{host}]" if ":" in host else host
    at = "" if port is None else f":{port}"
    return f"{parts.scheme}://{place}{at}{parts.path.rstrip('/')}", _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(said: str) -> str:
    return printable(clipped(mask_credentials(said), _MOST_SAID))
