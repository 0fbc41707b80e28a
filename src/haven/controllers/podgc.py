"""Remove Pods that nobody else will: those of vanished nodes, stuck unscheduled ones, and surplus finished ones.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.controllers import pods
from haven.controllers.actions import Fetch, Requeue, Steps, Wiring
from haven.controllers.counts import Counts

__all__ = ["PodGarbageCollector", "surplus"]

FINISHED_PODS_MAX = 12_500
CHECK_SECONDS = 20.0
QUARANTINE_SECONDS = 40.0  # A node that was just replaced may be a moment late in the cache.


def surplus(finished: Sequence[core.Pod], maximum: int) -> list[core.Pod]:
    """Return the finished Pods beyond the limit, evicted ones first, then the oldest."""
    count = len(finished) - maximum
    if count <= 0:
        return []

    def order(pod: core.Pod) -> tuple[bool, str, str]:
        evicted = pod.status.phase == "Failed" and pod.status.reason == "Evicted"
        return (not evicted, pod.metadata.creation_timestamp or "", pod.metadata.name)

    return sorted(finished, key=order)[:count]


class PodGarbageCollector:
    """One key, worked on from time to time, and at once when a node goes or an unscheduled Pod is deleted."""

    workers = 1

    def __init__(self, wiring: Wiring, *, finished_pods_max: int = FINISHED_PODS_MAX) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._finished_pods_max = finished_pods_max
        self._pods = wiring.reader(core.Pod)
        self._nodes = wiring.reader(core.Node)
        self._missing_since: dict[str, float] = {}
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is None:
            return
        if new.metadata.deletion_timestamp is not None and not new.spec.node_name:
            self._wiring.enqueue("")
            return
        is_lost = bool(new.spec.node_name) and self._nodes.get("", new.spec.node_name) is None
        just_finished = old is not None and pods.is_finished(new) and not pods.is_finished(old)
        if is_lost or just_finished:
            self._wiring.enqueue_after("", CHECK_SECONDS)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None or any(taint.key == "node.kubernetes.io/out-of-service" for taint in new.spec.taints):
            self._wiring.enqueue_after("", 1.0)

    def sync(self, key: str) -> Steps[None]:
        every = self._pods.list()
        now = self._wiring.now_seconds()
        finished = [pod for pod in every if pods.is_finished(pod)]
        for pod in surplus(finished, self._finished_pods_max):
            yield from self._delete(pod, "terminated", pods.fail_and_delete(pod, "", "", "", now))
        for pod in self._out_of_service(every):
            yield from self._delete(pod, "out-of-service", pods.fail_and_delete(pod, "", "", "", now))
        for pod in (yield from self._orphans(every)):
            message = "PodGC: node no longer exists"
            deletion = pods.fail_and_delete(pod, "DisruptionTarget", "DeletionByPodGC", message, now)
            yield from self._delete(pod, "orphaned", deletion)
        for pod in every:
            if pod.metadata.deletion_timestamp is not None and not pod.spec.node_name:
                yield from self._delete(pod, "unscheduled", pods.fail_and_delete(pod, "", "", "", now))

    def _delete(self, pod: core.Pod, reason: str, deletion: Steps[None]) -> Steps[None]:
        """Delete a Pod, and count that, or that it failed."""
        labels = (pod.metadata.namespace, reason)
        self.counts.add("pod_gc_collector_force_delete_pods_total", *labels)
        try:
            yield from deletion
        except apierrors.ApiError:
            self.counts.add("pod_gc_collector_force_delete_pod_errors_total", *labels)
            raise

    def _out_of_service(self, every: Iterable[core.Pod]) -> list[core.Pod]:
        result = []
        for pod in every:
            if pod.metadata.deletion_timestamp is None:
                continue
            node = self._nodes.get("", pod.spec.node_name)
            if node is None or any(each.type == "Ready" and each.status == "True" for each in node.status.conditions):
                continue
            if any(taint.key == "node.kubernetes.io/out-of-service" for taint in node.spec.taints):
                result.append(pod)
        return result

    def _orphans(self, every: Iterable[core.Pod]) -> Steps[list[core.Pod]]:
        now = self._wiring.now_seconds()
        named = {pod.spec.node_name for pod in every if pod.spec.node_name}
        missing = sorted(name for name in named if self._nodes.get("", name) is None)
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        gone: set[str] = set()
        for name in missing:
            if now - self._missing_since[name] < QUARANTINE_SECONDS:
                continue
            if (yield Fetch(resource_of(core.Node), "", name)) is None:
                gone.add(name)
        if len(gone) < len(missing):
            yield Requeue(CHECK_SECONDS)
        return [pod for pod in every if pod.spec.node_name in gone]
