"""Where the broker is, who we are there, and how the way to it is protected."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BeforeValidator, field_validator
from yarl import URL

from broadway_py.errors import ProducerError, did_you_mean
from broadway_py.options import Options

__all__ = [
    "DEFAULT_URL",
    "LEAST_HEARTBEAT",
    "MOST_HEARTBEAT",
    "Secret",
    "Target",
    "Texts",
    "TlsOptions",
    "checked_url",
    "heartbeat_of",
    "shown",
    "targets",
    "url_of",
]

DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1/"
#: What may follow the ``?`` of a URL.
_QUERY: Final = ("auth", "cafile", "certfile", "heartbeat", "keyfile")
#: Seconds between signs of life: it cannot be off, and what is much too long is off, too.
LEAST_HEARTBEAT: Final = 1
MOST_HEARTBEAT: Final = 3600
_PORTS: Final = {"amqp": 5672, "amqps": 5671}


def _texts(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError("expected one text or a list of them")


#: One text, or several.
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


def checked_url(value: str) -> URL:
    """*value* as a URL of a broker. What came is never shown: it may hold a password.

    Raises:
        ValueError: it is none, or its query says something that we do not know.
    """
    try:
        url = URL(value)
        complete = url.scheme in _PORTS and bool(url.host) and url.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("expected amqp://user:password@host:port/vhost, or the same with amqps://")
    for name in url.query:
        if name == "no_verify_ssl":
            raise ValueError("no_verify_ssl is not taken from a URL; say tls: {verify: false} if you mean it")
        if name not in _QUERY:
            raise ValueError(f"the query may hold {', '.join(_QUERY)}, but not {name!r}{did_you_mean(name, _QUERY)}")
    if url.query.get("auth", "plain").lower() not in ("plain", "external"):
        raise ValueError("expected auth=plain or auth=external in the query")
    for asked in url.query.getall("heartbeat", ()):
        if not (asked.isdecimal() and len(asked) < 10 and LEAST_HEARTBEAT <= int(asked) <= MOST_HEARTBEAT):
            # Shown only if it is plainly no secret.
            got = asked if asked.isdecimal() and len(asked) < 10 else "something else"
            bounds = f"heartbeat={LEAST_HEARTBEAT} to heartbeat={MOST_HEARTBEAT}"
            raise ValueError(f"expected {bounds} in the query, whole seconds, got {got}")
    return url


class TlsOptions(Options):
    """How ``amqps`` is protected. Every file is read again at each connect."""

    #: Certificates of the authorities that we trust, as PEM. None: those of the system.
    ca_file: str | None = None
    #: Our own certificate, as PEM, where the broker asks for one.
    cert_file: str | None = None
    #: The key that belongs to *cert_file*. None: it is in the same file.
    key_file: str | None = None
    #: The name that the broker's certificate must carry. None: the host that we connect to.
    server_name: str | None = None
    #: false takes any certificate, so anybody on the way may read and change everything; logged at each connect.
    verify: bool = True

    @field_validator("verify", mode="before")
    @classmethod
    def _plain_truth(cls, value: object) -> object:
        if not isinstance(value, bool):
            # "no", 0 and the like must not switch it off by accident.
            raise ValueError("expected true or false")  # noqa: TRY004  # pydantic wants ValueError
        return value

    def context(self) -> ssl.SSLContext:
        """Read the files; blocks while it does.

        Raises:
            ProducerError: one of them cannot be used.
        """
        for name in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, name)
            if file is not None:
                _refuse_unreadable(name, file)
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        except (ssl.SSLError, OSError):
            raise ProducerError(f"tls.ca_file: {self.ca_file!r} holds no certificate in PEM form") from None
        if self.cert_file is not None:
            try:
                # Without the callable a protected key would be asked for on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
            except (ssl.SSLError, OSError, ValueError):
                raise ProducerError(
                    f"tls.cert_file: {self.cert_file!r} and its key do not fit together, are not PEM, "
                    "or the key is protected by a password"
                ) from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _refuse_unreadable(name: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as failed:
        raise ProducerError(f"tls.{name}: the file {file!r} cannot be read: {failed.strerror}") from None


class Secret(NamedTuple):
    """Who we are. *password_file* is read again at each connect."""

    username: str | None
    password: str | None
    password_file: str | None

    def read(self) -> str | None:
        """The password of this moment; None when the URL has it.

        Raises:
            ValueError: the file cannot be read.
        """
        if self.password_file is None:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as failed:
            raise ValueError(f"the file {self.password_file!r} cannot be read: {failed.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {self.password_file!r} is not UTF-8 text") from None


class Target(NamedTuple):
    """One address to be tried, credentials included: never shown."""

    url: URL
    tls: TlsOptions
    where: str

    @property
    def is_tls(self) -> bool:
        """Whether the connection is protected."""
        return self.url.scheme == "amqps"


def targets(
    urls: Sequence[URL],
    secret: Secret,
    tls: TlsOptions | None,
    auth: Literal["plain", "external"] | None,
    heartbeat: int,
) -> Iterator[Target]:
    """Each of *urls* once, in random order, so that many clients do not all come to the first one.

    Raises:
        ProducerError: the password's file cannot be read.
    """
    try:
        password = secret.read()
    except ValueError as unreadable:
        raise ProducerError(f"password_file: {unreadable}") from None
    for url in random.sample(urls, len(urls)):
        query = url.query
        own = tls or TlsOptions(
            ca_file=query.get("cafile"), cert_file=query.get("certfile"), key_file=query.get("keyfile")
        )
        full = url
        if secret.username is not None:
            full = full.with_user(secret.username).with_password(url.password)
        if password is not None:
            full = full.with_user(full.user or "guest").with_password(password)
        mechanism = auth or query.get("auth", "plain").lower()
        full = full.with_query({"heartbeat": str(heartbeat), "auth": mechanism})
        yield Target(full, own, shown(url))


def heartbeat_of(url: URL) -> int | None:
    """Whole seconds that *url*, which is a :func:`checked_url`, asks for; None: it does not."""
    asked = url.query.get("heartbeat")
    return None if asked is None else int(asked)


def shown(url: URL) -> str:
    """The address as it may be shown: without user, password and query."""
    masked = "***@" if url.user is not None or url.password is not None else ""
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host
    return f"{url.scheme}://{masked}{host}:{url.port or _PORTS[url.scheme]}{url.raw_path}"


def url_of(host: str, port: int | None, virtual_host: str, *, is_tls: bool) -> URL:
    """The URL of one of the hosts that the settings name; *host* may carry a port of its own.

    Raises:
        ValueError: *host* is no host.
    """
    try:
        parts = URL(f"//{host}" if host.count(":") < 2 or host.startswith("[") else f"//[{host}]")
        name, own_port = parts.host, parts.explicit_port
        plain = not (parts.user or parts.password or parts.raw_path.strip("/") or parts.query_string)
    except ValueError:
        name, own_port, plain = None, None, False
    if not name or not plain:
        raise ValueError("expected a host, or host:port, such as mq.example or mq.example:5672")
    scheme = "amqps" if is_tls else "amqp"
    base = URL.build(scheme=scheme, host=name, port=own_port or port or _PORTS[scheme])
    # In a URL the virtual host "/" is the path "/", and that of another name is quoted as one part.
    return base.with_path("/" if virtual_host == "/" else f"/{quote(virtual_host, safe='')}", encoded=True)
