"""How the API server is told to reach a webhook: what is wrong with its URL or Service."""

from __future__ import annotations

import base64
import re
import urllib.parse

from cryptography import x509

from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import dns1123_subdomain_errors, port_number_errors

__all__ = ["validate_ca_bundle", "validate_webhook_service", "validate_webhook_url"]

_FORM = "; desired format: https://host[/path]"


def validate_webhook_url(url: str, path: Path) -> ErrorList:
    """Check a webhook's URL."""
    if (why := _url_complaint(url)) is not None:
        return [required(path, f"url must be a valid URL: parse {why}{_FORM}")]
    parts = urllib.parse.urlsplit(url)
    errors: ErrorList = []
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme != "https":
        errors.append(invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not host:
        errors.append(invalid(path, host, f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        errors.append(invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errors.append(invalid(path, parts.query, "query parameters are not permitted in the URL"))
    return errors


def _url_complaint(url: str) -> str | None:
    """Return what Go's net/url says of a URL that it cannot parse; None for others."""
    whole, fragment = url.partition("#")[0], url.partition("#")[2]
    if (why := _complaint_before_fragment(whole)) is not None:
        return f"{quote(whole)}: {why}"
    why = _escape_complaint(fragment)
    return None if why is None else f"{quote(url)}: {why}"


def _complaint_before_fragment(url: str) -> str | None:
    if any(letter < " " or letter == "\x7f" for letter in url):
        return "net/url: invalid control character in URL"
    if url.startswith(":"):
        return "missing protocol scheme"
    scheme = _SCHEME.match(url)
    rest = url[scheme.end() if scheme else 0 :].partition("?")[0]
    if not rest.startswith("/"):
        if scheme is None and ":" in rest.partition("/")[0]:
            return "first path segment in URL cannot contain colon"
        return None if scheme is not None else _escape_complaint(rest)
    if not rest.startswith("//"):
        return _escape_complaint(rest)
    authority, slash, after = rest[2:].partition("/")
    user, _, host = authority.rpartition("@")
    if not _USER.fullmatch(user):
        return "net/url: invalid userinfo"
    return _host_complaint(host) or _escape_complaint(user) or _escape_complaint(slash + after)


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST_LETTER = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]<>\"%]|[^\x00-\x7f]")


def _host_complaint(host: str) -> str | None:
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            return "missing ']' in host"
        port = host[end + 1 :]
    else:
        port = host[host.find(":") :] if ":" in host else ""
    if port and not re.fullmatch(r":[0-9]*", port):
        return f"invalid port {quote(port)} after host"
    if bad_escape := re.search(r"%(?!25)[0-7][0-9A-Fa-f]", host):
        return f"invalid URL escape {quote(bad_escape[0])}"
    if "%" in host:
        return _escape_complaint(host)
    bad = next((letter for letter in host if not _HOST_LETTER.match(letter)), None)
    return None if bad is None else f"invalid character {quote(bad)} in host name"


def _escape_complaint(text: str) -> str | None:
    bad = re.search(r"%(?![0-9A-Fa-f]{2})", text)
    return None if bad is None else f"invalid URL escape {quote(text[bad.start() : bad.start() + 3])}"


_BLOCK = re.compile(rb"-----BEGIN ([^-\n]*)-----\r?\n.*?-----END \1-----", re.DOTALL)


def validate_ca_bundle(bundle: bytes, path: Path) -> ErrorList:
    """Check that a bundle of certificate authorities holds at least one certificate that can be read."""
    blocks = [(block[1], block[0]) for block in _BLOCK.finditer(bundle)]
    words = "no valid certificate authority data seen" if blocks else "unable to parse bytes as PEM block"
    for kind, text in blocks:
        if kind != b"CERTIFICATE":
            continue
        try:
            x509.load_pem_x509_certificate(text)
        except ValueError:
            words = "failed to parse certificate: x509: malformed certificate"
            continue
        return []
    return [invalid(path, base64.b64encode(bundle).decode(), f"unable to load root certificates: {words}")]


def validate_webhook_service(name: str, namespace: str, url_path: str | None, port: int, path: Path) -> ErrorList:
    """Check the Service that a webhook is behind."""
    errors: ErrorList = []
    # Callers upstream confuse the two, so the complaints trade places.
    if not namespace:
        errors.append(required(path.child("name"), ""))
    if not name:
        errors.append(required(path.child("namespace"), ""))
    if complaints := port_number_errors(port):
        errors.append(invalid(path.child("port"), port, "port is not valid: " + ", ".join(complaints)))
    if url_path is None or url_path in ("", "/"):
        return errors
    return errors + _url_path(url_path, path.child("path"))


def _url_path(url_path: str, path: Path) -> ErrorList:
    if url_path == "//":
        return [invalid(path, url_path, "segment[0] may not be empty")]
    errors: ErrorList = []
    if not url_path.startswith("/"):
        errors.append(invalid(path, url_path, "must start with a '/'"))
    for index, segment in enumerate(url_path[1:].removesuffix("/").split("/")):
        if not segment:
            errors.append(invalid(path, url_path, f"segment[{index}] may not be empty"))
            continue
        errors += [invalid(path, url_path, f"segment[{index}]: {text}") for text in dns1123_subdomain_errors(segment)]
    return errors
