"""Kinds at versions that are served no longer, but still understood: a body of one is of the wrong version.

Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/
"""

from __future__ import annotations

from typing import Any

__all__ = ["from_retired", "is_retired"]

_ACCESS = ("LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview")
_LEVELS = ("FlowSchema", "PriorityLevelConfiguration")
_POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
_ROLES = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_RETIRED: dict[tuple[str, str], tuple[str, ...]] = {
    ("admissionregistration.k8s.io", "v1alpha1"): _POLICIES,
    ("admissionregistration.k8s.io", "v1beta1"): (
        *_POLICIES, "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
    ),
    ("apiextensions.k8s.io", "v1beta1"): ("CustomResourceDefinition",),
    ("apiregistration.k8s.io", "v1beta1"): ("APIService",),
    ("apps", "v1beta1"): ("ControllerRevision", "Deployment", "DeploymentRollback", "Scale", "StatefulSet"),
    ("apps", "v1beta2"): ("ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "Scale", "StatefulSet"),
    ("authentication.k8s.io", "v1beta1"): ("SelfSubjectReview", "TokenReview"),
    ("authorization.k8s.io", "v1beta1"): _ACCESS,
    ("batch", "v1beta1"): ("CronJob",),
    ("certificates.k8s.io", "v1beta1"): ("CertificateSigningRequest",),
    ("coordination.k8s.io", "v1beta1"): ("Lease",),
    ("discovery.k8s.io", "v1beta1"): ("EndpointSlice",),
    ("events.k8s.io", "v1beta1"): ("Event",),
    ("extensions", "v1beta1"): (
        "DaemonSet", "Deployment", "DeploymentRollback", "Ingress", "NetworkPolicy", "ReplicaSet", "Scale",
    ),
    ("flowcontrol.apiserver.k8s.io", "v1beta1"): _LEVELS,
    ("flowcontrol.apiserver.k8s.io", "v1beta2"): _LEVELS,
    ("flowcontrol.apiserver.k8s.io", "v1beta3"): _LEVELS,
    ("networking.k8s.io", "v1beta1"): ("Ingress", "IngressClass"),
    ("node.k8s.io", "v1alpha1"): ("RuntimeClass",),
    ("node.k8s.io", "v1beta1"): ("RuntimeClass",),
    ("policy", "v1beta1"): ("Eviction", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "v1alpha1"): _ROLES,
    ("rbac.authorization.k8s.io", "v1beta1"): _ROLES,
    ("scheduling.k8s.io", "v1beta1"): ("PriorityClass",),
    ("storage.k8s.io", "v1alpha1"): ("CSIStorageCapacity", "VolumeAttachment", "VolumeAttributesClass"),
    ("storage.k8s.io", "v1beta1"): ("CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"),
}  # fmt: skip


_MOVED = {
    ("extensions", "DaemonSet"): "apps",
    ("extensions", "Deployment"): "apps",
    ("extensions", "ReplicaSet"): "apps",
    ("extensions", "NetworkPolicy"): "networking.k8s.io",
}
_WITH_OTHER_FIELDS = frozenset(
    {
        ("apiextensions.k8s.io", "v1beta1"), ("apiregistration.k8s.io", "v1beta1"), ("discovery.k8s.io", "v1beta1"),
        ("events.k8s.io", "v1beta1"), ("flowcontrol.apiserver.k8s.io", "v1beta1"),
        ("flowcontrol.apiserver.k8s.io", "v1beta2"), ("networking.k8s.io", "v1beta1"), ("node.k8s.io", "v1alpha1"),
        ("rbac.authorization.k8s.io", "v1alpha1"),
    }
)  # fmt: skip
_LABELLED_BY_TEMPLATE = frozenset({("apps", "v1beta1"), ("extensions", "v1beta1")})


def from_retired(tree: dict[str, Any], api_version: str, kind: str) -> dict[str, Any] | None:
    """Return an object of a retired version as one of the version that followed, None if that cannot be.

    A patch can still make one, of an object that was written in the version that is served.
    """
    group, _, version = str(tree.get("apiVersion")).partition("/")
    home = api_version.partition("/")[0]
    if not is_retired(group, version, kind) or (group, version) in _WITH_OTHER_FIELDS:
        return None
    if home not in (group, _MOVED.get((group, kind))):
        return None
    result = {**tree, "apiVersion": api_version, "kind": kind}
    if (group, version) in _LABELLED_BY_TEMPLATE and kind != "NetworkPolicy":
        metadata = tree.get("metadata") or {}
        template = (tree.get("spec") or {}).get("template") or {}
        labels = (template.get("metadata") or {}).get("labels")
        if labels and not metadata.get("labels"):
            result["metadata"] = {**metadata, "labels": dict(labels)}
    return result


def is_retired(group: str, version: str, kind: str) -> bool:
    """Tell a kind at a version that is served no longer and yet known."""
    return kind in _RETIRED.get((group, version), ())
