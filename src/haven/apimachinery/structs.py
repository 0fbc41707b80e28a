"""The base of every API type: a msgspec struct that reads and writes Kubernetes' JSON.

Wire rules, as Go's encoding/json applies them to upstream's types: a field at its zero value is left out, except
fields that upstream marks as required and embedded structs, which are always written. `always` marks those.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import field

__all__ = ["Struct", "always", "field"]

T = TypeVar("T")


class Struct(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True, gc=False):
    """An API type. Attributes are the API's field names in snake case; the zero value stands for "not set".

    API objects are trees, so the cycle collector need not look at them: tens of thousands are alive in caches.
    """


def always(value: T, *, name: str | None = None) -> T:
    """Return a field default that is written even when it is unchanged.

    msgspec leaves out a field which is identical to its default, but never one whose default came from a factory
    other than list or dict.
    """
    result: Any = field(default_factory=lambda: value, name=name)
    return result  # type: ignore[no-any-return]
