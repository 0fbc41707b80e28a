"""The cluster zone: which records a name has, from Services and EndpointSlices.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md (version 1.1.0).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.dns import wire

__all__ = ["Found", "Zone"]

SPECIFICATION_VERSION = "1.1.0"
TTL_SECONDS = 30
NEGATIVE_TTL_SECONDS = 5

Services = Callable[[str, str], core.Service | None]
Slices = Callable[[str, str], Iterable[discovery.EndpointSlice]]
HasNamespace = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """What the zone says to a question. `alias` is an ExternalName's target: the resolver goes on with it."""

    rcode: int
    answers: Sequence[bytes] = ()
    additional: Sequence[bytes] = ()
    authority: Sequence[bytes] = ()
    alias: str = ""


@dataclass(frozen=True, slots=True)
class _Endpoint:
    name: str
    address: str
    ports: tuple[tuple[str, str, int], ...]


@dataclass
class Zone:
    """Answers for one domain and for the reverse names of its addresses. Reads through functions, keeps nothing."""

    domain: str
    services: Services
    slices: Slices
    has_namespace: HasNamespace
    reverse: Callable[[str], str | None]
    serial: Callable[[], int]
    _zone: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._zone = wire.name_bytes(self.domain)

    def covers(self, name: bytes) -> bool:
        """Tell whether a name (wire form, lower case) is inside the domain."""
        if not name.endswith(self._zone):
            return False
        return len(name) == len(self._zone) or self._is_label_boundary(name)

    def _is_label_boundary(self, name: bytes) -> bool:
        position, start = 0, len(name) - len(self._zone)
        while position < start:
            position += name[position] + 1
        return position == start

    def find(self, name: bytes, type: int) -> Found:
        """Return the answer for a name that the zone covers."""
        labels = wire.name_text(name)[: -len(self.domain.split("."))]
        match labels[::-1]:
            case ():
                return self._apex(type)
            case ("dns-version",):
                return self._of(type, wire.TXT, [wire.text(SPECIFICATION_VERSION, TTL_SECONDS)])
            case ("svc",) | ("pod",):
                return self._nothing(wire.NOERROR)
            case ("svc" | "pod", namespace):
                return self._nothing(wire.NOERROR if self.has_namespace(namespace) else wire.NXDOMAIN)
            case ("pod", namespace, dashed):
                return self._pod(namespace, dashed, type)
            case ("svc", namespace, service_name, *rest):
                return self._service(namespace, service_name, rest[::-1], type)
        return self._nothing(wire.NXDOMAIN)

    def find_reverse(self, labels: Sequence[str], type: int) -> Found | None:
        """Return the answer for a name below in-addr.arpa or ip6.arpa; None if the address is not the cluster's."""
        address = _reversed_address(labels)
        name = self.reverse(address) if address else None
        if name is None:
            return None
        return self._of(type, wire.PTR, [wire.record(wire.PTR, TTL_SECONDS, wire.name_bytes(f"{name}.{self.domain}"))])

    def _apex(self, type: int) -> Found:
        if type == wire.SOA:
            return Found(wire.NOERROR, [wire.soa(self._zone, self.serial(), NEGATIVE_TTL_SECONDS)])
        if type == wire.NS:
            return Found(wire.NOERROR, [wire.record(wire.NS, TTL_SECONDS, b"\x02ns\x03dns" + self._zone)])
        return self._nothing(wire.NOERROR)

    def _pod(self, namespace: str, dashed: str, type: int) -> Found:
        address = _undashed(dashed)
        if address is None or not self.has_namespace(namespace):
            return self._nothing(wire.NXDOMAIN)
        return self._addresses([address], type)

    def _service(self, namespace: str, name: str, rest: Sequence[str], type: int) -> Found:
        service = self.services(namespace, name)
        if service is None:
            return self._nothing(wire.NXDOMAIN)
        spec = service.spec
        if spec.type == "ExternalName":
            return self._nothing(wire.NXDOMAIN) if rest else self._alias(spec.external_name)
        headless = spec.cluster_ip == "None"
        match list(rest):
            case []:
                if headless:
                    endpoints = self._endpoints(namespace, name)
                    if not endpoints:
                        return self._nothing(wire.NXDOMAIN)
                    if type == wire.SRV:
                        return self._srv_of_endpoints(service, endpoints, "", "")
                    return self._addresses([endpoint.address for endpoint in endpoints], type)
                if type == wire.SRV:
                    return self._srv_of_service(service, "", "")
                return self._addresses(spec.cluster_ips or [spec.cluster_ip], type)
            case [port, protocol] if port.startswith("_") and protocol in ("_tcp", "_udp", "_sctp"):
                if headless:
                    return self._srv_of_endpoints(
                        service, self._endpoints(namespace, name), port[1:], protocol[1:], type
                    )
                return self._srv_of_service(service, port[1:], protocol[1:], type)
            case [hostname] if headless:
                addresses = [e.address for e in self._endpoints(namespace, name) if e.name == hostname]
                return self._addresses(addresses, type) if addresses else self._nothing(wire.NXDOMAIN)
        return self._nothing(wire.NXDOMAIN)

    def _alias(self, target: str) -> Found:
        cname = wire.record(wire.CNAME, TTL_SECONDS, wire.name_bytes(target))
        return Found(wire.NOERROR, [cname], alias=target)

    def _addresses(self, addresses: Iterable[str], type: int) -> Found:
        records = [wire.address(address, TTL_SECONDS) for address in dict.fromkeys(addresses)]
        wanted = [item for item in records if type in (wire.ANY, item[3])]  # Byte 3 ends the type: A 1, AAAA 28.
        return Found(wire.NOERROR, wanted) if wanted else self._nothing(wire.NOERROR)

    def _srv_of_service(self, service: core.Service, port: str, protocol: str, type: int = wire.SRV) -> Found:
        metadata, spec = service.metadata, service.spec
        ports = [
            item.port
            for item in spec.ports
            if not port or (item.name == port and (item.protocol or "TCP").lower() == protocol)
        ]
        if not ports:
            return self._nothing(wire.NXDOMAIN if port else wire.NOERROR)
        target = wire.name_bytes(f"{metadata.name}.{metadata.namespace}.svc.{self.domain}")
        weight = max(1, 100 // len(ports))
        records = [wire.srv(number, target, TTL_SECONDS, weight) for number in ports]
        extra = [wire.address(ip, TTL_SECONDS, target) for ip in spec.cluster_ips or [spec.cluster_ip]]
        return self._of(type, wire.SRV, records, extra)

    def _srv_of_endpoints(
        self, service: core.Service, endpoints: Sequence[_Endpoint], port: str, protocol: str, type: int = wire.SRV
    ) -> Found:
        suffix = f"{service.metadata.name}.{service.metadata.namespace}.svc.{self.domain}"
        pairs = [
            (number, endpoint)
            for endpoint in endpoints
            for name, port_protocol, number in endpoint.ports
            if not port or (name == port and port_protocol.lower() == protocol)
        ]
        if not pairs:
            return self._nothing(wire.NXDOMAIN if port else wire.NOERROR)
        weight = max(1, 100 // len(pairs))
        records, extra = [], []
        for number, endpoint in pairs:
            target = wire.name_bytes(f"{endpoint.name}.{suffix}")
            records.append(wire.srv(number, target, TTL_SECONDS, weight))
            extra.append(wire.address(endpoint.address, TTL_SECONDS, target))
        return self._of(type, wire.SRV, list(dict.fromkeys(records)), list(dict.fromkeys(extra)))

    def _endpoints(self, namespace: str, name: str) -> list[_Endpoint]:
        found: dict[str, _Endpoint] = {}
        for item in self.slices(namespace, name):
            ports = tuple((port.name or "", port.protocol or "TCP", port.port or 0) for port in item.ports or ())
            for endpoint in item.endpoints or ():
                if endpoint.conditions.ready is False:
                    continue
                for address in endpoint.addresses or ():
                    hostname = endpoint.hostname or _dashed(address)
                    found.setdefault(address, _Endpoint(hostname, address, ports))
        return list(found.values())

    def _of(self, asked: int, type: int, records: Sequence[bytes], additional: Sequence[bytes] = ()) -> Found:
        if asked in (type, wire.ANY):
            return Found(wire.NOERROR, records, additional)
        return self._nothing(wire.NOERROR)

    def _nothing(self, rcode: int) -> Found:
        return Found(rcode, authority=[wire.soa(self._zone, self.serial(), NEGATIVE_TTL_SECONDS)])


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _undashed(text: str) -> str | None:
    """Return the address that 10-0-0-1 or 2001-db8--1 means."""
    for candidate in (text.replace("-", "."), text.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None


def _reversed_address(labels: Sequence[str]) -> str | None:
    """Return the address of 1.0.96.10.in-addr.arpa and its IPv6 kin."""
    try:
        match labels[-2:]:
            case ("in-addr", "arpa") if len(labels) == 6:
                return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
            case ("ip6", "arpa") if len(labels) == 34:
                nibbles = "".join(reversed(labels[:32]))
                return str(ipaddress.IPv6Address(":".join(nibbles[i : i + 4] for i in range(0, 32, 4))))
    except ValueError:
        return None
    return None
