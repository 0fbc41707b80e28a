"""The address of the cluster's DNS as one of this host's own, so that each Pod asks the DNS of its node."""

from __future__ import annotations

import asyncio
import ipaddress

from pyroute2 import IPRoute

__all__ = ["own_address", "release_address"]


async def own_address(address: str) -> None:
    """Give the loopback interface the address; one that it has already is no error."""
    await asyncio.to_thread(_change, "add", address)


async def release_address(address: str) -> None:
    """Take it away again; one that is not there is no error."""
    await asyncio.to_thread(_change, "del", address)


def _change(verb: str, address: str) -> None:
    length = ipaddress.ip_address(address).max_prefixlen
    with IPRoute() as route:
        index = route.link_lookup(ifname="lo")[0]
        has = any(item.get_attr("IFA_ADDRESS") == address for item in route.get_addr(index=index))
        if has != (verb == "add"):
            route.addr(verb, index=index, address=address, prefixlen=length)
