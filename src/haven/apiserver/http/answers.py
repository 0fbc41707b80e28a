"""The head of an answer as bytes.

Most of ours have the same few headers, of which only three change from one to the next.
"""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from haven.apiserver.request import Request, Response

__all__ = ["answer_head", "audit_id_of", "has_body", "plain_error"]

_KEPT_MAX = 1024
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_OWN = frozenset({"audit-id", "connection", "content-length", "date", "transfer-encoding"})
"""Headers that are written here; what a handler says of the first three of them holds."""
_heads: dict[tuple[Any, ...], bytes] = {}
_date = (0, b"")
_ID_PREFIX = str(uuid.uuid4())[:24]
_id_numbers = itertools.count(random.getrandbits(40))


def has_body(method: str, status: int) -> bool:
    """Whether the answer to a request is followed by a body."""
    return method != "HEAD" and status not in _BODILESS


def audit_id_of(request: Request) -> str:
    """Return the identifier of a request: the auditor's, the client's, or a new one."""
    return request.audit_id or request.headers.get("audit-id") or _new_id()


def answer_head(request: Request, response: Response, framing: bytes) -> bytes:
    """Return the lines of an answer's head; `framing` is what tells its length and whether the connection is kept.

    Raise ValueError if a header would end its line.
    """
    headers = response.headers
    key = (response.status, request.flow, *headers.items())
    common = _heads.get(key)
    if common is None or response.further:
        if response.further or not _OWN.isdisjoint(map(str.lower, headers)):
            return _passed_head(request, response, framing)
        common = _common(response.status, headers, request.flow, response.warnings)
        if len(headers) <= 2 and "Warning" not in headers:
            if len(_heads) >= _KEPT_MAX:
                _heads.clear()
            _heads[key] = common
    return b"%bAudit-Id: %b\r\nDate: %b\r\n%b\r\n" % (common, _line(audit_id_of(request)), _now(), framing)


def _passed_head(request: Request, response: Response, framing: bytes) -> bytes:
    """Return the head of another server's answer, which has an identity and a date of its own."""
    own = {name.lower(): value for name, value in response.headers.items() if name.lower() in _OWN}
    headers = {name: value for name, value in response.headers.items() if name.lower() not in own}
    return b"%b%bAudit-Id: %b\r\nDate: %b\r\n%b\r\n" % (
        _common(response.status, headers, request.flow, response.warnings),
        b"".join(b"%b: %b\r\n" % (_line(name), _line(value)) for name, value in response.further if name != "Warning"),
        _line(own.get("audit-id") or audit_id_of(request)),
        _line(own["date"]) if "date" in own else _now(),
        framing,
    )


def plain_error(status: int, text: str) -> bytes:
    """Return a whole answer to bytes that are no request, as Go's server gives it; the connection closes behind it."""
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    )
    return f"{head}{status} {text}".encode()


def _common(status: int, headers: Mapping[str, str], flow: tuple[str, str], warnings: Sequence[str]) -> bytes:
    """Return the part of a head that many answers have alike."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode(), b"Cache-Control: no-cache, private"]
    if flow[0]:
        lines.append(b"X-Kubernetes-Pf-Flowschema-Uid: " + _line(flow[0]))
        lines.append(b"X-Kubernetes-Pf-Prioritylevel-Uid: " + _line(flow[1]))
    for name, value in headers.items():
        if name == "Cache-Control":
            del lines[1]
        for one in warnings if name == "Warning" else (value,):
            lines.append(_line(name) + b": " + _line(one))
    return b"\r\n".join(lines) + b"\r\n"


def _line(text: str) -> bytes:
    """Return a part of a header; raise ValueError if it would end the line."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError("a header must not hold line breaks")
    return text.encode("utf-8", "surrogateescape")


def _now() -> bytes:
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]


def _new_id() -> str:
    """Return an identifier in a UUID's form; it only has to differ from others, so it need not be secret."""
    return "%s%012x" % (_ID_PREFIX, next(_id_numbers))  # noqa: UP031  # Made for every request.
