"""Runs a fleet of simulated nodes: one informer and one queue for all of them, whatever their number.

Each node acts under its own identity (system:node:NAME), as kubelets do, so that node authorization, NodeRestriction
and audit see what they would see in a real cluster.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven import telemetry
from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.names import UID, NamespacedName
from haven.client.events import EventRecorder
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.client.workqueue import QueueShutDown, WorkQueue
from haven.clock import Clock
from haven.hollow.behaviour import BadBehaviour, Behaviour, Rule, behaviour_of
from haven.hollow.logs import ContainerLog
from haven.hollow.nodes import (
    LEASE_NAMESPACE,
    NodeSettings,
    lease_object,
    node_address,
    node_conditions,
    node_object,
    pod_address,
)
from haven.hollow.podstate import Container, PodState, State
from haven.hollow.podstatus import status_of

__all__ = ["Fleet", "FleetSettings", "FleetSnapshot", "Node", "NotSimulated"]

_log = telemetry.logger("hollow")
_PODS, _NODES, _LEASES = resource_of(core.Pod), resource_of(core.Node), resource_of(coordination.Lease)
HEARTBEAT_SECONDS = 10.0
REPORT_SECONDS = 300.0


class NotSimulated(LookupError):
    """There is no such Pod on a simulated node; the message says what there is instead."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How a fleet works."""

    workers: int = 8
    """How many Pods are seen to at the same time."""
    events: bool = True
    """Whether Events tell what containers do."""
    port: int = 10250
    """Where the nodes' kubelet server listens."""


@dataclass(slots=True)
class Node:
    """One simulated node. `is_alive` False stops its heartbeats and all it does, as a power failure."""

    settings: NodeSettings
    number: int
    client: Client
    is_ready: bool = True
    is_alive: bool = True
    reported_seconds: float = 0.0

    @property
    def address(self) -> str:
        return node_address(self.number)


@dataclass(slots=True)
class Sim:
    """A Pod that runs on a node of ours."""

    state: PodState
    node: Node
    logs: dict[str, list[ContainerLog]]
    """By container, one for each run of it."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Nodes, rules and Pods as they were."""

    nodes: Mapping[str, Node]
    rules: tuple[Rule, ...]
    sims: Mapping[NamespacedName, Sim]


class Fleet:
    """Simulated nodes and their Pods. `run` does the work; everything else may be called while it runs."""

    def __init__(
        self,
        client_for: Callable[[str], Client],
        admin: Client,
        informers: SharedInformers,
        clock: Clock,
        chance: random.Random,
        settings: FleetSettings | None = None,
    ) -> None:
        """`client_for` returns a client that acts as a node of that name."""
        self.settings = settings or FleetSettings()
        self.rules: list[Rule] = []
        self.nodes: dict[str, Node] = {}
        self._client_for = client_for
        self._admin = admin
        self._clock = clock
        self._pods = informers.informer(core.Pod)
        self._queue: WorkQueue[NamespacedName] = WorkQueue("hollow", clock=clock)
        self._sims: dict[NamespacedName, Sim] = {}
        self._numbers = itertools.count(1)
        self._addresses = itertools.count(1)
        self._settling: dict[NamespacedName, list[asyncio.Future[None]]] = {}
        self._recorder = EventRecorder(admin, "kubelet", clock=clock, chance=chance)
        self._pods.add_handler(self._changed)

    # Nodes

    async def add_node(self, settings: NodeSettings) -> Node:
        """Register a node, or bring one that is registered back to life."""
        node = self.nodes.get(settings.name)
        if node is None:
            node = Node(settings, next(self._numbers), self._client_for(settings.name))
        wanted = node_object(settings, node.number, self._clock.now_seconds(), port=self.settings.port)
        is_back = False
        try:
            created = await node.client.create(_NODES, wanted)
        except apierrors.AlreadyExists:
            created, is_back = await node.client.get(_NODES, "", settings.name), True
        node.is_alive = True
        node.reported_seconds = self._clock.monotonic_seconds()
        self.nodes[settings.name] = node
        await self._renew(node, created)
        if is_back:  # It may have been taken for lost: a kubelet that starts says at once how it is.
            await self._renew(node, None)
            await self._report(node)
        for pod in self._pods.list():
            if pod.spec.node_name == settings.name:
                self._queue.add(_key(pod))
        return node

    async def remove_node(self, name: str) -> None:
        """Take a node away, with its object; its Pods stay to be cleaned up, as upstream."""
        node = self.nodes.pop(name)
        node.is_alive = False
        for key, sim in tuple(self._sims.items()):
            if sim.node is node:
                self._close(self._sims.pop(key))
        await self._admin.delete(_NODES, "", name)

    async def set_node_ready(self, name: str, ready: bool) -> None:
        """Let a node report that it is ready, or not."""
        node = self.nodes[name]
        node.is_ready = ready
        await self._report(node)

    # Pods, as tests speak of them

    def sim(self, namespace: str, name: str) -> Sim:
        """Return a Pod that runs here; raise NotSimulated."""
        sim = self._sims.get(NamespacedName(namespace, name))
        if sim is not None:
            return sim
        pod = self._pods.get(namespace, name)
        if pod is None:
            raise NotSimulated(f"there is no Pod {namespace}/{name}")
        if not pod.spec.node_name:
            raise NotSimulated(f"Pod {namespace}/{name} is not scheduled yet")
        raise NotSimulated(f"Pod {namespace}/{name} is on node {pod.spec.node_name}, which is not simulated")

    def sims(self) -> Sequence[Sim]:
        """Return all Pods that run here."""
        return list(self._sims.values())

    def poke(self, sim: Sim) -> None:
        """Something was said about a Pod: see to it."""
        self._queue.add(_key(sim.state.pod))

    async def settle(self, sim: Sim) -> None:
        """See to a Pod and return once the API shows the result."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.setdefault(_key(sim.state.pod), []).append(future)
        self.poke(sim)
        await future

    def log_of(self, sim: Sim, container: str) -> ContainerLog:
        """Return the log of a container's current run."""
        runs = sim.logs.setdefault(container, [])
        if not runs:
            runs.append(ContainerLog())
        return runs[-1]

    def add_rule(self, rule: Rule) -> None:
        """Let a rule hold from now on, for Pods that run already as well."""
        self.rules.append(rule)
        for sim in self._sims.values():
            for item in sim.state.all:
                if rule.matches(sim.state.pod, item.spec):
                    item.behaviour = self._behaviour(sim.state.pod, item.spec)
            self.poke(sim)

    def snapshot(self) -> FleetSnapshot:
        """Return what the nodes and their Pods are like."""
        nodes = {name: dataclasses.replace(node) for name, node in self.nodes.items()}
        return FleetSnapshot(nodes, tuple(self.rules), {key: _copied(sim) for key, sim in self._sims.items()})

    def restore(self, snapshot: FleetSnapshot) -> None:
        """Go back to what was; the API's state must have gone back already. Followers of logs end."""
        for sim in self._sims.values():
            self._close(sim)
        self.nodes = {name: dataclasses.replace(node) for name, node in snapshot.nodes.items()}
        self.rules = list(snapshot.rules)
        self._sims = {}
        for key, sim in snapshot.sims.items():
            again = self._sims[key] = _copied(sim)
            again.node = self.nodes[sim.node.settings.name]
            self._queue.add(key)

    async def heartbeat_now(self) -> None:
        """Let every node show that it lives, for a cluster whose leases went back in time."""
        for node in tuple(self.nodes.values()):
            if node.is_alive:
                await self._heartbeat(node)

    # Working

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run(), name="hollow-events")
            tasks.create_task(self._beat(), name="hollow-heartbeats")
            for number in range(self.settings.workers):
                tasks.create_task(self._work(), name=f"hollow-{number}")

    def _changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if pod.spec.node_name in self.nodes or _key(pod) in self._sims:
            self._queue.add(_key(pod))

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.wait_next()
            except QueueShutDown:
                return
            try:
                await self._tend(key)
            except apierrors.ApiError as error:
                self._queue.retry_later(key, because=error)
            except Exception as error:  # A test's callback or rule failed: that Pod waits, the others go on.
                _log.error("A simulated Pod cannot go on.", pod=str(key), exc_info=error)
                self._queue.retry_later(key, because=error)
            else:
                self._queue.done(key)

    async def _tend(self, key: NamespacedName) -> None:
        pod = self._pods.get_key(key)
        sim = self._sims.get(key)
        settling = self._settling.pop(key, [])
        if not await self._tend_one(key, pod, sim):
            if settling:
                self._settling.setdefault(key, [])[:0] = settling
            return
        for future in settling:
            if not future.done():
                future.set_result(None)

    async def _tend_one(self, key: NamespacedName, pod: core.Pod | None, sim: Sim | None) -> bool:
        """Bring one Pod up to date; return False if it must be done again, as somebody wrote at the same time."""
        if sim is not None and (pod is None or pod.metadata.uid != sim.state.pod.metadata.uid):
            self._close(self._sims.pop(key))
            sim = None
        if pod is None:
            return True
        now = self._clock.now_seconds()
        if sim is None:
            node = self.nodes.get(pod.spec.node_name)
            if node is None:
                return True
            sim = self._sims[key] = self._take_up(pod, node, now)
        if not sim.node.is_alive:
            return True
        runs = {id(item): item.restarts for item in sim.state.all}
        due = sim.state.step(pod, now)
        self._write_logs(sim, runs, now)
        is_reported = await self._report_pod(sim, pod, now)
        if due is not None and not sim.state.is_gone:
            self._queue.add_after(key, due - now)
        return is_reported

    def _take_up(self, pod: core.Pod, node: Node, now: float) -> Sim:
        ip = pod.status.pod_ip or pod_address(next(self._addresses))
        state = PodState(pod, lambda container: self._behaviour(pod, container), now, ip=ip)
        return Sim(state, node, {})

    def _behaviour(self, pod: core.Pod, container: core.Container) -> Behaviour:
        try:
            return behaviour_of(pod, container, self.rules)
        except BadBehaviour as error:
            return Behaviour(start_error="CreateContainerConfigError", message=str(error))

    def _write_logs(self, sim: Sim, runs: dict[int, int], now: float) -> None:
        """Open a log for each run that began, close those of runs that ended."""
        for item in sim.state.all:
            name = item.spec.name
            logs = sim.logs.setdefault(name, [])
            if item.restarts > runs.get(id(item), -1):
                if logs and (item.restarts > 0):
                    logs[-1].close()
                if not logs or item.restarts > 0:
                    logs.append(ContainerLog())
                del logs[:-2]
                self._say_first(sim, item, logs[-1], now)
            if item.state is State.ENDED and logs:
                logs[-1].close()

    @staticmethod
    def _say_first(sim: Sim, item: Container, log: ContainerLog, now: float) -> None:
        known = item.behaviour.log
        if known is None:
            return
        said = known if isinstance(known, str) else known(sim.state.pod, item.spec.name)
        for text in [said] if isinstance(said, str) else said:
            log.write(text, now)

    async def _report_pod(self, sim: Sim, pod: core.Pod, now: float) -> bool:
        """Write what changed; return False if the Pod changed meanwhile (what was written comes in a moment)."""
        state, client = sim.state, sim.node.client
        status = status_of(state, now, host_ip=sim.node.address)
        if self.settings.events:
            for happened in state.take_occurrences():
                self._recorder.event(pod, happened.type, happened.reason, happened.message)
        newest = pod
        if status != pod.status:
            changed = serialization.copy(pod)
            changed.status = status
            try:
                newest = await client.update(_PODS, changed, subresource="status")
            except apierrors.Conflict:
                self._queue.add(_key(pod))
                # The refusal came without a turn of the loop, which the news of the change needs to arrive here.
                await asyncio.sleep(0)
                return False
            except apierrors.NotFound:
                return True
            if not state.is_gone:
                key = _key(pod)
                await self._pods.wait_seen(key, newest.metadata.resource_version)
        if state.is_gone:
            try:
                await client.delete(
                    _PODS, pod.metadata.namespace, pod.metadata.name, uid=UID(pod.metadata.uid), grace_period_seconds=0
                )
            except (apierrors.NotFound, apierrors.Conflict):
                return True
        return True

    @staticmethod
    def _close(sim: Sim) -> None:
        for logs in sim.logs.values():
            for log in logs:
                log.close()

    # Heartbeats

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            for node in tuple(self.nodes.values()):
                if node.is_alive:
                    await self._heartbeat(node)

    async def _heartbeat(self, node: Node) -> None:
        try:
            if self._clock.monotonic_seconds() - node.reported_seconds >= REPORT_SECONDS:
                await self._report(node)
            await self._renew(node, None)
        except apierrors.ApiError as error:
            _log.info("a heartbeat failed", node=node.settings.name, because=error.message)

    async def _renew(self, node: Node, registered: core.Node | None) -> None:
        name = node.settings.name
        now = self._clock.now_seconds()
        if registered is None:
            try:
                lease = serialization.copy(await node.client.get(_LEASES, LEASE_NAMESPACE, name))
            except apierrors.NotFound:
                registered = await node.client.get(_NODES, "", name)
            else:
                lease.spec.renew_time = times.format_micro_time(now)
                await node.client.update(_LEASES, lease)
                return
        try:
            await node.client.create(_LEASES, lease_object(registered, now))
        except apierrors.AlreadyExists:
            return

    async def _report(self, node: Node) -> None:
        while True:
            known = await node.client.get(_NODES, "", node.settings.name)
            changed: Any = serialization.copy(known)
            now = times.format_time(self._clock.now_seconds())
            old = {item.type: item for item in known.status.conditions}
            fresh = node_conditions(now, now, ready=node.is_ready)
            for item in fresh:
                before = old.get(item.type)
                if before is not None and before.status == item.status:
                    item.last_transition_time = before.last_transition_time
            own = {item.type for item in fresh}
            changed.status.conditions = [item for item in known.status.conditions if item.type not in own] + fresh
            try:
                await node.client.update(_NODES, changed, subresource="status")
            except apierrors.Conflict:
                continue
            node.reported_seconds = self._clock.monotonic_seconds()
            return


def _copied(sim: Sim) -> Sim:
    logs = {name: [log.copy() for log in runs] for name, runs in sim.logs.items()}
    return Sim(sim.state.copy(), sim.node, logs)


def _key(pod: core.Pod) -> NamespacedName:
    metadata: meta.ObjectMeta = pod.metadata
    return NamespacedName(metadata.namespace, metadata.name)
