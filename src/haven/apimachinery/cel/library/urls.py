"""URLs.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-url-library; Go's net/url, whose
ParseRequestURI decides.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote as percent_encode

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import BOOL, STRING, list_type, map_type, object_type
from haven.apimachinery.goformat import quote

__all__ = ["Url", "UrlError", "library", "parse_request_uri"]

_URL = object_type("kubernetes.URL")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_HOST_BAD = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:\[\]<>\"%\x80-\U0010ffff]")


class UrlError(ValueError):
    """Not a URL; str() is Go's complaint without the URL itself."""


class Url(values.Opaque):
    """A parsed URL."""

    __slots__ = ("escaped_path", "fragment", "host", "opaque", "query", "scheme", "text", "user")
    type = _URL

    def __init__(self, text: str) -> None:
        self.text = text
        self.scheme = ""
        self.host = ""
        self.user: str | None = None
        self.escaped_path = ""
        self.query = ""
        self.opaque = ""
        self.fragment = ""

    def equals(self, other: Any) -> bool:
        return bool(self.text == other.text)

    def __str__(self) -> str:
        return self.text


def parse_request_uri(text: str) -> Url:
    """Return the URL if it is absolute or an absolute path; raise UrlError."""
    if any(ord(char) < 0x20 or char == "\x7f" for char in text):
        raise UrlError("net/url: invalid control character in URL")
    if not text:
        raise UrlError("empty url")
    url = Url(text)
    if text == "*":
        url.escaped_path = "*"
        return url
    rest = _take_scheme(url, text)
    if rest.endswith("?") and rest.count("?") == 1:
        rest = rest[:-1]
    else:
        rest, _, url.query = rest.partition("?")
    if not rest.startswith("/"):
        if url.scheme:
            url.opaque = rest
            return url
        raise UrlError("invalid URI for request")
    if rest.startswith("//") and (url.scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
        _take_authority(url, authority)
    _check_escapes(rest)
    url.escaped_path = _escaped(rest)
    return url


def _take_scheme(url: Url, text: str) -> str:
    for index, char in enumerate(text):
        if char.isascii() and char.isalpha():
            continue
        if char.isascii() and (char.isdigit() or char in "+-."):
            if index == 0:
                return text
            continue
        if char == ":":
            if index == 0:
                raise UrlError("missing protocol scheme")
            url.scheme = text[:index].lower()
            return text[index + 1 :]
        return text
    return text


def _take_authority(url: Url, authority: str) -> None:
    user, at, host = authority.rpartition("@")
    if at:
        if re.search(r"[^A-Za-z0-9\-._:~!$&'()*+,;=%@]", user):
            raise UrlError("net/url: invalid userinfo")
        _check_escapes(user)
        url.user = user
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise UrlError("missing ']' in host")
        _check_port(host[end + 1 :])
    else:
        colon = host.find(":")
        if colon >= 0:
            _check_port(host[colon:])
    for match in re.finditer(r"%(..)?", host):
        if not re.fullmatch(r"%[0-9A-Fa-f]{2}", match.group()):
            raise UrlError(f"invalid URL escape {quote(host[match.start() : match.start() + 3])}")
        if int(match.group()[1:], 16) < 0x80 and match.group() != "%25":
            raise UrlError(f"invalid URL escape {quote(match.group())}")
    bad = _HOST_BAD.search(host)
    if bad is not None:
        raise UrlError(f"invalid character {quote(bad.group())} in host name")
    url.host = host


def _check_port(port: str) -> None:
    if port and not re.fullmatch(r":[0-9]*", port):
        raise UrlError(f"invalid port {quote(port)} after host")


def _check_escapes(path: str) -> None:
    for match in re.finditer("%", path):
        escape = path[match.start() : match.start() + 3]
        if not re.fullmatch(r"%[0-9A-Fa-f]{2}", escape):
            raise UrlError(f"invalid URL escape {quote(escape)}")


def _escaped(path: str) -> str:
    if re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]]|%[0-9A-Fa-f]{2})*", path, re.ASCII):
        return path
    from urllib.parse import unquote_to_bytes

    return percent_encode(unquote_to_bytes(path), safe="$&+,/:;=@")


def _query(url: Url) -> dict[str, list[str]]:
    from urllib.parse import unquote_plus

    found: dict[str, list[str]] = {}
    for part in url.query.split("&"):
        if not part or ";" in part:
            continue
        key, _, value = part.partition("=")
        if any(not re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", text) for text in (key, value)):
            continue
        found.setdefault(unquote_plus(key), []).append(unquote_plus(value))
    return found


def _parse(text: str) -> Url:
    try:
        url = parse_request_uri(text)
    except UrlError as error:
        raise CelError(f"URL parse error during conversion from string: parse {quote(text)}: {error}") from None
    before, _, url.fragment = text.partition("#")
    if before != text:
        # The request form knows no fragments; the value has one.
        known = parse_request_uri(before) if before else Url(text)
        known.fragment, known.text = url.fragment, text
        return known
    return url


def _is_url(text: str) -> bool:
    try:
        parse_request_uri(text)
    except UrlError:
        return False
    return True


def _hostname(url: Url) -> str:
    host = url.host
    if host.startswith("["):
        return host[1 : host.rfind("]")]
    return host.partition(":")[0]


def _port(url: Url) -> str:
    rest = url.host.rpartition("]")[2] if url.host.startswith("[") else url.host
    return rest.partition(":")[2]


def library() -> Library:
    lib = Library()
    declare = lib.declare
    declare("url", ("string_to_url", (STRING,), _URL, _parse))
    declare("getScheme", ("url_get_scheme", (_URL,), STRING, lambda url: url.scheme), member=True)
    declare("getHost", ("url_get_host", (_URL,), STRING, lambda url: url.host), member=True)
    declare("getHostname", ("url_get_hostname", (_URL,), STRING, _hostname), member=True)
    declare("getPort", ("url_get_port", (_URL,), STRING, _port), member=True)
    declare("getEscapedPath", ("url_get_escaped_path", (_URL,), STRING, lambda url: url.escaped_path), member=True)
    declare("getQuery", ("url_get_query", (_URL,), map_type(STRING, list_type(STRING)), _query), member=True)
    declare("isURL", ("is_url_string", (STRING,), BOOL, _is_url))
    return lib
