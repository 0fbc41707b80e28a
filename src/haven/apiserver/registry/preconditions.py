"""What a client is told whose update means another object of the same name.

Source: the behaviour of k8s.io/apiserver/pkg/storage, whose keys are shown.
"""

from __future__ import annotations

from haven.apimachinery import apierrors

__all__ = ["uid_mismatch"]

_FOLDERS = {
    ("", "endpoints"): "services/endpoints",
    ("", "nodes"): "minions",
    ("", "replicationcontrollers"): "controllers",
    ("", "services"): "services/specs",
    ("networking.k8s.io", "ingresses"): "ingress",
}
"""Where upstream's keys are not simply below the resource's name."""


def uid_mismatch(
    resource: apierrors.GroupResource,
    stored: apierrors.GroupResource,
    namespace: str,
    name: str,
    *,
    wanted: str,
    found: str,
    dry_run: bool,
) -> apierrors.Conflict:
    """Return the refusal, with the key under which upstream stores the object; a dry run shows it without its head."""
    folder = _FOLDERS.get((stored.group, stored.resource), stored.resource)
    key = f"{'' if dry_run else '/registry'}/{folder}/{namespace + '/' if namespace else ''}{name}"
    because = (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    )
    return apierrors.Conflict.of(resource, name, because)
