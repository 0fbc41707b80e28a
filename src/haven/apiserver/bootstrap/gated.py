"""Rights that come with feature gates: more rules of roles that there are anyway, and roles of gated controllers.

Source: what kube-apiserver v1.36 writes with and without each gate
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["controller_roles", "more_rules"]

_READ, _WRITE = ["get", "list", "watch"], ["patch", "update"]
_CERTIFICATES, _DEVICES, _SCHEDULING = ["certificates.k8s.io"], ["resource.k8s.io"], ["scheduling.k8s.io"]
_EVENTS = [["create", "patch", "update"], ["", "events.k8s.io"], ["events"]]
_EDIT = ["create", "delete", "deletecollection", "patch", "update"]
_PREFIX = "system:controller:"
Rules = list[list[list[str]]]

_MORE: dict[str, dict[str, Rules]] = {
    "GenericWorkload": {
        "system:aggregate-to-edit": [[_EDIT, _SCHEDULING, ["podgroups", "workloads"]]],
        "system:aggregate-to-view": [[_READ, _SCHEDULING, ["podgroups", "podgroups/status", "workloads"]]],
        "system:kube-scheduler": [
            [_READ, _SCHEDULING, ["podgroups"]],
            [_WRITE, _SCHEDULING, ["podgroups/status"]],
        ],
    },
    "WorkloadWithJob": {
        f"{_PREFIX}job-controller": [[["create", *_READ], _SCHEDULING, ["podgroups", "workloads"]]],
    },
    "DRAWorkloadResourceClaims": {
        f"{_PREFIX}resource-claim-controller": [
            [_READ, _SCHEDULING, ["podgroups"]],
            [_WRITE, _SCHEDULING, ["podgroups/status"]],
        ],
    },
    "DRADeviceTaintRules": {
        f"{_PREFIX}device-taint-eviction-controller": [
            [_WRITE, _DEVICES, ["devicetaintrules/status"]],
            [_READ, _DEVICES, ["devicetaintrules"]],
        ],
        "system:kube-scheduler": [[_READ, _DEVICES, ["devicetaintrules"]]],
    },
    "ClusterTrustBundle": {"system:node": [[_READ, _CERTIFICATES, ["clustertrustbundles"]]]},
    "PodCertificateRequest": {
        "system:node": [[["create", *_READ], _CERTIFICATES, ["podcertificaterequests"]]],
    },
}
_CONTROLLERS: dict[str, dict[str, Rules]] = {
    "ClusterTrustBundle": {
        "kube-apiserver-serving-clustertrustbundle-publisher": [
            [["attest"], _CERTIFICATES, ["signers"], ["kubernetes.io/kube-apiserver-serving"]],
            [["create", "delete", "list", "update", "watch"], _CERTIFICATES, ["clustertrustbundles"]],
            _EVENTS,
        ],
    },
    "PodCertificateRequest": {
        "podcertificaterequestcleaner": [[["delete", *_READ], _CERTIFICATES, ["podcertificaterequests"]]],
    },
    "DRAResourcePoolStatus": {
        "resourcepoolstatusrequest-controller": [
            [["delete", *_READ], _DEVICES, ["resourcepoolstatusrequests"]],
            [_WRITE, _DEVICES, ["resourcepoolstatusrequests/status"]],
            [_READ, _DEVICES, ["resourceslices"]],
            [_READ, _DEVICES, ["resourceclaims"]],
            _EVENTS,
        ],
    },
    "GenericWorkload": {
        "podgroup-protection-controller": [
            [["get", "list", "update", "watch"], _SCHEDULING, ["podgroups"]],
            [_READ, [""], ["pods"]],
        ],
    },
    "StorageVersionMigrator": {
        "storage-version-migrator-controller": [
            [["create", "list", "patch"], ["*"], ["*"]],
            [["get"], ["apiextensions.k8s.io"], ["customresourcedefinitions"]],
            [["patch"], ["apiextensions.k8s.io"], ["customresourcedefinitions/status"]],
            [["update"], ["storagemigration.k8s.io"], ["storageversionmigrations/status"]],
        ],
    },
    "StorageVersionAPI": {
        "storage-version-garbage-collector": [
            [_READ, ["coordination.k8s.io"], ["leases"]],
            [["delete", "get", "list", "patch", "update", "watch"], ["internal.apiserver.k8s.io"], ["storageversions"]],
            [["get", "patch", "update"], ["internal.apiserver.k8s.io"], ["storageversions/status"]],
        ],
    },
}


def more_rules(role: str, states: Mapping[str, bool]) -> Rules:
    """Return the rules that a cluster role has beyond those of every cluster."""
    return [rule for gate, roles in _MORE.items() if states.get(gate) for rule in roles.get(role, ())]


def controller_roles(states: Mapping[str, bool]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield cluster roles that only gates bring, each with its binding."""
    for gate, accounts in _CONTROLLERS.items():
        for account, rules in accounts.items() if states.get(gate) else ():
            name = _PREFIX + account
            subject = f"ServiceAccount:kube-system {account}"
            yield {"name": name, "rules": rules}, _bound(name, subject)
    if states.get("ClusterTrustBundle"):
        name = "system:cluster-trust-bundle-discovery"
        rules = [[_READ, _CERTIFICATES, ["clustertrustbundles"]]]
        yield {"name": name, "rules": rules}, _bound(name, "Group system:serviceaccounts")


def _bound(name: str, subject: str) -> dict[str, Any]:
    return {"name": name, "role": f"ClusterRole {name}", "subjects": [subject]}
