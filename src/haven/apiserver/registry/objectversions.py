"""The resource version in the body of a write: what it asks for, and the refusals of what cannot be."""

from __future__ import annotations

from typing import Any

from haven.apimachinery import apierrors, meta
from haven.apiserver.registry.options import parse_revision

__all__ = ["asked_revision", "refuse_revision"]


class _ResourceVersionSet(apierrors.ApiError):
    """A new object names a resource version; upstream answers 500 without a reason."""

    code, reason = 500, ""


class _InvalidObjectVersion(apierrors.ApiError):
    """An object's resource version that is no number; upstream answers 500 without a reason."""

    code, reason = 500, ""


def refuse_revision(metadata: meta.ObjectMeta) -> None:
    """Raise if an object that is to be created names a version; what is no number counts as none."""
    try:
        named = parse_revision(metadata.resource_version) != 0
    except ValueError:
        return
    if named:
        raise _ResourceVersionSet("resourceVersion should not be set on objects to be created")


def asked_revision(new: Any) -> int:
    """Return the version that an update means, 0 for any; raise if it is no number."""
    try:
        return parse_revision(new.metadata.resource_version)
    except ValueError as error:
        raise _InvalidObjectVersion(str(error)) from None
