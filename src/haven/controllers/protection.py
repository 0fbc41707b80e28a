"""Hold back the deletion of claims that Pods use, and of volumes that claims are bound to.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from __future__ import annotations

from collections.abc import Iterable

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.names import NamespacedName
from haven.controllers import pods
from haven.controllers.actions import ListNow, Steps, Update, Wiring, key_from

__all__ = ["CLAIMS", "ClaimProtectionController", "VolumeProtectionController", "claims_of", "index_by_claim", "uses"]

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLAIMS = "claims"


def claims_of(pod: core.Pod) -> Iterable[str]:
    """Yield the names of the claims that a Pod's volumes are, those made for ephemeral volumes included."""
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name
        elif volume.ephemeral is not None:
            yield f"{pod.metadata.name}-{volume.name}"


def index_by_claim(pod: core.Pod) -> Iterable[str]:
    """Index Pods by namespace/name of each claim."""
    return [f"{pod.metadata.namespace}/{name}" for name in claims_of(pod)]


def uses(pod: core.Pod, claim: core.PersistentVolumeClaim) -> bool:
    """Tell whether a Pod keeps a claim from being deleted: it has a node and mounts the claim, even if it ended.

    A Pod that no node has yet never starts once the claim is being deleted. A claim made for a Pod goes as soon as the
    kubelet is done with the Pod, because either may be waiting for the other.
    """
    if not pod.spec.node_name:
        return False
    for volume in pod.spec.volumes:
        source = volume.persistent_volume_claim
        if source is not None and source.claim_name == claim.metadata.name:
            return True
        if volume.ephemeral is not None and f"{pod.metadata.name}-{volume.name}" == claim.metadata.name:
            is_its_own = any(
                each.controller and each.uid == pod.metadata.uid for each in claim.metadata.owner_references
            )
            if is_its_own and not _is_shut_down(pod):
                return True
    return False


def _is_shut_down(pod: core.Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None and pod.metadata.deletion_grace_period_seconds == 0


class ClaimProtectionController:
    """Keys are places of claims."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._pods = wiring.reader(core.Pod)
        self._pods.add_index(CLAIMS, index_by_claim)
        self._claims.add_handler(self._claim_changed)
        self._pods.add_handler(self._pod_changed)

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is not None and _wants_work(new, CLAIM_FINALIZER):
            self._wiring.enqueue(key_from(new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is not None and (pods.is_finished(new) or _is_shut_down(new) or not new.spec.node_name):
            self._enqueue_claims(new)
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._enqueue_claims(old)

    def _enqueue_claims(self, pod: core.Pod) -> None:
        for name in claims_of(pod):
            self._wiring.enqueue(NamespacedName(pod.metadata.namespace, name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        claim = self._claims.get(key.namespace, key.name)
        if claim is None or not _wants_work(claim, CLAIM_FINALIZER):
            return
        if claim.metadata.deletion_timestamp is not None:
            if any(uses(pod, claim) for pod in self._pods.indexed(CLAIMS, f"{key.namespace}/{key.name}")):
                return
            # A Pod that the cache does not show yet could lose its data: ask the server.
            current = yield ListNow(resource_of(core.Pod), key.namespace)
            if any(uses(pod, claim) for pod in current):
                return
        yield from _toggle(claim, CLAIM_FINALIZER)


class VolumeProtectionController:
    """Keys are names of volumes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._volumes = wiring.reader(core.PersistentVolume)
        self._volumes.add_handler(self._volume_changed)

    def _volume_changed(self, old: core.PersistentVolume | None, new: core.PersistentVolume | None) -> None:
        if new is not None and _wants_work(new, VOLUME_FINALIZER):
            self._wiring.enqueue(new.metadata.name)

    def sync(self, key: str) -> Steps[None]:
        volume = self._volumes.get("", key)
        if volume is None or not _wants_work(volume, VOLUME_FINALIZER):
            return
        if volume.metadata.deletion_timestamp is not None and volume.status.phase == "Bound":
            return
        yield from _toggle(volume, VOLUME_FINALIZER)


def _wants_work(obj: core.PersistentVolumeClaim | core.PersistentVolume, finalizer: str) -> bool:
    """Tell whether an object is to be deleted and held, or is not held and not to be deleted."""
    return (obj.metadata.deletion_timestamp is not None) == (finalizer in obj.metadata.finalizers)


def _toggle(obj: core.PersistentVolumeClaim | core.PersistentVolume, finalizer: str) -> Steps[None]:
    changed = serialization.copy(obj)
    if finalizer in changed.metadata.finalizers:
        changed.metadata.finalizers = [each for each in changed.metadata.finalizers if each != finalizer]
    else:
        changed.metadata.finalizers.append(finalizer)
    try:
        yield Update(changed)
    except apierrors.NotFound:
        return
