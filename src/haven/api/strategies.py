"""Which Strategy a resource has; each group's table is imported on first use."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.gatedfields import DROPPED_BY_DEFAULT, gated
from haven.api.scheme import Resource
from haven.api.strategy import Strategy, create_errors, update_errors
from haven.apimachinery.fielderrors import ErrorList
from haven.apimachinery.validation.names import dns1123_subdomain_errors

__all__ = ["create_errors", "strategy_for", "update_errors"]

_TABLES = {
    ("", "v1"): "haven.api.core.strategies",
    ("admissionregistration.k8s.io", "v1"): "haven.api.admissionregistration.strategies",
    ("apiextensions.k8s.io", "v1"): "haven.api.apiextensions.strategies",
    ("apiregistration.k8s.io", "v1"): "haven.api.apiregistration.strategies",
    ("apps", "v1"): "haven.api.apps.strategies",
    ("autoscaling", "v2"): "haven.api.autoscaling.strategies",
    ("batch", "v1"): "haven.api.batch.strategies",
    ("certificates.k8s.io", "v1"): "haven.api.certificates.strategies",
    ("certificates.k8s.io", "v1beta1"): "haven.api.certificates.trustbundles",
    ("coordination.k8s.io", "v1"): "haven.api.coordination.strategies",
    ("coordination.k8s.io", "v1alpha2"): "haven.api.coordination.strategies",
    ("coordination.k8s.io", "v1beta1"): "haven.api.coordination.strategies",
    ("discovery.k8s.io", "v1"): "haven.api.discovery.strategies",
    ("events.k8s.io", "v1"): "haven.api.events.strategies",
    ("flowcontrol.apiserver.k8s.io", "v1"): "haven.api.flowcontrol.strategies",
    ("internal.apiserver.k8s.io", "v1alpha1"): "haven.api.apiserverinternal.strategies",
    ("networking.k8s.io", "v1"): "haven.api.networking.strategies",
    ("networking.k8s.io", "v1beta1"): "haven.api.networking.strategies",
    ("node.k8s.io", "v1"): "haven.api.node.strategies",
    ("policy", "v1"): "haven.api.policy.strategies",
    ("rbac.authorization.k8s.io", "v1"): "haven.api.rbac.strategies",
    ("resource.k8s.io", "v1"): "haven.api.resource.strategies",
    ("resource.k8s.io", "v1alpha3"): "haven.api.resource.requests",
    ("resource.k8s.io", "v1beta2"): "haven.api.resource.requests",
    ("scheduling.k8s.io", "v1"): "haven.api.scheduling.strategies",
    ("scheduling.k8s.io", "v1alpha2"): "haven.api.scheduling.workloads",
    ("storage.k8s.io", "v1"): "haven.api.storage.strategies",
    ("storage.k8s.io", "v1beta1"): "haven.api.storage.strategies",
    ("storagemigration.k8s.io", "v1beta1"): "haven.api.storagemigration.strategies",
}
"""Where the table `STRATEGIES` (plural name -> Strategy) of a group's version is."""


@cache
def strategy_for(resource: Resource[Any], off: frozenset[str] = DROPPED_BY_DEFAULT) -> Strategy[Any]:
    """Return how objects of a resource are defaulted, checked and changed; `off` are the feature gates that are off."""
    return gated(_strategy(resource), resource.group_resource, off)


def _strategy(resource: Resource[Any]) -> Strategy[Any]:
    table = _TABLES.get((resource.group, resource.version))
    if table is None:
        return _structure_only(resource)
    strategies: dict[str, Strategy[Any]] = importlib.import_module(table).STRATEGIES
    found = strategies.get(resource.plural)
    return _structure_only(resource) if found is None else found


def _structure_only(resource: Resource[Any]) -> Strategy[Any]:
    """The rules that hold for every kind: a DNS subdomain for a name, sound metadata, status by its own endpoint."""
    namespaced = resource.namespaced

    def validate(new: Any) -> ErrorList:
        return validate_meta(new.metadata, namespaced=namespaced)

    def validate_update(new: Any, old: Any) -> ErrorList:
        return validate_meta_update(new.metadata, old.metadata)

    has_status = any(subresource.name == "status" for subresource in resource.subresources)

    def prepare_for_create(new: Any) -> None:
        if has_status:
            new.status = type(new)().status
            new.metadata.generation = 1

    def prepare_for_update(new: Any, old: Any) -> None:
        if has_status:
            new.status = old.status
            if new.spec != old.spec:
                new.metadata.generation = old.metadata.generation + 1

    def prepare_for_status_update(new: Any, old: Any) -> None:
        new.spec = old.spec

    status = Strategy[Any](prepare_for_update=prepare_for_status_update, validate_update=validate_update)
    return Strategy[Any](
        prepare_for_create=prepare_for_create,
        validate=validate,
        prepare_for_update=prepare_for_update,
        validate_update=validate_update,
        name_errors=lambda name: list(dns1123_subdomain_errors(name)),
        has_generation=has_status,
        subresources={"status": status} if has_status else {},
    )
