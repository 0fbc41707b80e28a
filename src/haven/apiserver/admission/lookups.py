"""What upstream's client says of a name under which no object can be, before it asks for it."""

from __future__ import annotations

from haven.apimachinery.apierrors import ApiError
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import path_segment_name

__all__ = ["ImpossibleName", "impossible_name"]


class ImpossibleName(ApiError):
    """The request names another object by what cannot be a name; upstream answers 500 without a reason."""

    code, reason = 500, ""


def impossible_name(name: str) -> str:
    """Return why there can be no object of that name; "" if there can."""
    if not name:
        return "resource name may not be empty"
    errors = path_segment_name(name)
    return f"invalid resource name {quote(name)}: [{' '.join(errors)}]" if errors else ""
