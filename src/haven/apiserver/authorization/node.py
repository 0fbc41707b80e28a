"""What kubelets may do: read what the pods bound to their node refer to, and keep their own node's records.

The graph follows pods, volumes and the like; for each secret, config map, claim and so on it knows which nodes run a
pod that refers to it. What writes may contain is the NodeRestriction admission plugin's matter.
Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.rbac import v1 as rbac
from haven.apimachinery.goformat import quote
from haven.apimachinery.selectors import SelectorError, parse_fields
from haven.apiserver.authorization.interface import Attributes, Decision, Rules, Verdict
from haven.apiserver.authorization.nodegraph import Kind, NodeGraph
from haven.apiserver.authorization.rules import CompiledRule, rule_allows
from haven.apiserver.request import UserInfo

__all__ = ["NODES_GROUP", "NodeAuthorizer", "node_name_of"]

NODES_GROUP = "system:nodes"
USER_PREFIX = "system:node:"
_ALLOWED = Decision(Verdict.ALLOW)
_NOTHING = Decision(Verdict.NO_OPINION)
_OWN_VERBS = frozenset({"get", "create", "update", "patch", "delete"})
_READS = frozenset({"get", "list", "watch"})


def node_name_of(user: UserInfo) -> str | None:
    """Return the node that a kubelet's user stands for, "" if it is a kubelet of no known node, None if it is none."""
    if not user.name.startswith(USER_PREFIX) or NODES_GROUP not in user.groups:
        return None
    return user.name.removeprefix(USER_PREFIX)


def _refuse(reason: str) -> Decision:
    return Decision(Verdict.NO_OPINION, reason)


class NodeAuthorizer:
    """Authorizes kubelets. `rules` is what every node may do, from the default cluster role system:node."""

    def __init__(self, graph: NodeGraph, rules: Sequence[rbac.PolicyRule], *, pod_certificates: bool = False) -> None:
        self._graph = graph
        self._pod_certificates = pod_certificates
        self._rules = tuple(CompiledRule(rule) for rule in rules)

    def authorize(self, attributes: Attributes) -> Decision:
        user = attributes.user
        if not user.name.startswith(USER_PREFIX):
            return _NOTHING
        node = node_name_of(user)
        if node is None:
            return _NOTHING
        if not node:
            return _refuse(f"unknown node for user {quote(user.name)}")
        if attributes.is_resource:
            decision = self._decide(node, attributes)
            if decision is not None:
                return decision
        if any(rule_allows(rule, attributes) for rule in self._rules):
            return _ALLOWED
        return _NOTHING

    def rules_for(self, user: UserInfo, namespace: str) -> Rules:
        if node_name_of(user) is None:
            return Rules()
        return Rules(incomplete=True, error="node authorizer does not support user rule resolution")

    def _decide(self, node: str, asked: Attributes) -> Decision | None:
        match (asked.group, asked.resource):
            case ("", "secrets"):
                return self._read(node, Kind.SECRET, asked)
            case ("", "configmaps"):
                return self._read(node, Kind.CONFIG_MAP, asked)
            case ("", "persistentvolumeclaims"):
                if asked.subresource == "status":
                    if asked.verb not in ("update", "patch"):
                        return _refuse("can only get/update/patch this type")
                    return self._related(node, Kind.CLAIM, asked)
                return self._get(node, Kind.CLAIM, asked)
            case ("", "persistentvolumes"):
                return self._get(node, Kind.VOLUME, asked)
            case ("resource.k8s.io", "resourceclaims"):
                return self._get(node, Kind.RESOURCE_CLAIM, asked)
            case ("storage.k8s.io", "volumeattachments"):
                return self._get(node, Kind.ATTACHMENT, asked)
            case ("", "serviceaccounts"):
                return self._service_account(node, asked)
            case ("coordination.k8s.io", "leases"):
                return _lease(node, asked)
            case ("storage.k8s.io", "csinodes"):
                return _csi_node(node, asked)
            case ("resource.k8s.io", "resourceslices"):
                return self._resource_slice(node, asked)
            case ("", "nodes"):
                return _node(node, asked)
            case ("", "pods"):
                return self._pod(node, asked)
            case ("certificates.k8s.io", "podcertificaterequests") if self._pod_certificates:
                return self._certificate_request(node, asked)
        return None

    def _read(self, node: str, kind: Kind, asked: Attributes) -> Decision:
        if asked.verb not in _READS:
            return _refuse("can only read resources of this type")
        if asked.subresource:
            return _refuse("cannot read subresource")
        if not asked.namespace:
            return _refuse("can only read namespaced object of this type")
        return self._related(node, kind, asked)

    def _get(self, node: str, kind: Kind, asked: Attributes) -> Decision:
        if asked.verb != "get":
            return _refuse("can only get individual resources of this type")
        if asked.subresource:
            return _refuse("cannot get subresource")
        return self._related(node, kind, asked)

    def _related(self, node: str, kind: Kind, asked: Attributes) -> Decision:
        if not asked.name:
            return _refuse("No Object name found")
        if self._graph.is_related(node, kind, asked.namespace, asked.name):
            return _ALLOWED
        return _refuse(f"no relationship found between node '{node}' and this object")

    def _service_account(self, node: str, asked: Attributes) -> Decision:
        if asked.verb == "get" and not asked.subresource:
            return self._read(node, Kind.SERVICE_ACCOUNT, asked)
        if asked.verb != "create" or not asked.name:
            return _refuse("can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return _refuse("can only create token subresource of serviceaccount")
        return self._related(node, Kind.SERVICE_ACCOUNT, asked)

    def _resource_slice(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource:
            return _refuse("cannot authorize ResourceSlice subresources")
        if asked.verb == "create":
            return _ALLOWED
        if asked.verb in ("get", "update", "patch", "delete"):
            return self._related(node, Kind.SLICE, asked)
        if asked.verb in ("watch", "list", "deletecollection"):
            if _selects(asked, "spec.nodeName", node):
                return _ALLOWED
            return _refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
        return _refuse(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete,"
            " deletecollection"
        )

    def _certificate_request(self, node: str, asked: Attributes) -> Decision:
        if asked.subresource:
            return _refuse("nodes may not access the status subresource of PodCertificateRequests")
        if asked.verb == "create":
            return _ALLOWED
        if asked.verb == "get":
            return self._related(node, Kind.CERTIFICATE_REQUEST, asked)
        if asked.verb in ("list", "watch"):
            if _selects(asked, "spec.nodeName", node):
                return _ALLOWED
            return _refuse("can only list/watch podcertificaterequests with nodeName field selector")
        return _refuse(f"nodes may not {asked.verb} podcertificaterequests")

    def _pod(self, node: str, asked: Attributes) -> Decision:
        match (asked.subresource, asked.verb):
            case ("", "get"):
                return self._related(node, Kind.POD, asked)
            case ("", "list" | "watch"):
                if _selects(asked, "spec.nodeName", node):
                    return _ALLOWED
                if asked.name:
                    return self._related(node, Kind.POD, asked)
                return _refuse("can only list/watch pods with spec.nodeName field selector")
            case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
                return _ALLOWED
        return _NOTHING


def _node(node: str, asked: Attributes) -> Decision:
    match (asked.subresource, asked.verb):
        case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
            return _ALLOWED
        case ("", "get" | "list" | "watch"):
            if asked.name == node:
                return _ALLOWED
            if not asked.name:
                return _refuse(f"node '{node}' cannot read all nodes, only its own Node object")
            return _refuse(f"node '{node}' cannot read '{asked.name}', only its own Node object")
    return _NOTHING


def _lease(node: str, asked: Attributes) -> Decision:
    if asked.verb not in _OWN_VERBS:
        return _refuse("can only get, create, update, patch, or delete a node lease")
    if asked.namespace != "kube-node-lease":
        return _refuse('can only access leases in the "kube-node-lease" system namespace')
    if asked.verb != "create" and asked.name != node:
        return _refuse("can only access node lease with the same name as the requesting node")
    return _ALLOWED


def _csi_node(node: str, asked: Attributes) -> Decision:
    if asked.verb not in _OWN_VERBS:
        return _refuse("can only get, create, update, patch, or delete a CSINode")
    if asked.subresource:
        return _refuse("cannot authorize CSINode subresources")
    if asked.verb != "create" and asked.name != node:
        return _refuse("can only access CSINode with the same name as the requesting node")
    return _ALLOWED


def _selects(asked: Attributes, field: str, value: str) -> bool:
    if not asked.field_selector:
        return False
    try:
        requirements = parse_fields(asked.field_selector).requirements
    except SelectorError:
        return False
    return any(part.field == field and part.operator == "=" and part.value == value for part in requirements)
