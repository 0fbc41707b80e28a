"""Nobody grants by roles or bindings what they may not do themselves, unless they may escalate or bind.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haven.api.rbac import v1 as rbac
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import ApiError, BadRequest, Forbidden, GroupResource, NotFound
from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.interface import MASTERS
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide
from haven.apiserver.authorization.rbac import RBAC, RoleNotFound
from haven.apiserver.authorization.rules import compact, describe, uncovered
from haven.apiserver.authorization.union import EVERYTHING
from haven.apiserver.request import UserInfo

__all__ = ["EscalationGuard", "only_changes_collection"]

GROUP = "rbac.authorization.k8s.io"


class UnknownRoleKind(ApiError):
    """A binding refers to what is no role; upstream answers 500 without a reason."""

    code, reason = 500, ""


class EscalationGuard:
    """Judges writes of roles and bindings. The registry asks it before it stores one."""

    def __init__(self, rules: RBAC, authorizer: Authorizer) -> None:
        self._rules = rules
        self._authorizer = authorizer

    async def check(
        self, user: UserInfo, new: Any, old: Any | None = None, *, requested_name: str | None = None
    ) -> None:
        """Raise Forbidden if writing `new` would give away more than the user has; other kinds pass.

        `requested_name` is the name in the request's path: "" on create, which matters to the verb escalate.
        """
        if MASTERS in user.groups:
            return
        if isinstance(new, rbac.Role | rbac.ClusterRole):
            name = requested_name if requested_name is not None else ("" if old is None else new.metadata.name)
            await self._check_role(user, new, old, name)
        elif isinstance(new, rbac.RoleBinding | rbac.ClusterRoleBinding):
            await self._check_binding(user, new, old)

    async def _check_role(self, user: UserInfo, new: rbac.Role | rbac.ClusterRole, old: Any | None, name: str) -> None:
        resource = "roles" if isinstance(new, rbac.Role) else "clusterroles"
        namespace = new.metadata.namespace
        escalate = Attributes(
            user, "escalate", group=GROUP, version="*", resource=resource, name=name, namespace=namespace
        )
        if (await decide(self._authorizer, escalate)).verdict is Verdict.ALLOW:
            return
        if old is not None and only_changes_collection(new, old):
            return
        kind = GroupResource(GROUP, resource)
        self._check_rules(user, namespace, new.rules or [], kind, new.metadata.name)
        if isinstance(new, rbac.ClusterRole) and (_aggregates(new) or (old is not None and _aggregates(old))):
            held = self._rules.rules_for(user, namespace)
            if uncovered(held.rules, EVERYTHING):
                because = "must have cluster-admin privileges to use the aggregationRule"
                raise Forbidden.of(kind, new.metadata.name, because)

    async def _check_binding(
        self, user: UserInfo, new: rbac.RoleBinding | rbac.ClusterRoleBinding, old: Any | None
    ) -> None:
        if old is not None and only_changes_collection(new, old):
            return
        namespace, reference = new.metadata.namespace, new.role_ref
        resource = "rolebindings" if isinstance(new, rbac.RoleBinding) else "clusterrolebindings"
        if reference.kind in ("Role", "ClusterRole"):
            bind = Attributes(
                user,
                "bind",
                group=reference.api_group,
                version="*",
                resource="roles" if reference.kind == "Role" else "clusterroles",
                name=reference.name,
                namespace=namespace,
            )
            if (await decide(self._authorizer, bind)).verdict is Verdict.ALLOW:
                return
        try:
            rules = self._rules.role_rules(reference, namespace)
        except RoleNotFound as error:
            if reference.kind not in ("Role", "ClusterRole"):
                raise UnknownRoleKind(str(error)) from error
            if not reference.name:
                raise BadRequest("Name parameter required.") from None
            if reference.kind == "Role" and not namespace:
                raise BadRequest("Namespace parameter required.") from None
            # Upstream looks the role up as part of the request, whose resource its words name.
            raise NotFound.of(GroupResource(GROUP, resource), reference.name) from error
        self._check_rules(user, namespace, rules, GroupResource(GROUP, resource), new.metadata.name)

    def _check_rules(
        self,
        user: UserInfo,
        namespace: str,
        rules: Sequence[rbac.PolicyRule],
        kind: GroupResource,
        name: str,
    ) -> None:
        held = self._rules.rules_for(user, namespace)
        missing = uncovered(held.rules, rules)
        if not missing:
            return
        groups = " ".join(quote(group) for group in user.groups)
        descriptions = "\n".join(sorted({describe(rule) for rule in compact(missing)}))
        message = (
            f"user {quote(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:"
            f"\n{descriptions}"
        )
        if held.error:
            message += f"; resolution errors: [{held.error}]"
        raise Forbidden.of(kind, name, message)


def _aggregates(role: rbac.ClusterRole) -> bool:
    return role.aggregation_rule is not None and bool(role.aggregation_rule.cluster_role_selectors)


def only_changes_collection(new: Any, old: Any) -> bool:
    """Tell whether only owners and finalizers differ, which the garbage collector writes."""
    one, other = serialization.to_tree(new), serialization.to_tree(old)
    for tree in (one, other):
        for field in ("ownerReferences", "finalizers", "managedFields"):
            tree["metadata"].pop(field, None)
    return bool(one == other)
