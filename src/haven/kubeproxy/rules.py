"""A plan as nftables text: the whole table once, then only what changed, each as one transaction.

The table is ours alone. Per packet it costs two map look-ups, however many Services there are:

    services     ip daddr . l4proto . dport  → chain of the Service port   (ClusterIP, external IPs)
    node_ports   l4proto . dport             → chain of the Service port   (addresses of this node)
    dead_…       the same keys               → reject or drop, for Services without endpoints

A Service port's chain picks an endpoint at random (numgen) and rewrites the destination. Packets that must come back
through this node are marked and masqueraded; a Pod that reaches itself through its Service (hairpin) is found by a set
of address pairs. Outside the cluster nobody knows Pod addresses, so what leaves is masqueraded too. TCP is refused by a
reset: the kernel limits the rate of ICMP errors per host, and a client would hang now and then.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haven.kubeproxy.endpoints import Target
from haven.kubeproxy.plan import FAMILIES, IPV4, Family, Plan, PortKey, ServicePort

__all__ = ["TABLE", "Layout", "change", "full", "remove"]

TABLE = "haven-services"
MASQUERADE_MARK = 0x4000


@dataclass(frozen=True)
class Layout:
    """What the rules need to know of the node."""

    pod_cidrs: tuple[str, ...]  # Traffic from other sources is masqueraded, as the answer must come back here.
    service_cidrs: tuple[str, ...]
    node_port_interfaces: tuple[str, ...] = ()  # Where NodePorts may be reached from besides this host; () is anywhere.
    table: str = TABLE  # Clusters that share a host have a table each.


def full(layout: Layout, plan: Plan) -> str:
    """Return a transaction that replaces whatever the table held by the plan."""
    text = "".join(_skeleton(layout, family) for family in FAMILIES)
    return text + change(layout, {}, plan)


def remove(table: str = TABLE) -> str:
    """Return a transaction that removes the table, whether it is there or not."""
    return "".join(f"add table {family.table} {table}\ndelete table {family.table} {table}\n" for family in FAMILIES)


def change(layout: Layout, old: Plan, new: Plan) -> str:
    """Return a transaction that leads from one plan to another; "" if they are equal."""
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not changed:
        return ""
    lines: list[str] = []
    before, after = _elements(old), _elements(new)
    for (family, name), elements in sorted(before.items()):
        gone = elements.keys() - after.get((family, name), {}).keys()
        moved = {e for e, v in elements.items() if after.get((family, name), {}).get(e, v) != v}
        lines += _element_lines("delete", layout, family, name, sorted(gone | moved), {})
    for key in sorted(changed):
        if key in new:
            lines += _chains(layout, new[key], old.get(key))
    for (family, name), elements in sorted(after.items()):
        known = before.get((family, name), {})
        fresh = sorted(e for e, v in elements.items() if known.get(e) != v)
        lines += _element_lines("add", layout, family, name, fresh, elements)
    for key in sorted(changed):
        lines += _old_chains(layout, old.get(key), new.get(key))
    pairs_before, pairs_after = _hairpins(old.values()), _hairpins(new.values())
    for family in FAMILIES:
        gone_pairs = sorted(pairs_before[family] - pairs_after[family])
        lines += _element_lines("delete", layout, family, "hairpin", gone_pairs, {})
        lines += _element_lines(
            "add", layout, family, "hairpin", sorted(pairs_after[family] - pairs_before[family]), {}
        )
    return "".join(f"{line}\n" for line in lines)


@functools.lru_cache(maxsize=65536)
def chain_name(key: PortKey, kind: str) -> str:
    """Return the name of a Service port's chain: stable, readable, and never too long for the kernel."""
    text = f"{key.namespace}/{key.service}/{key.protocol}/{key.port}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{kind}-{digest}-{key.service[:40]}-{key.port}"


def _skeleton(layout: Layout, family: Family) -> str:
    address = "ipv4_addr" if family == IPV4 else "ipv6_addr"
    loopback = "127.0.0.0/8" if family == IPV4 else "::1"
    ip = family.table
    pods = [cidr for cidr in layout.pod_cidrs if (":" in cidr) == (family != IPV4)]
    services = [cidr for cidr in layout.service_cidrs if (":" in cidr) == (family != IPV4)]
    outside = f"{ip} saddr != {{ {', '.join(pods)} }} " if pods else ""
    interfaces = ", ".join(f'"{name}"' for name in layout.node_port_interfaces)
    from_where = f"iifname {{ {interfaces} }} " if interfaces else ""
    leaving = (
        f"    {ip} saddr {{ {', '.join(pods)} }} {ip} daddr != {{ {', '.join(pods)} }} masquerade\n" if pods else ""
    )
    unknown = f"    {ip} daddr {{ {', '.join(services)} }} ct state new goto refuse\n" if services else ""
    return f"""add table {ip} {layout.table}
delete table {ip} {layout.table}
table {ip} {layout.table} {{
  map services {{ type {address} . inet_proto . inet_service : verdict; }}
  map node_ports {{ type inet_proto . inet_service : verdict; }}
  map dead_services {{ type {address} . inet_proto . inet_service : verdict; }}
  map dead_node_ports {{ type inet_proto . inet_service : verdict; }}
  set hairpin {{ type {address} . {address}; }}
  chain to_masquerade {{ meta mark set meta mark or {MASQUERADE_MARK:#x}; }}
  chain to_masquerade_outside {{ {outside}goto to_masquerade; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain discard {{ drop; }}
  chain find_service {{ {ip} daddr . meta l4proto . th dport vmap @services; }}
  chain find_node_port {{
    fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @node_ports
  }}
  chain dead {{
    {ip} daddr . meta l4proto . th dport vmap @dead_services
    fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @dead_node_ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump find_service
    {from_where}jump find_node_port
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump find_service
    jump find_node_port
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & {MASQUERADE_MARK:#x} != 0 meta mark set meta mark xor {MASQUERADE_MARK:#x} masquerade fully-random
    {ip} saddr . {ip} daddr @hairpin masquerade fully-random
{leaving}  }}
  chain filter_input {{ type filter hook input priority -110; policy accept; ct state new jump dead; }}
  chain filter_forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump dead
{unknown}  }}
  chain filter_output {{
    type filter hook output priority -110; policy accept;
    ct state new jump dead
  }}
}}
"""


def _elements(plan: Plan) -> dict[tuple[Family, str], dict[str, str]]:
    """Return all map elements: (family, map) -> element -> verdict.

    Two Services may claim one external IP and port, which the API allows: the one with the smaller name has it, so that
    the outcome does not depend on who came first.
    """
    result: dict[tuple[Family, str], dict[str, str]] = {}
    owners: dict[tuple[Family, str, str], PortKey] = {}

    def put(key: PortKey, name: str, element: str, verdict: str) -> None:
        owner = owners.setdefault((key.family, name, element), key)
        if owner > key:
            owners[key.family, name, element] = owner = key
        if owner == key:
            result.setdefault((key.family, name), {})[element] = verdict

    for key, port in plan.items():
        protocol = key.protocol.lower()
        inside = f"{port.cluster_ip} . {protocol} . {key.port}"
        if port.internal:
            put(key, "services", inside, f"goto {chain_name(key, 'svc')}")
        else:
            dead = "discard" if port.internal_local and port.cluster else "refuse"
            put(key, "dead_services", inside, f"goto {dead}")
        outside = [f"{address} . {protocol} . {key.port}" for address in (*port.external_ips, *port.load_balancer_ips)]
        for element in outside:
            if port.cluster:
                put(key, "services", element, f"goto {chain_name(key, 'ext')}")
            else:
                put(key, "dead_services", element, "goto refuse")
        if port.node_port:
            element = f"{protocol} . {port.node_port}"
            if port.cluster:
                put(key, "node_ports", element, f"goto {chain_name(key, 'ext')}")
            else:
                put(key, "dead_node_ports", element, "goto refuse")
    return result


def _element_lines(
    verb: str, layout: Layout, family: Family, name: str, elements: Sequence[str], verdicts: dict[str, str]
) -> list[str]:
    if not elements:
        return []
    items = ", ".join(f"{element} : {verdicts[element]}" if element in verdicts else element for element in elements)
    return [f"{verb} element {family.table} {layout.table} {name} {{ {items} }}"]


def _chain_kinds(port: ServicePort) -> list[str]:
    kinds = []
    if port.internal:
        kinds.append("svc")
    if port.cluster and (port.node_port or port.external_ips or port.load_balancer_ips):
        kinds.append("ext")
    return kinds


def _chains(layout: Layout, port: ServicePort, old: ServicePort | None) -> list[str]:
    """Return the lines that write a port's chains anew; their names stay, so that maps may go on pointing at them."""
    table = f"{port.key.family.table} {layout.table}"
    lines: list[str] = []
    for kind in _chain_kinds(port):
        name = chain_name(port.key, kind)
        lines += [f"add chain {table} {name}", f"flush chain {table} {name}"]
        rules: list[str] = []
        targets = port.internal
        if kind == "svc":
            rules.append("jump to_masquerade_outside")
        else:
            targets = port.external
            rules += _guards(layout, port)
        rules += _choose(port, targets, kind)
        lines += _affinity_sets(layout, port, targets, kind)
        lines += [f"add rule {table} {name} {rule}" for rule in rules]
    return lines


def _guards(layout: Layout, port: ServicePort) -> list[str]:
    """Return what comes before the choice for traffic from outside."""
    ip = port.key.family.table
    rules = []
    if port.source_ranges and port.load_balancer_ips:
        allowed, addresses = ", ".join(port.source_ranges), ", ".join(port.load_balancer_ips)
        rules.append(f"{ip} daddr {{ {addresses} }} {ip} saddr != {{ {allowed} }} drop")
    if not port.external_local:
        return [*rules, "jump to_masquerade"]
    # Pods and this host itself may use every endpoint; others only those here, with their own address kept.
    pods = [cidr for cidr in layout.pod_cidrs if (":" in cidr) == (port.key.family != IPV4)]
    if pods:
        rules += [f"{ip} saddr {{ {', '.join(pods)} }} goto {chain_name(port.key, 'svc')}"] if port.internal else []
    rules.append("fib saddr type local jump to_masquerade")
    if port.internal:
        rules.append(f"fib saddr type local goto {chain_name(port.key, 'svc')}")
    return rules


def _choose(port: ServicePort, targets: Sequence[Target], kind: str) -> list[str]:
    if not targets:
        return ["drop"]  # A Local policy without an endpoint here.
    ip = port.key.family.table
    protocol = port.key.protocol.lower()
    rules = []
    if port.affinity_seconds:
        rules += [f"{ip} saddr @{_affinity(port, t)} goto {_endpoint(port, t, kind)}" for t in targets]
        picks = ", ".join(f"{i} : goto {_endpoint(port, t, kind)}" for i, t in enumerate(targets))
        return [*rules, f"numgen random mod {len(targets)} vmap {{ {picks} }}"]
    if len(targets) == 1:
        return [f"meta l4proto {protocol} dnat to {_written(targets[0])}"]
    picks = ", ".join(f"{i} : {t.address} . {t.port}" for i, t in enumerate(targets))
    return [f"meta l4proto {protocol} dnat {ip} to numgen random mod {len(targets)} map {{ {picks} }}"]


def _affinity_sets(layout: Layout, port: ServicePort, targets: Sequence[Target], kind: str) -> list[str]:
    if not port.affinity_seconds:
        return []
    table, ip = f"{port.key.family.table} {layout.table}", port.key.family.table
    address = "ipv4_addr" if port.key.family == IPV4 else "ipv6_addr"
    lines = []
    for target in targets:
        name, endpoint = _affinity(port, target), _endpoint(port, target, kind)
        lines += [
            f"add set {table} {name} {{ type {address}; flags dynamic,timeout; timeout {port.affinity_seconds}s; }}",
            f"add chain {table} {endpoint}",
            f"flush chain {table} {endpoint}",
            f"add rule {table} {endpoint} update @{name} {{ {ip} saddr }}",
            f"add rule {table} {endpoint} meta l4proto {port.key.protocol.lower()} dnat to {_written(target)}",
        ]
    return lines


def _old_chains(layout: Layout, old: ServicePort | None, new: ServicePort | None) -> list[str]:
    """Return the lines that remove chains and sets which are not used any more."""
    if old is None:
        return []
    table = f"{old.key.family.table} {layout.table}"
    had, has = _names(old), _names(new) if new else ([], [], [])
    chains = [name for name in had[0] if name not in has[0]]
    endpoints = [name for name in had[1] if name not in has[1]]
    sets = [name for name in had[2] if name not in has[2]]
    lines = [f"flush chain {table} {name}" for name in (*chains, *endpoints)]
    lines += [f"delete chain {table} {name}" for name in (*chains, *endpoints)]
    return lines + [f"delete set {table} {name}" for name in sets]


def _names(port: ServicePort) -> tuple[list[str], list[str], list[str]]:
    """Return the names of a port's chains, its endpoints' chains and its affinity sets."""
    kinds = _chain_kinds(port)
    chains = [chain_name(port.key, kind) for kind in kinds]
    if not port.affinity_seconds:
        return chains, [], []
    used = {kind: port.internal if kind == "svc" else port.external for kind in kinds}
    endpoints = [_endpoint(port, target, kind) for kind, targets in used.items() for target in targets]
    sets = list(dict.fromkeys(_affinity(port, target) for targets in used.values() for target in targets))
    return chains, endpoints, sets


def _endpoint(port: ServicePort, target: Target, kind: str) -> str:
    return f"{chain_name(port.key, 'ep' if kind == 'svc' else 'epx')}-{_digest(target)}"


def _affinity(port: ServicePort, target: Target) -> str:
    return f"{chain_name(port.key, 'aff')}-{port.affinity_seconds}-{_digest(target)}"


def _digest(target: Target) -> str:
    return hashlib.sha256(f"{target.address}/{target.port}".encode()).hexdigest()[:8]


def _written(target: Target) -> str:
    return f"[{target.address}]:{target.port}" if ":" in target.address else f"{target.address}:{target.port}"


def _hairpins(ports: Iterable[ServicePort]) -> dict[Family, set[str]]:
    """Return the address pairs of endpoints on this node: only they can reach themselves."""
    result: dict[Family, set[str]] = {family: set() for family in FAMILIES}
    for port in ports:
        for target in port.local:
            result[port.key.family].add(f"{target.address} . {target.address}")
    return result
