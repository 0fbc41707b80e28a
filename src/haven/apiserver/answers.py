"""Whole answers as bytes: the head is rendered here and goes out with the body in one write.

aiohttp builds a dictionary of headers, a response and a writer for each answer; most of ours have the same few headers,
of which only three change from one to the next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

__all__ = ["RenderedAnswer"]

_KEPT_MAX = 1024
_JOINED_BYTES_MAX = 64 << 10
"""A larger body is written beside its head, because joining would copy it."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_heads: dict[tuple[Any, ...], bytes] = {}
_date = (0, b"")


class RenderedAnswer:
    """An answer as aiohttp's server asks for it: `prepare` writes it all."""

    __slots__ = ("_body", "_head", "keep_alive")

    def __init__(
        self, status: int, headers: Mapping[str, str], flow: tuple[str, str], audit_id: str, body: bytes
    ) -> None:
        self.keep_alive = True
        self._head = b"%bAudit-Id: %b\r\nDate: %b\r\nContent-Length: %d\r\n" % (
            _common(status, headers, flow),
            _line(audit_id),
            _now(),
            len(body),
        )
        self._body = body

    async def prepare(self, raw: Any) -> None:
        """Write the answer to the connection that a request came from."""
        writer = raw._payload_writer
        transport = writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.keep_alive = raw.keep_alive
        end = b"\r\n" if self.keep_alive else b"Connection: close\r\n\r\n"
        if self.keep_alive and raw.version < (1, 1):
            end = b"Connection: keep-alive\r\n\r\n"
        if len(self._body) <= _JOINED_BYTES_MAX:
            transport.write(self._head + end + self._body)
        else:
            transport.writelines((self._head + end, self._body))
            await writer.drain()

    async def write_eof(self) -> None:
        """There is nothing left to write."""


def _common(status: int, headers: Mapping[str, str], flow: tuple[str, str]) -> bytes:
    """Return the part of a head that many answers have alike."""
    key = (status, flow, *headers.items())
    found = _heads.get(key)
    if found is not None:
        return found
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode(), b"Cache-Control: no-cache, private"]
    if flow[0]:
        lines.append(b"X-Kubernetes-Pf-Flowschema-Uid: " + _line(flow[0]))
        lines.append(b"X-Kubernetes-Pf-Prioritylevel-Uid: " + _line(flow[1]))
    for name, value in headers.items():
        if name == "Cache-Control":
            del lines[1]
        lines.append(_line(name) + b": " + _line(value))
    result = b"\r\n".join(lines) + b"\r\n"
    if len(headers) <= 2 and "Warning" not in headers:
        if len(_heads) >= _KEPT_MAX:
            _heads.clear()
        _heads[key] = result
    return result


def _line(text: str) -> bytes:
    """Return a part of a header; raise ValueError if it would end the line."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError("a header must not hold line breaks")
    return text.encode()


def _now() -> bytes:
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]
