"""Which networks a cluster may use on this machine: none that the machine, or another cluster on it, uses already.

Pure, but for `taken`, which asks the kernel. What is taken and lies inside a network of ours would be cut off by it;
a route that lies around it (a VPN's 10.0.0.0/8) loses those addresses only, so it decides the choice for a new cluster
and does not stop one that exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["NoFreeNetwork", "Taken", "choose", "conflicts", "dns_address_of", "taken"]

Network = IPv4Network | IPv6Network

_RT_TABLE_MAIN = 254
_POD_CANDIDATES = (
    *(f"10.{number}.0.0/24" for number in range(244, 256)),
    *(f"172.{number}.244.0/24" for number in range(24, 32)),
    *(f"192.168.{number}.0/24" for number in range(244, 254)),
    *(f"198.18.{number}.0/24" for number in range(64)),
)
_SERVICE_CANDIDATES = (
    *(f"10.{number}.0.0/16" for number in range(96, 128)),
    *(f"172.{number}.0.0/16" for number in range(24, 32)),
    "198.19.0.0/16",
)


class NoFreeNetwork(Exception):
    """Every network that might do is in use; the message says how to name one."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A network that is in use. `by` says by whom, for humans."""

    network: Network
    by: str


def conflicts(wanted: str, others: Iterable[Taken], *, around: bool) -> list[Taken]:
    """Return what overlaps a network; without `around`, only what lies inside of it."""
    network = ip_network(wanted)
    return [
        other
        for other in others
        if other.network.version == network.version
        and other.network.overlaps(network)
        and (around or other.network.prefixlen >= network.prefixlen)
    ]


def choose(kind: str, first: str, others: Sequence[Taken]) -> str:
    """Return `first` if it is free, else the next free network for "pods" or "services"; raise NoFreeNetwork."""
    for candidate in (first, *(_POD_CANDIDATES if kind == "pods" else _SERVICE_CANDIDATES)):
        if not conflicts(candidate, others, around=True):
            return candidate
    option = "--pod-cidr" if kind == "pods" else "--service-cidr"
    raise NoFreeNetwork(f"no free network was found for {kind}: name one with {option}")


def dns_address_of(service_cidr: str) -> str:
    """Return where a network of Services has its DNS: the tenth address, as kubeadm gives it."""
    return str(ip_network(service_cidr).network_address + 10)


def taken(*, own_link: str, own_label: str) -> list[Taken]:
    """Return what this machine uses: routes and addresses that do not belong to the cluster itself."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        found = list(_addresses(route.get_addr(), names, own_link, own_label))
        found += _routes(route.get_routes(table=_RT_TABLE_MAIN), names, own_link)
    return sorted(set(found), key=lambda item: (item.network.version, str(item.network), item.by))


def _addresses(rows: Iterable[object], names: dict[int, str], own_link: str, own_label: str) -> Iterator[Taken]:
    for row in rows:
        link = names.get(row["index"], "?")  # type: ignore[index]
        label = row.get_attr("IFA_LABEL") or link  # type: ignore[attr-defined]
        if own_link == link or own_label == label:
            continue
        address = row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")  # type: ignore[attr-defined]
        yield Taken(ip_network(address), _owner(label))


def _routes(rows: Iterable[object], names: dict[int, str], own_link: str) -> Iterator[Taken]:
    for row in rows:
        destination = row.get_attr("RTA_DST")  # type: ignore[attr-defined]
        link = names.get(row.get_attr("RTA_OIF") or 0, "?")  # type: ignore[attr-defined]
        if destination and link != own_link:
            yield Taken(ip_network(f"{destination}/{row['dst_len']}", strict=False), _owner(link))  # type: ignore[index]


def _owner(name: str) -> str:
    is_haven = name.startswith(("lo:haven", "lo:hv-", "haven0", "hv-"))
    return f"another Haven cluster ({name})" if is_haven else name
