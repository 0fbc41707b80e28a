"""Resources seen as metadata alone: what garbage collection and quotas need of kinds they know nothing about.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

from haven.api.scheme import Resource
from haven.apimachinery import meta

__all__ = ["metadata_only"]


@dataclass(frozen=True, eq=False)
class _MetadataResource(Resource[meta.PartialObjectMetadata]):
    """The same resource, another type; also for kinds that have no struct, such as custom ones."""

    @property
    def type(self) -> type[meta.PartialObjectMetadata]:
        return meta.PartialObjectMetadata

    def __hash__(self) -> int:
        return hash(("metadata", self.group, self.version, self.plural))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _MetadataResource) and (self.group, self.version, self.plural) == (
            other.group,
            other.version,
            other.plural,
        )


def metadata_only(resource: Resource[Any]) -> Resource[meta.PartialObjectMetadata]:
    """Return the resource whose objects a Client gives as PartialObjectMetadata. Never equal to the full one."""
    values: dict[str, Any] = {each.name: getattr(resource, each.name) for each in fields(cast("Any", resource))}
    return _MetadataResource(**values)
