"""The broker's address, the login, and the TLS settings of the connection."""

from __future__ import annotations

import codecs
import random
import re
import ssl
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from pydantic import AfterValidator, BeforeValidator, StrictBool, field_validator
from yarl import URL

from broadway_py.errors import ProducerError, did_you_mean
from broadway_py.options import Options
from broadway_py.producers.hosts import certificate_name, host_in
from broadway_py.text_files import content_of, without_line_break

__all__ = [
    "DEFAULT_URL",
    "LEAST_HEARTBEAT",
    "MOST_HEARTBEAT",
    "Address",
    "Login",
    "Secret",
    "Target",
    "Texts",
    "TlsOptions",
    "VirtualHost",
    "checked_url",
    "heartbeat_of",
    "of_host",
    "of_url",
    "read_secret",
    "targets",
]

DEFAULT_URL: Final = "amqp://guest:guest@127.0.0.1/"
#: The names that the query of a URL may have.
_QUERY: Final = ("auth", "cafile", "certfile", "heartbeat", "keyfile")
#: Seconds between heartbeats. They cannot be switched off, and a very long interval would do just that.
LEAST_HEARTBEAT: Final = 1
MOST_HEARTBEAT: Final = 3600
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
#: Finds the path of a URL as it was written: the client library and yarl change some names when they decode it.
_PATH: Final = re.compile(r"[^:/?#]+://[^/?#]*(?:/([^?#]*))?")
#: The most characters of a virtual host's name in the client library. RabbitMQ allows twice as many.
_LONGEST_VIRTUAL_HOST: Final = 127
_GUEST: Final = "guest"


def _texts(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError("expected one text or a list of them")


def _virtual_host(value: str) -> str:
    if len(value) > _LONGEST_VIRTUAL_HOST:
        raise ValueError(f"expected {_LONGEST_VIRTUAL_HOST} characters at most, but these are {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text that UTF-8 can write") from None
    return value


#: The name of a virtual host, not encoded.
VirtualHost = Annotated[str, AfterValidator(_virtual_host)]


#: One text, or several.
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | tuple[str, ...])]


def checked_url(value: str) -> URL:
    """Returns *value* as a URL of a broker. Errors never show the value, because it may hold a password.

    Raises:
        ValueError: it is no such URL, or its query has something unknown.
    """
    if "#" in value:
        raise ValueError(
            "expected no # in a URL: in user, password and virtual host write it as %23, and / ? @ : % as %2F %3F %40 "
            "%3A %25"
        )
    try:
        url = URL(value)
        complete = url.scheme in _PORTS and bool(url.host) and url.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("expected amqp://user:password@host:port/vhost, or the same with amqps://")
    try:
        host_in(url)
    except ValueError as wrong:
        raise ValueError(f"the host in it: {wrong}") from None
    of_url(value)
    for name in url.query:
        if name == "no_verify_ssl":
            raise ValueError("no_verify_ssl is not taken from a URL; set tls: {verify: false} to turn the check off")
        if name not in _QUERY:
            raise ValueError(f"the query may hold {', '.join(_QUERY)}, but not {name!r}{did_you_mean(name, _QUERY)}")
    if url.query.get("auth", "plain").lower() not in ("plain", "external"):
        raise ValueError("expected auth=plain or auth=external in the query")
    for asked in url.query.getall("heartbeat", ()):
        if not (asked.isdecimal() and len(asked) < 10 and LEAST_HEARTBEAT <= int(asked) <= MOST_HEARTBEAT):
            # The value is shown only if it cannot be a secret.
            got = asked if asked.isdecimal() and len(asked) < 10 else "something else"
            bounds = f"heartbeat={LEAST_HEARTBEAT} to heartbeat={MOST_HEARTBEAT}"
            raise ValueError(f"expected {bounds} in the query, whole seconds, got {got}")
    return url


class TlsOptions(Options):
    """How ``amqps`` connections are protected. Every file is read again at each connect."""

    #: Certificates of trusted authorities, as PEM. None: those of the system.
    ca_file: str | None = None
    #: Our own certificate, as PEM, for brokers that ask for one.
    cert_file: str | None = None
    #: The key of *cert_file*. None: it is in the same file.
    key_file: str | None = None
    #: The name that the broker's certificate must have. None: the host that we connect to.
    server_name: str | None = None
    #: false accepts any certificate, so anybody on the network path can read and change everything. It is logged at
    #: each connect.
    verify: bool = True

    @field_validator("server_name")
    @classmethod
    def _is_one_name(cls, value: str | None) -> str | None:
        if value is None:
            return None
        inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            return certificate_name(inner)
        except ValueError as wrong:
            raise ValueError(f"{wrong}; without a port, and one name that the certificate has, not a pattern") from None

    @field_validator("verify", mode="before", json_schema_input_type=StrictBool)
    @classmethod
    def _plain_truth(cls, value: object) -> object:
        if not isinstance(value, bool):
            # "no", 0 and similar values must not switch it off by accident.
            raise ValueError("expected true or false")  # noqa: TRY004  # pydantic wants ValueError
        return value

    def context(self) -> ssl.SSLContext:
        """Reads the files and makes the context. Blocks while it reads.

        Raises:
            ProducerError: one of the files cannot be used.
        """
        for name in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, name)
            try:
                if file is not None:
                    content_of(file)  # a sentence of OpenSSL would not name the file
            except ValueError as unreadable:
                raise ProducerError(f"tls.{name}: {unreadable}") from None
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        except (ssl.SSLError, OSError):
            raise ProducerError(f"tls.ca_file: {self.ca_file!r} holds no certificate in PEM form") from None
        if self.cert_file is not None:
            try:
                # Without the callable, the key's password would be asked for on the terminal.
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


class Login(NamedTuple):
    """The user, password and virtual host that are sent to the broker."""

    #: In both, bytes that are not UTF-8 are written with Python's ``surrogateescape``.
    username: str
    password: str
    virtual_host: str

    def __repr__(self) -> str:
        return f"<Login to {self.virtual_host!r}>"


class Secret(NamedTuple):
    """User and password, and the files that hold them. The files are read again at each connect."""

    username: str | None
    password: str | None
    username_file: str | None
    password_file: str | None

    def read(self) -> tuple[str | None, str | None]:
        """Returns user and password of this moment, of any bytes (see :class:`Login`); None: the URL has it.

        Raises:
            ProducerError: a file cannot be read, or its content cannot be a user or password.
        """
        return (
            _of_moment("username_file", self.username_file, self.username),
            _of_moment("password_file", self.password_file, self.password),
        )


def _of_moment(setting: str, file: str | None, given: str | None) -> str | None:
    if file is None:
        return given
    try:
        return read_secret(file)
    except ValueError as unreadable:
        raise ProducerError(f"{setting}: {unreadable}") from None


def read_secret(file: str) -> str:
    """Returns the content of *file*, without the line break at its end.

    Raises:
        ValueError: the file cannot be read, or its content cannot be a user or password.
    """
    found = without_line_break(content_of(file).removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape"))
    if "\0" in found:
        raise ValueError(f"the file {file!r} has a zero byte in it, which no user and no password can have")
    return found


class Address(NamedTuple):
    """One address of the broker, as the settings have it. Only *where* may be shown."""

    url: URL
    #: Its name, not encoded.
    virtual_host: str

    @property
    def where(self) -> str:
        """Returns the address without user, password and query, so that it may be shown."""
        url = self.url
        masked = "***@" if url.user is not None or url.password is not None else ""
        host = f"[{url.host}]" if ":" in (url.host or "") else url.host
        # In a URL the virtual host "/" is the path "/". Any other name is encoded as one part.
        path = "/" if self.virtual_host == "/" else f"/{quote(self.virtual_host, safe='')}"
        return f"{url.scheme}://{masked}{host}:{url.port or _PORTS[url.scheme]}{path}"

    @property
    def user(self) -> str | None:
        """Returns the user in the URL."""
        return _unquoted(self.url.raw_user)

    @property
    def password(self) -> str | None:
        """Returns the password in the URL."""
        return _unquoted(self.url.raw_password)


class Target(NamedTuple):
    """One address that a connect tries."""

    #: Without user, password and virtual host, which are in *login*.
    url: URL
    login: Login
    tls: TlsOptions
    where: str

    @property
    def is_tls(self) -> bool:
        """Returns whether the connection uses TLS."""
        return self.url.scheme == "amqps"


def targets(
    addresses: Sequence[Address],
    secret: Secret,
    tls: TlsOptions | None,
    auth: Literal["plain", "external"] | None,
    heartbeat: int,
) -> Iterator[Target]:
    """Yields each of *addresses* once, in random order, so that many clients do not all connect to the first one.

    Raises:
        ProducerError: the file of the user's name or of the password cannot be read.
    """
    username, password = secret.read()
    for address in random.sample(addresses, len(addresses)):
        query = address.url.query
        own = tls or TlsOptions(
            ca_file=query.get("cafile"), cert_file=query.get("certfile"), key_file=query.get("keyfile")
        )
        login = Login(
            _first(username, address.user, _GUEST),
            _first(password, address.password, _GUEST),
            address.virtual_host,
        )
        mechanism = auth or query.get("auth", "plain").lower()
        bare = address.url.with_user(None).with_path("/").with_query({"heartbeat": str(heartbeat), "auth": mechanism})
        yield Target(bare, login, own, address.where)


def _first(*those: str | None) -> str:
    return next(one for one in those if one is not None)


def heartbeat_of(url: URL) -> int | None:
    """Returns the heartbeat in *url*, a :func:`checked_url`, in whole seconds; None: it has none."""
    asked = url.query.get("heartbeat")
    return None if asked is None else int(asked)


def of_url(text: str) -> Address:
    """Returns the address of a :func:`checked_url`.

    Raises:
        ValueError: its user, password or virtual host is not valid.
    """
    found = _PATH.match(text)
    path = found[1] if found is not None else None
    try:
        # An empty path, or only a slash, is the broker's default virtual host.
        virtual_host = _virtual_host(unquote_to_bytes(path).decode() if path else "/")
    except UnicodeDecodeError:
        raise ValueError("expected a virtual host in UTF-8 behind the host, percent-encoded") from None
    except ValueError as wrong:
        raise ValueError(f"the virtual host behind the host: {wrong}") from None
    address = Address(URL(text), virtual_host)
    if any("\0" in (one or "") for one in (address.user, address.password)):
        raise ValueError("expected no %00 in user and password, because a broker accepts none")
    return address


def _unquoted(part: str | None) -> str | None:
    return None if part is None else unquote_to_bytes(part).decode(errors="surrogateescape")


def of_host(host: str, port: int | None, virtual_host: str, *, is_tls: bool) -> Address:
    """Returns the address of a host in the settings. *host* may include a port.

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
    url = URL.build(scheme=scheme, host=host_in(parts), port=own_port or port or _PORTS[scheme])
    return Address(url, virtual_host)
