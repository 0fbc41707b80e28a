"""What extension servers say about themselves: their discovery documents, in the form that ours are made of.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from haven.api.apidiscovery import v2
from haven.apimachinery import meta
from haven.apiserver.aggregation.remote import Remote
from haven.apiserver.discovery import ServedVersion, aggregate

__all__ = ["ACCEPT", "from_aggregated", "from_resource_list", "is_aggregated", "served"]

_V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_V2_BETA = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
ACCEPT = f"{_V2},{_V2_BETA}"


def is_aggregated(content_type: str) -> bool:
    """Tell whether an answer is the aggregated document, not the old list of groups."""
    parameters = dict(part.strip().partition("=")[::2] for part in content_type.split(";")[1:])
    return (
        parameters.get("g") == "apidiscovery.k8s.io"
        and parameters.get("as") == "APIGroupDiscoveryList"
        and parameters.get("v") in ("v2", "v2beta1")
    )


def from_aggregated(body: bytes, remote: Remote) -> list[v2.APIResourceDiscovery]:
    """Return the resources of an APIService's group and version; [] if the document lacks it. Raises DecodeError."""
    document = msgspec.json.decode(body, type=v2.APIGroupDiscoveryList)
    for group in document.items:
        if group.metadata.name == remote.group:
            for version in group.versions:
                if version.version == remote.version:
                    return [_complete(one) for one in version.resources]
    return []


def _complete(resource: v2.APIResourceDiscovery) -> v2.APIResourceDiscovery:
    """Return a resource in which no response kind is missing: some clients cannot bear that."""
    parts = [
        one if one.response_kind is not None else msgspec.structs.replace(one, response_kind=meta.GroupVersionKind())
        for one in resource.subresources
    ]
    kind = resource.response_kind or meta.GroupVersionKind()
    return msgspec.structs.replace(resource, response_kind=kind, subresources=parts)


def from_resource_list(body: bytes) -> list[v2.APIResourceDiscovery]:
    """Return the same from the old document of one group and version. Raises DecodeError."""
    listed = msgspec.json.decode(body, type=meta.APIResourceList)
    resources = list(listed.resources or ())
    # Subresources may stand anywhere; what they belong to keeps its place.
    places: dict[str, int] = {}
    for one in resources:
        places.setdefault(one.name.partition("/")[0], len(places))
    resources.sort(key=lambda one: places[one.name.partition("/")[0]])
    return aggregate(resources)


def served(remote: Remote, resources: list[v2.APIResourceDiscovery] | None, *, is_current: bool) -> ServedVersion:
    """Return the entry of our own documents; `resources` None if they were never heard of."""
    entry = ServedVersion(
        remote.group,
        remote.version,
        (),
        remote.group_priority,
        remote.version_priority,
        freshness="Current" if is_current else "Stale",
    )
    return replace(entry, discovered=tuple(resources or ()))
