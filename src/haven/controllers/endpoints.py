"""Keep the Endpoints of Services that select Pods, for those who still read them.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#endpoints
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.names import NamespacedName
from haven.controllers import pods
from haven.controllers.actions import Create, Delete, Emit, Steps, Update, Wiring, key_from
from haven.controllers.portorder import by_hash
from haven.controllers.replicaset import namespace_is_terminating
from haven.controllers.serviceendpoints import (
    HEADLESS,
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

__all__ = ["EndpointsController", "repack", "subsets_of", "truncate"]

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
ADDRESSES_MAX = 1000

_Port = tuple[str, int, str, str | None]
_Place = tuple[str, str]  # Address and UID of whose it is.


def repack(subsets: Iterable[core.EndpointSubset]) -> list[core.EndpointSubset]:
    """Return the same endpoints in another form: ports that the same addresses have, all equally ready, go together."""
    ports: dict[_Port, core.EndpointPort] = {}
    members: dict[_Port | None, dict[_Place, bool]] = {}
    addresses: dict[_Place, core.EndpointAddress] = {}
    for subset in subsets:
        keys: list[_Port | None] = []
        for port in subset.ports:
            key = (port.name, port.port, port.protocol, port.app_protocol)
            ports[key] = port
            keys.append(key)
        for is_ready, some in ((True, subset.addresses), (False, subset.not_ready_addresses)):
            for address in some:
                place = (address.ip, address.target_ref.uid if address.target_ref else "")
                addresses.setdefault(place, address)
                for each in keys or [None]:
                    known = members.setdefault(each, {})
                    known[place] = known.get(place, True) and is_ready  # Who is not ready once is not ready.
    groups: dict[tuple[tuple[_Place, bool], ...], list[core.EndpointPort]] = {}
    for each, known in members.items():
        group = groups.setdefault(tuple(sorted(known.items())), [])
        if each is not None:
            group.append(ports[each])
    result = [
        core.EndpointSubset(
            addresses=[addresses[place] for place, is_ready in known if is_ready],
            not_ready_addresses=[addresses[place] for place, is_ready in known if not is_ready],
            ports=sorted(group, key=by_hash),
        )
        for known, group in groups.items()
    ]
    return sorted(result, key=lambda subset: [by_hash(port) for port in subset.ports])


def subsets_of(service: core.Service, selected: Sequence[core.Pod]) -> list[core.EndpointSubset]:
    """Return a Service's endpoints among these Pods."""
    publishes_all = service.spec.publish_not_ready_addresses
    subsets = []
    for pod in selected:
        if not belongs_in_endpoints(pod, terminating=publishes_all):
            continue
        address = _address_of(service, pod)
        if address is None:
            continue
        is_ready = publishes_all or pods.is_ready(pod)
        ready, not_ready = ([address], []) if is_ready else ([], [address])
        if not service.spec.ports and service.spec.cluster_ip == "None":
            subsets.append(core.EndpointSubset(addresses=ready, not_ready_addresses=not_ready))
        for port in service.spec.ports:
            number = find_port(pod, port)
            if number is not None:
                found = core.EndpointPort(
                    name=port.name, port=number, protocol=port.protocol, app_protocol=port.app_protocol
                )
                subsets.append(core.EndpointSubset(addresses=ready, not_ready_addresses=not_ready, ports=[found]))
    return repack(subsets)


def _address_of(service: core.Service, pod: core.Pod) -> core.EndpointAddress | None:
    family = "IPv4"
    if service.spec.ip_families:
        family = service.spec.ip_families[0]
    elif ":" in (service.spec.cluster_ip if has_cluster_ip(service) else pod.status.pod_ip):
        family = "IPv6"
    found = addresses_of(pod, family)
    if not found:
        return None
    return core.EndpointAddress(
        ip=found[0],
        hostname=pod_hostname(pod, service),
        node_name=pod.spec.node_name,
        target_ref=core.ObjectReference(
            kind="Pod", namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
    )


def truncate(subsets: list[core.EndpointSubset]) -> bool:
    """Cut the subsets down to ADDRESSES_MAX addresses, unready ones first, in proportion; tell if so.

    Every subset keeps its share.
    """
    ready = sum(len(each.addresses) for each in subsets)
    not_ready = sum(len(each.not_ready_addresses) for each in subsets)
    if ready + not_ready <= ADDRESSES_MAX:
        return False
    cuts_ready = ready > ADDRESSES_MAX
    room = ADDRESSES_MAX if cuts_ready else ADDRESSES_MAX - ready
    total = ready if cuts_ready else not_ready
    left = room
    for each in subsets:
        members = each.addresses if cuts_ready else each.not_ready_addresses
        kept = members[: min(math.ceil(len(members) / total * room), left)]
        left -= len(kept)
        if cuts_ready:
            each.addresses, each.not_ready_addresses = kept, []
        else:
            each.not_ready_addresses = kept
    return True


class EndpointsController:
    """Keys are Services, and Endpoints of that name."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._services = wiring.reader(core.Service)
        self._pods = wiring.reader(core.Pod)
        self._endpoints = wiring.reader(core.Endpoints)
        self._triggers = TriggerTimes()
        self._services.add_handler(self._changed)
        self._endpoints.add_handler(self._endpoints_changed)
        wake_on_pods(wiring, self._pods, self._services)

    def _changed(self, old: core.Service | None, new: core.Service | None) -> None:
        self._wiring.enqueue(key_from(old if new is None else new))

    def _endpoints_changed(self, old: core.Endpoints | None, new: core.Endpoints | None) -> None:
        # Ours come back whenever we write them; only a deletion by someone else, or leftovers at start, matter.
        if new is None or (old is None and new.metadata.labels.get(MANAGED_BY) == MANAGER):
            self._wiring.enqueue(key_from(old if new is None else new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        service = self._services.get(*key)
        current = self._endpoints.get(*key)
        if service is None:
            self._triggers.forget(*key)
            is_ours = (
                current is not None and "control-plane.alpha.kubernetes.io/leader" not in current.metadata.annotations
            )
            if is_ours:
                yield Delete(resource_of(core.Endpoints), *key)
            return
        if service.spec.type == "ExternalName" or not service.spec.selector:
            return
        selected = selected_pods(self._pods, service)
        trigger = self._triggers.compute(service, selected)
        subsets = subsets_of(service, selected)
        labels = dict(service.metadata.labels)
        if not has_cluster_ip(service):
            labels[HEADLESS] = ""
        else:
            labels.pop(HEADLESS, None)
        labels[MANAGED_BY] = MANAGER
        if current is not None and _is_current(current, subsets, labels):
            return
        if current is None:
            wanted = core.Endpoints(metadata=meta.ObjectMeta(name=key.name, namespace=key.namespace))
        else:
            wanted = serialization.copy(current)
        wanted.subsets = subsets
        wanted.metadata.labels = labels
        _annotate(wanted.metadata.annotations, TRIGGER_TIME, trigger)
        _annotate(wanted.metadata.annotations, OVER_CAPACITY, "truncated" if truncate(wanted.subsets) else "")
        try:
            yield Create(wanted) if current is None else Update(wanted)
        except apierrors.ApiError as error:
            if current is None and namespace_is_terminating(error):
                return
            verb, reason = (
                ("create", "FailedToCreateEndpoint") if current is None else ("update", "FailedToUpdateEndpoint")
            )
            place = f"for service {key.namespace}/{key.name}" if current is None else f"{key.namespace}/{key.name}"
            yield Emit(wanted, "Warning", reason, f"Failed to {verb} endpoint {place}: {error}")
            raise


def _annotate(annotations: dict[str, str], name: str, value: str) -> None:
    if value:
        annotations[name] = value
    else:
        annotations.pop(name, None)


def _is_current(current: core.Endpoints, subsets: list[core.EndpointSubset], labels: dict[str, str]) -> bool:
    count = sum(len(each.addresses) + len(each.not_ready_addresses) for each in current.subsets)
    fits = count <= ADDRESSES_MAX and OVER_CAPACITY not in current.metadata.annotations
    return fits and current.metadata.labels == labels and repack(current.subsets) == subsets
