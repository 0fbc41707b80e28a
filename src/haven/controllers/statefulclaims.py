"""The claims of a StatefulSet's Pods: which there must be, and who owns them under the retention policy. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention
"""

from __future__ import annotations

from typing import Any

from haven.api.apps import v1 as apps
from haven.api.core import v1 as core
from haven.api.scheme import GroupVersionKind, resource_of
from haven.apimachinery import meta, serialization
from haven.client.owner import controller_reference

__all__ = [
    "claim_name",
    "claims_of",
    "has_conflicting_controller",
    "has_stale_reference",
    "is_owner_current",
    "owners_under_policy",
    "with_storage",
]

_SET = GroupVersionKind("apps", "v1", "StatefulSet")
_POD = GroupVersionKind("", "v1", "Pod")


def claim_name(owner: apps.StatefulSet, template_name: str, ordinal: int) -> str:
    """Return the name of a Pod's claim."""
    return f"{template_name}-{owner.metadata.name}-{ordinal}"


def claims_of(owner: apps.StatefulSet, ordinal: int) -> dict[str, core.PersistentVolumeClaim]:
    """Return the claims that a Pod needs, by the name of its volume."""
    result = {}
    for template in owner.spec.volume_claim_templates:
        claim = serialization.copy(template)
        claim.metadata.name = claim_name(owner, template.metadata.name, ordinal)
        claim.metadata.namespace = owner.metadata.namespace
        selector = owner.spec.selector or meta.LabelSelector()
        claim.metadata.labels = claim.metadata.labels | selector.match_labels
        claim.status = core.PersistentVolumeClaimStatus()
        result[template.metadata.name] = claim
    return result


def with_storage(owner: apps.StatefulSet, volumes: list[core.Volume], ordinal: int) -> list[core.Volume]:
    """Return a Pod's volumes with its claims in place of volumes of the same names."""
    claims = claims_of(owner, ordinal)
    mounted = [
        core.Volume(
            name=name,
            persistent_volume_claim=core.PersistentVolumeClaimVolumeSource(claim_name=claim.metadata.name),
        )
        for name, claim in claims.items()
    ]
    return mounted + [volume for volume in volumes if volume.name not in claims]


def _policy(owner: apps.StatefulSet) -> tuple[bool, bool]:
    """Return whether claims go with the set, and whether they go when it shrinks."""
    policy = owner.spec.persistent_volume_claim_retention_policy
    if policy is None:
        return False, False
    return policy.when_deleted == "Delete", policy.when_scaled == "Delete"


def _means(reference: meta.OwnerReference, obj: Any, kind: GroupVersionKind) -> bool:
    return (reference.api_version, reference.kind, reference.name) == (kind.api_version, kind.kind, obj.metadata.name)


def _owns(claim: core.PersistentVolumeClaim, owner: Any) -> bool:
    return any(reference.uid == owner.metadata.uid for reference in claim.metadata.owner_references)


def has_stale_reference(claim: core.PersistentVolumeClaim, obj: Any) -> bool:
    """Tell whether the claim belongs to an earlier set or Pod of the same name."""
    kind = resource_of(type(obj)).gvk
    for reference in claim.metadata.owner_references:
        if _means(reference, obj, kind):
            return bool(reference.uid != obj.metadata.uid)
    return False


def has_conflicting_controller(claim: core.PersistentVolumeClaim, owner: apps.StatefulSet, pod: core.Pod) -> bool:
    """Tell whether someone else controls the claim, so that the policy cannot be applied."""
    if _policy(owner) == (False, False):
        return False
    for reference in claim.metadata.owner_references:
        for obj, kind in ((owner, _SET), (pod, _POD)):
            if _means(reference, obj, kind):
                if reference.uid != obj.metadata.uid:
                    return True
                break
        else:
            if reference.controller:
                return True
    return False


def _wanted(owner: apps.StatefulSet, *, in_range: bool) -> tuple[bool, bool]:
    """Return whether the set, and whether the Pod, should own the claim."""
    on_deletion, on_scaling = _policy(owner)
    if on_scaling:
        return on_deletion and in_range, not in_range
    return on_deletion, False


def is_owner_current(
    claim: core.PersistentVolumeClaim, owner: apps.StatefulSet, pod: core.Pod, *, in_range: bool
) -> bool:
    """Tell whether the claim's owners are those that the policy asks for, or cannot be set."""
    if has_stale_reference(claim, owner) or has_stale_reference(claim, pod):
        return True  # Garbage collection will take it; it must not be given to a new Pod.
    if has_conflicting_controller(claim, owner, pod):
        return not (_owns(claim, owner) or _owns(claim, pod))
    ours = (owner.metadata.uid, pod.metadata.uid)
    if any(each.uid in ours and not each.controller for each in claim.metadata.owner_references):
        return False
    by_set, by_pod = _wanted(owner, in_range=in_range)
    return _owns(claim, owner) == by_set and _owns(claim, pod) == by_pod


def owners_under_policy(
    claim: core.PersistentVolumeClaim, owner: apps.StatefulSet, pod: core.Pod, *, in_range: bool
) -> list[meta.OwnerReference]:
    """Return the owner references that the claim should have."""
    kept = [
        each
        for each in claim.metadata.owner_references
        if not _means(each, owner, _SET) and not _means(each, pod, _POD)
    ]
    if has_conflicting_controller(claim, owner, pod):
        return kept
    by_set, by_pod = _wanted(owner, in_range=in_range)
    if by_pod:
        kept.append(controller_reference(pod, _POD))
    if by_set:
        kept.append(controller_reference(owner, _SET))
    return kept
