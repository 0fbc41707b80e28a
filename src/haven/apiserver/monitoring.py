"""What is known of a server without counting: its build, its gates, what it keeps, what the process uses.

Filled in when somebody asks for metrics. Source: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.authorization.nodegraph import NodeGraph
from haven.apiserver.discovery import Discovery, version_info
from haven.apiserver.featuregates import gates
from haven.apiserver.processfacts import process_start_seconds, tell_process
from haven.apiserver.registry.storage import Storage, Storages
from haven.metrics.families import Registry
from haven.store.interface import Store

__all__ = ["ServerFacts", "store_bytes"]

_SERVICES = GroupResource("", "services")
_API_SERVICES = GroupResource("apiregistration.k8s.io", "apiservices")


class ServerFacts:
    """Fills in facts about a server."""

    def __init__(
        self,
        registry: Registry,
        states: Mapping[str, bool],
        storages: Storages,
        *,
        history_max: int,
        node_ports: int,
        discovery: Discovery,
        graph: NodeGraph,
    ) -> None:
        self._registry = registry
        self._states = states
        self._storages = storages
        self._history_max = history_max
        self._node_ports = node_ports
        self._started = process_start_seconds()
        self._discovery = discovery
        self._graph = graph
        self._describe()
        registry.add_collector(self._collect)

    def _describe(self) -> None:
        """Say what does not change."""
        registry, info = self._registry, version_info()
        registry["kubernetes_build_info"].set(
            (
                "", info.compiler, info.git_commit, info.git_tree_state, info.git_version, info.go_version,
                info.major, info.minor, info.platform,
            ),
            1,
        )  # fmt: skip
        number = info.git_version.removeprefix("v").partition("+")[0]
        minor = number.rpartition(".")[0]
        oldest = f"{info.min_compatibility_major}.{info.min_compatibility_minor}"
        registry["version_info"].set((number, "kube", minor, oldest), 1)
        for name, state in self._states.items():
            stage = gates()[name].stage.upper()
            registry["kubernetes_feature_enabled"].set((name, "" if stage == "GA" else stage), int(state))
        registered = Counter((one.deprecated, one.stability) for one in registry.all() if one.stability)
        for labels, number_of in registered.items():
            registry["registered_metrics_total"].set(labels, number_of)
        registry["hidden_metrics_total"].set((), len(registry.hidden))
        registry["disabled_metrics_total"].set((), len(registry.disabled))

    def _collect(self) -> None:
        for name in _PER_STORAGE:
            self._registry[name].clear()
        for storage in self._storages.all():
            self._of_storage(storage)
        size = store_bytes(self._storages.store)
        if size:
            self._registry["apiserver_storage_size_bytes"].set(("etcd-0",), size)
        self._of_services()
        self._of_extensions()
        self._registry["aggregator_discovery_aggregation_count_total"].set((), self._discovery.aggregations)
        for operation, spread in self._graph.spent.items():
            self._registry["node_authorizer_graph_actions_duration_seconds"].show((operation,), spread)
        tell_process(self._registry, self._started)

    def _of_storage(self, storage: Storage) -> None:
        registry, cache = self._registry, storage.cache
        kind = storage.resource
        place = (kind.group, kind.plural)
        registry["apiserver_storage_objects"].set((str(kind.group_resource),), len(cache))
        registry["apiserver_resource_objects"].set(place, len(cache))
        registry["apiserver_resource_size_estimate_bytes"].set(place, cache.bytes)
        registry["apiserver_watch_cache_resource_version"].set(place, cache.newest)
        registry["apiserver_watch_cache_initializations_total"].set(place, 1)
        registry["watch_cache_capacity"].set(place, self._history_max)
        if cache.received:
            for name in _EVENTS:
                registry[name].set(place, cache.received)
        if cache.overruns:
            registry["apiserver_terminated_watchers_total"].set(place, cache.overruns)

    def _of_services(self) -> None:
        registry = self._registry
        services = self._storages.of(_SERVICES)
        ports = 0
        for entry in services.cache.entries():
            spec = entry.object.spec
            ports += sum(1 for port in spec.ports if port.node_port) + (spec.health_check_node_port > 0)
        registry["kube_apiserver_nodeport_allocator_allocated_ports"].set((), ports)
        registry["kube_apiserver_nodeport_allocator_available_ports"].set((), self._node_ports - ports)

    def _of_extensions(self) -> None:
        family = self._registry["aggregator_unavailable_apiservice"]
        family.clear()
        for entry in self._storages.of(_API_SERVICES).cache.entries():
            available = any(
                one.type == "Available" and one.status == "True" for one in entry.object.status.conditions or ()
            )
            family.set((entry.name,), 0 if available else 1)


_EVENTS = (
    "apiserver_storage_events_received_total",
    "apiserver_watch_cache_events_received_total",
    "apiserver_watch_cache_events_dispatched_total",
)
_PER_STORAGE = (
    "apiserver_storage_objects",
    "apiserver_resource_objects",
    "apiserver_resource_size_estimate_bytes",
    "apiserver_watch_cache_resource_version",
    "apiserver_watch_cache_initializations_total",
    "watch_cache_capacity",
    "apiserver_terminated_watchers_total",
    *_EVENTS,
)
"""They are written anew each time, as kinds of custom resources come and go."""


def store_bytes(store: Store) -> int:
    """Return how much room a store takes on this machine's disk; 0 if it is kept elsewhere."""
    statistics = getattr(store, "statistics", None)
    if statistics is None:
        return 0
    found = statistics()
    return int(getattr(found, "file_bytes", 0)) + int(getattr(found, "log_bytes", 0))
