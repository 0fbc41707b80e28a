"""The proxy's shell: informers tell which Services changed, changes are gathered briefly, one transaction applies them.

After an error the whole table is written anew: the kernel applies a transaction whole or not at all, so what it holds
is known again afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from haven import telemetry
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.apimachinery.names import NamespacedName
from haven.client.sharedinformers import SharedInformers
from haven.clock import Clock
from haven.kubeproxy import rules
from haven.kubeproxy.driver import Conntrack, Nftables, NftablesError
from haven.kubeproxy.endpoints import Node
from haven.kubeproxy.plan import Plan, plan_service
from haven.kubeproxy.rules import Layout
from haven.kubeproxy.stale import stale_flows

__all__ = ["KubeProxy", "Settings", "Statistics"]

_log = telemetry.logger("kubeproxy")
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Settings:
    """How the proxy works on this node."""

    node_name: str
    layout: Layout
    answered_here: frozenset[str] = frozenset()  # Service addresses that the node has itself (DNS).
    gather_seconds: float = 0.02  # A rollout changes many endpoints at once; waiting this long saves transactions.
    retry_seconds: float = 5.0
    resync_seconds: float = 300.0  # Somebody may have flushed the ruleset: write it anew now and then.


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot for metrics."""

    service_ports: int
    transactions: int
    full_writes: int
    failures: int


@dataclass
class _Counts:
    transactions: int = 0
    full_writes: int = 0
    failures: int = 0
    dirty: set[NamespacedName] = field(default_factory=set)


class KubeProxy:
    """Keeps this node's rules equal to the cluster's Services. `run` does the work until cancelled."""

    def __init__(
        self, settings: Settings, informers: SharedInformers, nftables: Nftables, conntrack: Conntrack, clock: Clock
    ) -> None:
        self._settings = settings
        self._nftables = nftables
        self._conntrack = conntrack
        self._clock = clock
        self._services = informers.informer(core.Service)
        self._slices = informers.informer(discovery.EndpointSlice)
        self._nodes = informers.informer(core.Node, field_selector=f"metadata.name={settings.node_name}")
        self._slices.add_index("service", _service_of)
        self._plan: Plan = {}
        self._node = Node(settings.node_name)
        self._counts = _Counts()
        self._wake = asyncio.Event()
        self._written = asyncio.Event()

    def statistics(self) -> Statistics:
        """Return a snapshot for metrics."""
        counts = self._counts
        return Statistics(len(self._plan), counts.transactions, counts.full_writes, counts.failures)

    async def wait_written(self) -> None:
        """Return once the rules were written for the first time."""
        await self._written.wait()

    async def run(self) -> None:
        """Follow the cluster until cancelled. The rules stay: connections go on while the proxy restarts."""
        removers = [
            self._services.add_handler(self._service_changed),
            self._slices.add_handler(self._slice_changed),
            self._nodes.add_handler(self._node_changed),
        ]
        try:
            for informer in (self._services, self._slices, self._nodes):
                await informer.wait_synced()
            await self._follow()
        finally:
            for remove in removers:
                remove()

    def _service_changed(self, old: core.Service | None, new: core.Service | None) -> None:
        service = new or old
        assert service is not None
        self._mark(service.metadata.namespace, service.metadata.name)

    def _slice_changed(self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None) -> None:
        for item in (old, new):
            if item is not None and SERVICE_NAME_LABEL in item.metadata.labels:
                self._mark(item.metadata.namespace, item.metadata.labels[SERVICE_NAME_LABEL])

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        zone = new.metadata.labels.get(ZONE_LABEL, "") if new else ""
        if zone != self._node.zone:
            self._node = Node(self._settings.node_name, zone)
            for service in self._services.list():
                self._mark(service.metadata.namespace, service.metadata.name)

    def _mark(self, namespace: str, name: str) -> None:
        self._counts.dirty.add(NamespacedName(namespace, name))
        self._wake.set()

    async def _follow(self) -> None:
        whole = True
        while True:
            try:
                await self._write(whole=whole)
                whole = False
                self._written.set()
            except NftablesError as error:
                self._counts.failures += 1
                _log.error("the kernel refused the rules, writing all anew", because=str(error))
                whole = True
                await self._clock.sleep(self._settings.retry_seconds)
                continue
            try:
                async with asyncio.timeout(self._settings.resync_seconds):
                    await self._wake.wait()
            except TimeoutError:
                whole = True
            else:
                await self._clock.sleep(self._settings.gather_seconds)

    async def _write(self, *, whole: bool) -> None:
        self._wake.clear()
        dirty, self._counts.dirty = self._counts.dirty, set()
        old = self._plan
        if whole:
            new = {key: port for service in self._services.list() for key, port in self._plan_of(service).items()}
            text = rules.full(self._settings.layout, new)
        else:
            new = {key: port for key, port in old.items() if NamespacedName(key.namespace, key.service) not in dirty}
            for place in dirty:
                service = self._services.get_key(place)
                if service is not None:
                    new.update(self._plan_of(service))
            text = rules.change(self._settings.layout, old, new)
        if text:
            await self._nftables.apply(text)
            self._counts.transactions += 1
            self._counts.full_writes += whole
        self._plan = new
        await self._conntrack.forget(stale_flows(old, new))

    def _plan_of(self, service: core.Service) -> Plan:
        place = f"{service.metadata.namespace}/{service.metadata.name}"
        slices: Sequence[discovery.EndpointSlice] = list(self._slices.indexed("service", place))
        return plan_service(service, slices, self._node, self._settings.answered_here)


def _service_of(item: discovery.EndpointSlice) -> tuple[str, ...]:
    name = item.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{item.metadata.namespace}/{name}",) if name else ()
