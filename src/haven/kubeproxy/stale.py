"""Which connection-tracking entries lie after a change: UDP flows to endpoints that are gone, or that never arrived."""

from __future__ import annotations

from haven.kubeproxy.plan import IPV6, Plan, ServicePort

__all__ = ["stale_flows"]


def stale_flows(old: Plan, new: Plan) -> list[tuple[str, ...]]:
    """Return argument lists for `conntrack -D`, sorted, each once."""
    flows: set[tuple[str, ...]] = set()
    for key in {**old, **new}:
        if key.protocol != "UDP":
            continue
        before, after = old.get(key), new.get(key)
        family = ("-f", "ipv6") if key.family == IPV6 else ()
        had = set(before.cluster) if before else set()
        has = set(after.cluster) if after else set()
        for target in had - has:
            for matcher in _matchers(before):
                flows.add((*family, "-p", "udp", *matcher, "--reply-src", target.address))
        if has and not had:  # Packets that were sent into the void keep their entry while they keep coming.
            for matcher in _matchers(after):
                flows.add((*family, "-p", "udp", *matcher))
    return sorted(flows)


def _matchers(port: ServicePort | None) -> list[tuple[str, ...]]:
    if port is None:
        return []
    addresses = (port.cluster_ip, *port.external_ips, *port.load_balancer_ips)
    found: list[tuple[str, ...]] = [("--orig-dst", address, "--dport", str(port.key.port)) for address in addresses]
    if port.node_port:
        found.append(("--dport", str(port.node_port)))
    return found
