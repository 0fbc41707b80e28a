"""Keeps the node's entry in the API: registers it, reports its status, renews its lease.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-heartbeats
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from haven.api.coordination.v1 import Lease, LeaseSpec
from haven.api.core.v1 import Node, NodeStatus
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.client.interface import Client
from haven.clock import Clock
from haven.cri import errors
from haven.cri.interface import Image, Runtime, RuntimeStatus
from haven.kubelet import machine
from haven.kubelet.events import EventRecorder, node_reference
from haven.kubelet.nodeobject import (
    PRESSURE_EVENTS,
    Health,
    allocatable_of,
    capacity_of,
    initial_node,
    node_status,
    report_differs,
)
from haven.kubelet.nodestate import NodeState
from haven.kubelet.podnetwork import ResolverSettings, parse_resolv_conf
from haven.kubelet.settings import Settings
from haven.telemetry import logger

__all__ = ["NodeStatusLoop", "network_problem", "runtime_problem"]

_log = logger("node status")
_LEASE_NAMESPACE = "kube-node-lease"
_PLEG_SECONDS_MAX = 180.0
_RETRY_SECONDS = 1.0
_FAST_SECONDS = 0.5


def runtime_problem(status: RuntimeStatus) -> str:
    """Return why the runtime is not ready, "" if it is."""
    condition = status.condition("RuntimeReady")
    if condition is None or condition.status:
        return ""
    return f"container runtime is down: {condition.reason} {condition.message}"


def network_problem(status: RuntimeStatus) -> str:
    """Return why the network is not ready in upstream's words, "" if it is."""
    condition = status.condition("NetworkReady")
    if condition is not None and condition.status:
        return ""
    reason = condition.reason if condition else "NetworkPluginNotReady"
    # containerd 1.6 begins its text with "Network plugin returns error: "; newer ones do not.
    message = condition.message if condition else "the runtime does not report its network"
    return f"container runtime network not ready: NetworkReady=false reason:{reason} message:{message}"


class NodeStatusLoop:
    """The node's own entry. Owner of NodeState."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        clock: Clock,
        runtime: Runtime,
        recorder: EventRecorder,
        state: NodeState,
        *,
        pleg_age: Callable[[], float],
        on_pod_cidr: Callable[[str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._runtime = runtime
        self._recorder = recorder
        self._state = state
        self._pleg_age = pleg_age
        self._on_pod_cidr = on_pod_cidr
        self._on_ready = on_ready
        self._wake = asyncio.Event()
        self._images: list[Image] = []
        self._reported_at = float("-inf")
        self._pod_cidr = ""
        self._was_ready = False
        self.reports = 0

    def poke(self) -> None:
        """Something about the node changed: look now."""
        self._wake.set()

    async def prepare(self) -> None:
        """Find out what the machine and the runtime are; raise RuntimeFailure if there is no runtime."""
        settings, state = self._settings, self._state
        version = await self._runtime.version()
        state.runtime_name, state.runtime_version = version.runtime_name, version.runtime_version
        state.features = await self._runtime.features()
        await self.observe_runtime()
        values = await asyncio.to_thread(machine.memory)
        state.memory_bytes = values["MemTotal"]
        disk = machine.disk_space(settings.root_directory)
        state.capacity = capacity_of(
            cpus=machine.cpu_count(),
            memory_bytes=state.memory_bytes,
            disk_bytes=disk.total_bytes,
            hugepages=machine.hugepages(),
            max_pods=settings.max_pods,
        )
        thresholds = {item.signal: item for item in settings.eviction.hard}
        memory_threshold = thresholds.get("memory.available")
        disk_threshold = thresholds.get("nodefs.available")
        state.allocatable = allocatable_of(
            state.capacity,
            settings.system_reserved,
            memory_threshold=memory_threshold.limit(state.memory_bytes) if memory_threshold else 0,
            disk_threshold=disk_threshold.limit(disk.total_bytes) if disk_threshold else 0,
        )
        state.host_ips = settings.node_ips or machine.default_addresses()
        state.resolver = await asyncio.to_thread(self._read_resolver)

    def _read_resolver(self) -> ResolverSettings:
        settings = self._settings
        host = parse_resolv_conf("")
        if settings.resolver_config:
            try:
                host = parse_resolv_conf(Path(settings.resolver_config).read_text())
            except OSError as error:
                _log.warning("resolver configuration cannot be read", path=settings.resolver_config, reason=str(error))
        return ResolverSettings(settings.cluster_dns, settings.cluster_domain, host)

    async def observe_runtime(self) -> None:
        """Ask the runtime how it is; update the state."""
        state = self._state
        try:
            status = await self._runtime.status()
        except errors.RuntimeFailure as error:
            state.runtime_problem = f"container runtime is down: {error.rpc_text}"
            return
        state.runtime_problem = runtime_problem(status)
        state.network_problem = network_problem(status)
        state.supports_strict_groups = status.supplemental_groups_policy

    async def run(self) -> None:
        """Report until cancelled; the first reports come fast, so that a new node is used at once."""
        while True:
            before = self._state.network_problem
            await self.observe_runtime()
            if before and not self._state.network_problem:
                self._on_ready()
            try:
                await self._report()
            except apierrors.ApiError as error:
                _log.warning("node status cannot be written yet", reason=error.message)
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            is_ready = not (self._state.network_problem or self._state.runtime_problem)
            await self._pause(self._settings.node_status_update_seconds if is_ready else _FAST_SECONDS)

    async def _pause(self, seconds: float) -> None:
        waking = asyncio.ensure_future(self._wake.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waking, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
            sleeping.cancel()
        self._wake.clear()

    async def _report(self) -> None:
        resource = resource_of(Node)
        name = self._settings.node_name
        try:
            self._images = list(await self._runtime.list_images())
        except errors.RuntimeFailure as error:
            _log.warning("images cannot be listed", reason=str(error))
        node = self._state.node
        if node is None:
            try:
                node = await self._client.get(resource, "", name)
            except apierrors.NotFound:
                if not self._settings.register_node:
                    raise
                node = await self._register()
        node = await self._reconcile_labels(node)
        status = self._status(node.status)
        due = self._clock.monotonic_seconds() - self._reported_at >= self._settings.node_status_report_seconds
        if due or report_differs(node.status, status):
            node = await self._write(node, status)
        self._take(node)

    async def _write(self, node: Node, status: NodeStatus) -> Node:
        resource = resource_of(Node)
        before = node.status
        for _ in range(5):
            wanted = serialization.copy(node)
            wanted.status = status
            try:
                node = await self._client.update(resource, wanted, subresource="status")
            except apierrors.Conflict:
                node = await self._client.get(resource, "", node.metadata.name)
                status = self._status(node.status)
                continue
            self._reported_at = self._clock.monotonic_seconds()
            self.reports += 1
            self._tell_pressures(before, status)
            self._tell_readiness(status)
            return node
        raise apierrors.Conflict("somebody else keeps changing the node")

    def _tell_pressures(self, before: NodeStatus, after: NodeStatus) -> None:
        known = {item.type: item.status for item in before.conditions}
        for condition in after.conditions:
            reason = PRESSURE_EVENTS.get((condition.type, condition.status))
            if reason is not None and known.get(condition.type) != condition.status:
                name = self._settings.node_name
                self._recorder.normal(node_reference(name), reason, f"Node {name} status is now: {reason}")

    def _tell_readiness(self, status: NodeStatus) -> None:
        is_ready = any(item.type == "Ready" and item.status == "True" for item in status.conditions)
        if is_ready != self._was_ready:
            reason = "NodeReady" if is_ready else "NodeNotReady"
            name = self._settings.node_name
            self._recorder.normal(node_reference(name), reason, f"Node {name} status is now: {reason}")
            self._was_ready = is_ready

    def take(self, node: Node | None) -> None:
        """The informer's view of the node: pod range, labels, taints."""
        if node is None:
            self._state.node = None
            self.poke()
        else:
            self._take(node)

    def _take(self, node: Node) -> None:
        self._state.node = node
        pod_cidr = ",".join(node.spec.pod_cidrs) or node.spec.pod_cidr or self._settings.pod_cidr
        if pod_cidr and pod_cidr != self._pod_cidr:
            self._pod_cidr = pod_cidr
            self._on_pod_cidr(pod_cidr)

    async def _register(self) -> Node:
        _log.info("node registers itself", node=self._settings.node_name)
        status = self._status(NodeStatus())
        node = initial_node(self._settings, status)
        try:
            created = await self._client.create(resource_of(Node), node)
            self._tell_pressures(NodeStatus(), status)
            return created
        except apierrors.AlreadyExists:
            return await self._client.get(resource_of(Node), "", self._settings.node_name)

    async def _reconcile_labels(self, node: Node) -> Node:
        wanted = initial_node(self._settings, NodeStatus()).metadata
        labels = {key: value for key, value in wanted.labels.items() if node.metadata.labels.get(key) != value}
        missing = {key: value for key, value in wanted.annotations.items() if key not in node.metadata.annotations}
        if not labels and not missing:
            return node
        changed = serialization.copy(node)
        changed.metadata.labels = {**changed.metadata.labels, **labels}
        changed.metadata.annotations = {**changed.metadata.annotations, **missing}
        try:
            return await self._client.update(resource_of(Node), changed)
        except apierrors.Conflict:
            return await self._client.get(resource_of(Node), "", node.metadata.name)

    def _status(self, previous: NodeStatus) -> NodeStatus:
        state = self._state
        age = self._pleg_age()
        pleg_problem = ""
        if age > _PLEG_SECONDS_MAX:
            pleg_problem = f"PLEG is not healthy: pleg was last seen active {int(age)}s ago; threshold is 3m0s"
        shutdown = "node is shutting down" if state.is_shutting_down else ""
        health = Health(state.runtime_problem, state.network_problem, pleg_problem, state.pressures, shutdown)
        runtime = f"{state.runtime_name}://{state.runtime_version}"
        return node_status(
            self._settings,
            previous,
            capacity=state.capacity,
            allocatable=state.allocatable,
            host_ips=state.host_ips,
            info=machine.system_info(kubelet_version=self._settings.version, runtime_version=runtime),
            found_images=self._images,
            features=state.features,
            supports_strict_groups=state.supports_strict_groups,
            health=health,
            now=times.format_time(self._clock.now_seconds()),
        )

    async def run_lease(self) -> None:
        """Renew the node's lease until cancelled: the cheap heartbeat."""
        lease: Lease | None = None
        pause = self._settings.lease_duration_seconds / 4
        while True:
            try:
                lease = await self._renew(lease)
            except apierrors.Conflict:
                lease = None
                continue
            except apierrors.ApiError as error:
                _log.warning("lease cannot be renewed yet", reason=error.message)
                lease = None
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            await self._clock.sleep(pause)

    async def _renew(self, lease: Lease | None) -> Lease:
        resource = resource_of(Lease)
        name = self._settings.node_name
        if lease is None:
            try:
                lease = await self._client.get(resource, _LEASE_NAMESPACE, name)
            except apierrors.NotFound:
                lease = None
        renewed = Lease(metadata=meta.ObjectMeta(name=name, namespace=_LEASE_NAMESPACE)) if lease is None else (
            serialization.copy(lease)
        )  # fmt: skip
        spec = renewed.spec
        renewed.spec = LeaseSpec(
            holder_identity=name,
            lease_duration_seconds=self._settings.lease_duration_seconds,
            acquire_time=spec.acquire_time,
            renew_time=times.format_micro_time(self._clock.now_seconds()),
            lease_transitions=spec.lease_transitions,
        )
        node = self._state.node
        if not renewed.metadata.owner_references and node is not None:
            renewed.metadata.owner_references = [
                meta.OwnerReference(api_version="v1", kind="Node", name=name, uid=node.metadata.uid)
            ]
        if lease is None:
            return await self._client.create(resource, renewed, namespace=_LEASE_NAMESPACE)
        return await self._client.update(resource, renewed)
