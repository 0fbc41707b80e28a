"""An object of a kind that no Python type describes: a custom resource.

Its metadata is typed, as everybody who handles objects reads it; the rest is kept as trees under the names on the wire.
"""

from __future__ import annotations

from typing import Any

import msgspec

from haven.apimachinery import meta

__all__ = ["Unstructured"]

Tree = dict[str, Any]
_ENVELOPE = ("kind", "apiVersion", "metadata")


class Unstructured:
    """A custom resource. `content` holds every field but kind, apiVersion and metadata."""

    __slots__ = ("api_version", "content", "kind", "metadata")

    def __init__(
        self,
        kind: str = "",
        api_version: str = "",
        metadata: meta.ObjectMeta | None = None,
        content: Tree | None = None,
    ) -> None:
        self.kind = kind
        self.api_version = api_version
        self.metadata = metadata if metadata is not None else meta.ObjectMeta()
        self.content = content if content is not None else {}

    def to_wire(self) -> Tree:
        """Return the fields in the order in which they are written; metadata stays typed."""
        return {"kind": self.kind, "apiVersion": self.api_version, "metadata": self.metadata, **self.content}

    def tree(self) -> Tree:
        """Return the object as a tree, whose content is shared with the object."""
        metadata = msgspec.to_builtins(self.metadata)
        return {"kind": self.kind, "apiVersion": self.api_version, "metadata": metadata, **self.content}

    @classmethod
    def from_wire(cls, tree: Tree) -> Unstructured:
        """Return a tree as an object that shares its content; raise msgspec.ValidationError for bad metadata."""
        return cls(
            tree.get("kind", ""),
            tree.get("apiVersion", ""),
            msgspec.convert(tree.get("metadata") or {}, meta.ObjectMeta),
            {name: value for name, value in tree.items() if name not in _ENVELOPE},
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Unstructured)
            and (self.kind, self.api_version, self.metadata) == (other.kind, other.api_version, other.metadata)
            and self.content == other.content
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Unstructured({self.api_version} {self.kind} {self.metadata.namespace}/{self.metadata.name})"
