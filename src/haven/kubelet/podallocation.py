"""What one pod asks for and what it has been given: its cgroup, and resizing while it runs.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

import asyncio

from haven.api.core.v1 import Pod, PodCondition, ResourceRequirements
from haven.apimachinery import times
from haven.kubelet.cgroups import CgroupLimits
from haven.kubelet.events import pod_reference
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podservices import PodServices, SyncError
from haven.kubelet.resize import (
    ResizePlan,
    allocation,
    differs,
    is_carried_out,
    larger,
    pending_condition,
    plan,
    progress_condition,
    resize_message,
    with_resources,
)
from haven.kubelet.resources import pod_cgroup_limits

__all__ = ["PodAllocation"]


class PodAllocation:
    """The resources of one pod. `conditions` tell of a resize that waits; `desired` is the pod that waits for it."""

    def __init__(self, services: PodServices, uid: str) -> None:
        self._services = services
        self._uid = uid
        self._applied: dict[str, ResourceRequirements] = {}
        self._limits: CgroupLimits | None = None
        self._pending: PodCondition | None = None
        self._progress: PodCondition | None = None
        self.desired: Pod | None = None

    @property
    def conditions(self) -> list[PodCondition]:
        """What there is to say of a resize that waits, and of one that is being carried out."""
        return [each for each in (self._pending, self._progress) if each is not None]

    def take(self, current: Pod, wanted: Pod, *, is_running: bool) -> Pod:
        """Return the pod as it may be now: with the resources that it asks for if the node has them, else as it was."""
        allocated = allocation(current)
        self.desired = None
        if not is_running or not differs(wanted, allocated):
            self._pending = None
            return wanted
        recorder, reference = self._services.recorder, pod_reference(wanted)
        now = times.format_time(self._services.clock.now_seconds())
        problem = self._services.cannot_fit(wanted)
        if problem is None:
            self._pending = None
            self._progress = progress_condition(wanted, now)
            recorder.normal(reference, "ResizeStarted", resize_message(wanted, "started"))
            return wanted
        self.desired = wanted
        old = self._pending if self._pending is not None and self._pending.reason == problem[0] else None
        since = old.last_transition_time if old is not None and old.last_transition_time else now
        self._pending = pending_condition(wanted, *problem, since)
        if old is None:
            recorder.warning(reference, f"Resize{problem[0]}", f"Pod resize {problem[0]}: {problem[1]}")
        return with_resources(wanted, allocated)

    def settle(self, pod: Pod, observed: ObservedPod) -> None:
        """Notice that a resize has been carried out."""
        if self._progress is not None and is_carried_out(pod, observed, self.plan(pod, observed)):
            self._progress = None
            self._services.recorder.normal(pod_reference(pod), "ResizeCompleted", resize_message(pod, "completed"))

    def started(self, container_id: str, resources: ResourceRequirements) -> None:
        """Note what a container was started with."""
        self._applied[container_id] = resources

    def plan(self, pod: Pod, observed: ObservedPod) -> ResizePlan:
        """Return which running containers get other limits, and which must be restarted for theirs."""
        return plan(pod, observed, self._applied, self._services.node.memory_bytes)

    async def ensure_cgroup(self, pod: Pod, observed: ObservedPod, tier: str, *, is_resizing: bool) -> None:
        """Make the pod's cgroup with its limits, roomy while containers are being resized; raise SyncError."""
        services = self._services
        limits = pod_cgroup_limits(pod, pids_max=services.settings.pod_pids_max)
        if self._limits is None and observed.running():
            self._limits = limits  # Taken over; its containers hold it.
        if is_resizing:
            limits = larger(self._limits, limits)
        if limits == self._limits:
            return
        try:
            await self._set(tier, limits)
        except OSError as error:
            text = f"failed to ensure that the pod: {self._uid} cgroups exist and are correctly applied: {error}"
            services.recorder.warning(pod_reference(pod), "FailedCreatePodContainer", text)
            raise SyncError(text) from error

    async def resize(self, pod: Pod, observed: ObservedPod, tier: str, resize: ResizePlan) -> None:
        """Give running containers their new limits, then the pod's cgroup; raise SyncError or RuntimeFailure."""
        services = self._services
        for container_id, wanted in resize.updates.items():
            await services.runtime.update_container_resources(container_id, wanted)
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            found = observed.find(container.name)
            if found is not None and found.status.id in resize.updates:
                self._applied[found.status.id] = container.resources
        try:
            await self._set(tier, pod_cgroup_limits(pod, pids_max=services.settings.pod_pids_max))
        except OSError as error:
            raise SyncError(f"failed to set pod cgroup config for {self._uid}: {error}") from error

    async def _set(self, tier: str, limits: CgroupLimits) -> None:
        cgroups = self._services.cgroups
        await asyncio.to_thread(cgroups.ensure, cgroups.pod_path(self._uid, tier), limits)
        self._limits = limits
