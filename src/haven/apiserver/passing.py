"""What of a request, and of its answer, a proxy passes on: as Go's reverse proxy and its HTTP client do.

Headers about one connection stay behind; the way that a request has come is added; a server that would send its answer
packed is asked for that even if the client did not, who then gets it unpacked.
Source: RFC 9110, 7.6 and https://pkg.go.dev/net/http/httputil#ReverseProxy
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from haven.apiserver.http.takeover import Connection
from haven.apiserver.request import Request

__all__ = [
    "Passed",
    "all_headers",
    "asks_to_unpack",
    "canonical",
    "cleaned",
    "escaped",
    "forwarded_for",
    "is_identity_header",
    "kept",
    "passed_answer",
]

_HOP_BY_HOP = frozenset(
    {
        "connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CORS = frozenset(f"access-control-allow-{name}" for name in ("credentials", "headers", "methods", "origin"))

_IMPERSONATED = frozenset({"impersonate-user", "impersonate-uid", "impersonate-group"})
_IDENTITY = frozenset({"authorization", "x-remote-user", "x-remote-uid", "x-remote-group"}) | _IMPERSONATED
_IDENTITY_PREFIXES = ("x-remote-extra-", "impersonate-extra-")


def escaped(path: str | bytes) -> str:
    """Return a path as Go writes it into a request."""
    return quote(path, safe="$&+,/:;=@")


def cleaned(path: str) -> str:
    """Return a path without empty steps and those that lead back; a slash at its end stays."""
    clean = posixpath.normpath(path).replace("//", "/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def canonical(name: str) -> str:
    """Return a header's name as Go writes it: capitals at the start of each word only."""
    if not _TOKEN.issuperset(name):
        return name
    return "-".join(word[:1].upper() + word[1:].lower() for word in name.split("-"))


def all_headers(request: Request) -> list[tuple[str, str]]:
    """Return every header, those that came more than once as often as they came."""
    connection = cast("Connection | None", request.connection)
    if connection is None:
        return list(request.headers.items())
    return list(connection.headers)


def is_identity_header(name: str) -> bool:
    """Tell whether a header (lower case) says who asks, which clients may not say for themselves."""
    return name in _IDENTITY or name.startswith(_IDENTITY_PREFIXES)


def kept(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that concern the whole way, in Go's spelling, without Host and the body's length.

    An empty User-Agent stands for none.
    """
    headers = list(headers)
    one_way = set(_HOP_BY_HOP) | {"host", "content-length"}
    takes_trailers = False
    for name, value in headers:
        if name.lower() == "connection":
            one_way.update(word.strip().lower() for word in value.split(","))
        elif name.lower() == "te":
            takes_trailers = takes_trailers or "trailers" in (word.strip().lower() for word in value.split(","))
    result = [
        (canonical(name), value)
        for name, value in headers
        if name.lower() not in one_way and (value or name.lower() != "user-agent")
    ]
    return [*result, ("Te", "trailers")] if takes_trailers else result


def forwarded_for(headers: Iterable[tuple[str, str]], remote: str) -> str:
    """Return who asks, behind those for whom others asked before."""
    return ", ".join([*(value for name, value in headers if name.lower() == "x-forwarded-for"), remote])


def asks_to_unpack(request: Request) -> bool:
    """Tell whether the answer may be packed although the client did not ask for it: it is unpacked on the way."""
    return not request.headers.get("accept-encoding") and not request.headers.get("range") and request.method != "HEAD"


@dataclass(frozen=True, slots=True)
class Passed:
    """The headers of another server's answer. `further` are lines with the same names as others."""

    headers: dict[str, str]
    further: list[tuple[str, str]] = field(default_factory=list)


def passed_answer(lines: Iterable[tuple[str, str]], *, is_rewritten: bool) -> Passed:
    """Return what is passed on of an answer's headers; not its length if the body is another one (`is_rewritten`).

    What it says of caches stands beside what we say; which scripts may read it is ours alone to say.
    """
    lines = list(lines)
    one_way = _HOP_BY_HOP | _CORS
    for name, value in lines:
        if name.lower() == "connection":
            one_way |= {word.strip().lower() for word in value.split(",")}
    if is_rewritten:
        one_way |= {"content-length"}
    passed = Passed({})
    for name, value in lines:
        lower, spelled = name.lower(), canonical(name)
        if lower in one_way:
            continue
        if spelled in passed.headers or lower == "cache-control":
            passed.further.append((spelled, value))
        else:
            passed.headers[spelled] = value
    return passed
