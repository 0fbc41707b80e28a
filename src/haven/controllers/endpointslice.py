"""Keep the EndpointSlices of Services that select Pods.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import NamespacedName
from haven.client.owner import controller_reference
from haven.controllers import pods
from haven.controllers.actions import Create, Delete, Emit, Retry, Steps, Update, Wiring, key_from
from haven.controllers.counts import Counts
from haven.controllers.portorder import slice_port_by_hash
from haven.controllers.replicaset import namespace_is_terminating
from haven.controllers.serviceendpoints import (
    HEADLESS,
    MANAGED_BY,
    SERVICE_NAME,
    TRIGGER_TIME,
    TriggerTimes,
    addresses_of,
    belongs_in_endpoints,
    find_port,
    has_cluster_ip,
    pod_hostname,
    selected_pods,
    wake_on_pods,
)
from haven.controllers.slicepacking import PortsKey, SlicePlan, endpoint_key, pack, ports_key, recycle
from haven.controllers.topologyhints import (
    DISABLED,
    ENABLED,
    ZONE,
    Unfit,
    is_overloaded,
    share_out,
    wants_hints,
    without_hints,
    zone_shares,
)

__all__ = ["EndpointSliceController", "address_types", "endpoint_of", "write_slices"]

MANAGER = "endpointslice-controller.k8s.io"
ENDPOINTS_MAX = 100
_METRIC = "endpoint_slice_controller_"
_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})
_CLOSE = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})


def address_types(service: core.Service) -> list[str]:
    """Return the address families that a Service has slices of."""
    if service.spec.ip_families:
        return [family for family in ("IPv4", "IPv6") if family in service.spec.ip_families]
    if has_cluster_ip(service):
        return ["IPv6" if ":" in service.spec.cluster_ip else "IPv4"]
    return ["IPv4", "IPv6"]  # Headless and from before there were families.


def endpoint_of(pod: core.Pod, node: core.Node | None, service: core.Service, family: str) -> discovery.Endpoint | None:
    """Return a Pod as an endpoint; None if it has no address of the family."""
    addresses = addresses_of(pod, family)
    if not addresses:
        return None
    serving = pods.is_ready(pod)
    terminating = pod.metadata.deletion_timestamp is not None
    zone = node.metadata.labels.get(ZONE, "") if node is not None else ""
    return discovery.Endpoint(
        addresses=addresses,
        conditions=discovery.EndpointConditions(
            ready=service.spec.publish_not_ready_addresses or (serving and not terminating),
            serving=serving,
            terminating=terminating,
        ),
        hostname=pod_hostname(pod, service) or None,
        target_ref=core.ObjectReference(
            kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
        node_name=pod.spec.node_name or None,
        zone=zone or None,
    )


def labels_of(service: core.Service) -> dict[str, str]:
    """Return the labels of a Service's slices: its own, and those that tell whose they are."""
    labels = {name: value for name, value in service.metadata.labels.items() if name not in _RESERVED}
    if not has_cluster_ip(service):
        labels[HEADLESS] = ""
    return labels | {SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}


def hints_of(endpoint: discovery.Endpoint, distribution: str | None) -> discovery.EndpointHints | None:
    """Return for which zone and node an endpoint is meant, under a traffic distribution."""
    if distribution not in _CLOSE:
        return None
    if not endpoint.conditions.ready:
        return endpoint.hints
    zones = [discovery.ForZone(name=endpoint.zone)] if endpoint.zone else []
    nodes = []
    if endpoint.node_name and distribution == "PreferSameNode":
        nodes = [discovery.ForNode(name=endpoint.node_name)]
    return discovery.EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def plan_slices(
    service: core.Service,
    family: str,
    endpoints: dict[PortsKey, tuple[list[discovery.EndpointPort], list[discovery.Endpoint]]],
    existing: Sequence[discovery.EndpointSlice],
) -> SlicePlan:
    """Return how the slices of one family come to hold the endpoints, by ports. There is always one slice at least.

    Hints are those of the Service's traffic distribution, or kept as they are where topology settles them.
    """
    labels = labels_of(service)
    plan = SlicePlan()
    by_ports: dict[PortsKey, list[discovery.EndpointSlice]] = {}
    for each in existing:
        if any(reference.uid == service.metadata.uid for reference in each.metadata.owner_references):
            by_ports.setdefault(ports_key(each.ports), []).append(each)
        else:
            plan.delete.append(each)
    for key, (ports, wanted) in endpoints.items():
        plan.add(pack(by_ports.get(key, []), wanted, _maker(service, family, ports), labels, ENDPOINTS_MAX))
    for key, leftover in by_ports.items():
        if key not in endpoints:
            plan.delete += leftover
    if len(existing) == len(plan.delete) and not plan.create:
        placeholder = _new_slice(service, family, None)
        if len(plan.delete) == 1 and _is_placeholder(plan.delete[0], placeholder):
            plan.delete.clear()
        else:
            plan.create.append(placeholder)
    if not wants_hints(service):
        distribution = service.spec.traffic_distribution
        plan.update += [
            serialization.copy(each) for each in _untouched(plan, existing) if _needs_hints(each, distribution)
        ]
        for each in (*plan.create, *plan.update):
            each.endpoints = [_with_hints(one, distribution) for one in each.endpoints or ()] or None
    return plan


def _untouched(plan: SlicePlan, existing: Sequence[discovery.EndpointSlice]) -> list[discovery.EndpointSlice]:
    touched = {each.metadata.name for each in (*plan.update, *plan.delete)}
    return [each for each in existing if each.metadata.name not in touched]


def _with_hints(endpoint: discovery.Endpoint, distribution: str | None) -> discovery.Endpoint:
    result = serialization.copy(endpoint)
    result.hints = hints_of(result, distribution)
    return result


def _needs_hints(each: discovery.EndpointSlice, distribution: str | None) -> bool:
    return any(endpoint.hints != hints_of(endpoint, distribution) for endpoint in each.endpoints or ())


def _is_placeholder(found: discovery.EndpointSlice, placeholder: discovery.EndpointSlice) -> bool:
    return (
        not found.endpoints
        and not found.ports
        and found.address_type == placeholder.address_type
        and found.metadata.labels == placeholder.metadata.labels
        and [reference.uid for reference in found.metadata.owner_references]
        == [reference.uid for reference in placeholder.metadata.owner_references]
    )


def _maker(
    service: core.Service, family: str, ports: list[discovery.EndpointPort]
) -> Callable[[], discovery.EndpointSlice]:
    return lambda: _new_slice(service, family, ports)


def _new_slice(
    service: core.Service, family: str, ports: list[discovery.EndpointPort] | None
) -> discovery.EndpointSlice:
    return discovery.EndpointSlice(
        metadata=meta.ObjectMeta(
            generate_name=f"{service.metadata.name}-",
            namespace=service.metadata.namespace,
            labels=labels_of(service),
            owner_references=[controller_reference(service, resource_of(core.Service).gvk)],
        ),
        address_type=family,
        ports=ports or None,  # Upstream stores protobuf, which knows no empty lists: they come back as null.
    )


def write_slices(
    plan: SlicePlan,
    *,
    trigger_time: str | None,
    may_create: bool,
    count: Callable[[str], None] = lambda operation: None,
) -> Steps[None]:
    """Carry a plan out. `trigger_time` goes into an annotation, "" clears it, None leaves it.

    `count` is told of each create, update and delete that was done.
    """
    for each in (*plan.create, *plan.update):
        if trigger_time:
            each.metadata.annotations[TRIGGER_TIME] = trigger_time
        elif trigger_time == "":
            each.metadata.annotations.pop(TRIGGER_TIME, None)
    for each in plan.create if may_create else ():
        try:
            yield Create(each)
            count("create")
        except apierrors.Forbidden as error:
            if namespace_is_terminating(error):
                return
            raise
    for each in plan.update:
        yield Update(each)
        count("update")
    for each in plan.delete:
        yield Delete(resource_of(discovery.EndpointSlice), each.metadata.namespace, each.metadata.name)
        count("delete")


@dataclass(slots=True)
class _Wanted:
    """What was worked out for a Service, as it is counted."""

    distribution: str
    endpoints: int = 0
    slices: int = 0
    needed: int = 0

    def note(
        self,
        endpoints: Mapping[PortsKey, tuple[list[discovery.EndpointPort], list[discovery.Endpoint]]],
        existing: Sequence[discovery.EndpointSlice],
    ) -> tuple[int, int]:
        """Add the endpoints of a family, by ports; return how many are new, and how many go."""
        have = {(ports_key(each.ports), endpoint_key(one)) for each in existing for one in each.endpoints or ()}
        want = {(key, endpoint_key(one)) for key, (_, ones) in endpoints.items() for one in ones}
        self.endpoints += len(want)
        self.needed += sum(-(-len(ones) // ENDPOINTS_MAX) for _, ones in endpoints.values() if ones)
        self.needed += not any(ones for _, ones in endpoints.values())  # An empty slice tells that there are none.
        return len(want - have), len(have - want)


def _endpoints_of(wanted: _Wanted) -> float:
    return wanted.endpoints


def _slices_of(wanted: _Wanted) -> float:
    return wanted.slices


def _slices_needed(wanted: _Wanted) -> float:
    return wanted.needed


class EndpointSliceController:
    """Keys are Services."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._services = wiring.reader(core.Service)
        self._pods = wiring.reader(core.Pod)
        self._nodes = wiring.reader(core.Node)
        self._slices = wiring.reader(discovery.EndpointSlice)
        self._triggers = TriggerTimes()
        self._hinted: dict[NamespacedName, dict[str, dict[str, int]]] = {}  # Endpoints of zones, by address family.
        self.counts = Counts()
        self._wanted: dict[NamespacedName, _Wanted] = {}
        for name, figure in (
            ("endpoints_desired", _endpoints_of),
            ("num_endpoint_slices", _slices_of),
            ("desired_endpoint_slices", _slices_needed),
        ):
            self.counts.gauges[_METRIC + name] = partial(self._sum, figure)
        self.counts.gauges[_METRIC + "services_count_by_traffic_distribution"] = self._by_distribution
        self._slices.add_index(SERVICE_NAME, index_by_service)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._nodes.add_handler(self._node_changed)
        wake_on_pods(wiring, self._pods, self._services)

    def _sum(self, figure: Callable[[_Wanted], float]) -> dict[tuple[str, ...], float]:
        return {(): sum(map(figure, self._wanted.values()))}

    def _by_distribution(self) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for one in self._wanted.values():
            if one.distribution:
                found[(one.distribution,)] = found.get((one.distribution,), 0) + 1
        return found

    def _service_changed(self, old: core.Service | None, new: core.Service | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _slice_changed(self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None) -> None:
        for each in (old, new):
            if each is not None and each.metadata.labels.get(MANAGED_BY) == MANAGER:
                name = each.metadata.labels.get(SERVICE_NAME)
                if name:
                    self._wiring.enqueue(NamespacedName(each.metadata.namespace, name))

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        """A Pod may have been seen before its node, and zones may move or get another share of the CPU."""
        self._enqueue_overloaded()
        if new is None or (old is not None and old.metadata.labels.get(ZONE) == new.metadata.labels.get(ZONE)):
            return
        for pod in self._pods.list():
            if pod.spec.node_name == new.metadata.name:
                for service in self._services.list(pod.metadata.namespace):
                    if service.spec.selector and service.spec.selector.items() <= pod.metadata.labels.items():
                        self._wiring.enqueue(key_from(service))

    def sync(self, key: NamespacedName) -> Steps[None]:
        try:
            yield from self._sync(key)
        except (apierrors.ApiError, Retry):
            self.counts.add(_METRIC + "syncs", "error")
            raise
        self.counts.add(_METRIC + "syncs", "success")

    def _sync(self, key: NamespacedName) -> Steps[None]:
        service = self._services.get(*key)
        if service is None:
            self._triggers.forget(*key)
            self._hinted.pop(key, None)
            self._wanted.pop(key, None)
            return
        if service.spec.type == "ExternalName" or not service.spec.selector:
            return
        selected = selected_pods(self._pods, service)
        existing = [
            each
            for each in self._slices.indexed(SERVICE_NAME, f"{key.namespace}/{key.name}")
            if each.metadata.labels.get(MANAGED_BY) == MANAGER and each.metadata.deletion_timestamp is None
        ]
        trigger = self._triggers.compute(service, selected)
        families = address_types(service)
        plan = SlicePlan(delete=[each for each in existing if each.address_type not in families])
        problems: list[str] = []
        wanted = _Wanted(service.spec.traffic_distribution or "")
        added = removed = 0
        for family in families:
            endpoints = self._endpoints(service, selected, family, problems)
            slices = [each for each in existing if each.address_type == family]
            new, gone = wanted.note(endpoints, slices)
            added, removed = added + new, removed + gone
            part = plan_slices(service, family, endpoints, slices)
            yield from self._hint(service, family, part, slices)
            plan.add(recycle(part))
        alive = service.metadata.deletion_timestamp is None
        self.counts.observe(_METRIC + "endpoints_added_per_sync", value=added)
        self.counts.observe(_METRIC + "endpoints_removed_per_sync", value=removed)
        wanted.slices = len(existing) + len(plan.create) - len(plan.delete)
        self._wanted[key] = wanted
        try:
            yield from write_slices(
                plan,
                trigger_time=trigger,
                may_create=alive,
                count=lambda operation: self.counts.add(_METRIC + "changes", operation),
            )
        except (apierrors.NotFound, apierrors.Conflict) as error:
            raise Retry(str(error)) from error
        except apierrors.ApiError as error:
            yield Emit(
                service,
                "Warning",
                "FailedToUpdateEndpointSlices",
                f"Error updating Endpoint Slices for Service {key.namespace}/{key.name}: {error}",
            )
            raise
        changed = len(plan.create) + len(plan.update) + len(plan.delete)
        labels = ("Auto" if wants_hints(service) else "Disabled", wanted.distribution)
        self.counts.observe(_METRIC + "endpointslices_changed_per_sync", *labels, value=changed)
        if problems:
            raise Retry("; ".join(problems))

    # Hints by zone

    def _hint(
        self, service: core.Service, family: str, plan: SlicePlan, existing: Sequence[discovery.EndpointSlice]
    ) -> Steps[None]:
        """Share the endpoints of one family out among zones, if the Service asks for it; tell when that changes."""
        key = key_from(service)
        if not wants_hints(service):
            if self._hinted.pop(key, None):
                yield Emit(service, "Warning", "TopologyAwareHintsDisabled", f"{DISABLED}, addressType: {family}")
            return
        unchanged = _untouched(plan, existing)
        changing = [*plan.create, *plan.update]
        try:
            stale, given = share_out(changing, unchanged, zone_shares(self._nodes.list()))
        except Unfit as problem:
            plan.update += without_hints(unchanged)
            yield Emit(service, "Warning", "TopologyAwareHintsDisabled", f"{problem}, addressType: {family}")
            families = self._hinted.pop(key, {})
            families.pop(family, None)
            if families:
                self._hinted[key] = families
            return
        plan.update += stale
        if key not in self._hinted:
            yield Emit(service, "Normal", "TopologyAwareHintsEnabled", f"{ENABLED}, addressType: {family}")
        self._hinted.setdefault(key, {})[family] = given

    def _enqueue_overloaded(self) -> None:
        if not self._hinted:
            return
        shares = zone_shares(self._nodes.list())
        for key, families in self._hinted.items():
            if any(is_overloaded(given, shares) for given in families.values()):
                self._wiring.enqueue(key)

    def _endpoints(
        self, service: core.Service, selected: Sequence[core.Pod], family: str, problems: list[str]
    ) -> dict[PortsKey, tuple[list[discovery.EndpointPort], list[discovery.Endpoint]]]:
        result: dict[PortsKey, tuple[list[discovery.EndpointPort], list[discovery.Endpoint]]] = {}
        for pod in selected:
            if not belongs_in_endpoints(pod, terminating=True):
                continue
            ports = _ports_of(service, pod)
            node = self._nodes.get("", pod.spec.node_name)
            if node is None and not service.spec.publish_not_ready_addresses:
                place = f"{service.metadata.namespace}/{service.metadata.name}"
                problems.append(
                    f"skipping Pod {pod.metadata.name} for Service {place}: Node {pod.spec.node_name} Not Found"
                )
                continue
            endpoint = endpoint_of(pod, node, service, family)
            group = result.setdefault(ports_key(ports), (ports, []))
            if endpoint is not None:
                group[1].append(endpoint)
        return result


def index_by_service(each: discovery.EndpointSlice) -> tuple[str, ...]:
    """Index slices by the Service that they belong to."""
    name = each.metadata.labels.get(SERVICE_NAME)
    return (f"{each.metadata.namespace}/{name}",) if name else ()


def _ports_of(service: core.Service, pod: core.Pod) -> list[discovery.EndpointPort]:
    result = []
    for port in service.spec.ports:
        number = find_port(pod, port)
        if number is not None:
            result.append(
                discovery.EndpointPort(
                    name=port.name, port=number, protocol=port.protocol, app_protocol=port.app_protocol
                )
            )
    return sorted(result, key=slice_port_by_hash)
