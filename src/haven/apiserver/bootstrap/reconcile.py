"""Bring what is stored up to what a control plane of this version starts with. Pure.

Operators' changes are respected: permissions and subjects are added, never taken away, and nothing happens to
objects whose autoupdate annotation says "false". A binding to another role is replaced, as its role cannot change.
Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from haven.api.core import v1 as core
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.rbac import v1 as rbac
from haven.api.scheme import Resource
from haven.apimachinery import serialization
from haven.apiserver.authorization.rules import uncovered
from haven.apiserver.bootstrap.objects import APF_AUTOUPDATE, AUTOUPDATE, MANDATORY_FLOW_OBJECTS, resource_of

__all__ = ["Change", "plan"]

Get = Callable[[Resource[Any], str, str], Any | None]


@dataclass(frozen=True, slots=True)
class Change:
    """Write `new` in the place of `old` (None: create). `replace` makes it a new object, with a UID of its own."""

    resource: Resource[Any]
    old: Any | None
    new: Any
    replace: bool = False


def plan(wanted: Iterable[Any], get: Get) -> Iterator[Change]:
    """Yield what has to be written; nothing if all is well. `get` reads what is stored and may share it."""
    for obj in wanted:
        resource = resource_of(obj)
        stored = get(resource, obj.metadata.namespace, obj.metadata.name)
        if stored is None:
            yield Change(resource, None, obj)
            continue
        if isinstance(obj, rbac.RoleBinding | rbac.ClusterRoleBinding) and obj.role_ref != stored.role_ref:
            if stored.metadata.annotations.get(AUTOUPDATE) != "false":
                yield Change(resource, stored, obj, replace=True)
            continue
        merged = _merge(obj, serialization.copy(stored))
        if merged != stored:
            yield Change(resource, stored, merged)


def _merge(wanted: Any, stored: Any) -> Any:
    """Return the stored object, a copy of its own, with what is missing."""
    if isinstance(wanted, rbac.Role | rbac.ClusterRole | rbac.RoleBinding | rbac.ClusterRoleBinding):
        if stored.metadata.annotations.get(AUTOUPDATE) == "false":
            return stored
        stored.metadata.labels = wanted.metadata.labels | stored.metadata.labels
        stored.metadata.annotations = wanted.metadata.annotations | stored.metadata.annotations
        if isinstance(wanted, rbac.ClusterRole) and wanted.aggregation_rule is not None:
            _add_selectors(wanted.aggregation_rule, stored)
        elif isinstance(wanted, rbac.Role | rbac.ClusterRole):
            if stored.rules == wanted.rules:
                return stored  # As at nearly every start.
            stored.rules = [*(stored.rules or []), *uncovered(stored.rules or [], wanted.rules or [])]
        else:
            stored.subjects = [
                *stored.subjects,
                *(subject for subject in wanted.subjects if subject not in stored.subjects),
            ]
    elif isinstance(wanted, flowcontrol.FlowSchema | flowcontrol.PriorityLevelConfiguration):
        annotations = stored.metadata.annotations
        own = annotations.get(APF_AUTOUPDATE)
        if (
            wanted.metadata.name in MANDATORY_FLOW_OBJECTS
            or own == "true"
            or (own is None and stored.metadata.generation == 1)
        ):
            stored.metadata.annotations = annotations | {APF_AUTOUPDATE: "true"}
            if stored.spec != wanted.spec:
                stored.spec = wanted.spec
                stored.metadata.generation += 1
    elif isinstance(wanted, core.ConfigMap):
        stored.data = stored.data | wanted.data
    return stored


def _add_selectors(wanted: rbac.AggregationRule, stored: rbac.ClusterRole) -> None:
    present = stored.aggregation_rule or rbac.AggregationRule()
    missing = [selector for selector in wanted.cluster_role_selectors if selector not in present.cluster_role_selectors]
    if missing:
        stored.aggregation_rule = rbac.AggregationRule(
            cluster_role_selectors=[*present.cluster_role_selectors, *missing]
        )
