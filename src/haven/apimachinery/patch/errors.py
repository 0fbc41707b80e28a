"""The answers that refused patches get."""

from __future__ import annotations

from haven.apimachinery import apierrors, meta
from haven.apimachinery.fielderrors import FieldError, Path, invalid

__all__ = ["PatchError", "internal", "invalid_patch", "unprocessable"]


class PatchError(Exception):
    """Why a patch could not be applied; the client sees this text only where upstream shows it."""


def unprocessable(because: PatchError) -> apierrors.ApiError:
    """Return the answer to a patch that is well-formed but does not apply. It does not say why, as upstream's."""
    error = apierrors.Invalid("the server rejected our request due to an error in our request", meta.StatusDetails())
    error.__cause__ = because
    return error


def internal(message: str) -> apierrors.ApiError:
    """Return the answer to what upstream did not foresee: code 500, no reason, the bare text."""
    return apierrors.ApiError(message)


def invalid_patch(patched: str, message: str) -> apierrors.ApiError:
    """Return the answer when the patched object cannot be decoded; `patched` is the object or patch as shown."""
    errors: list[FieldError] = [invalid(Path("patch"), patched, message)]
    return apierrors.Invalid.of(apierrors.GroupKind("", ""), "", errors)
