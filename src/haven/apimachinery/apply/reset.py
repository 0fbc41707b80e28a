"""Which fields a request to a resource cannot change, and so does not come to own.

A spec is written through the resource, a status through its status subresource. Which resources also shield their
metadata from status writes is a fact of each of upstream's strategies, gathered here.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from haven.apimachinery.apply.fieldset import FieldSet, of_paths, recursive_difference

__all__ = ["Reset", "custom_resource_reset", "reset_for"]


class Reset(NamedTuple):
    """What to leave out of every set."""

    exclude: FieldSet

    def filter(self, fields: FieldSet) -> FieldSet:
        """Return what is left of a set."""
        return recursive_difference(fields, self.exclude)


_WITH_STATUS = {
    "": ["namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "replicationcontrollers",
         "resourcequotas", "services"],
    "apps": ["daemonsets", "deployments", "replicasets", "statefulsets"],
    "autoscaling": ["horizontalpodautoscalers"],
    "batch": ["cronjobs", "jobs"],
    "networking.k8s.io": ["ingresses", "servicecidrs"],
    "policy": ["poddisruptionbudgets"],
    "flowcontrol.apiserver.k8s.io": ["flowschemas", "prioritylevelconfigurations"],
    "storage.k8s.io": ["volumeattachments"],
    "resource.k8s.io": ["resourceclaims", "devicetaintrules", "resourcepoolstatusrequests"],
    "admissionregistration.k8s.io": ["validatingadmissionpolicies"],
    "apiextensions.k8s.io": ["customresourcedefinitions"],
    "apiregistration.k8s.io": ["apiservices"],
    "internal.apiserver.k8s.io": ["storageversions"],
    "storagemigration.k8s.io": ["storageversionmigrations"],
    "scheduling.k8s.io": ["podgroups"],
}  # fmt: skip
_METADATA_TOO = {
    "flowschemas", "prioritylevelconfigurations", "volumeattachments", "resourceclaims", "devicetaintrules",
    "resourcepoolstatusrequests", "validatingadmissionpolicies", "apiservices", "storageversions",
    "storageversionmigrations", "podgroups", "servicecidrs",
}  # fmt: skip
_CERTIFICATES = "certificates.k8s.io"
_SPECIAL: dict[tuple[str, str, str], Reset] = {
    (_CERTIFICATES, "certificatesigningrequests", ""): Reset(of_paths(("spec",), ("status",))),
    (_CERTIFICATES, "certificatesigningrequests", "status"): Reset(of_paths(("spec",), ("status", "conditions"))),
    (_CERTIFICATES, "certificatesigningrequests", "approval"): Reset(of_paths(("spec",), ("status", "certificate"))),
    (_CERTIFICATES, "podcertificaterequests", "status"): Reset(of_paths(("spec",))),
    ("apps", "deployments", "status"): Reset(of_paths(("spec",), ("metadata", "labels"))),
    ("", "pods", "status"): Reset(
        of_paths(("spec",), ("metadata", "deletionTimestamp"), ("metadata", "ownerReferences"))
    ),
    ("", "namespaces", "finalize"): Reset(of_paths(("status",))),
}
_STATUS = Reset(of_paths(("status",)))
_SPEC = Reset(of_paths(("spec",)))
_SPEC_AND_METADATA = Reset(of_paths(("spec",), ("metadata",)))


@cache
def reset_for(group: str, resource: str, subresource: str = "") -> Reset | None:
    """Return what a write to a built-in resource, or to a subresource of it, leaves alone; None for nothing."""
    special = _SPECIAL.get((group, resource, subresource))
    if special is not None:
        return special
    if resource not in _WITH_STATUS.get(group, ()):
        return None
    if subresource == "":
        return _STATUS
    if subresource == "status":
        return _SPEC_AND_METADATA if resource in _METADATA_TOO else _SPEC
    return None


def custom_resource_reset(*, has_status: bool, subresource: str) -> Reset | None:
    """Return what a write to a custom resource leaves alone."""
    if subresource == "status":
        return _SPEC_AND_METADATA
    return _STATUS if has_status and subresource == "" else None
