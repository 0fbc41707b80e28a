"""The configuration of ResourceQuota: what may be used only where a quota covers it.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from haven.api.core import v1 as core
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.fielderrors import Path, required
from haven.apiserver.admission.configuration import raise_first
from haven.apiserver.configfiles import Document, read_document

__all__ = ["LimitedResource", "parse_limited_resources"]

_VERSIONS = frozenset(
    {
        "apiserver.config.k8s.io/v1", "resourcequota.admission.k8s.io/v1beta1",
        "resourcequota.admission.k8s.io/v1alpha1",
    }
)  # fmt: skip


class _Limited(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    api_group: str = msgspec.field(default="", name="apiGroup")
    resource: str = ""
    match_contains: list[str] | None = None
    match_scopes: list[core.ScopedResourceSelectorRequirement] | None = None


class _Configuration(Document, frozen=True):
    limited_resources: list[_Limited] | None = None


@dataclass(frozen=True, slots=True)
class LimitedResource:
    """A resource whose use needs a quota: of amounts with these texts in their names, and in these scopes."""

    resource: GroupResource
    match_contains: tuple[str, ...] = ()
    match_scopes: tuple[core.ScopedResourceSelectorRequirement, ...] = ()


def parse_limited_resources(document: bytes) -> tuple[LimitedResource, ...]:
    """Return what a configuration says; raise ConfigError."""
    kind = "ResourceQuotaConfiguration" if b"ResourceQuotaConfiguration" in document else "Configuration"
    found = read_document(document, _Configuration, kind, _VERSIONS).limited_resources or []
    path = Path("limitedResources")
    raise_first(
        [required(path.index(index).child("resource"), "") for index, one in enumerate(found) if not one.resource]
    )
    return tuple(
        LimitedResource(
            GroupResource(one.api_group, one.resource), tuple(one.match_contains or ()), tuple(one.match_scopes or ())
        )
        for one in found
    )
