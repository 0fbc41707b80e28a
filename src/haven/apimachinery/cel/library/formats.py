"""Named formats: whether a text is a DNS label, a UUID, a date.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-format-library.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any

from haven.apimachinery.cel import values
from haven.apimachinery.cel.conversions import parse_timestamp
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.library.urls import UrlError, parse_request_uri
from haven.apimachinery.cel.types import STRING, list_type, object_type, optional_type
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import (
    dns1035_label_errors,
    dns1123_label_errors,
    dns1123_subdomain_errors,
    label_value_errors,
    qualified_name_errors,
)

__all__ = ["library"]

_FORMAT = object_type("kubernetes.NamedFormat")
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
Complaints = Callable[[str], Sequence[str]]


class NamedFormat(values.Opaque):
    """A check with a name; `regex_size` says how costly it is."""

    __slots__ = ("complaints", "name", "regex_size")
    type = _FORMAT

    def __init__(self, name: str, complaints: Complaints, regex_size: int) -> None:
        self.name = name
        self.complaints = complaints
        self.regex_size = regex_size

    def equals(self, other: Any) -> bool:
        return bool(self.name == other.name)


def _prefix(complaints: Complaints) -> Complaints:
    """The check of a name's beginning, which may end in a hyphen as more follows."""
    return lambda text: complaints(text[:-1] + "a" if text.endswith("-") and len(text) > 1 else text)


def _uri(text: str) -> list[str]:
    try:
        parse_request_uri(text)
    except UrlError as error:
        return [f"parse {quote(text)}: {error}"]
    return []


def _simple(holds: Callable[[str], bool], complaint: str) -> Complaints:
    return lambda text: [] if holds(text) else [complaint]


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_datetime(text: str) -> bool:
    return parse_timestamp(text.upper()) is not None or parse_timestamp(text.upper() + "Z") is not None


_FORMATS = {
    "dns1123Label": NamedFormat("DNS1123Label", dns1123_label_errors, 30),
    "dns1123Subdomain": NamedFormat("DNS1123Subdomain", dns1123_subdomain_errors, 60),
    "dns1035Label": NamedFormat("DNS1035Label", dns1035_label_errors, 30),
    "qualifiedName": NamedFormat("QualifiedName", qualified_name_errors, 60),
    "dns1123LabelPrefix": NamedFormat("DNS1123LabelPrefix", _prefix(dns1123_label_errors), 30),
    "dns1123SubdomainPrefix": NamedFormat("DNS1123SubdomainPrefix", _prefix(dns1123_subdomain_errors), 60),
    "dns1035LabelPrefix": NamedFormat("DNS1035LabelPrefix", _prefix(dns1035_label_errors), 30),
    "labelValue": NamedFormat("LabelValue", label_value_errors, 40),
    "uri": NamedFormat("URI", _uri, 1103),
    "uuid": NamedFormat(
        "uuid", _simple(lambda text: _UUID.fullmatch(text) is not None, "does not match the UUID format"), 70
    ),
    "byte": NamedFormat("byte", _simple(_is_base64, "invalid base64"), 84),
    "date": NamedFormat(
        "date", _simple(lambda text: parse_timestamp(f"{text}T00:00:00Z") is not None, "invalid date"), 71
    ),
    "datetime": NamedFormat("datetime", _simple(_is_datetime, "invalid datetime"), 71),
}


def _validate(format_: NamedFormat, text: str) -> values.Optional:
    complaints = list(format_.complaints(text))
    return values.Optional(complaints) if complaints else values.Optional()


def _named(name: str) -> values.Optional:
    found = _FORMATS.get(name)
    return values.Optional(found) if found is not None else values.Optional()


def _constant(format_: NamedFormat) -> Callable[[], NamedFormat]:
    return lambda: format_


def library() -> Library:
    lib = Library()
    lib.declare(
        "validate", ("format-validate", (_FORMAT, STRING), optional_type(list_type(STRING)), _validate), member=True
    )
    lib.declare("format.named", ("format-named", (STRING,), optional_type(_FORMAT), _named))
    for name, format_ in _FORMATS.items():
        lib.declare(f"format.{name}", (f"format.{name}", (), _FORMAT, _constant(format_)))
    return lib
