"""Keep claims that Pods use, and volumes that claims use, from being deleted under them.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.names import NamespacedName
from haven.controllers import pods
from haven.controllers.actions import ListNow, Steps, Update, Wiring, key_from

__all__ = ["ClaimProtectionController", "VolumeProtectionController", "claims_of_pod"]

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
BY_CLAIM = "claim"


def claims_of_pod(pod: core.Pod) -> list[str]:
    """Return the names of the claims that the Pod mounts, those made for it included."""
    names = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            names.append(volume.persistent_volume_claim.claim_name)
        elif volume.ephemeral is not None:
            names.append(f"{pod.metadata.name}-{volume.name}")
    return names


def _index_claims(pod: core.Pod) -> list[str]:
    return [f"{pod.metadata.namespace}/{name}" for name in claims_of_pod(pod)]


def _set_finalizer(obj: Any, finalizer: str, *, wanted: bool) -> Steps[None]:
    if (finalizer in obj.metadata.finalizers) == wanted:
        return
    changed = serialization.copy(obj)
    if wanted:
        changed.metadata.finalizers = [*obj.metadata.finalizers, finalizer]
    else:
        changed.metadata.finalizers = [each for each in obj.metadata.finalizers if each != finalizer]
    try:
        yield Update(changed)
    except apierrors.NotFound:
        return


class ClaimProtectionController:
    """Keys are claims."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._pods = wiring.reader(core.Pod)
        self._pods.add_index(BY_CLAIM, _index_claims)
        self._claims.add_handler(self._claim_changed)
        self._pods.add_handler(self._pod_changed)

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is not None:
            is_going = new.metadata.deletion_timestamp is not None
            if is_going == (CLAIM_FINALIZER in new.metadata.finalizers):
                self._wiring.enqueue(key_from(new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = old if new is None else new
        assert pod is not None
        if new is None or pods.is_finished(new):
            for name in claims_of_pod(pod):
                self._wiring.enqueue(NamespacedName(pod.metadata.namespace, name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        claim = self._claims.get(*key)
        if claim is None:
            return
        if claim.metadata.deletion_timestamp is None:
            yield from _set_finalizer(claim, CLAIM_FINALIZER, wanted=True)
            return
        place = f"{key.namespace}/{key.name}"
        if any(_uses(pod) for pod in self._pods.indexed(BY_CLAIM, place)):
            return
        if CLAIM_FINALIZER not in claim.metadata.finalizers:
            return
        # The cache may miss a Pod that was just made: only the server's own list may free a claim.
        for pod in (yield ListNow(resource_of(core.Pod), key.namespace)):
            if _uses(pod) and place in _index_claims(pod):
                return
        yield from _set_finalizer(claim, CLAIM_FINALIZER, wanted=False)


def _uses(pod: core.Pod) -> bool:
    """Tell whether the Pod holds on to its volumes: one that never reached a node has none."""
    return bool(pod.spec.node_name) and not (pods.is_finished(pod) and pod.metadata.deletion_timestamp is not None)


class VolumeProtectionController:
    """Keys are volumes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._volumes = wiring.reader(core.PersistentVolume)
        self._volumes.add_handler(self._changed)

    def _changed(self, old: core.PersistentVolume | None, new: core.PersistentVolume | None) -> None:
        if new is not None:
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        volume = self._volumes.get(*key)
        if volume is None:
            return
        if volume.metadata.deletion_timestamp is None:
            yield from _set_finalizer(volume, VOLUME_FINALIZER, wanted=True)
        elif volume.status.phase != "Bound":
            yield from _set_finalizer(volume, VOLUME_FINALIZER, wanted=False)
