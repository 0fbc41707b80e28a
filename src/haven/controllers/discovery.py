"""Which resources the server has, custom and aggregated ones included, each at its preferred version.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haven.api.apidiscovery import v2 as apidiscovery
from haven.api.scheme import Resource, Subresource, table
from haven.apimachinery import serialization
from haven.controllers.actions import Request, Steps

__all__ = ["Discovered", "discover", "parse"]

_ACCEPT = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}


@dataclass(frozen=True, slots=True)
class Discovered:
    """The resources by preferred version, every version by group, version and kind, and the groups that failed."""

    preferred: tuple[Resource[Any], ...]
    by_kind: dict[tuple[str, str], Resource[Any]]  # (apiVersion, kind)
    failed: tuple[str, ...]

    def having(self, *verbs: str) -> list[Resource[Any]]:
        """Return the preferred resources that support all of these verbs."""
        return [each for each in self.preferred if set(verbs) <= set(each.verbs)]


def discover() -> Steps[Discovered]:
    """Ask the server."""
    core_groups = yield Request("GET", "/api", headers=_ACCEPT)
    named_groups = yield Request("GET", "/apis", headers=_ACCEPT)
    return parse(core_groups, named_groups)


def parse(*documents: bytes) -> Discovered:
    """Return what aggregated discovery documents say."""
    preferred: dict[tuple[str, str], Resource[Any]] = {}
    by_kind: dict[tuple[str, str], Resource[Any]] = {}
    failed: list[str] = []
    for document in documents:
        for group in serialization.decode(document, apidiscovery.APIGroupDiscoveryList).items:
            for version in group.versions:
                if version.freshness == "Stale":
                    failed.append(f"{group.metadata.name}/{version.version}")
                for found in version.resources:
                    resource = _resource(group.metadata.name, version.version, found)
                    preferred.setdefault((resource.group, resource.plural), resource)
                    by_kind.setdefault((resource.api_version, resource.kind), resource)
    return Discovered(tuple(preferred.values()), by_kind, tuple(failed))


def _resource(group: str, version: str, found: apidiscovery.APIResourceDiscovery) -> Resource[Any]:
    known = table().get((group, version, found.resource))  # type: ignore[call-overload]
    if known is not None:
        return known  # type: ignore[no-any-return]
    return Resource(
        group=group,
        version=version,
        plural=found.resource,
        singular=found.singular_resource,
        kind=found.response_kind.kind if found.response_kind else "",
        namespaced=found.scope == "Namespaced",
        short_names=tuple(found.short_names),
        categories=tuple(found.categories),
        verbs=tuple(found.verbs or ()),
        subresources=tuple(
            Subresource(
                each.subresource, each.response_kind.kind if each.response_kind else "", tuple(each.verbs or ())
            )
            for each in found.subresources
        ),
    )
