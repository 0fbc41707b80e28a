"""How the API server is told to reach a webhook: what is wrong with its URL or Service."""

from __future__ import annotations

import urllib.parse

from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.validation.names import dns1123_subdomain_errors, port_number_errors

__all__ = ["validate_webhook_service", "validate_webhook_url"]

_FORM = "; desired format: https://host[/path]"


def validate_webhook_url(url: str, path: Path) -> ErrorList:
    """Check a webhook's URL."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        return [required(path, f"url must be a valid URL: {error}{_FORM}")]
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
