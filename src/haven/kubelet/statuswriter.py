"""Writes pod statuses to the API: only changes, the newest only, again until it works; and deletes pods that ended.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from haven.api.core.v1 import Pod, PodStatus
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization
from haven.client.interface import Client
from haven.clock import Clock
from haven.kubelet.podstatus import KUBELET_CONDITIONS
from haven.telemetry import logger

__all__ = ["StatusWriter"]

_log = logger("pod status")
_RETRY_SECONDS = 1.0
_CONFLICTS_MAX = 5


@dataclass(slots=True)
class _Pending:
    pod: Pod
    status: PodStatus
    written: bytes = b""
    is_finished: bool = False
    """Nothing of the pod runs any more: if it is to be deleted, it may go."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class StatusWriter:
    """The last status of every pod of this node. One writer task per pod with something to say."""

    def __init__(self, client: Client, clock: Clock, tasks: asyncio.TaskGroup) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._pods: dict[str, _Pending] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self.writes = 0

    def status(self, uid: str) -> PodStatus | None:
        """Return the last status that was set for a pod."""
        pending = self._pods.get(uid)
        return pending.status if pending else None

    def set(self, pod: Pod, status: PodStatus, *, is_finished: bool = False) -> None:
        """Report this status. `pod` is the API's object (the mirror, for a static pod)."""
        uid = pod.metadata.uid
        pending = self._pods.get(uid)
        if pending is None:
            pending = self._pods[uid] = _Pending(pod, status)
        pending.pod, pending.status = pod, status
        pending.is_finished |= is_finished
        content = serialization.encode(status)
        if content != pending.written or (pending.is_finished and pod.metadata.deletion_timestamp is not None):
            self._start(uid)

    def _start(self, uid: str) -> None:
        task = self._writers.get(uid)
        if task is None or task.done():
            self._writers[uid] = self._tasks.create_task(self._write(uid))
        else:
            self._pods[uid].wake.set()

    def forget(self, uid: str) -> None:
        """The pod is gone from the API."""
        self._pods.pop(uid, None)
        task = self._writers.pop(uid, None)
        if task is not None:
            task.cancel()

    async def _write(self, uid: str) -> None:
        while (pending := self._pods.get(uid)) is not None:
            pending.wake.clear()
            content = serialization.encode(pending.status)
            try:
                if content != pending.written:
                    await self._send(pending)
                    pending.written = content
                if pending.is_finished and pending.pod.metadata.deletion_timestamp is not None:
                    await self._delete(pending.pod)
                    return
            except apierrors.NotFound:
                return  # The informer will say the same.
            except apierrors.ApiError as error:
                _log.warning(
                    "status cannot be written yet",
                    pod=f"{pending.pod.metadata.namespace}/{pending.pod.metadata.name}",
                    reason=error.message,
                )
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            if not pending.wake.is_set():
                return

    async def _send(self, pending: _Pending) -> None:
        resource = resource_of(Pod)
        base = pending.pod
        for _ in range(_CONFLICTS_MAX):
            wanted = serialization.copy(base)
            wanted.status = merge(pending.status, base.status)
            try:
                self.writes += 1
                updated = await self._client.update(resource, wanted, subresource="status")
            except apierrors.Conflict:
                base = await self._client.get(resource, base.metadata.namespace, base.metadata.name)
                if base.metadata.uid != pending.pod.metadata.uid:
                    raise apierrors.NotFound("the pod was replaced by another of the same name") from None
                continue
            if updated.metadata.resource_version:
                pending.pod = updated
            return
        raise apierrors.Conflict("somebody else keeps changing the pod")

    async def _delete(self, pod: Pod) -> None:
        metadata = pod.metadata
        try:
            await self._client.delete(
                resource_of(Pod), metadata.namespace, metadata.name, uid=metadata.uid, grace_period_seconds=0
            )
        except apierrors.Conflict:
            return  # Another pod has the name now; ours is gone.


def merge(status: PodStatus, current: PodStatus) -> PodStatus:
    """Return our status with the conditions and claims that others own as the API has them now."""
    result = serialization.copy(status)
    foreign = {item.type: item for item in current.conditions if item.type not in KUBELET_CONDITIONS}
    own = {item.type for item in status.conditions}
    result.conditions = [foreign.pop(item.type, item) for item in result.conditions]
    result.conditions += [item for type_, item in foreign.items() if type_ not in own]
    result.nominated_node_name = current.nominated_node_name
    result.resource_claim_statuses = current.resource_claim_statuses
    result.extended_resource_claim_status = current.extended_resource_claim_status
    return result
