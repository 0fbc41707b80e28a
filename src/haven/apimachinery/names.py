"""Identifiers that must not be mixed up."""

from __future__ import annotations

from typing import NamedTuple, NewType

__all__ = ["UID", "NamespacedName", "Revision"]

UID = NewType("UID", str)
"""An object's identity, unique over time: a later object with the same name has another UID."""

Revision = NewType("Revision", int)
"""The store's counter of committed transactions; clients see it as the opaque resourceVersion."""


class NamespacedName(NamedTuple):
    """An object's place; `namespace` is "" for cluster-scoped objects."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
