"""managedFields of the objects that a cluster starts with: those that upstream's requests to itself leave. Pure.

They are a function of which fields an object has, so they are written down as they are, instead of being compared
with an empty object: the schemas of all these kinds would have to be read for that, at every first start.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haven.api.apiregistration import v1 as apiregistration
from haven.api.core import v1 as core
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.networking import v1 as networking
from haven.api.rbac import v1 as rbac
from haven.api.scheduling import v1 as scheduling
from haven.apimachinery import meta, serialization
from haven.apimachinery.structs import Struct
from haven.apiserver.flowcontrol.matching import CONFIG_CONSUMER
from haven.apiserver.registry.serverwrites import SERVER

__all__ = ["CONFIG_PRODUCER", "DEFAULT_NETWORK", "manager_of", "owners"]

CONFIG_PRODUCER = "api-priority-and-fairness-config-producer-v1"
DEFAULT_NETWORK = "kubernetes-service-cidr-controller"
_AGGREGATION = "clusterrole-aggregation-controller"
Fields = dict[str, Any]

_BORN = frozenset({"spec", "priorityLevelConfiguration"})
"""Parts that an object of its kind has from birth, so that nobody owns the part itself."""
_OF_THE_SERVER = frozenset({"kind", "apiVersion", "metadata", "status"})


def manager_of(obj: Any) -> str:
    """Return who writes such an object."""
    if isinstance(obj, flowcontrol.FlowSchema | flowcontrol.PriorityLevelConfiguration):
        return CONFIG_PRODUCER
    return SERVER


def owners(obj: Any, api_version: str, now: str) -> list[meta.ManagedFieldsEntry]:
    """Return the managedFields of a new object, in upstream's order: what is applied comes first."""
    entries = []
    if isinstance(obj, flowcontrol.FlowSchema):
        condition = _condition("Dangling", ("lastTransitionTime", "message", "reason", "status", "type"))
        entries.append(_entry(CONFIG_CONSUMER, "Apply", api_version, now, condition, "status"))
    elif isinstance(obj, networking.ServiceCIDR):
        condition = _condition("Ready", ("lastTransitionTime", "message", "status", "type"))
        entries.append(_entry(DEFAULT_NETWORK, "Apply", api_version, now, condition, "status"))
    elif isinstance(obj, rbac.ClusterRole) and obj.aggregation_rule is not None and obj.rules:
        entries.append(_entry(_AGGREGATION, "Apply", api_version, now, {"f:rules": {}}))
    entries.append(_entry(manager_of(obj), "Update", api_version, now, _given(obj)))
    return entries


def _entry(
    manager: str, operation: str, api_version: str, now: str, fields: Fields, subresource: str = ""
) -> meta.ManagedFieldsEntry:
    return meta.ManagedFieldsEntry(
        manager=manager,
        operation=operation,
        api_version=api_version,
        time=now,
        fields_type="FieldsV1",
        fields_v1=fields,
        subresource=subresource,
    )


def _condition(kind: str, names: Iterable[str]) -> Fields:
    return {"f:status": {"f:conditions": {f'k:{{"type":"{kind}"}}': {".": {}} | {f"f:{name}": {} for name in names}}}}


def _given(obj: Any) -> Fields:
    """Return the fields that the creation of an object gives."""
    fields: Fields = {}
    metadata: meta.ObjectMeta = obj.metadata
    named: Fields = {
        f"f:{name}": {".": {}} | {f"f:{key}": {} for key in sorted(values)}
        for name, values in (("annotations", metadata.annotations), ("labels", metadata.labels))
        if values
    }
    if named:
        fields["f:metadata"] = named
    if isinstance(obj, rbac.ClusterRole | rbac.Role):
        if isinstance(obj, rbac.ClusterRole) and obj.aggregation_rule is not None:
            return {"f:aggregationRule": {".": {}, "f:clusterRoleSelectors": {}}} | fields
        return fields | {"f:rules": {}} if obj.rules else fields
    if isinstance(obj, rbac.ClusterRoleBinding | rbac.RoleBinding):
        return fields | {"f:roleRef": {}} | ({"f:subjects": {}} if obj.subjects else {})
    if isinstance(obj, core.Namespace):
        return fields  # Its finalizer and phase are the server's.
    assert isinstance(
        obj,
        apiregistration.APIService
        | core.ConfigMap
        | flowcontrol.FlowSchema
        | flowcontrol.PriorityLevelConfiguration
        | networking.ServiceCIDR
        | scheduling.PriorityClass,
    ), type(obj)
    return dict(sorted((fields | _shown(obj)).items()))


def _shown(obj: Struct) -> Fields:
    tree = serialization.to_tree(obj)
    return {f"f:{name}": _node(name, value) for name, value in tree.items() if name not in _OF_THE_SERVER}


def _node(name: str, value: Any) -> Fields:
    if not isinstance(value, dict):
        return {}  # A list of one of these kinds is owned as a whole.
    fields = {f"f:{key}": _node(key, value[key]) for key in sorted(value)}
    return fields if name in _BORN else {".": {}} | fields
