"""Where the broker is, who we are there, and how the way is protected."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from pamqp import encode

from broadway_py.errors import OptionsError, ProducerError
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer, TlsOptions
from broadway_py.producers.rabbitmq.connection.connection import _Plain
from broadway_py.producers.rabbitmq.settings.address import Login
from tests.support.conformance import conforms


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer("q", **settings)
    return str(wrong.value)


def addresses(**settings: Any) -> set[str]:
    return {str(target.url) for target in RabbitMQOptions(queue="q", **settings).targets()}


def login(**settings: Any) -> Login:
    (target,) = RabbitMQOptions(queue="q", **settings).targets()
    return target.login


@conforms("R-003")
def test_host_and_who_we_are_can_be_given_field_by_field() -> None:
    settings: dict[str, Any] = {"host": "mq.example", "port": 5673, "username": "bo b", "password": "p@ss:/"}
    assert addresses(**settings, virtual_host="shop/eu", heartbeat=20) == {
        "amqp://mq.example:5673/?heartbeat=20&auth=plain"
    }
    assert login(**settings, virtual_host="shop/eu") == ("bo b", "p@ss:/", "shop/eu")


ODD: Final = [
    *(
        "/",
        "//",
        "a/b",
        "a%2Fb",
        "%2F",
        "%",
        "%25",
        "a b",
        "#",
        "?",
        "a?b#c",
        "..",
        ".",
        "../x",
        "ünï-✓",
        "$HOME",
        "+",
        "&",
    ),
    *("@", ":", "[", "~", " ", "null", "007", "\\", '"', "{}", "|^`<>", "\t"),
]


@pytest.mark.parametrize("odd", ODD)
def test_every_name_reaches_the_broker_as_it_is_written(odd: str) -> None:
    wanted = (odd, odd, odd)
    assert login(host="h", username=odd, password=odd, virtual_host=odd) == wanted
    quoted = quote(odd, safe="")
    assert login(url=f"amqp://{quoted}:{quoted}@h/{quoted}") == wanted
    (where,) = {RabbitMQOptions(queue="q", host="h", virtual_host=odd).where}
    assert where == ("amqp://h:5672/" if odd == "/" else f"amqp://h:5672/{quoted}")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"url": "amqp://h"}, ("guest", "guest", "/")),
        ({"url": "amqp://h/"}, ("guest", "guest", "/")),
        ({"url": "amqp://h//"}, ("guest", "guest", "/")),
        ({"url": "amqp://h/%2f"}, ("guest", "guest", "/")),
        ({"url": "amqp://h/a/b"}, ("guest", "guest", "a/b")),
        ({"url": "amqp://bob@h/"}, ("bob", "guest", "/")),
        ({"url": "amqp://bob:@h/"}, ("bob", "", "/")),
        ({"url": "amqp://bob:a@h/", "username": "eve"}, ("eve", "a", "/")),
        ({"url": "amqp://bob:a@h/", "password": ""}, ("bob", "", "/")),
        ({"host": "h"}, ("guest", "guest", "/")),
        ({"host": "h", "virtual_host": ""}, ("guest", "guest", "")),
        # Bytes that are no UTF-8.
        ({"url": "amqp://bob:p%E4ss@h/"}, ("bob", "p\udce4ss", "/")),
        # Secret stores put a line break behind what they hold.
        ({"url": "amqp://bob:a@h/v\n"}, ("bob", "a", "v")),
        ({"host": "h", "password": "a\r\n", "username": "bob\n"}, ("bob", "a", "/")),
        ({"host": "h", "password": "a\n\n"}, ("guest", "a\n", "/")),
    ],
)
def test_what_is_not_said_is_the_brokers_default(settings: dict[str, Any], wanted: tuple[str, str, str]) -> None:
    assert login(**settings) == wanted


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"url": "amqp://bob:a#b@h/"},
            "url: expected no # in a URL: in user, password and virtual host write it as %23, and / ? @ : % as %2F",
        ),
        ({"url": "amqp://h/%FF"}, "url: expected a virtual host in UTF-8 behind the host, percent-encoded"),
        (
            {"url": "amqp://h/" + "v" * 128},
            "url: the virtual host behind the host: expected 127 characters at most, but these are 128",
        ),
        ({"url": "amqp://b%00b:a@h/"}, "url: expected no %00 in user and password, because a broker accepts none"),
        (
            {"host": "h", "password": "a\0b"},
            "password: expected text without a zero byte, because a broker accepts none in user and password",
        ),
        (
            {"host": "h", "virtual_host": "v" * 128},
            "virtual_host: expected 127 characters at most, but these are 128",
        ),
    ],
)
def test_a_name_that_nobody_can_have_is_refused(settings: dict[str, Any], sentence: str) -> None:
    assert complaint(**settings).startswith(sentence)


@pytest.mark.parametrize(
    ("written", "password"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\r", "secret"),
        (b"secret\n\n", "secret\n"),
        (b" secret ", " secret "),
        (b"\xef\xbb\xbfsecret", "secret"),
        (b"one\r\ntwo\n", "one\r\ntwo"),
        (b"p\xe4ss\xff\n", "p\udce4ss\udcff"),
        (b"", ""),
    ],
)
def test_one_line_break_at_the_end_of_a_password_file_is_none_of_it(
    tmp_path: Path, written: bytes, password: str
) -> None:
    (tmp_path / "pw").write_bytes(written)
    assert login(host="h", password_file=str(tmp_path / "pw")) == ("guest", password, "/")


def test_a_password_goes_onto_the_wire_as_the_bytes_that_were_read() -> None:
    sent = _Plain(Login("bob", "p\udce4ss✓", "/")).marshal()
    assert encode.long_string(sent) == b"\0\0\0\x0c" + b"\0bob\0p\xe4ss\xe2\x9c\x93"
    assert "p" not in repr(Login("bob", "p", "/"))


def test_every_host_is_tried_once_and_may_have_a_port_of_its_own() -> None:
    assert addresses(host=["a", "b:99", "::1", "[::2]:98"], tls={}) == {
        "amqps://a:5671/?heartbeat=15&auth=plain",
        "amqps://b:99/?heartbeat=15&auth=plain",
        "amqps://[::1]:5671/?heartbeat=15&auth=plain",
        "amqps://[::2]:98/?heartbeat=15&auth=plain",
    }


def test_several_urls_are_tried_in_random_order() -> None:
    urls = [f"amqp://host{number}/" for number in range(8)]
    options = RabbitMQOptions(queue="q", url=urls)
    orders = {tuple(target.where for target in options.targets()) for _ in range(20)}
    assert len(orders) > 1
    assert all(len(set(order)) == 8 for order in orders)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"url": "amqp://h/", "host": "h"},
            "host: give url, or host, port and virtual_host, not both: got url and host",
        ),
        ({"virtual_host": "v"}, "virtual_host: port and virtual_host belong to a host: give host, too"),
        ({"password": "canary", "password_file": "f"}, "password_file: give password or password_file, not both"),
        ({"host": "user@h"}, "host: expected a host, or host:port, such as mq.example or mq.example:5672"),
        ({"host": "h/vhost"}, "host: expected a host, or host:port, such as mq.example or mq.example:5672"),
        ({"tls": {}}, "tls: this is for amqps://, but the url says amqp://, which is not protected"),
        (
            {"host": "h", "auth": "external"},
            "auth: external shows a certificate, so it needs amqps:// or tls",
        ),
        (
            {"url": "amqps://h/?no_verify_ssl=1"},
            "url: no_verify_ssl is not taken from a URL; set tls: {verify: false} to turn the check off",
        ),
        (
            {"url": "amqps://h/?cafle=x"},
            (
                "url: the query may hold auth, cafile, certfile, heartbeat, keyfile, but not 'cafle'; "
                "did you mean 'cafile'?"
            ),
        ),
        ({"url": "amqp://h/?auth=magic"}, "url: expected auth=plain or auth=external in the query"),
        ({"url": []}, "url: expected a text or a list of texts, at least one"),
        ({"port": 0, "host": "h"}, "port: expected greater than or equal to 1, got 0"),
        (
            {"url": "amqps://h/", "tls": {"ca": "x"}},
            "tls.ca: unknown setting; known here: ca_file, cert_file, key_file, server_name, verify",
        ),
        ({"url": "amqps://h/", "tls": {"verify": "no"}}, "tls.verify: expected true or false, got 'no'"),
    ],
)
@conforms("R-009")
def test_what_does_not_fit_together_is_refused_with_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    assert complaint(**settings) == sentence


def test_the_password_file_is_read_again_at_each_connect(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    options = RabbitMQOptions(queue="q", url="amqp://bob@h/", password_file=str(secret))
    assert [target.login.password for target in options.targets()] == ["first"]

    secret.write_text("second\n")
    assert [(target.login.username, target.login.password) for target in options.targets()] == [("bob", "second")]

    secret.unlink()
    with pytest.raises(ProducerError) as gone:
        list(options.targets())
    assert str(gone.value) == f"password_file: the file {str(secret)!r} cannot be read: No such file or directory"


def test_a_password_file_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    assert complaint(password_file=str(tmp_path / "no")) == (
        f"password_file: the file '{tmp_path}/no' cannot be read: No such file or directory"
    )


def test_no_repr_shows_who_we_are() -> None:
    options = RabbitMQOptions(queue="q", host="h", username="canary-user", password="canary-password")
    assert "canary" not in repr(options)
    assert options.where == "amqp://h:5672/"


def test_certificates_are_checked_unless_the_settings_say_otherwise_aloud() -> None:
    (checked,) = RabbitMQOptions(queue="q", url="amqps://h/").targets()
    context = checked.tls.context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    (unchecked,) = RabbitMQOptions(queue="q", url="amqps://h/", tls={"verify": False}).targets()
    assert unchecked.tls.context().verify_mode == ssl.CERT_NONE


def test_the_files_of_a_url_are_those_of_its_tls() -> None:
    (target,) = RabbitMQOptions(queue="q", url="amqps://h/?cafile=a&certfile=b&keyfile=c&auth=external").targets()
    assert (target.tls.ca_file, target.tls.cert_file, target.tls.key_file) == ("a", "b", "c")
    assert target.url.query["auth"] == "external"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ca_file": "no"}, "tls.ca_file: the file '{0}/no' cannot be read: No such file or directory"),
        ({"key_file": "a\0b"}, "tls.key_file: the file '{0}/a\\x00b' cannot be read: no file can have that name"),
        ({"ca_file": "junk"}, "tls.ca_file: '{0}/junk' holds no certificate in PEM form"),
        (
            {"cert_file": "junk"},
            (
                "tls.cert_file: '{0}/junk' and its key do not fit together, are not PEM, "
                "or the key is protected by a password"
            ),
        ),
    ],
)
def test_a_file_that_is_no_certificate_says_so(settings: dict[str, str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("no certificate")
    options = TlsOptions(**{name: str(tmp_path / file) for name, file in settings.items()})
    with pytest.raises(ProducerError) as wrong:
        options.context()
    assert str(wrong.value) == sentence.format(tmp_path)


def test_the_file_of_the_users_name_is_read_again_at_each_connect(tmp_path: Path) -> None:
    name, secret = tmp_path / "name", tmp_path / "password"
    name.write_bytes(b"\xef\xbb\xbfbob\r\n")
    secret.write_text("first\n")
    options = RabbitMQOptions(queue="q", url="amqp://eve:x@h/", username_file=str(name), password_file=str(secret))
    assert [target.login for target in options.targets()] == [("bob", "first", "/")]
    name.write_bytes(b"p\xe4t")
    assert [target.login.username for target in options.targets()] == ["p\udce4t"]
    name.write_bytes(b"a\0b")
    with pytest.raises(ProducerError) as wrong:
        list(options.targets())
    assert str(wrong.value) == (
        f"username_file: the file {str(name)!r} has a zero byte in it, which no user and no password can have"
    )
    name.unlink()
    with pytest.raises(ProducerError) as wrong:
        list(options.targets())
    assert str(wrong.value) == f"username_file: the file {str(name)!r} cannot be read: No such file or directory"
    assert complaint(username="bob", username_file="f") == "username_file: give username or username_file, not both"
    assert complaint(username_file="a\0b") == (
        "username_file: the file 'a\\x00b' cannot be read: no file can have that name"
    )
