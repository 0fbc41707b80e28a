"""The address of the cluster's DNS as one of this host's own, so that each Pod asks the DNS of its node."""

from __future__ import annotations

import asyncio
import ipaddress

from pyroute2 import IPRoute

__all__ = ["own_address", "release_address"]


async def own_address(address: str, label: str = "lo") -> None:
    """Give the loopback interface the address; one that it has already is no error.

    The label says for whom it is (IPv4 only: the kernel keeps none for IPv6).
    """
    await asyncio.to_thread(_change, "add", address, label)


async def release_address(address: str, label: str = "lo") -> None:
    """Take it away again, if it was given with this label; one that is not there is no error."""
    await asyncio.to_thread(_change, "del", address, label)


def _change(verb: str, address: str, label: str) -> None:
    parsed = ipaddress.ip_address(address)
    labels = {"label": label} if parsed.version == 4 else {}
    with IPRoute() as route:
        index = route.link_lookup(ifname="lo")[0]
        found = [item for item in route.get_addr(index=index) if item.get_attr("IFA_ADDRESS") == address]
        if verb == "del":
            found = [item for item in found if not labels or item.get_attr("IFA_LABEL") == label]
        if bool(found) != (verb == "add"):
            route.addr(verb, index=index, address=address, prefixlen=parsed.max_prefixlen, **labels)
