"""The node agent: joins informers, pod workers, the node's status and chores, and answers questions about pods.

`Kubelet.run` returns only when cancelled; pods go on running without it, and the next start takes them over.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from haven.api.core.v1 import Node, Pod, PodStatus, Service
from haven.apimachinery import apierrors
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.clock import Clock
from haven.cni import conflist
from haven.cri import errors
from haven.cri.interface import Runtime, SandboxState
from haven.cri.pleg import Pleg
from haven.kubelet.admitter import Admitter
from haven.kubelet.backoff import Backoff
from haven.kubelet.cgroups import CgroupMode, Cgroups
from haven.kubelet.containerstart import ContainerStarter
from haven.kubelet.events import EventRecorder, node_reference
from haven.kubelet.handlers import HandlerRunner
from haven.kubelet.housekeeping import Housekeeping
from haven.kubelet.imagemounts import ImageMounts
from haven.kubelet.images import ImageManager
from haven.kubelet.logind import Logind
from haven.kubelet.nodeshutdown import NodeShutdown
from haven.kubelet.nodestate import NodeState
from haven.kubelet.nodestatus import NodeStatusLoop
from haven.kubelet.objects import ObjectCaches
from haven.kubelet.observation import ObservedContainer
from haven.kubelet.podservices import PodServices
from haven.kubelet.podspec import CONFIG_MIRROR, is_mirror, is_static, is_terminal
from haven.kubelet.podworker import PodWorker
from haven.kubelet.probes import ProbeCount, ProbeKind, ProbeManager
from haven.kubelet.resize import allocated_of_status, cannot_fit, differs, with_resources
from haven.kubelet.settings import Settings
from haven.kubelet.staticpods import MirrorClient, StaticPods
from haven.kubelet.statistics import KubeletStatistics, count_containers, count_pods, count_volumes
from haven.kubelet.statuswriter import StatusWriter
from haven.kubelet.termination import Terminator
from haven.kubelet.tokens import TokenManager
from haven.kubelet.usage import NodeUsage, UsageReader
from haven.kubelet.volumes.manager import VolumeManager
from haven.telemetry import logger

__all__ = ["ContainerNotFound", "Kubelet", "KubeletStatistics"]

_log = logger("kubelet")
_RUNTIME_RETRY_SECONDS = 1.0
_MIRROR_RETRY_SECONDS = 5.0


class ContainerNotFound(Exception):
    """The pod or container is not on this node, or has no container at the runtime; the message is upstream's."""


@dataclass(slots=True)
class _Entry:
    worker: PodWorker
    task: asyncio.Task[None]


class Kubelet:
    """One node's agent. Construct, then `run`; `statistics` and the query methods may be called meanwhile."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        runtime: Runtime,
        clock: Clock,
        chance: Random | None = None,
        *,
        image_mounts: ImageMounts | None = None,
    ) -> None:
        """`image_mounts` makes image volumes work where the runtime itself cannot mount images."""
        self.settings = settings
        self.state = NodeState()
        self.runtime = runtime
        self._client = client
        self._clock = clock
        self._chance = chance or Random()
        self._image_mounts = image_mounts
        self._entries: dict[str, _Entry] = {}
        self._workers: dict[str, PodWorker] = {}
        self._static: dict[str, Pod] = {}
        self._mirrors: dict[str, Pod] = {}
        self._static_read = settings.manifest_directory is None
        self._pods_synced = False
        self._ready = asyncio.Event()
        self._recorder = EventRecorder(client, clock, self._chance, host=settings.node_name)
        self._informers = SharedInformers(client, clock=clock, chance=self._chance)
        self._pods = self._informers.informer(Pod, field_selector=f"spec.nodeName={settings.node_name}")
        self._nodes = self._informers.informer(Node, field_selector=f"metadata.name={settings.node_name}")
        self.state.services = self._informers.informer(Service)
        self._pleg = Pleg(runtime, clock, self._on_runtime_change)
        self._cgroups = Cgroups(settings.cgroup_root)
        self._images = ImageManager(runtime, clock, self._recorder, settings.images)
        self._handlers = HandlerRunner(runtime.exec_sync, clock)
        self._terminator = Terminator(runtime, clock, self._recorder, self._handlers)
        self._mirror_client = MirrorClient(client, clock)
        self._node_loop = NodeStatusLoop(
            settings,
            client,
            clock,
            runtime,
            self._recorder,
            self.state,
            pleg_age=lambda: clock.monotonic_seconds() - self._pleg.statistics().last_seconds,
            on_pod_cidr=self._configure_network,
            on_ready=self._poke_all,
        )
        self._usage = UsageReader(runtime, self._cgroups, clock, settings.root_directory, self._workers)
        self._admitter = Admitter(settings, self._recorder, clock, self.state, self._pleg, self._workers)
        self._shutdown = NodeShutdown(
            settings.node_name, settings.shutdown, Logind, clock, self._recorder, self.state, self._workers,
            on_change=self._node_loop.poke,
        )  # fmt: skip
        self._started_seconds = clock.now_seconds()
        self._started_pods = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._services: PodServices | None = None
        self._housekeeping: Housekeeping | None = None

    # Running.

    async def run(self) -> None:
        """Run the node until cancelled."""
        await self._wait_runtime()
        for directory in (self.settings.root_directory / "pods", self.settings.pod_logs_directory):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._services = self._make_services(tasks)
                self._housekeeping = self._make_housekeeping(self._services)
                self._recorder.normal(node_reference(self.settings.node_name), "Starting", "Starting kubelet.")
                tasks.create_task(self._recorder.run())
                tasks.create_task(self._informers.run())
                tasks.create_task(self._node_loop.run())
                tasks.create_task(self._node_loop.run_lease())
                tasks.create_task(self._pleg.run(container_events=self.state.features.container_events))
                tasks.create_task(self._serve_pods())
                tasks.create_task(self._housekeeping.run())
                tasks.create_task(self._shutdown.run())
        finally:
            await self._handlers.close()

    async def wait_ready(self) -> None:
        """Return once pods are taken care of."""
        await self._ready.wait()

    async def _wait_runtime(self) -> None:
        """A node whose runtime is not there yet waits for it; the reason is logged once per change."""
        said = ""
        while True:
            try:
                await self._node_loop.prepare()
                return
            except errors.RuntimeFailure as error:
                if error.message != said:
                    _log.warning("container runtime does not answer yet", reason=error.rpc_text)
                    said = error.message
            await self._clock.sleep(_RUNTIME_RETRY_SECONDS)

    def _make_services(self, tasks: asyncio.TaskGroup) -> PodServices:
        settings = self.settings
        objects = ObjectCaches(self._client, self._clock, tasks, self._poke)
        tokens = TokenManager(self._client, self._clock, self._chance)
        probes = ProbeManager(
            self._handlers, self._clock, self._chance, self._recorder, tasks, self._pod_and_status, self._poke
        )
        starter = ContainerStarter(
            settings,
            self.runtime,
            self._clock,
            self._recorder,
            self._images,
            objects,
            self._handlers,
            self._terminator,
            self.state,
            self._image_mounts,
        )
        return PodServices(
            settings=settings,
            client=self._client,
            clock=self._clock,
            runtime=self.runtime,
            recorder=self._recorder,
            images=self._images,
            objects=objects,
            tokens=tokens,
            volumes=VolumeManager(settings.root_directory / "pods", self._client, objects, tokens, self._image_mounts),
            probes=probes,
            statuses=StatusWriter(self._client, self._clock, tasks),
            starter=starter,
            terminator=self._terminator,
            cgroups=self._cgroups,
            crash_backoff=Backoff(
                initial_seconds=settings.crash_backoff_seconds, max_seconds=settings.crash_backoff_seconds_max
            ),
            sandbox_slots=asyncio.Semaphore(settings.sandbox_starts_max),
            node=self.state,
            ended_containers=Counter(),
            cannot_fit=self._cannot_fit,
        )

    def _make_housekeeping(self, services: PodServices) -> Housekeeping:
        return Housekeeping(
            self.settings,
            self._clock,
            self.runtime,
            self._recorder,
            self._pleg,
            self._cgroups,
            services.volumes,
            self._terminator,
            self._usage,
            self.state,
            self._workers,
            is_complete=lambda: self._pods_synced and self._static_read,
            on_pressure=self._node_loop.poke,
        )

    async def _serve_pods(self) -> None:
        """Take pods once services and the node are known: their environment and admission depend on them."""
        self._nodes.add_handler(lambda _old, new: self._node_loop.take(new))
        while not self._pleg.statistics().relists:
            await self._pleg.relist()  # What runs already is admitted already.
        # Static pods do not wait for an API server: they may be one.
        if self.settings.manifest_directory is not None:
            static = StaticPods(
                self.settings.manifest_directory, self.settings.node_name, self._clock, self._take_static
            )
            static.look()
            self._static_read = True
            assert self._tasks is not None
            self._tasks.create_task(static.run())
        services = self.state.services
        assert services is not None
        await services.wait_synced()
        await self._nodes.wait_synced()
        await self._pods.wait_synced()
        # Oldest first, so that those which were here before are not refused in favour of newcomers.
        for pod in sorted(self._pods.list(), key=lambda item: item.metadata.creation_timestamp or ""):
            self._on_pod(None, pod)
        self._pods.add_handler(self._on_pod_event)
        self._pods_synced = True
        self._ready.set()
        _log.info("node takes care of its pods", node=self.settings.node_name, pods=len(self._workers))

    # Pods come, change and go.

    def _on_pod_event(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._on_pod(old, None)
            old = None
        self._on_pod(old, new)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if is_mirror(pod):
            self._on_mirror(pod, is_gone=new is None)
            return
        uid = pod.metadata.uid
        entry = self._entries.get(uid)
        if new is None:
            if entry is not None:
                self._remove(entry.worker, pod)
            return
        if entry is not None:
            entry.worker.update(new)
        elif not (is_terminal(new) and uid not in self._pleg.pods and new.metadata.deletion_timestamp is None):
            # A pod that ended before this agent started has nothing left to do, unless it is to be deleted.
            self._add(new)

    def _add(self, pod: Pod) -> None:
        assert self._services is not None
        assert self._tasks is not None
        uid = pod.metadata.uid
        allocated = allocated_of_status(pod)
        is_resizing = uid in self._pleg.pods and differs(pod, allocated)
        worker = PodWorker(self._services, with_resources(pod, allocated) if is_resizing else pod)
        self._workers[uid] = worker
        if is_static(pod):
            worker.mirror = self._mirrors.get(_mirror_key(pod))
        if not worker.is_admitted:
            self._admitter.admit(worker)
        self._started_pods += 1
        if pod.metadata.deletion_timestamp is not None or is_terminal(pod):
            worker.terminate(grace_seconds=pod.metadata.deletion_grace_period_seconds)
        if is_resizing:
            worker.update(pod)
        self._entries[uid] = _Entry(worker, self._tasks.create_task(worker.run()))

    def _cannot_fit(self, pod: Pod) -> tuple[str, str] | None:
        """Return why a running pod cannot have the resources that it asks for now."""
        return cannot_fit(pod, self._admitter.active_beside(pod), self.state.allocatable)

    def _remove(self, worker: PodWorker, last: Pod) -> None:
        """The API object is gone: end what is left, then forget the pod."""
        worker.is_gone_from_api = True
        assert self._services is not None
        self._services.statuses.forget(worker.uid)
        grace = last.metadata.deletion_grace_period_seconds
        worker.terminate(grace_seconds=None if grace is None else max(grace, 1))
        assert self._tasks is not None
        self._tasks.create_task(self._forget_when_finished(worker))

    async def _forget_when_finished(self, worker: PodWorker) -> None:
        await worker.wait_finished()
        entry = self._entries.pop(worker.uid, None)
        if entry is not None:
            entry.task.cancel()
        self._workers.pop(worker.uid, None)
        self._pleg.poke()

    def _take_static(self, pods: Mapping[str, Pod]) -> None:
        for uid in [uid for uid in self._static if uid not in pods]:
            pod = self._static.pop(uid)
            entry = self._entries.get(uid)
            if entry is not None:
                self._remove(entry.worker, pod)
            mirror = self._mirrors.get(_mirror_key(pod))
            if mirror is not None:
                self._spawn_mirror(partial(self._mirror_client.delete, mirror), pod)
        for uid, pod in pods.items():
            if uid not in self._static:
                self._static[uid] = pod
                self._add(pod)
                self._ensure_mirror(pod)

    def _on_mirror(self, mirror: Pod, *, is_gone: bool) -> None:
        key = _mirror_key(mirror)
        if is_gone:
            self._mirrors.pop(key, None)
        else:
            self._mirrors[key] = mirror
        pod = next((item for item in self._static.values() if _mirror_key(item) == key), None)
        if pod is None:
            if not is_gone and self._static_read:
                self._spawn_mirror(partial(self._mirror_client.delete, mirror), mirror)
            return
        worker = self._workers.get(pod.metadata.uid)
        is_current = mirror.metadata.annotations.get(CONFIG_MIRROR) == pod.metadata.annotations.get(
            "kubernetes.io/config.hash"
        )
        if worker is not None:
            worker.mirror = mirror if is_current and not is_gone else None
            worker.poke()
        if is_gone or not is_current:
            self._ensure_mirror(pod)

    def _ensure_mirror(self, pod: Pod) -> None:
        async def ensure() -> None:
            await self._mirror_client.ensure(pod, self._mirrors.get(_mirror_key(pod)), self.state.node)

        self._spawn_mirror(ensure, pod)

    def _spawn_mirror(self, step: Callable[[], Awaitable[None]], pod: Pod) -> None:
        async def perform() -> None:
            while True:
                try:
                    await step()
                    return
                except apierrors.ApiError as error:
                    _log.warning("mirror pod cannot be written yet", pod=pod.metadata.name, reason=error.message)
                await self._clock.sleep(_MIRROR_RETRY_SECONDS)
                if self._static.get(pod.metadata.uid) is not pod:
                    return

        assert self._tasks is not None
        self._tasks.create_task(perform())

    # Signals between the parts.

    def _poke(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.poke()

    def _poke_all(self) -> None:
        for worker in self._workers.values():
            worker.poke()

    def _on_runtime_change(self, uid: str) -> None:
        self._poke(uid)

    def _pod_and_status(self, uid: str) -> tuple[Pod, PodStatus] | None:
        worker = self._workers.get(uid)
        return (worker.pod, worker.status) if worker is not None else None

    def _configure_network(self, pod_cidr: str) -> None:
        """Write the pod network's configuration; containerd notices by itself."""
        directory = self.settings.cni_conf_directory
        if directory is None:
            return
        network = conflist.PodNetwork(
            tuple(pod_cidr.split(",")),
            name=self.settings.cni_network,
            bridge=self.settings.cni_bridge,
            data_directory=self.settings.cni_data_directory,
        )
        if conflist.write(network, directory):
            _log.info("pod network is configured", pod_cidr=pod_cidr)
        self._node_loop.poke()

    # Questions.

    def statistics(self) -> KubeletStatistics:
        """Return a snapshot."""
        services, housekeeping, relist = self._services, self._housekeeping, self._pleg.statistics()
        contents, workers = self._pleg.pods.values(), self._workers.values()
        desired, active = count_pods(workers)
        clock = self._clock
        return KubeletStatistics(
            node_name=self.settings.node_name,
            version=self.settings.version,
            started_seconds=self._started_seconds,
            cgroup_version=2 if self._cgroups.mode is CgroupMode.V2 else 1,
            running_pods=sum(any(box.state is SandboxState.READY for box in item.sandboxes) for item in contents),
            containers=count_containers(contents),
            desired_pods=desired,
            active_pods=active,
            mirror_pods=len(self._mirrors),
            started_pods=self._started_pods,
            started_containers=services.starter.starts if services else 0,
            ended_containers=services.ended_containers if services else {},
            evictions=housekeeping.evictions if housekeeping else {},
            preemptions=self._admitter.preemptions,
            rejections=self._admitter.rejections,
            collected_images=housekeeping.collected_images if housekeeping else 0,
            pleg_seen_seconds=clock.now_seconds() - (clock.monotonic_seconds() - relist.last_seconds),
            shutdown_started_seconds=self._shutdown.started_seconds,
            shutdown_ended_seconds=self._shutdown.ended_seconds,
            volumes=count_volumes(workers),
            pods=len(self._workers),
            image_pulls=self._images.pulls,
            status_writes=services.statuses.writes if services else 0,
            events=self._recorder.statistics().written,
            events_dropped=self._recorder.statistics().dropped,
            node_reports=self._node_loop.reports,
            relists=relist.relists,
            relist_failures=relist.failures,
        )

    async def usage(self) -> NodeUsage:
        """Return what the node and its pods use now; raises RuntimeFailure."""
        return await self._usage.read()

    def probe_counts(self) -> Mapping[tuple[str, str, ProbeKind], ProbeCount]:
        """Return what became of probes."""
        return self._services.probes.counts if self._services else {}

    def pods(self) -> Sequence[Pod]:
        """Return all pods of this node with their newest status."""
        return [_with_status(worker) for worker in self._workers.values()]

    def find_pod(self, namespace: str, name: str) -> Pod | None:
        """Return one pod with its newest status."""
        try:
            return _with_status(self.worker(namespace, name))
        except ContainerNotFound:
            return None

    def worker(self, namespace: str, name: str, uid: str = "") -> PodWorker:
        """Return a pod by name, and by UID if given (also its mirror's); raise ContainerNotFound."""
        for worker in self._workers.values():
            metadata = worker.pod.metadata
            if (metadata.namespace, metadata.name) != (namespace, name):
                continue
            mirror_uid = worker.mirror.metadata.uid if worker.mirror else ""
            if uid in ("", metadata.uid, mirror_uid):
                return worker
        raise ContainerNotFound(f'pod "{name}" not found')

    def find_container(
        self, namespace: str, name: str, container: str, *, uid: str = "", previous: bool = False
    ) -> ObservedContainer:
        """Return a container as the runtime last showed it; `previous` is the one before. Raise ContainerNotFound."""
        worker = self.worker(namespace, name, uid)
        found = [item for item in worker.observed.containers if item.name == container]
        index = 1 if previous else 0
        if len(found) <= index:
            if previous:
                raise ContainerNotFound(f'previous terminated container "{container}" in pod "{name}" not found')
            raise ContainerNotFound(f'container not found ("{container}")')
        return found[index]

    def log_path(self, namespace: str, name: str, container: str, *, uid: str = "", previous: bool = False) -> Path:
        """Return the log file of a container; raise ContainerNotFound."""
        found = self.find_container(namespace, name, container, uid=uid, previous=previous)
        return Path(os.path.realpath(found.status.log_path))


def _with_status(worker: PodWorker) -> Pod:
    return msgspec.structs.replace(worker.pod, status=worker.status)


def _mirror_key(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
