"""The settings that say where a broker is and how to connect to it. Its producers and its sinks share them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from broadway_py.conflict import Conflict
from broadway_py.errors import OptionsError
from broadway_py.options import Duration, Options, PositiveDuration
from broadway_py.producers.rabbitmq.settings.address import (
    DEFAULT_URL,
    LEAST_HEARTBEAT,
    MOST_HEARTBEAT,
    Address,
    Secret,
    Target,
    Texts,
    TlsOptions,
    VirtualHost,
    checked_url,
    heartbeat_of,
    of_host,
    of_url,
    read_secret,
    targets,
)
from broadway_py.text_files import without_line_break

__all__ = ["BrokerOptions", "text_or_texts"]


def text_or_texts(value: object) -> object:
    """Returns *value* if it is a text, or a list of at least one text, with a list as a tuple.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, list | tuple) and not value:
        raise ValueError("expected a text or a list of texts, at least one")
    for one in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(one, str):
            raise ValueError("expected a text or a list of texts")  # noqa: TRY004  # pydantic wants ValueError
    return tuple(value) if isinstance(value, list) else value


class BrokerOptions(Options):
    """Where a broker is, and how to connect to it."""

    #: ``amqp[s]://user:password@host:port/vhost``, or a list of such URLs, which are tried in random order at each
    #: connect. The query may hold heartbeat, auth, and the TLS files cafile, certfile and keyfile.
    url: Annotated[str | tuple[str, ...], BeforeValidator(text_or_texts), Field(repr=False)] = DEFAULT_URL
    #: Instead of a URL: a host, host:port, or a list of them, which are tried in random order at each connect.
    host: Texts | None = None
    #: The port of every host that is given without one. None: 5672, or 5671 with tls.
    port: Annotated[int, Field(ge=1, le=65_535, strict=True)] | None = None
    #: The virtual host, for use with *host*.
    virtual_host: VirtualHost | None = None
    #: The user; replaces the user in a URL. None: as the URL says, or guest.
    username: Annotated[str | None, Field(repr=False)] = None
    #: The password; replaces the password in a URL. None: as the URL says, or guest.
    password: Annotated[str | None, Field(repr=False)] = None
    #: A file that holds the user's name. It is read again at each connect.
    username_file: str | None = None
    #: A file that holds the password. It is read again at each connect.
    password_file: str | None = None
    #: ``plain``: user and password. ``external``: the identity is taken from our TLS certificate. None: as the URL
    #: says.
    auth: Literal["plain", "external"] | None = None
    #: Switches on TLS for a host, and sets how TLS of ``amqps`` URLs works. None: as the URL says.
    tls: TlsOptions | None = None
    #: Seconds that the broker may take to confirm what we publish. Time during which it accepts no messages (its memory
    #: is full) does not count.
    publish_timeout: PositiveDuration = 30.0
    #: Seconds between heartbeats. A silent connection is given up after about three times that.
    heartbeat: Annotated[Duration, Field(ge=LEAST_HEARTBEAT, le=MOST_HEARTBEAT)] = 15.0
    #: Seconds from the first packet until everything is set up, ``after_connect`` included, for each address.
    connect_timeout: Annotated[Duration, Field(gt=0)] = 15.0
    #: The connection's name at the broker. None: made of the pipeline and the part of it that connects.
    connection_name: str | None = None

    @field_validator("url")
    @classmethod
    def _is_amqp(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        urls = tuple(without_line_break(one) for one in ((value,) if isinstance(value, str) else value))
        for one in urls:
            checked_url(one)
        return urls[0] if isinstance(value, str) else urls

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for one in value or ():
            try:
                of_host(one, None, "/", is_tls=False)
            except ValueError as wrong:
                # The value is not shown, because it may have a password in front of the host.
                raise OptionsError((), str(wrong)) from None
        return value

    @field_validator("username", "password")
    @classmethod
    def _fits_a_login(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("expected text without a zero byte, because a broker accepts none in user and password")
        # Secret stores may add a line break at the end.
        return None if value is None else without_line_break(value)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        yield from self._conflicts_of_address()
        yield from self._conflicts_of_login()

    def _conflicts_of_address(self) -> Iterator[Conflict]:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        for name in ("host", "port", "virtual_host"):
            if "url" in given and name in given:
                yield Conflict(
                    (name,),
                    f"give url, or host, port and virtual_host, not both: got url and {name}",
                    frozenset({"url", name}),
                )
            elif name in given and "host" not in given:
                yield Conflict(
                    (name,), "port and virtual_host belong to a host: give host, too", frozenset({name, "host", "url"})
                )

    def _conflicts_of_login(self) -> Iterator[Conflict]:
        for name in ("username", "password"):
            file = f"{name}_file"
            if getattr(self, file) is None:
                continue
            if getattr(self, name) is not None:
                yield Conflict((file,), f"give {name} or {file}, not both", frozenset({name, file}))
                continue
            try:
                read_secret(getattr(self, file))
            except ValueError as unreadable:
                yield Conflict((file,), str(unreadable), frozenset({file}))
        if not any(address.url.scheme == "amqp" for address in self._addresses()):
            return
        if self.tls is not None:
            yield Conflict(
                ("tls",),
                "this is for amqps://, but the url says amqp://, which is not protected",
                frozenset({"tls", "url", "host"}),
            )
        if self.auth == "external":
            yield Conflict(
                ("auth",),
                "external shows a certificate, so it needs amqps:// or tls",
                frozenset({"auth", "tls", "url", "host"}),
            )

    def targets(self) -> Iterator[Target]:
        """Yields every address once, in random order, with the credentials of this moment.

        Raises:
            ProducerError: the file of the user's name or of the password cannot be read.
        """
        return targets(self._addresses(), self._secret(), self.tls, self.auth, self.heartbeat_seconds)

    def _secret(self) -> Secret:
        return Secret(self.username, self.password, self.username_file, self.password_file)

    def _addresses(self) -> list[Address]:
        if self.host is None:
            return [of_url(one) for one in ((self.url,) if isinstance(self.url, str) else self.url)]
        name = "/" if self.virtual_host is None else self.virtual_host
        return [of_host(one, self.port, name, is_tls=self.tls is not None) for one in self.host]

    @property
    def heartbeat_seconds(self) -> int:
        """Returns the heartbeat in whole seconds, as AMQP needs it: the setting, or else the value in the URL."""
        if "heartbeat" not in self.model_fields_set:
            asked = heartbeat_of(self._addresses()[0].url)
            if asked is not None:
                return asked
        return math.ceil(self.heartbeat)

    @property
    def where(self) -> str:
        """Returns the broker's addresses without user, password and query, so that they may be shown."""
        return ", ".join(address.where for address in self._addresses())
