"""Cluster IPs and node ports of Services, reserved in the transaction that writes the Service.

An IP is reserved by its IPAddress object, as upstream has it; a node port by a key of its own. So nothing is leaked or
given twice, whatever crashes when. Sources: KEP-1880 (IPAddress, ServiceCIDR), KEP-3070 and KEP-3668 (upper and lower
bands: what is chosen comes from the upper band, so that hand-picked values of the lower one stay free).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from time import perf_counter
from typing import Any

from haven.api.core import v1 as core
from haven.api.core.validation.service import validate_cluster_ips
from haven.api.networking import v1 as networking
from haven.apimachinery import apierrors, meta
from haven.apimachinery.fielderrors import ErrorList, Path, invalid
from haven.apimachinery.names import Revision
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.allocationmeter import DYNAMIC, STATIC, AllocationMeter
from haven.apiserver.registry.serverwrites import SERVER
from haven.apiserver.registry.storage import ROOT, Reservation, Storage, Storages, Write
from haven.apiserver.watchcache import DELETED, Watched
from haven.clock import Clock
from haven.metrics.families import Registry

__all__ = ["ServiceAllocation"]

_SERVICES = apierrors.GroupResource("", "services")
_ADDRESSES = apierrors.GroupResource("networking.k8s.io", "ipaddresses")
_NETWORKS = apierrors.GroupResource("networking.k8s.io", "servicecidrs")
_KIND = apierrors.GroupKind("", "Service")
_NONE, _EXTERNAL = "None", "ExternalName"
_CLUSTER_IP, _NODE_PORT, _LOAD_BALANCER = "ClusterIP", "NodePort", "LoadBalancer"
_SINGLE, _PREFER, _REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_V4, _V6 = "IPv4", "IPv6"
_MANAGED_BY, _MANAGER = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"
_RANDOM_ATTEMPTS = 32
_PRETENDED_PORT = 32768
"""A dry run shows node ports beyond this one: the number is made up."""

_ADDRESS_FIELDS: dict[str, Any] = {
    "f:metadata": {
        "f:labels": {
            ".": {},
            "f:ipaddress.kubernetes.io/ip-family": {},
            "f:ipaddress.kubernetes.io/managed-by": {},
        }
    },
    "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
}
"""What the server owns of an IPAddress: it makes them through a request to itself upstream."""

Network = IPv4Network | IPv6Network


class Allocated:
    """What one write of a Service reserves and releases. A dry run only pretends, and looks less closely."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.addresses: list[str] = []
        self.released_addresses: list[str] = []
        self.ports: list[int] = []
        self.released_ports: list[int] = []


class ServiceAllocation:
    """Hooks of Services."""

    def __init__(
        self,
        storages: Storages,
        clock: Clock,
        chance: random.Random,
        *,
        networks: Sequence[Network],
        node_ports: range,
        registry: Registry | None = None,
    ) -> None:
        self._storages = storages
        self._meter = AllocationMeter(registry, self._taken) if registry is not None else None
        self._clock = clock
        self._chance = chance
        self._networks = tuple(networks)
        self._node_ports = node_ports
        self._used_ports: Counter[int] = Counter()
        for entry in storages.of(_SERVICES).cache.entries():
            self._used_ports.update(_ports_of(entry.glimpse))
        storages.after_change.append(self._follow)

    def _follow(self, storage: Storage, event: Watched) -> None:
        if storage.resource.group_resource != _SERVICES:
            return
        if event.previous is not None:
            self._used_ports.subtract(_ports_of(event.previous.glimpse))
        if event.type != DELETED:
            self._used_ports.update(_ports_of(event.entry.glimpse))
        self._used_ports = +self._used_ports

    def _taken(self) -> Iterator[str]:
        for entry in self._storages.of(_ADDRESSES).cache.entries():
            if entry.labels.get(_MANAGED_BY) == _MANAGER:
                yield entry.name

    # ---- hooks

    def create(self, obj: Any, *, dry_run: bool) -> Sequence[Write | Reservation]:
        """Complete a new Service."""
        service: core.Service = obj
        spec = service.spec
        if spec.cluster_ip and not spec.cluster_ips:
            spec.cluster_ips = [spec.cluster_ip]
        allocated = Allocated(dry_run=dry_run)
        self._init_families(service, None)
        if spec.type != _EXTERNAL:
            self._allocate_addresses(service, allocated)
        self._init_node_ports(service, allocated)
        if _needs_health_check(service):
            self._allocate_health_check(service, allocated)
        return self._writes(service, allocated)

    def update(self, new: Any, old: Any, *, dry_run: bool) -> Sequence[Write | Reservation]:
        """Complete a changed Service."""
        service: core.Service = new
        before: core.Service = old
        _keep_allocated(service, before)
        _align_cluster_ips(service, before)
        allocated = Allocated(dry_run=dry_run)
        if not _same_preference(service, before):
            self._init_families(service, before)
        if not _same_preference(service, before):
            self._update_addresses(service, before, allocated)
        had = before.spec.type in (_NODE_PORT, _LOAD_BALANCER)
        if had and service.spec.type not in (_NODE_PORT, _LOAD_BALANCER):
            allocated.released_ports += _ports_of(before, health_check=False)
        if service.spec.type in (_NODE_PORT, _LOAD_BALANCER):
            self._update_node_ports(service, before, allocated)
        if _needs_health_check(service) and not _needs_health_check(before):
            self._allocate_health_check(service, allocated)
        elif _needs_health_check(before) and not _needs_health_check(service) and before.spec.health_check_node_port:
            allocated.released_ports.append(before.spec.health_check_node_port)
        return self._writes(service, allocated)

    def delete(self, old: Any) -> Sequence[Write | Reservation]:
        """Release everything."""
        service: core.Service = old
        allocated = Allocated()
        if service.spec.type != _EXTERNAL and service.spec.cluster_ip != _NONE:
            allocated.released_addresses = [text for text in service.spec.cluster_ips if text]
        allocated.released_ports = _ports_of(service)
        return self._writes(service, allocated)

    def _writes(self, service: core.Service, allocated: Allocated) -> list[Write | Reservation]:
        storage = self._storages.of(_ADDRESSES)
        result: list[Write | Reservation] = []
        for text in allocated.addresses:
            address = self._address_object(service, text)
            result.append(Write(storage, storage.key("", address.metadata.name), address, expected=Revision(0)))
        for text in allocated.released_addresses:
            entry = storage.get("", text)
            if entry is not None and text not in allocated.addresses:
                result.append(Write(storage, storage.key("", text), None, expected=entry.revision))
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        taken = set(allocated.ports)
        result += [Reservation(_port_key(port), name.encode(), expected=Revision(0)) for port in sorted(taken)]
        result += [
            Reservation(_port_key(port), None, expected=None) for port in sorted(set(allocated.released_ports) - taken)
        ]
        return result

    def _address_object(self, service: core.Service, text: str) -> networking.IPAddress:
        address = networking.IPAddress(
            kind="IPAddress",
            api_version="networking.k8s.io/v1",
            metadata=meta.ObjectMeta(
                name=str(ip_address(text)),
                labels={
                    "ipaddress.kubernetes.io/ip-family": _family(text),
                    _MANAGED_BY: _MANAGER,
                },
            ),
            spec=networking.IPAddressSpec(
                parent_ref=networking.ParentReference(
                    resource="services", namespace=service.metadata.namespace, name=service.metadata.name
                )
            ),
        )
        systemfields.fill(address.metadata, self._clock.now_seconds())
        address.metadata.managed_fields = [
            meta.ManagedFieldsEntry(
                manager=SERVER,
                operation="Update",
                api_version="networking.k8s.io/v1",
                time=address.metadata.creation_timestamp,
                fields_type="FieldsV1",
                fields_v1=_ADDRESS_FIELDS,
            )
        ]
        return address

    # ---- families

    def _configured(self) -> dict[str, list[Network]]:
        """Return the networks of each family, from the ServiceCIDR objects."""
        found: dict[str, list[Network]] = {}
        for network in self._networks:
            found.setdefault(_V4 if network.version == 4 else _V6, []).append(network)
        for entry in self._storages.of(_NETWORKS).cache.entries():
            cidr: networking.ServiceCIDR = entry.glimpse
            if cidr.metadata.deletion_timestamp:
                continue
            for text in cidr.spec.cidrs:
                network = ip_network(text)
                networks = found.setdefault(_V4 if network.version == 4 else _V6, [])
                if network not in networks:
                    networks.append(network)
        return found

    def _init_families(self, service: core.Service, old: core.Service | None) -> None:
        """Settle policy and families; raise Invalid if they, or the addresses, do not go together."""
        spec = service.spec
        if spec.type == _EXTERNAL:
            return
        headless_without_selector = spec.cluster_ip == _NONE and not spec.selector
        if spec.ip_family_policy is None:
            if old is not None and old.spec.ip_family_policy is not None:
                spec.ip_family_policy = old.spec.ip_family_policy
            else:
                spec.ip_family_policy = _REQUIRE if headless_without_selector else _SINGLE
        errors: ErrorList = validate_cluster_ips(spec, old)
        if errors:
            raise apierrors.Invalid.of(_KIND, service.metadata.name, errors)
        configured = self._configured()
        path = Path("spec")
        policy = spec.ip_family_policy
        if old is not None:
            errors += _reductions(service, old)
        if policy == _SINGLE:
            must = "must be 'RequireDualStack' or 'PreferDualStack' when multiple"
            if len(spec.cluster_ips) == 2:
                errors.append(invalid(path.child("ipFamilyPolicy"), policy, f"{must} cluster IPs are specified"))
            if len(spec.ip_families) == 2:
                errors.append(invalid(path.child("ipFamilyPolicy"), policy, f"{must} IP families are specified"))
        for index, text in enumerate(spec.cluster_ips):
            if text == _NONE:
                break
            if index >= len(spec.ip_families):
                family = _family(text)
                if family not in configured:
                    where = path.child("clusterIPs").index(index)
                    errors.append(invalid(where, spec.cluster_ips, f"{family} is not configured on this cluster"))
                else:
                    spec.ip_families = [*spec.ip_families, family]
        if errors:
            raise apierrors.Invalid.of(_KIND, service.metadata.name, errors)
        default = _V4 if self._networks[0].version == 4 else _V6
        if headless_without_selector:
            spec.ip_families = list(spec.ip_families) or [default]
            if len(spec.ip_families) < 2 and policy != _SINGLE:
                spec.ip_families.append(_V6 if spec.ip_families[0] == _V4 else _V4)
            return
        if policy == _REQUIRE and len(configured) < 2:
            text = "this cluster is not configured for dual-stack services"
            errors.append(invalid(path.child("ipFamilyPolicy"), policy, text))
        for index, family in enumerate(spec.ip_families):
            if family not in configured:
                where = path.child("ipFamilies").index(index)
                errors.append(invalid(where, family, "not configured on this cluster"))
        if errors:
            raise apierrors.Invalid.of(_KIND, service.metadata.name, errors)
        spec.ip_families = list(spec.ip_families) or [default]
        if policy != _SINGLE and len(spec.ip_families) == 1 and len(configured) == 2:
            spec.ip_families.append(_V6 if spec.ip_families[0] == _V4 else _V4)

    # ---- addresses

    def _allocate_addresses(self, service: core.Service, allocated: Allocated) -> None:
        spec = service.spec
        if spec.cluster_ips and spec.cluster_ips[0] == _NONE:
            return
        wanted = list(spec.cluster_ips)
        for index, family in enumerate(spec.ip_families):
            text = wanted[index] if index < len(wanted) else ""
            chosen = self._take_address(service, family, text, allocated)
            if index < len(wanted):
                wanted[index] = chosen
            else:
                wanted.append(chosen)
        spec.cluster_ips = wanted
        spec.cluster_ip = wanted[0] if wanted else ""

    def _update_addresses(self, service: core.Service, old: core.Service, allocated: Allocated) -> None:
        spec, before = service.spec, old.spec
        if before.type == _EXTERNAL and spec.type != _EXTERNAL:
            self._allocate_addresses(service, allocated)
            return
        if before.cluster_ips and before.cluster_ips[0] == _NONE:
            return
        if before.type != _EXTERNAL and spec.type == _EXTERNAL:
            allocated.released_addresses += before.cluster_ips
            return
        if len(before.ip_families) == 1 and len(spec.ip_families) == 2:
            wanted = spec.cluster_ips[1] if len(spec.cluster_ips) > 1 else ""
            chosen = self._take_address(service, spec.ip_families[1], wanted, allocated)
            spec.cluster_ips = [*spec.cluster_ips[:1], chosen]
        elif len(before.ip_families) == 2 and len(spec.ip_families) == 1:
            allocated.released_addresses.append(before.cluster_ips[1])

    def _take_address(self, service: core.Service, family: str, text: str, allocated: Allocated) -> str:
        networks = self._configured().get(family, [])
        if allocated.dry_run:
            networks = networks[:1]
        began = perf_counter()
        if text:
            because = self._address_complaint(text, networks, allocated)
            home = next((one for one in networks if ip_address(text) in one), None)
            if home is not None:
                self._count(home, STATIC, began, allocated, found=not because)
            if because:
                where = Path("spec").child("clusterIPs")
                error = invalid(where, service.spec.cluster_ips, f"failed to allocate IP {text}: {because}")
                raise apierrors.Invalid.of(_KIND, service.metadata.name, [error])
            allocated.addresses.append(text)
            return text
        for network in networks:
            is_pretended = allocated.dry_run
            chosen = str(network.network_address) if is_pretended else self._free_address(network)
            self._count(network, DYNAMIC, began, allocated, found=bool(chosen))
            if chosen:
                allocated.addresses.append(chosen)
                return chosen
        name = service.metadata.name
        raise apierrors.InternalError.because(f'failed to allocate a serviceIP for Service "{name}": range is full')

    def _count(self, network: Network, scope: str, began: float, allocated: Allocated, *, found: bool) -> None:
        if self._meter is None or allocated.dry_run:
            return
        if found:
            self._meter.address(network, scope, perf_counter() - began)
        else:
            self._meter.no_address(network, scope)

    def _address_complaint(self, text: str, networks: Sequence[Network], allocated: Allocated) -> str:
        """Say why a Service cannot have the address it asks for; "" if it can."""
        address = ip_address(text)
        network = next((one for one in networks if address in one), None)
        if network is None and not allocated.dry_run:
            return "the provided network does not match the current range"
        if network is None or address in (network.network_address, network.broadcast_address):
            shown = network or networks[0]
            return f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {shown}"
        if not allocated.dry_run and self._storages.of(_ADDRESSES).get("", str(address)) is not None:
            return "provided IP is already allocated"
        return ""

    def _free_address(self, network: Network) -> str:
        storage = self._storages.of(_ADDRESSES)
        first = int(network.network_address) + 1
        last = int(network.broadcast_address) - (1 if network.version == 4 else 0)
        size = min(last - first + 1, 1 << 16)
        offset = min(max(16, size // 16), 256) if size > 16 else 0
        kind = type(network.network_address)
        for low, high in ((first + offset, last), (first, first + offset - 1)):
            if low > high:
                continue
            for _ in range(_RANDOM_ATTEMPTS):
                text = str(kind(self._chance.randint(low, high)))
                if storage.get("", text) is None:
                    return text
            for number in range(low, min(high, low + (1 << 16)) + 1):
                text = str(kind(number))
                if storage.get("", text) is None:
                    return text
        return ""

    # ---- node ports

    def _init_node_ports(self, service: core.Service, allocated: Allocated) -> None:
        spec = service.spec
        if spec.type not in (_NODE_PORT, _LOAD_BALANCER):
            return
        by_port: dict[int, int] = {}
        for index, port in enumerate(spec.ports):
            if not port.node_port and not _wants_node_ports(service):
                continue
            known = by_port.get(port.port, 0)
            if not known:
                wanted = next((one.node_port for one in spec.ports if one.port == port.port and one.node_port), 0)
                port.node_port = self._take_port(service, index, wanted, allocated)
                by_port[port.port] = port.node_port
            elif not port.node_port:
                port.node_port = known
            elif port.node_port != known:
                self._take_port(service, index, port.node_port, allocated)

    def _update_node_ports(self, service: core.Service, old: core.Service, allocated: Allocated) -> None:
        before = set(_ports_of(old, health_check=False))
        seen: set[tuple[str, int]] = set()
        for index, port in enumerate(service.spec.ports):
            if not port.node_port and not _wants_node_ports(service):
                continue
            if port.node_port:
                if port.node_port not in before and port.node_port not in allocated.ports:
                    self._take_port(service, index, port.node_port, allocated)
            else:
                port.node_port = self._take_port(service, index, 0, allocated)
            mark = (port.protocol, port.node_port)
            if mark in seen:
                raise apierrors.ApiError(f"duplicate nodePort: {{{mark[0]} {mark[1]}}}")
            seen.add(mark)
        allocated.released_ports += sorted(before - set(_ports_of(service, health_check=False)))

    def _take_port(self, service: core.Service, index: int, wanted: int, allocated: Allocated) -> int:
        if wanted:
            because = self._counted_complaint(wanted, allocated)
            if because:
                where = Path("spec", "ports").index(index).child("nodePort")
                raise apierrors.Invalid.of(_KIND, service.metadata.name, [invalid(where, wanted, because)])
            allocated.ports.append(wanted)
            return wanted
        port = self._counted_port(allocated)
        if not port:
            raise apierrors.InternalError.because("failed to allocate a nodePort: range is full")
        allocated.ports.append(port)
        return port

    def _counted_complaint(self, wanted: int, allocated: Allocated) -> str:
        because = self._port_complaint(wanted, allocated)
        if self._meter is not None and not allocated.dry_run:
            self._meter.port(STATIC, found=not because)
        return because

    def _counted_port(self, allocated: Allocated) -> int:
        port = self._free_port(allocated)
        if self._meter is not None and not allocated.dry_run:
            self._meter.port(DYNAMIC, found=port > 0)
        return port

    def _port_complaint(self, wanted: int, allocated: Allocated) -> str:
        """Say why a Service cannot have the node port it asks for; "" if it can."""
        ports = self._node_ports
        if wanted not in ports and not allocated.dry_run:
            shown = f"{ports.start}-{ports.stop - 1}"
            return f"provided port is not in the valid range. The range of valid ports is {shown}"
        if self._used_ports[wanted] or wanted in allocated.ports:
            return "provided port is already allocated"
        return ""

    def _free_port(self, allocated: Allocated) -> int:
        if allocated.dry_run:
            return max(allocated.ports, default=_PRETENDED_PORT) + 1
        ports = self._node_ports
        offset = min(max(16, len(ports) // 32), 128) if len(ports) >= 16 else 0
        for band in (ports[offset:], ports[:offset]):
            for _ in range(_RANDOM_ATTEMPTS if band else 0):
                port = self._chance.choice(band)
                if not self._used_ports[port] and port not in allocated.ports:
                    return port
            for port in band:
                if not self._used_ports[port] and port not in allocated.ports:
                    return port
        return 0

    def _allocate_health_check(self, service: core.Service, allocated: Allocated) -> None:
        wanted = service.spec.health_check_node_port
        if wanted:
            because = self._counted_complaint(wanted, allocated)
            if because:
                text = f"failed to allocate requested HealthCheck NodePort {wanted}: {because}"
                raise apierrors.InternalError.because(text)
            allocated.ports.append(wanted)
            return
        port = self._counted_port(allocated)
        if not port:
            text = "failed to allocate a HealthCheck NodePort 0: range is full"
            raise apierrors.InternalError.because(text)
        allocated.ports.append(port)
        service.spec.health_check_node_port = port


def _port_key(port: int) -> bytes:
    return ROOT + f"ranges/nodeports/{port}".encode()


def _family(text: str) -> str:
    return _V6 if ":" in text else _V4


def _ports_of(service: core.Service, *, health_check: bool = True) -> list[int]:
    """Return the node ports that a Service holds, each once."""
    ports = {port.node_port for port in service.spec.ports if port.node_port}
    if health_check and _needs_health_check(service) and service.spec.health_check_node_port:
        ports.add(service.spec.health_check_node_port)
    return sorted(ports)


def _needs_health_check(service: core.Service) -> bool:
    return service.spec.type == _LOAD_BALANCER and service.spec.external_traffic_policy == "Local"


def _wants_node_ports(service: core.Service) -> bool:
    if service.spec.type == _NODE_PORT:
        return True
    return service.spec.type == _LOAD_BALANCER and service.spec.allocate_load_balancer_node_ports is not False


def _same_preference(service: core.Service, old: core.Service) -> bool:
    """Tell whether a PreferDualStack Service stays as it is: it must not gain or lose an address by itself."""
    new, before = service.spec, old.spec
    return (
        new.ip_family_policy == _PREFER
        and before.ip_family_policy in (None, _PREFER)
        and new.type == before.type
        and new.type in (_CLUSTER_IP, _NODE_PORT, _LOAD_BALANCER)
        and new.cluster_ips == before.cluster_ips
        and new.ip_families == before.ip_families
    )


def _reductions(service: core.Service, old: core.Service) -> ErrorList:
    """Drop what a change to SingleStack releases; complain of what is dropped without saying so."""
    spec, before = service.spec, old.spec
    if spec.ip_family_policy == _SINGLE:
        if spec.cluster_ips == before.cluster_ips and len(spec.cluster_ips) > 1:
            spec.cluster_ips = spec.cluster_ips[:1]
        if spec.ip_families == before.ip_families and len(spec.ip_families) > 1:
            spec.ip_families = spec.ip_families[:1]
        return []
    errors: ErrorList = []
    path = Path("spec", "ipFamilyPolicy")
    if spec.cluster_ips and len(spec.cluster_ips) < len(before.cluster_ips):
        text = "must be 'SingleStack' to release the secondary cluster IP"
        errors.append(invalid(path, spec.ip_family_policy, text))
    if spec.ip_families and len(spec.ip_families) < len(before.ip_families):
        text = "must be 'SingleStack' to release the secondary IP family"
        errors.append(invalid(path, spec.ip_family_policy, text))
    return errors


def _keep_allocated(service: core.Service, old: core.Service) -> None:
    """Take over allocated values that the client left out, so that the same manifest can be sent again."""
    spec, before = service.spec, old.spec
    if spec.type != _EXTERNAL and before.type != _EXTERNAL:
        spec.cluster_ip = spec.cluster_ip or before.cluster_ip
        spec.cluster_ips = spec.cluster_ips or list(before.cluster_ips)
    if _wants_node_ports(service) and _wants_node_ports(old):
        used = {port.node_port for port in before.ports} & {port.node_port for port in spec.ports} - {0}
        by_name = {port.name: port.node_port for port in before.ports}
        for port in spec.ports:
            if not port.node_port and by_name.get(port.name, 0) not in used:
                port.node_port = by_name.get(port.name, 0)
    if _needs_health_check(service) and _needs_health_check(old):
        spec.health_check_node_port = spec.health_check_node_port or before.health_check_node_port


def _align_cluster_ips(service: core.Service, old: core.Service) -> None:
    """Keep clusterIP and clusterIPs in step for clients that know only one of them."""
    spec, before = service.spec, old.spec
    if before.cluster_ips and not spec.cluster_ips and before.cluster_ip == spec.cluster_ip:
        spec.cluster_ips = list(before.cluster_ips)
    if before.cluster_ip != spec.cluster_ip and spec.cluster_ips == before.cluster_ips:
        spec.cluster_ips = [spec.cluster_ip] if spec.cluster_ip else []
