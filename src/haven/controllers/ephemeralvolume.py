"""Make the claims that Pods' ephemeral volumes ask for; they go with their Pod.

Source: https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_reference, is_controlled_by
from haven.controllers.actions import Create, Emit, Retry, Steps, Wiring, key_from
from haven.controllers.counts import Counts
from haven.controllers.protection import CLAIMS, index_by_claim

__all__ = ["EphemeralVolumeController"]


class EphemeralVolumeController:
    """Keys are places of Pods."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._pods = wiring.reader(core.Pod)
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._pods.add_index(CLAIMS, index_by_claim)
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._claim_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        # Volumes of a Pod never change, so only a new Pod is of interest.
        if new is not None and (old is None or old.metadata.uid != new.metadata.uid):
            self._enqueue(new)

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is None and old is not None:
            for pod in self._pods.indexed(CLAIMS, f"{old.metadata.namespace}/{old.metadata.name}"):
                self._enqueue(pod)

    def _enqueue(self, pod: core.Pod) -> None:
        if pod.metadata.deletion_timestamp is None and any(each.ephemeral is not None for each in pod.spec.volumes):
            self._wiring.enqueue(key_from(pod))

    def sync(self, key: NamespacedName) -> Steps[None]:
        pod = self._pods.get(key.namespace, key.name)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return
        for volume in pod.spec.volumes:
            if volume.ephemeral is None or volume.ephemeral.volume_claim_template is None:
                continue
            complaint = yield from self._ensure(
                pod, f"{key.name}-{volume.name}", volume.ephemeral.volume_claim_template
            )
            if complaint:
                yield Emit(pod, "Warning", "FailedBinding", f"ephemeral volume {volume.name}: {complaint}")
                raise Retry(complaint)

    def _ensure(self, pod: core.Pod, name: str, template: core.PersistentVolumeClaimTemplate) -> Steps[str]:
        """See that a Pod has a claim of its own; return why it cannot, "" if it has."""
        namespace = pod.metadata.namespace
        present = self._claims.get(namespace, name)
        if present is not None:
            if is_controlled_by(present, pod.metadata.uid):
                return ""
            return f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name} (pod is not owner)"
        source = serialization.copy(template)
        claim = core.PersistentVolumeClaim(
            metadata=meta.ObjectMeta(
                name=name,
                namespace=namespace,
                labels=source.metadata.labels,
                annotations=source.metadata.annotations,
                owner_references=[controller_reference(pod, resource_of(core.Pod).gvk)],
            ),
            spec=source.spec,
        )
        self.counts.add("ephemeral_volume_controller_create_total")
        try:
            yield Create(claim)
        except apierrors.ApiError as error:
            self.counts.add("ephemeral_volume_controller_create_failures_total")
            return f"create PVC {name}: {error}"
        return ""
