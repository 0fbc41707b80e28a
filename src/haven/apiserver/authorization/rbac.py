"""Role-based access control: who may do what, from the stored roles and bindings.

The index follows the four RBAC resources. Which bindings name a user, and what the rules allow, is looked up and
remembered per question, until `generation` moves because a role or a binding changed.
Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from haven.api import scheme
from haven.api.rbac import v1 as rbac
from haven.api.scheme import Resource
from haven.apimachinery.goformat import quote
from haven.apiserver.authentication.serviceaccounts import username
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.authorization.rules import CompiledRule, rule_allows
from haven.apiserver.request import UserInfo

__all__ = ["RBAC", "RoleNotFound"]

_DECISIONS_MAX = 65536
_NOTHING = Decision(Verdict.NO_OPINION)

ROLES = scheme.resource_of(rbac.Role)
CLUSTER_ROLES = scheme.resource_of(rbac.ClusterRole)
ROLE_BINDINGS = scheme.resource_of(rbac.RoleBinding)
CLUSTER_ROLE_BINDINGS = scheme.resource_of(rbac.ClusterRoleBinding)


class RoleNotFound(LookupError):
    """A binding refers to a role that does not exist; the message is upstream's."""


class _Role(NamedTuple):
    rules: list[rbac.PolicyRule]
    compiled: tuple[CompiledRule, ...]


class _Binding(NamedTuple):
    """A binding as one of its subjects sees it. `place` orders: by the binding's name, then the subject's position."""

    place: tuple[str, int]
    role_ref: rbac.RoleRef
    namespace: str
    subject: rbac.Subject

    def describe(self) -> str:
        kind, suffix = ("RoleBinding", f"/{self.namespace}") if self.namespace else ("ClusterRoleBinding", "")
        subject = self.subject
        name = subject.name
        if subject.kind == "ServiceAccount":
            name = f"{name}/{subject.namespace or self.namespace}"
        return (
            f"{kind} {quote(self.place[0] + suffix)} of {self.role_ref.kind} {quote(self.role_ref.name)}"
            f" to {subject.kind} {quote(name)}"
        )


class _Bindings:
    """The bindings of one namespace, or of the cluster, by user name and by group."""

    __slots__ = ("groups", "users")

    def __init__(self) -> None:
        self.users: dict[str, dict[tuple[str, int], _Binding]] = {}
        self.groups: dict[str, dict[tuple[str, int], _Binding]] = {}

    def change(self, binding: rbac.RoleBinding | rbac.ClusterRoleBinding, namespace: str, *, add: bool) -> None:
        for position, subject in enumerate(binding.subjects):
            index, key = self._place(subject, namespace)
            if index is None:
                continue
            place = (binding.metadata.name, position)
            if add:
                index.setdefault(key, {})[place] = _Binding(place, binding.role_ref, namespace, subject)
            else:
                known = index.get(key)
                if known is not None:
                    known.pop(place, None)
                    if not known:
                        del index[key]

    def _place(
        self, subject: rbac.Subject, namespace: str
    ) -> tuple[dict[str, dict[tuple[str, int], _Binding]] | None, str]:
        if subject.kind == "User":
            return self.users, subject.name
        if subject.kind == "Group":
            return self.groups, subject.name
        of = subject.namespace or namespace
        if subject.kind == "ServiceAccount" and of:
            return self.users, username(of, subject.name)
        return None, ""

    def of(self, user: UserInfo) -> list[_Binding]:
        """Return each binding that names the user once, by its first subject that does, in the order of names."""
        found: dict[tuple[str, int], _Binding] = dict(self.users.get(user.name, ()))
        for group in user.groups:
            found.update(self.groups.get(group, ()))
        first: dict[str, _Binding] = {}
        for place in sorted(found):
            first.setdefault(place[0], found[place])
        return list(first.values())


class RBAC:
    """Authorizes by roles. An Observer of the RBAC resources, and an Authorizer."""

    resources: Sequence[Resource[Any]] = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)

    def __init__(self) -> None:
        self.generation = 0
        self._cluster_roles: dict[str, _Role] = {}
        self._roles: dict[tuple[str, str], _Role] = {}
        self._cluster_bindings = _Bindings()
        self._bindings: dict[str, _Bindings] = {}
        self._decisions: dict[tuple[Any, ...], Decision] = {}

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        self.generation += 1
        self._decisions.clear()
        plural = resource.plural
        if plural == "clusterroles":
            _store(self._cluster_roles, old and old.metadata.name, new and new.metadata.name, new)
        elif plural == "roles":
            _store(
                self._roles,
                old and (old.metadata.namespace, old.metadata.name),
                new and (new.metadata.namespace, new.metadata.name),
                new,
            )
        else:
            if old is not None:
                self._bindings_of(old).change(old, old.metadata.namespace, add=False)
            if new is not None:
                self._bindings_of(new).change(new, new.metadata.namespace, add=True)

    def authorize(self, attributes: Attributes) -> Decision:
        user = attributes.user
        if attributes.is_resource:
            key: tuple[Any, ...] = (
                user.name,
                user.groups,
                attributes.verb,
                attributes.resource,
                attributes.namespace,
                attributes.name,
                attributes.group,
                attributes.subresource,
            )
        else:
            key = (user.name, user.groups, attributes.verb, attributes.path)
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= _DECISIONS_MAX:
                self._decisions.clear()
            decision = self._decisions[key] = self._decide(attributes)
        return decision

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        rules: list[rbac.PolicyRule] = []
        errors: list[str] = []
        for binding in self._bindings_for(user, namespace):
            try:
                rules.extend(self._role(binding.role_ref, binding.namespace).rules)
            except RoleNotFound as error:
                errors.append(str(error))
        return Rules(rules, error=_aggregate(errors), errors=tuple(errors))

    def role_rules(self, reference: rbac.RoleRef, namespace: str) -> list[rbac.PolicyRule]:
        """Return the rules that a binding in `namespace` ("" for the cluster) refers to; raise RoleNotFound."""
        return self._role(reference, namespace).rules

    def _decide(self, attributes: Attributes) -> Decision:
        errors: list[str] = []
        for binding in self._bindings_for(attributes.user, attributes.namespace):
            try:
                role = self._role(binding.role_ref, binding.namespace)
            except RoleNotFound as error:
                errors.append(str(error))
                continue
            if any(rule_allows(rule, attributes) for rule in role.compiled):
                return Decision(Verdict.ALLOW, f"RBAC: allowed by {binding.describe()}")
        return Decision(Verdict.NO_OPINION, f"RBAC: {_aggregate(errors)}") if errors else _NOTHING

    def _bindings_for(self, user: UserInfo, namespace: str) -> Iterator[_Binding]:
        yield from self._cluster_bindings.of(user)
        if namespace:
            local = self._bindings.get(namespace)
            if local is not None:
                yield from local.of(user)

    def _bindings_of(self, binding: rbac.RoleBinding | rbac.ClusterRoleBinding) -> _Bindings:
        namespace = binding.metadata.namespace
        return self._bindings.setdefault(namespace, _Bindings()) if namespace else self._cluster_bindings

    def _role(self, reference: rbac.RoleRef, namespace: str) -> _Role:
        if reference.kind == "ClusterRole":
            role = self._cluster_roles.get(reference.name)
        elif reference.kind == "Role":
            role = self._roles.get((namespace, reference.name))
        else:
            raise RoleNotFound(f"unsupported role reference kind: {quote(reference.kind)}")
        if role is None:
            raise RoleNotFound(f"{reference.kind.lower()}.rbac.authorization.k8s.io {quote(reference.name)} not found")
        return role


def _store(roles: dict[Any, _Role], old: Any, new: Any, role: rbac.Role | rbac.ClusterRole | None) -> None:
    if role is None:
        roles.pop(old, None)
    else:
        rules = role.rules or []
        roles[new] = _Role(rules, tuple(CompiledRule(rule) for rule in rules))


def _aggregate(errors: Sequence[str]) -> str:
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]" if unique else ""
