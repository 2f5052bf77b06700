"""Makes odd requests: wrong methods, paths, headers, bodies and tokens, broken HTTP, and several in one go."""

from __future__ import annotations

import gzip
import random
from typing import Final

__all__ = ["request"]

_READ: Final = (
    b"/", b"/page.js", b"/metrics", b"/livez", b"/readyz", b"/readyz?pipeline=orders", b"/api/access",
    b"/api/pipelines", b"/api/pipelines/orders", b"/api/workers", b"/api/settings", b"/api/history",
)  # fmt: skip
_CONTROL: Final = (
    b"/api/reload",
    *(b"/api/pipelines/orders/" + act for act in (b"pause", b"resume", b"rate_limit", b"concurrency", b"replay")),
)
_METHODS: Final = (
    b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"post", b"GE\x00T", b"", b"PRI", b"BREW",
)  # fmt: skip
_PATHS: Final = (
    b"/readyz?pipeline=%ff%00", b"/api/pipelines//pause", b"/api/pipelines/%6frders/pause", b"/none",
    b"/api/pipelines/orders%2fpause", b"/api/pipelines/orders/pause/", b"/api/pipelines/../pipelines/orders/pause",
    b"//api/pipelines/orders/pause", b"/api/pipelines/none/pause", b"/api/pipelines/%ff%fe/pause", b"*", b"", b"/?",
    b"/api/pipelines/" + b"o" * 5000 + b"/pause", b"/" + b"a" * 9000, b"http://127.0.0.1/api/pipelines/orders/pause",
    b"http://evil.example/metrics", b"http://[::1/", b"/\xff\xfe", b"/api/pipelines/orders/pause?token=x",
    b"/api/pipelines/orders/pause#", b"/;/", b"/\\..\\",
)  # fmt: skip
_HOSTS: Final = (
    b"localhost", b"[::1]:80", b"evil.example", b"", b":", b"[", b"a b", b"\xff", b"a" * 8000,
    b"127.0.0.1.evil.example",
)  # fmt: skip
_TYPES: Final = (
    b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"\xff/\xfe; charset=\x80",
    b"application/json; charset=nonsense", b"application/json;", b"",
)  # fmt: skip
_BODIES: Final = (
    b"{}", b'{"allowed_messages": 5}', b'{"allowed_messages": 5, "interval": 1, "reset": true}', b'{"processors": 3}',
    b'{"limit": 1}', b"[]", b"null", b"5", b"nonsense", b'{"allowed_messages": 0}', b'{"allowed_messages": 1e999}',
    b'{"processors": -1}', b'{"processors": 99999999999999999999}', b'{"allowed_messages": "5"}', b'{"x": NaN}',
    b'{"allowed_messages": 5, "interval": "1d"}', b'{"producer": {"a": []}}', b'{"processors": true}', b"\xff\xfe{",
    b"{" * 5000, b"[" * 60_000, b'{"a": "' + b"x" * 70_000 + b'"}', b'{"a": ' + b"9" * 5000 + b"}", b"\x00" * 100,
    '{"processors": 3}'.encode("utf-16"), b'{"\\ud800": 1}', b'{"processors": 3, "processors": 0}', b"", b" " * 500,
    gzip.compress(b" " * 1_000_000), gzip.compress(b"{}"),
)  # fmt: skip
_HEADERS: Final = (
    b"Accept: application/openmetrics-text; version=abc", b"Accept: text/plain; version=1.0.0; escaping=\xff",
    b"Accept: " + b",;" * 3000, b"Accept-Encoding: gzip;q=nan", b"Range: bytes=5-2", b"Cookie: \xff=\x01",
    b"Expect: 100-continue", b"Expect: a miracle", b"Connection: close", b"Connection: keep-alive, upgrade",
    b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", b"Content-Length: -1",
    b"Content-Length: 5, 6", b"Content-Length: 99999999999999999999999", b"Transfer-Encoding: nonsense",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: br",
    b"Content-Encoding: gzip", b"Content-Encoding: deflate", b"X: " + b"y" * 9000, b"X-\xff: y", b": y", b"X y",
    b"X: y\x00z", b"Origin: http://evil.example", b"X-Forwarded-For: 127.0.0.1", b"X-HTTP-Method-Override: POST",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"X: y\r\n" * 90 + b"X: y", b"X: y\r\n" * 40 + b"X: y",
    b" folded: y", b"Content-Length: 0x10", b"Trailer: Authorization", b"Forwarded: for=127.0.0.1",
)  # fmt: skip
#: What may be odd with one request.
_PARTS: Final = ("method", "path", "host", "type", "header", "encoding", "length", "chunks", "version", "end")


def request(chosen: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """Returns one request, or several in one go. *tokens* are what may stand in the header ``Authorization``."""
    count = chosen.choice((1, 1, 1, 1, 2, 5))
    text = b"".join(_one(chosen, tokens) for _ in range(count))
    kind = chosen.random()
    if kind < 0.04:
        return text[: chosen.randrange(len(text) + 1)]
    if kind < 0.08:
        broken = bytearray(text)
        for _ in range(chosen.randrange(1, 8)):
            broken[chosen.randrange(len(broken))] = chosen.randrange(256)
        return bytes(broken)
    if kind < 0.1:
        return chosen.randbytes(chosen.randrange(1, 500))
    return text


def _one(chosen: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    odd = chosen.sample(_PARTS, chosen.choice((0, 0, 0, 1, 1, 2)))
    reads = chosen.random() < 0.2
    method, path = (b"GET", chosen.choice(_READ)) if reads else (b"POST", chosen.choice(_CONTROL))
    if "method" in odd:
        method = chosen.choice(_METHODS)
    if "path" in odd:
        path = chosen.choice(_PATHS)
    version = chosen.choice((b"HTTP/1.0", b"HTTP/9", b"HTTP/2.0", b"")) if "version" in odd else b"HTTP/1.1"
    lines = [
        b"Host: " + (chosen.choice(_HOSTS) if "host" in odd else b"127.0.0.1"),
        b"Content-Type: " + (chosen.choice(_TYPES) if "type" in odd else b"application/json"),
    ]
    lines += [b"Authorization: " + chosen.choice(tokens) for _ in range(chosen.choice((0, 1, 1, 1, 1, 2)))]
    if "header" in odd:
        lines.append(chosen.choice(_HEADERS))
    if "encoding" in odd:
        lines.append(b"Content-Encoding: " + chosen.choice((b"gzip", b"deflate", b"br", b"zstd", b"x")))
    body = b"" if reads and chosen.random() < 0.9 else chosen.choice(_BODIES)
    if "chunks" in odd:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(chosen, body)
    elif "length" in odd:
        lines.append(b"Content-Length: %d" % chosen.randrange(len(body) + 50))
    elif body:
        lines.append(b"Content-Length: %d" % len(body))
    chosen.shuffle(lines)
    end = chosen.choice((b"\n", b"\r", b"\n\r")) if "end" in odd else b"\r\n"
    return end.join([b" ".join((method, path, version)), *lines, b"", b""]) + body


def _chunked(chosen: random.Random, body: bytes) -> bytes:
    size = b"%x" % len(body)
    sizes = (*(size,) * 4, b"-1", b"zz", b"ffffffffffffffff", size + b";" + b"e" * 9000)
    trailer = chosen.choice((b"", b"", b"Authorization: Bearer x\r\n", b"X y\r\n"))
    return chosen.choice(sizes) + b"\r\n" + body + b"\r\n0\r\n" + trailer + b"\r\n"
