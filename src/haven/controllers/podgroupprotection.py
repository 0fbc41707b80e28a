"""Hold back the deletion of groups of Pods while Pods that are not finished belong to them.

Source: https://kubernetes.io/docs/concepts/workloads/podgroup-api/
"""

from __future__ import annotations

from collections.abc import Iterable

from haven.api.core import v1 as core
from haven.api.scheduling import v1alpha2 as scheduling
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.names import NamespacedName
from haven.controllers.actions import ListNow, Steps, Update, Wiring, key_from

__all__ = ["PodGroupProtectionController"]

FINALIZER = "scheduling.k8s.io/podgroup-protection"
GROUP = "pod group"


def _group_of(pod: core.Pod) -> str:
    group = pod.spec.scheduling_group
    return (group.pod_group_name or "") if group is not None else ""


def _index(pod: core.Pod) -> Iterable[str]:
    return [f"{pod.metadata.namespace}/{name}"] if (name := _group_of(pod)) else ()


def _is_active(pod: core.Pod) -> bool:
    return pod.status.phase not in ("Succeeded", "Failed")


class PodGroupProtectionController:
    """Keys are places of groups."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._groups = wiring.reader(scheduling.PodGroup)
        self._pods = wiring.reader(core.Pod)
        self._pods.add_index(GROUP, _index)
        self._groups.add_handler(self._group_changed)
        self._pods.add_handler(self._pod_changed)

    def _group_changed(self, _old: scheduling.PodGroup | None, new: scheduling.PodGroup | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._wiring.enqueue(key_from(new))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if old is not None and (name := _group_of(old)) and (new is None or not _is_active(new)):
            self._wiring.enqueue(NamespacedName(old.metadata.namespace, name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        group = self._groups.get(key.namespace, key.name)
        if group is None or group.metadata.deletion_timestamp is None or FINALIZER not in group.metadata.finalizers:
            return
        if any(_is_active(pod) for pod in self._pods.indexed(GROUP, f"{key.namespace}/{key.name}")):
            return
        # A Pod that the cache does not show yet may belong to the group: ask the server.
        found = yield ListNow(resource_of(core.Pod), key.namespace)
        if any(_group_of(pod) == key.name and _is_active(pod) for pod in found):
            return
        changed = serialization.copy(group)
        changed.metadata.finalizers = [each for each in changed.metadata.finalizers if each != FINALIZER]
        try:
            yield Update(changed)
        except apierrors.NotFound:
            return
