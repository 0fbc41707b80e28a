"""The node's chores: dead containers, orphaned pods, unused images, full logs, resource pressure.

Each is a loop of its own; one that fails logs why and goes on next time.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from haven.api.core.v1 import PodCondition
from haven.clock import Clock
from haven.cri import errors
from haven.cri.interface import Runtime
from haven.cri.pleg import Pleg
from haven.kubelet import machine
from haven.kubelet.cgroups import Cgroups
from haven.kubelet.events import EventRecorder, node_reference, pod_reference
from haven.kubelet.eviction import (
    ContainerUse,
    Eviction,
    EvictionState,
    PodUse,
    Reading,
    choose,
    local_eviction,
    observe,
)
from haven.kubelet.garbage import ImageUse, dead_containers, dead_sandboxes, unused_images
from haven.kubelet.logrotation import rotate_all
from haven.kubelet.nodestate import NodeState
from haven.kubelet.observation import LABEL_CONTAINER, LABEL_POD_UID
from haven.kubelet.observer import Observer
from haven.kubelet.podstatus import Verdict
from haven.kubelet.podworker import PodWorker, WorkerState
from haven.kubelet.settings import Settings
from haven.kubelet.termination import Terminator
from haven.kubelet.usage import UsageReader
from haven.kubelet.volumes.manager import VolumeManager, sizes
from haven.telemetry import logger

__all__ = ["Housekeeping"]

_log = logger("housekeeping")


class Housekeeping:
    """Chores around pods. `workers` is the runner's live mapping by pod UID; `is_complete` says that every pod that
    should be here is known, before which nothing counts as orphaned."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        runtime: Runtime,
        recorder: EventRecorder,
        pleg: Pleg,
        cgroups: Cgroups,
        volumes: VolumeManager,
        terminator: Terminator,
        usage: UsageReader,
        state: NodeState,
        workers: Mapping[str, PodWorker],
        is_complete: Callable[[], bool],
        on_pressure: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._runtime = runtime
        self._recorder = recorder
        self._pleg = pleg
        self._cgroups = cgroups
        self._volumes = volumes
        self._terminator = terminator
        self._usage = usage
        self._state = state
        self._workers = workers
        self._is_complete = is_complete
        self._on_pressure = on_pressure
        self._eviction_state = EvictionState()
        self._image_history: dict[str, ImageUse] = {}
        self.evictions: Counter[str] = Counter()
        """By signal; "" is a pod's own limit."""
        self.collected_images = 0
        self.rotated_logs = 0

    async def run(self) -> None:
        """Do all chores until cancelled."""
        settings = self._settings
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(settings.housekeeping_seconds, self.collect_pods))
            tasks.create_task(self._every(settings.container_log_check_seconds, self._rotate_logs))
            tasks.create_task(self._every(settings.images.gc_period_seconds, self.collect_images))
            tasks.create_task(self._every(settings.eviction.period_seconds, self.check_pressure))

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[object]]) -> None:
        while True:
            await self._clock.sleep(seconds)
            try:
                await chore()
            except (errors.RuntimeFailure, OSError) as error:
                _log.warning("chore fails", chore=chore.__name__, reason=str(error))
            except Exception:
                # A bug in one chore must not end the others, nor the pods.
                _log.error("chore is broken", chore=chore.__name__, exc_info=True)

    # Pods and containers.

    async def collect_pods(self) -> None:
        """Remove dead containers and whatever belongs to pods that do not exist any more."""
        for uid, contents in list(self._pleg.pods.items()):
            worker = self._workers.get(uid)
            is_removed = worker is None and self._is_complete()
            if is_removed and await self._end_orphan(uid):
                continue
            if worker is None and not is_removed:
                continue
            is_removed = is_removed or (worker is not None and worker.is_gone_from_api and _is_finished(worker))
            containers = dead_containers(
                contents, keep=self._settings.dead_containers_per_container_max, is_removed=is_removed
            )
            for container in containers:
                await self._runtime.remove_container(container.id)
            removing = {container.id for container in containers}
            for sandbox in dead_sandboxes(contents, removing, is_removed=is_removed):
                await self._runtime.remove_sandbox(sandbox.id)
            if containers:
                self._pleg.poke()
        if self._is_complete():
            await self._remove_orphaned_files()

    async def _end_orphan(self, uid: str) -> bool:
        """Stop what runs of a pod that nobody knows; return whether there was anything to stop."""
        observer = Observer(self._runtime, self._state.runtime_name, uid, self._settings.pod_directory(uid))
        observed = await observer.observe()
        if observed.is_quiet:
            return False
        _log.info("pod without an owner is ended", uid=uid)
        await self._terminator.kill_unknown(observed)
        for sandbox in observed.sandboxes:
            await self._runtime.stop_sandbox(sandbox.info.id)
        self._pleg.poke()
        return True

    async def _remove_orphaned_files(self) -> None:
        known = set(self._workers) | set(self._pleg.pods)
        for uid in self._volumes.known_pods():
            if uid not in known:
                await self._volumes.teardown(uid)
        for uid, paths in (await asyncio.to_thread(self._cgroups.pods)).items():
            if uid not in known:
                for path in paths:
                    await asyncio.to_thread(self._cgroups.remove, path)
        await asyncio.to_thread(self._remove_orphaned_logs, known)

    def _remove_orphaned_logs(self, known: set[str]) -> None:
        root = self._settings.pod_logs_directory
        if not root.is_dir():
            return
        for entry in root.iterdir():
            uid = entry.name.rpartition("_")[2]
            if entry.name.count("_") == 2 and uid not in known:
                shutil.rmtree(entry, ignore_errors=True)
        links = self._settings.container_logs_directory
        if links.is_dir():
            for link in links.iterdir():
                if link.is_symlink() and not link.exists():
                    link.unlink()

    async def _rotate_logs(self) -> None:
        settings = self._settings
        self.rotated_logs += await rotate_all(
            self._runtime, bytes_max=settings.container_log_bytes_max, files_max=settings.container_log_files_max
        )

    # Images.

    async def collect_images(self, *, free_everything: bool = False) -> int:
        """Remove unused images when the disk is fuller than allowed; return how many."""
        settings = self._settings.images
        images = await self._runtime.list_images()
        containers = await self._runtime.list_containers()
        now = self._clock.monotonic_seconds()
        refs = {ref for item in containers for ref in (item.image, item.image_ref, item.image_id) if ref}
        used = {image.id for image in images if refs & {image.id, *image.repo_tags, *image.repo_digests}}
        known = {image.id for image in images}
        for image in images:
            old = self._image_history.get(image.id)
            last = now if image.id in used or old is None else old.last_used
            self._image_history[image.id] = ImageUse(old.first_seen if old else now, last)
        for image_id in [item for item in self._image_history if item not in known]:
            del self._image_history[image_id]
        # The sandbox's image is in use by every pod, but no container says so.
        used |= {image.id for image in images if any("pause" in name for name in image.repo_tags)}
        to_free = await asyncio.to_thread(self._image_bytes_to_free)
        if free_everything:
            to_free = sum(image.size_bytes for image in images)
        if to_free <= 0:
            return 0
        chosen = unused_images(
            images,
            used,
            self._image_history,
            bytes_to_free=to_free,
            now=now,
            min_age_seconds=settings.gc_min_age_seconds,
        )
        for image in chosen:
            _log.info("unused image is removed", image=image.id, size_bytes=image.size_bytes)
            await self._runtime.remove_image(image.id)
        self.collected_images += len(chosen)
        freed = sum(image.size_bytes for image in chosen)
        if freed < to_free and not free_everything:
            self._recorder.warning(
                node_reference(self._settings.node_name),
                "FreeDiskSpaceFailed",
                f"Failed to garbage collect required amount of images. Attempted to free {to_free} bytes, "
                f"but only found {freed} bytes eligible to free.",
            )
        return len(chosen)

    def _image_bytes_to_free(self) -> int:
        settings = self._settings.images
        space = machine.disk_space(self._settings.root_directory)
        used = space.total_bytes - space.free_bytes
        if used * 100 < settings.gc_high_percent * space.total_bytes:
            return 0
        return int(used - space.total_bytes * settings.gc_low_percent / 100)

    # Pressure.

    async def check_pressure(self) -> None:
        """Look at what is left of memory, disk and process ids; evict one pod if it is too little."""
        readings = await asyncio.to_thread(self._readings)
        settings, state = self._settings.eviction, self._eviction_state
        before = state.conditions
        crossed = observe(settings, readings, state, self._clock.monotonic_seconds())
        if state.conditions != before:
            self._state.pressures = state.conditions
            self._on_pressure()
        if crossed:
            self._recorder.warning(
                node_reference(self._settings.node_name),
                "EvictionThresholdMet",
                f"Attempting to reclaim {crossed[0].resource}",
            )
            if crossed[0].is_disk and await self.collect_images(free_everything=True):
                return  # Images that nobody uses go before pods do.
            eviction = choose(settings, crossed[0], await self._uses())
            if eviction is not None:
                self.evict(eviction)
        await self._check_local_disk()

    def _readings(self) -> dict[str, Reading]:
        memory = machine.memory()
        disk = machine.disk_space(self._settings.root_directory)
        used_pids, pids_max = machine.pids()
        space = Reading(disk.free_bytes, disk.total_bytes)
        result = {
            "memory.available": Reading(memory["MemAvailable"], memory["MemTotal"]),
            "nodefs.available": space,
            "imagefs.available": space,
            "pid.available": Reading(pids_max - used_pids, pids_max),
        }
        if disk.total_inodes:
            result["nodefs.inodesFree"] = Reading(disk.free_inodes, disk.total_inodes)
            result["imagefs.inodesFree"] = result["nodefs.inodesFree"]
        return result

    def _running(self) -> list[PodWorker]:
        return [worker for worker in self._workers.values() if worker.state is WorkerState.SYNCING]

    async def _uses(self) -> list[PodUse]:
        running = {worker.uid for worker in self._running()}
        uses: list[PodUse] = []
        for pod in (await self._usage.read()).pods:
            if pod.pod.metadata.uid not in running:
                continue
            containers = {
                item.name: ContainerUse(item.use.working_set, item.rootfs_bytes + item.log_bytes)
                for item in pod.containers
            }
            volumes = [volume for volume in pod.volumes if not volume.claim]
            uses.append(
                PodUse(
                    pod.pod,
                    memory_bytes=pod.use.working_set if pod.use else 0,
                    disk_bytes=sum(item.disk_bytes for item in containers.values())
                    + sum(volume.used_bytes for volume in volumes),
                    inodes=sum(item.rootfs_inodes for item in pod.containers)
                    + sum(volume.used_inodes for volume in volumes),
                    processes=pod.use.processes if pod.use else 0,
                    containers=containers,
                )
            )
        return uses

    async def _check_local_disk(self) -> None:
        limited = [worker for worker in self._running() if _has_disk_limits(worker)]
        if not limited:
            return
        layers: dict[str, dict[str, int]] = {}
        for stats in await self._runtime.container_stats():
            uid = stats.labels.get(LABEL_POD_UID, "")
            layers.setdefault(uid, {})[stats.labels.get(LABEL_CONTAINER, stats.name)] = stats.writable_layer_bytes
        for worker in limited:
            directory = self._settings.pod_directory(worker.uid)
            volumes = await asyncio.to_thread(sizes, directory, worker.volumes)
            found = local_eviction(worker.pod, volumes, layers.get(worker.uid, {}))
            if found is not None:
                self.evict(found)

    def evict(self, eviction: Eviction) -> None:
        """End a pod for the node's sake."""
        worker = self._workers.get(eviction.pod.metadata.uid)
        if worker is None:
            return
        self.evictions[eviction.signal] += 1
        _log.warning("pod is evicted", pod=eviction.pod.metadata.name, reason=eviction.message.strip())
        self._recorder.warning(pod_reference(eviction.pod), eviction.reason, eviction.message)
        condition = PodCondition(
            type="DisruptionTarget",
            status="True",
            reason="TerminationByKubelet",
            message=eviction.message,
            last_transition_time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.now_seconds())),
            observed_generation=eviction.pod.metadata.generation,
        )
        verdict = Verdict("Failed", eviction.reason, eviction.message, (condition,))
        worker.terminate(grace_seconds=eviction.grace_seconds, verdict=verdict)


def _is_finished(worker: PodWorker) -> bool:
    return worker.state is WorkerState.FINISHED


def _has_disk_limits(worker: PodWorker) -> bool:
    spec = worker.pod.spec
    has_sized_volume = any(volume.empty_dir and volume.empty_dir.size_limit for volume in spec.volumes)
    return has_sized_volume or any("ephemeral-storage" in item.resources.limits for item in spec.containers)
