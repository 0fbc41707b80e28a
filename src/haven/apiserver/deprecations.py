"""Use of deprecated APIs: the client is warned, the audit log and the metrics remember it.

Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/#locate-use-of-deprecated-apis
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.lifecycle import DEPRECATED
from haven.api.scheme import Resource
from haven.apimachinery.codecs.negotiate import RESOURCES, Offer, has_route
from haven.apiserver.request import Request
from haven.metrics.families import Family, Registry

__all__ = ["DeprecatedUse"]


class DeprecatedUse:
    """Which deprecated APIs were asked for."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str, str, str]] = set()

    def note_built_in(self, request: Request, resource: Resource[Any], offer: Offer = RESOURCES) -> None:
        """Note a request to a built-in resource if its kind is deprecated.

        What the route refuses, as it has nothing that the client takes, has not reached the API.
        """
        kinds = DEPRECATED.get(resource.api_version)
        deprecation = kinds.get(resource.kind) if kinds is not None else None
        if deprecation is not None and not request.local and has_route(request.headers.get("accept", ""), offer):
            warning = deprecation.warning(resource.api_version, resource.kind)
            self.note(request, (warning,), deprecation.removed)

    def note(self, request: Request, warnings: Sequence[str], removed: str = "") -> None:
        """Note a request to a deprecated API, which goes with a release if that is known."""
        info = request.info
        request.warnings.extend(warnings)
        request.audit_annotations["k8s.io/deprecated"] = "true"
        if removed:
            request.audit_annotations["k8s.io/removed-release"] = removed
        self._seen.add((info.group, info.version, info.resource, info.subresource, removed))

    def show(self, registry: Registry) -> None:
        """Have this shown among a server's metrics."""
        registry.add_collector(lambda: self._fill(registry["apiserver_requested_deprecated_apis"]))

    def _fill(self, family: Family) -> None:
        for group, version, resource, subresource, removed in self._seen:
            family.set((group, removed, resource, subresource, version), 1)
