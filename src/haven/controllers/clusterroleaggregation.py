"""Fill ClusterRoles that gather the rules of others.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

from typing import Any

from haven.api.rbac import v1 as rbac
from haven.api.scheme import resource_of
from haven.apimachinery import selectors, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Steps, Wiring, key_from

__all__ = ["ClusterRoleAggregationController", "gathered_rules"]

MANAGER = "clusterrole-aggregation-controller"


def gathered_rules(role: rbac.ClusterRole, every: list[rbac.ClusterRole]) -> list[rbac.PolicyRule]:
    """Return the rules of the roles that the aggregation rule selects, by name of role, each rule once."""
    assert role.aggregation_rule is not None
    result: list[rbac.PolicyRule] = []
    for each in role.aggregation_rule.cluster_role_selectors:
        selector = selectors.from_label_selector(each)
        for other in sorted(every, key=lambda found: found.metadata.name):
            if other.metadata.name == role.metadata.name or not selector.matches(other.metadata.labels):
                continue
            result += [rule for rule in other.rules or () if rule not in result]
    return result


class ClusterRoleAggregationController:
    """Keys are ClusterRoles with an aggregation rule."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._roles = wiring.reader(rbac.ClusterRole)
        self._roles.add_handler(self._changed)

    def _changed(self, old: rbac.ClusterRole | None, new: rbac.ClusterRole | None) -> None:
        for role in self._roles.list():
            if role.aggregation_rule is not None:
                self._wiring.enqueue(key_from(role))

    def sync(self, key: NamespacedName) -> Steps[None]:
        role = self._roles.get(*key)
        if role is None or role.aggregation_rule is None:
            return
        rules = gathered_rules(role, list(self._roles.list()))
        if rules == (role.rules or []):
            return
        body: dict[str, Any] = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": key.name},
        }
        if rules:  # No rules are not applied as an empty list: then nobody owns the field.
            body["rules"] = [serialization.to_tree(rule) for rule in rules]
        patch = Patch(PatchType.APPLY, body, field_manager=MANAGER, force=True)
        yield Change(resource_of(rbac.ClusterRole), "", key.name, patch)
