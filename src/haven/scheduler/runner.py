"""The scheduler's shell: informers feed the queue and the snapshot, one loop places Pods, binds run beside it.

A Pod that was placed is counted on its node at once (*assumed*), before the API server has bound it, so that the next
cycle sees the room it takes. A bind that fails takes it back and the Pod is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol, cast

from haven import telemetry
from haven.api.core import v1 as core
from haven.api.policy import v1 as policy
from haven.api.scheme import resource_of
from haven.api.storage import v1 as storage
from haven.apimachinery import apierrors, meta, times
from haven.apimachinery.names import UID
from haven.client.interface import Client, Patch, PatchType
from haven.client.sharedinformers import SharedInformers
from haven.clock import Clock
from haven.scheduler import queue as queues
from haven.scheduler.cycle import Failure, Placement, default_profile, place
from haven.scheduler.metrics import AttemptTimes
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.preemption import Preemption, find_preemption
from haven.scheduler.queue import ClusterEvent, Queue
from haven.scheduler.snapshot import Snapshot
from haven.scheduler.volumes import BindingFailed, Claim, Listers, PodVolumes, Volume, Volumes
from haven.scheduler.volumewriter import VolumeWriter

__all__ = ["Recorder", "Scheduler", "Settings", "Statistics"]

_log = telemetry.logger("scheduler")
_PODS = resource_of(core.Pod)


class Recorder(Protocol):
    """Writes Events."""

    def event(self, regarding: object, type: str, reason: str, note: str, *, action: str = "") -> None:
        """Say what happened to an object; never blocks."""
        ...


@dataclass(frozen=True)
class Settings:
    """How the scheduler works."""

    scheduler_name: str = "default-scheduler"  # Pods name the scheduler they want.
    binds_max: int = 64  # Binds under way at once; more would only wait in the API server.
    volume_bind_timeout_seconds: float = 600.0  # How long a Pod waits for its volumes to be made.
    pods_per_turn_max: int = 16  # Cycles before other tasks of the event loop get their turn.


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot for metrics."""

    nodes: int
    queue: queues.Statistics
    placed: int
    failed: int
    preempted: int
    errors: int
    pods: int
    assumed: int
    gated: int
    incoming: Mapping[tuple[str, str], int] = field(default_factory=dict)
    ruled_out: Mapping[str, int] = field(default_factory=dict)


class Scheduler:
    """Places the Pods of one scheduler name. `run` does the work until cancelled."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        informers: SharedInformers,
        recorder: Recorder,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._client = client
        self._recorder = recorder
        self._clock = clock
        self._chance = chance
        self._snapshot = Snapshot()
        self._queue = Queue()
        self._wake = asyncio.Event()
        self._assumed: dict[UID, str] = {}
        self._began: dict[UID, float] = {}
        """When the attempt began that placed a Pod which is being bound."""
        self._tried: dict[UID, tuple[int, float | None]] = {}
        """How often such a Pod was tried, and since when."""
        self._nominated: dict[UID, tuple[PodInfo, str]] = {}
        self._binds = asyncio.Semaphore(settings.binds_max)
        self._placed = self._failed = self._preempted = self._errors = 0
        self.times = AttemptTimes()
        self._pods = informers.informer(core.Pod)
        self._nodes = informers.informer(core.Node)
        self._namespaces = informers.informer(core.Namespace)
        self._budgets = informers.informer(policy.PodDisruptionBudget)
        self._storage = (
            informers.informer(Claim),
            informers.informer(Volume),
            informers.informer(storage.StorageClass),
            informers.informer(storage.CSINode),
            informers.informer(storage.CSIDriver),
            informers.informer(storage.CSIStorageCapacity),
            informers.informer(storage.VolumeAttachment),
        )
        self._volumes = Volumes(Listers(*self._storage))
        self._volume_writer = VolumeWriter(
            client,
            self._volumes,
            lambda name: self._nodes.get("", name),
            clock,
            settings.volume_bind_timeout_seconds,
        )
        self._profile = default_profile(self._snapshot, self._namespace_labels, self._volumes)

    def statistics(self) -> Statistics:
        """Return a snapshot for metrics."""
        return Statistics(
            self._snapshot.node_count,
            self._queue.statistics(),
            self._placed,
            self._failed,
            self._preempted,
            self._errors,
            len(self._snapshot.row_of_pod),
            len(self._assumed),
            sum(1 for pod in self._pods.list() if pod.spec.scheduling_gates),
            self._queue.incoming,
            self._queue.ruled_out(),
        )

    async def run(self) -> None:
        """Schedule until cancelled."""
        claims, volumes, classes, csi_nodes, csi_drivers, capacities, attachments = self._storage
        removers = [
            self._nodes.add_handler(self._node_changed),
            self._pods.add_handler(self._pod_changed),
            claims.add_handler(self._claim_changed),
            volumes.add_handler(self._volume_changed),
            classes.add_handler(self._on_change(ClusterEvent.STORAGE_CLASS)),
            csi_nodes.add_handler(self._on_change(ClusterEvent.CSI)),
            csi_drivers.add_handler(self._on_change(ClusterEvent.CSI)),
            capacities.add_handler(self._on_change(ClusterEvent.CSI)),
            attachments.add_handler(self._attachment_changed),
        ]
        try:
            for informer in (*self._storage, self._namespaces, self._budgets, self._nodes, self._pods):
                await informer.wait_synced()
            async with asyncio.TaskGroup() as tasks:
                await self._loop(tasks)
        finally:
            for remove in removers:
                remove()

    async def _loop(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            for _ in range(self._settings.pods_per_turn_max):
                info = self._queue.pop(self._clock.now_seconds())
                if info is None:
                    break
                await self._schedule(info, tasks)
            due = self._queue.next_due_seconds(self._clock.now_seconds())
            if due == 0.0:
                await asyncio.sleep(0)
                continue
            await self._wait_event(due)

    async def _wait_event(self, seconds: float | None) -> None:
        """Return at the next event, or after so many seconds."""
        if seconds is None:
            await self._wake.wait()
            return
        waiting = {asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()

    # What the cluster tells

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_node(old.metadata.name)
            return
        if old is not None and _same_for_scheduling(old, new):
            return
        self._snapshot.set_node(new)
        self._happened(ClusterEvent.NODE_ADDED if old is None else ClusterEvent.NODE_CHANGED)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is None or new.status.phase in ("Succeeded", "Failed"):
            gone = new or old
            assert gone is not None
            self._forget(gone.metadata.uid)
            return
        uid = new.metadata.uid
        if new.spec.node_name:
            if self._snapshot.row_of_pod.get(uid) is None or uid in self._assumed or _changed(old, new):
                self._assumed.pop(uid, None)
                self._nominated.pop(uid, None)
                self._queue.remove(uid)
                self._snapshot.add_pod(PodInfo.of(new), new.spec.node_name)
                self._happened(ClusterEvent.POD_PLACED)
            return
        if uid in self._assumed:
            return
        mine = (new.spec.scheduler_name or "default-scheduler") == self._settings.scheduler_name
        if not mine or new.metadata.deletion_timestamp or new.spec.scheduling_gates:
            self._queue.remove(uid)
            self._nominated.pop(uid, None)
            return
        info = PodInfo.of(new)
        if new.status.nominated_node_name:
            self._nominated[uid] = (info, new.status.nominated_node_name)
        else:
            self._nominated.pop(uid, None)
        self._queue.add(info, self._clock.now_seconds())
        self._wake.set()

    def _claim_changed(self, old: Claim | None, new: Claim | None) -> None:
        self._volume_writer.changed()
        if new is not None:
            self._happened(ClusterEvent.CLAIM, claim=f"{new.metadata.namespace}/{new.metadata.name}")

    def _volume_changed(self, old: Volume | None, new: Volume | None) -> None:
        self._volume_writer.changed()
        if new is not None:
            self._happened(ClusterEvent.VOLUME)

    def _attachment_changed(self, old: storage.VolumeAttachment | None, new: storage.VolumeAttachment | None) -> None:
        if new is None:
            self._happened(ClusterEvent.DETACHED)

    def _on_change(self, event: ClusterEvent) -> Callable[[object, object], None]:
        def changed(old: object, new: object) -> None:
            self._happened(event)

        return changed

    def _forget(self, uid: UID) -> None:
        self._queue.remove(uid)
        self._assumed.pop(uid, None)
        self._nominated.pop(uid, None)
        if uid in self._snapshot.row_of_pod:
            self._snapshot.remove_pod(uid)
            self._happened(ClusterEvent.POD_GONE)

    def _happened(self, event: ClusterEvent, *, claim: str = "") -> None:
        self._queue.happened(event, self._clock.now_seconds(), claim=claim)
        self._wake.set()

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        namespace = self._namespaces.get("", name)
        return namespace.metadata.labels if namespace else {}

    # One Pod

    async def _schedule(self, info: PodInfo, tasks: asyncio.TaskGroup) -> None:
        began = perf_counter()
        with self._with_nominated(info):
            result = place(info, self._snapshot, self._profile, self._chance, self.times.course)
            self.times.chosen(fits=isinstance(result, Placement))
            preemption = Preemption("", ())
            if isinstance(result, Failure) and result.nodes:
                searching = perf_counter()
                preemption = find_preemption(info, result, self._snapshot, self._profile, self._budgets.list)
                found = "Success" if preemption.node_name else "Unschedulable"
                self.times.point("PostFilter", perf_counter() - searching, found)
        took = perf_counter() - began
        self.times.algorithm.add(took)
        if isinstance(result, Placement):
            attempts = self._queue.attempts(info.uid)
            self.times.attempts.add(attempts)
            self._began[info.uid] = began
            self._tried[info.uid] = (attempts, self._queue.first_seconds(info.uid))
            reserving = perf_counter()
            volumes = self._reserve_volumes(info, result.node_name)
            self.times.point("Reserve", perf_counter() - reserving)
            self._snapshot.add_pod(info, result.node_name)
            self._assumed[info.uid] = result.node_name
            name = f"bind-{info.namespace}/{info.name}"
            if volumes:
                tasks.create_task(self._bind_with_volumes(info, result, volumes), name=name)
                return
            await self._binds.acquire()
            tasks.create_task(self._bind(info, result), name=name)
            return
        self._failed += 1
        self.times.unschedulable.add(took)
        if preemption.node_name:
            self.times.victims.add(len(preemption.victims))
        self._queue.failed(info.uid, result.rejected_by, self._clock.now_seconds())
        if preemption.node_name:
            self._nominated[info.uid] = (info, preemption.node_name)
        tasks.create_task(self._report(info, result, preemption), name=f"report-{info.namespace}/{info.name}")

    @contextlib.contextmanager
    def _with_nominated(self, info: PodInfo) -> Iterator[None]:
        """Look at the nodes as if the Pods that others were evicted for were there already, but less important ones."""
        others = [
            (other, node_name)
            for uid, (other, node_name) in self._nominated.items()
            if uid != info.uid and other.priority >= info.priority and uid not in self._snapshot.row_of_pod
        ]
        for other, node_name in others:
            self._snapshot.add_pod(other, node_name)
        try:
            yield
        finally:
            for other, _ in others:
                self._snapshot.remove_pod(other.uid)

    def _reserve_volumes(self, info: PodInfo, node_name: str) -> PodVolumes:
        decided = self._profile.binding.decide(info, self._snapshot.by_name[node_name])
        return self._volumes.assume(node_name, decided) if decided else decided

    async def _bind_with_volumes(self, info: PodInfo, placement: Placement, volumes: PodVolumes) -> None:
        """Bind the volumes, which may take minutes and must not hold up other Pods, then the Pod."""
        try:
            await self._nominate(info, placement.node_name)
            await self._volume_writer.write(volumes, placement.node_name, lambda: info.uid in self._assumed)
        except (BindingFailed, apierrors.ApiError) as error:
            self._errors += 1
            self._began.pop(info.uid, None)
            self._tried.pop(info.uid, None)
            self._volumes.forget(volumes)
            if info.uid in self._assumed:
                self._unassume(info)
                message = f'running PreBind plugin "VolumeBinding": {error}'
                await self._report_waiting(info, "SchedulerError", message, nominated=None)
            return
        await self._binds.acquire()
        await self._bind(info, placement)

    async def _nominate(self, info: PodInfo, node_name: str) -> None:
        """Say where a Pod is going to be, for those who must not take its place while its volumes are made."""
        if info.pod.status.nominated_node_name != node_name:
            patch = Patch(
                PatchType.STRATEGIC, {"metadata": {"uid": info.uid}, "status": {"nominatedNodeName": node_name}}
            )
            await self._client.patch(_PODS, info.namespace, info.name, patch, subresource="status")

    async def _bind(self, info: PodInfo, placement: Placement) -> None:
        binding = core.Binding(
            metadata=meta.ObjectMeta(namespace=info.namespace, name=info.name, uid=info.uid),
            target=core.ObjectReference(kind="Node", name=placement.node_name),
        )
        began = perf_counter()
        attempts, first = self._tried.pop(info.uid, (1, None))
        try:
            await self._client.create(
                cast("Any", _PODS), binding, namespace=info.namespace, subresource="binding", name=info.name
            )
        except apierrors.ApiError as error:
            self._errors += 1
            self.times.point("Bind", perf_counter() - began, "Error")
            self._began.pop(info.uid, None)
            self._unassume(info)
            if isinstance(error, apierrors.NotFound | apierrors.Conflict):
                _log.info("the pod changed before it was bound", pod=f"{info.namespace}/{info.name}", uid=info.uid)
            else:
                _log.warning("bind failed", pod=f"{info.namespace}/{info.name}", because=error.message)
            return
        finally:
            self._binds.release()
        self._placed += 1
        self.times.point("Bind", perf_counter() - began)
        if first is not None:
            self.times.placed(attempts, max(0.0, self._clock.now_seconds() - first))
        self.times.scheduled.add(perf_counter() - self._began.pop(info.uid, perf_counter()))
        if info.uid in self._assumed:
            self._queue.remove(info.uid)
        self._recorder.event(
            info.pod,
            "Normal",
            "Scheduled",
            f"Successfully assigned {info.namespace}/{info.name} to {placement.node_name}",
            action="Binding",
        )

    def _unassume(self, info: PodInfo) -> None:
        if self._assumed.pop(info.uid, None) is None:
            return  # Its deletion, or its placement by somebody else, was seen meanwhile.
        self._snapshot.remove_pod(info.uid)
        self._queue.failed(info.uid, frozenset(), self._clock.now_seconds(), retry=True)
        self._happened(ClusterEvent.POD_GONE)

    async def _report(self, info: PodInfo, failure: Failure, preemption: Preemption) -> None:
        """Tell the user why the Pod waits; evict the victims, if any, after the Pod is nominated for their node."""
        message = f"{failure.message} {_in_vain(info, failure, preemption)}".strip()
        if await self._report_waiting(info, "Unschedulable", message, nominated=preemption.node_name):
            for victim in preemption.victims:
                await self._evict(victim, info, preemption.node_name)

    async def _report_waiting(self, info: PodInfo, reason: str, message: str, *, nominated: str | None = "") -> bool:
        """Say in an Event and in the Pod's status why it is not placed; False if that could not be written.

        `nominated` is the node that is being freed for it; None takes back what was said.
        """
        self._recorder.event(info.pod, "Warning", "FailedScheduling", message, action="Scheduling")
        status: dict[str, Any] = {}
        known = next((item for item in info.pod.status.conditions if item.type == "PodScheduled"), None)
        if known is None or (known.status, known.reason, known.message) != ("False", reason, message):
            status["conditions"] = [_not_scheduled(info.pod, reason, message, self._clock)]
        if nominated is None or (nominated and nominated != info.pod.status.nominated_node_name):
            status["nominatedNodeName"] = nominated
        if not status:
            return True
        patch = Patch(PatchType.STRATEGIC, {"metadata": {"uid": info.uid}, "status": status})
        try:
            await self._client.patch(_PODS, info.namespace, info.name, patch, subresource="status")
        except (apierrors.NotFound, apierrors.Conflict):
            return False  # The Pod is gone or is another one by now: its own events take care of it.
        except apierrors.ApiError as error:
            _log.warning("could not report", pod=f"{info.namespace}/{info.name}", because=error.message)
            return False
        return True

    async def _evict(self, victim: PodInfo, preemptor: PodInfo, node_name: str) -> None:
        if victim.is_terminating:
            return  # Evicted for another Pod, or deleted: it is on its way.
        note = f"{self._settings.scheduler_name}: preempting to accommodate a higher priority pod"
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": note,
            "lastTransitionTime": times.format_time(self._clock.now_seconds()),
        }
        try:
            patch = Patch(PatchType.STRATEGIC, {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}})
            await self._client.patch(_PODS, victim.namespace, victim.name, patch, subresource="status")
            await self._client.delete(_PODS, victim.namespace, victim.name, uid=victim.uid)
        except (apierrors.NotFound, apierrors.Conflict):
            return  # Gone already, or another Pod has its name.
        except apierrors.ApiError as error:
            _log.warning("eviction failed", pod=f"{victim.namespace}/{victim.name}", because=error.message)
            return
        self._preempted += 1
        self._recorder.event(
            victim.pod,
            "Normal",
            "Preempted",
            f"Preempted by pod {preemptor.uid} on node {node_name}",
            action="Preempting",
        )


def _in_vain(info: PodInfo, failure: Failure, preemption: Preemption) -> str:
    """Return why nobody could be helped by giving something up: first claims of devices, then Pods.

    What is refused before any node is looked at has no state of claims; upstream says so, and looks no further.
    """
    if not preemption.message:
        return ""
    if not failure.reasons:
        return "not found"
    claims = "still not schedulable" if info.pod.spec.resource_claims else "no new claims to deallocate"
    return f"{claims}, {preemption.message}"


def _not_scheduled(pod: core.Pod, reason: str, message: str, clock: Clock) -> dict[str, Any]:
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "observedGeneration": pod.metadata.generation,
        "lastProbeTime": None,
        "lastTransitionTime": times.format_time(clock.now_seconds()),
    }


def _same_for_scheduling(old: core.Node, new: core.Node) -> bool:
    """Tell whether only a node's heartbeat changed."""
    return (
        old.spec == new.spec
        and old.metadata.labels == new.metadata.labels
        and old.status.allocatable == new.status.allocatable
        and old.status.images == new.status.images
    )


def _changed(old: core.Pod | None, new: core.Pod) -> bool:
    return (
        old is None
        or old.spec != new.spec
        or old.metadata.labels != new.metadata.labels
        or old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        or old.status.container_statuses != new.status.container_statuses
    )
