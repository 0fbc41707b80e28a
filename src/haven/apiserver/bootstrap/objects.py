"""The objects that exist from the start: default roles, priority levels, namespaces and so on.

Source: facts.json, facts of Kubernetes v1.36;
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources as package_files
from typing import Any

from haven.api import scheme
from haven.api.apiregistration import v1 as apiregistration
from haven.api.core import v1 as core
from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.networking import v1 as networking
from haven.api.rbac import v1 as rbac
from haven.api.scheduling import v1 as scheduling
from haven.apimachinery import meta, serialization
from haven.apimachinery.structs import Struct
from haven.apiserver.bootstrap.gated import controller_roles, more_rules

__all__ = [
    "APF_AUTOUPDATE",
    "AUTOMANAGED",
    "AUTOUPDATE",
    "MANDATORY_FLOW_OBJECTS",
    "BootstrapSettings",
    "bootstrap_objects",
    "node_rules",
    "unstable_names",
    "unstable_versions",
]

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
APF_AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
MANDATORY_FLOW_OBJECTS = frozenset({"exempt", "catch-all"})
"""Without these no request would find a place; they are set right whatever their annotation says."""
CLUSTER_ADMINS_GROUP = "kubeadm:cluster-admins"
"""The group of the everyday administrator, as kubeadm has it: its rights can be taken away, unlike system:masters'."""
_GROUP = "rbac.authorization.k8s.io"
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"


@dataclass(frozen=True)
class BootstrapSettings:
    """What the objects contain of this cluster."""

    client_ca_pem: str = ""
    front_proxy_ca_pem: str = ""
    front_proxy_names: tuple[str, ...] = ("front-proxy-client",)
    service_networks: tuple[str, ...] = ("10.96.0.0/16",)
    states: Mapping[str, bool] = field(default_factory=dict)
    """Which feature gates are on: some bring rights."""
    unstable: tuple[tuple[str, str], ...] = ()
    """Group and version of what is served beyond the stable APIs."""


_UNSTABLE_PRIORITIES = {
    ("admissionregistration.k8s.io", "v1beta1"): (16700, 12),
    ("admissionregistration.k8s.io", "v1alpha1"): (16700, 9),
    ("certificates.k8s.io", "v1beta1"): (17300, 9),
    ("certificates.k8s.io", "v1alpha1"): (17300, 1),
    ("coordination.k8s.io", "v1beta1"): (16500, 13),
    ("coordination.k8s.io", "v1alpha2"): (16500, 12),
    ("internal.apiserver.k8s.io", "v1alpha1"): (16000, 9),
    ("networking.k8s.io", "v1beta1"): (17200, 9),
    ("resource.k8s.io", "v1beta2"): (16200, 15),
    ("resource.k8s.io", "v1beta1"): (16200, 9),
    ("resource.k8s.io", "v1alpha3"): (16200, 1),
    ("scheduling.k8s.io", "v1alpha2"): (16600, 2),
    ("storage.k8s.io", "v1beta1"): (16800, 9),
    ("storagemigration.k8s.io", "v1beta1"): (15800, 9),
}
"""The priorities of groups and versions that are served only when asked for."""


def unstable_versions(served: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return those of the served groups and versions whose APIServices are not always there."""
    return tuple(sorted(set(served).intersection(_UNSTABLE_PRIORITIES)))


def unstable_names() -> list[str]:
    """Return what the APIServices are called that are there only when their versions are served."""
    return [f"{version}.{group}" for group, version in _UNSTABLE_PRIORITIES]


def bootstrap_objects(settings: BootstrapSettings) -> Iterator[Any]:
    """Yield the objects, in an order in which each may refer to earlier ones; without UIDs and times."""
    facts = _facts()
    for name in facts["namespaces"]:
        yield _namespace(name)
    for row in facts["priorityclasses"]:
        yield _plain(scheduling.PriorityClass, row, generation=1)
    for kind, rows in (
        (flowcontrol.PriorityLevelConfiguration, facts["prioritylevelconfigurations"]),
        (flowcontrol.FlowSchema, facts["flowschemas"]),
    ):
        for row in rows:
            yield _plain(kind, row, annotations={APF_AUTOUPDATE: "true"}, generation=1)
    for row in facts["clusterroles"]:
        more = more_rules(row["name"], settings.states)
        yield _cluster_role({**row, "rules": [*row["rules"], *more]} if more else row)
    for row in facts["clusterrolebindings"]:
        yield _binding(rbac.ClusterRoleBinding, row)
    for role, binding in controller_roles(settings.states):
        yield _cluster_role(role)
        yield _binding(rbac.ClusterRoleBinding, binding)
    for row in facts["roles"]:
        yield rbac.Role(metadata=_metadata(row), rules=_rules(row))
    for row in facts["rolebindings"]:
        yield _binding(rbac.RoleBinding, row)
    yield _cluster_admins()
    for row in facts["apiservices"]:
        yield _plain(apiregistration.APIService, row, labels={AUTOMANAGED: "onstart"})
    for group, version in settings.unstable:
        of_group, of_version = _UNSTABLE_PRIORITIES[(group, version)]
        spec = {"group": group, "version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}
        row = {"name": f"{version}.{group}", "spec": spec}
        yield _plain(apiregistration.APIService, row, labels={AUTOMANAGED: "onstart"})
    yield networking.ServiceCIDR(
        metadata=meta.ObjectMeta(name="kubernetes"),
        spec=networking.ServiceCIDRSpec(cidrs=list(settings.service_networks)),
    )
    if settings.client_ca_pem:
        yield _authentication_config(settings)


def node_rules(states: Mapping[str, bool] | None = None) -> list[rbac.PolicyRule]:
    """Return what every node may do, for the Node authorizer; `states` says which feature gates are on."""
    own = next(_rules(row) for row in _facts()["clusterroles"] if row["name"] == "system:node")
    return own + _rules({"rules": more_rules("system:node", states or {})})


def _facts() -> dict[str, Any]:
    text = package_files.files(__package__).joinpath("facts.json").read_bytes()
    facts: dict[str, Any] = json.loads(text)
    return facts


def _namespace(name: str) -> core.Namespace:
    namespace = core.Namespace(
        metadata=meta.ObjectMeta(name=name, labels={"kubernetes.io/metadata.name": name}),
        spec=core.NamespaceSpec(finalizers=["kubernetes"]),
    )
    namespace.status.phase = "Active"
    return namespace


def _plain(
    kind: type[Struct],
    row: dict[str, Any],
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    generation: int = 0,
) -> Any:
    obj: Any = serialization.convert({key: value for key, value in row.items() if key != "name"}, kind)
    obj.metadata = meta.ObjectMeta(
        name=row["name"], labels=labels or {}, annotations=annotations or {}, generation=generation
    )
    return obj


def _metadata(row: dict[str, Any]) -> meta.ObjectMeta:
    namespace, _, name = row["name"].rpartition("/")
    return meta.ObjectMeta(
        namespace=namespace,
        name=name,
        labels={"kubernetes.io/bootstrapping": "rbac-defaults", **row.get("labels", {})},
        annotations={AUTOUPDATE: "true"},
    )


def _rules(row: dict[str, Any]) -> list[rbac.PolicyRule]:
    result = []
    for fields in row["rules"]:
        verbs, groups, resources, names, urls = [*fields, [], [], [], []][:5]
        result.append(
            rbac.PolicyRule(
                verbs=verbs, api_groups=groups, resources=resources, resource_names=names, non_resource_urls=urls
            )
        )
    return result


def _cluster_role(row: dict[str, Any]) -> rbac.ClusterRole:
    """Aggregating roles come with the rules that the controller will find, so that they work from the start."""
    aggregate = row.get("aggregate")
    return rbac.ClusterRole(
        metadata=_metadata(row),
        rules=_rules(row),
        aggregation_rule=None
        if aggregate is None
        else rbac.AggregationRule(
            cluster_role_selectors=[meta.LabelSelector(match_labels=labels) for labels in aggregate]
        ),
    )


def _binding(kind: type[rbac.RoleBinding] | type[rbac.ClusterRoleBinding], row: dict[str, Any]) -> Any:
    role_kind, _, role = row["role"].partition(" ")
    return kind(
        metadata=_metadata(row),
        role_ref=rbac.RoleRef(api_group=_GROUP, kind=role_kind, name=role),
        subjects=list(_subjects(row["subjects"])),
    )


def _subjects(texts: Sequence[str]) -> Iterator[rbac.Subject]:
    for text in texts:
        kind, _, name = text.partition(" ")
        kind, _, namespace = kind.partition(":")
        yield rbac.Subject(kind=kind, name=name, namespace=namespace, api_group="" if namespace else _GROUP)


def _cluster_admins() -> rbac.ClusterRoleBinding:
    return rbac.ClusterRoleBinding(
        metadata=meta.ObjectMeta(name=CLUSTER_ADMINS_GROUP),
        role_ref=rbac.RoleRef(api_group=_GROUP, kind="ClusterRole", name="cluster-admin"),
        subjects=[rbac.Subject(kind="Group", api_group=_GROUP, name=CLUSTER_ADMINS_GROUP)],
    )


def _authentication_config(settings: BootstrapSettings) -> core.ConfigMap:
    """Tell extension API servers how to authenticate clients and the aggregating proxy."""
    data = {"client-ca-file": settings.client_ca_pem}
    if settings.front_proxy_ca_pem:
        data |= {
            "requestheader-allowed-names": json.dumps(list(settings.front_proxy_names), separators=(",", ":")),
            "requestheader-client-ca-file": settings.front_proxy_ca_pem,
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
    return core.ConfigMap(
        metadata=meta.ObjectMeta(namespace="kube-system", name="extension-apiserver-authentication"), data=data
    )


def resource_of(obj: Any) -> scheme.Resource[Any]:
    """Return the resource of one of the objects."""
    return scheme.resource_of(type(obj))
