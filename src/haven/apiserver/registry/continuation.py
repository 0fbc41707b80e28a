"""The token that a client sends to get the next page of a list: where it goes on, and at which revision.

Upstream's format: base64 (URL alphabet, no padding) of {"v":"meta.k8s.io/v1","rv":7,"start":"default/web\\u0000"}.
A revision of -1 goes on at the newest revision, for clients that take an inconsistent rest over starting again.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import string
from dataclasses import dataclass

import msgspec

from haven.apimachinery import apierrors
from haven.apimachinery.schema.gojson import syntax_error

__all__ = ["NEWEST", "Position", "decode", "encode", "expired"]

NEWEST = -1
_VERSION = "meta.k8s.io/v1"

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


_ALPHABET = frozenset(string.ascii_letters + string.digits + "-_")


class _Token(msgspec.Struct):
    v: str = ""
    rv: int = 0
    start: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """Go on behind `after` (a key below the listed prefix) as of `revision`, or of now when that is NEWEST."""

    after: str
    revision: int


def encode(after: str, revision: int) -> str:
    """Return the token for what comes behind a key."""
    data = msgspec.json.encode(_Token(v=_VERSION, rv=revision, start=after + "\0"))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> Position:
    """Return what a token says; raise BadRequest if nobody here made it."""
    bad = "invalid continue token: continue key is not valid"
    try:
        wrong = next((index for index, sign in enumerate(text) if sign not in _ALPHABET), None)
        if wrong is None and len(text) % 4 == 1:
            wrong = len(text) - 1
        if wrong is not None:
            raise ValueError(f"illegal base64 data at input byte {wrong}")
        data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if (complaint := syntax_error(data)) is not None:
            raise ValueError(complaint)
        token = msgspec.json.decode(data, type=_Token)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise apierrors.BadRequest(f"{bad}: {error}") from None
    if token.v != _VERSION:
        raise apierrors.BadRequest(f"{bad}: server does not recognize this encoded version {token.v}")
    if token.rv == 0:
        raise apierrors.BadRequest(f"{bad}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not token.start:
        raise apierrors.BadRequest(f"{bad}: encoded start key empty (version meta.k8s.io/v1)")
    start = token.start if token.start.startswith("/") else "/" + token.start
    if posixpath.normpath(start) != start:
        raise apierrors.BadRequest(f"{bad}: {token.start}")
    return Position(after=token.start.removesuffix("\0"), revision=token.rv)


def expired(after: str) -> apierrors.Expired:
    """Return the refusal of a token whose revision is gone; it brings a token that goes on at the newest."""
    error = apierrors.Expired(_EXPIRED)
    error.continue_ = encode(after, NEWEST)
    return error
