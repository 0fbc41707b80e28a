"""What a pod knows of names: its resolv.conf, its /etc/hosts, its host name, its host ports.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.core.v1 import HostAlias, Pod
from haven.cri.interface import DNSConfig, PortMapping
from haven.kubelet.podspec import is_host_network

__all__ = [
    "HostnameError",
    "PodDNS",
    "ResolverSettings",
    "hostname_and_domain",
    "hosts_file",
    "kernel_hostname",
    "parse_resolv_conf",
    "pod_dns",
    "port_mappings",
]

_NAMESERVERS_MAX = 3
_SEARCHES_MAX = 32
_SEARCH_CHARS_MAX = 2048
_DOMAIN_CHARS_MAX = 253
_HOSTNAME_MAX = 63
_KERNEL_HOSTNAME_MAX = 64
_HEADER = "# Kubernetes-managed hosts file.\n"
_HEADER_HOST_NETWORK = "# Kubernetes-managed hosts file (host network).\n"


class HostnameError(Exception):
    """The pod's host name cannot be used."""


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """The node's part: where cluster names are resolved, and the host's own configuration."""

    cluster_dns: Sequence[str] = ()
    cluster_domain: str = ""
    host: DNSConfig = DNSConfig()


@dataclass(frozen=True, slots=True)
class PodDNS:
    """A pod's resolver configuration and what had to be cut off, for events."""

    config: DNSConfig
    warnings: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> DNSConfig:
    """Read a resolv.conf; the last search line counts."""
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] == "search":
            searches = [word.removesuffix(".") for word in words[1:] if word != "."]
        elif words[0] == "options":
            options.update({word.partition(":")[0]: word for word in words[1:]})
    return DNSConfig(tuple(servers), tuple(searches), tuple(options.values()))


def pod_dns(pod: Pod, settings: ResolverSettings) -> PodDNS:
    """Return what the pod's resolv.conf shall say."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    warnings: list[str] = []
    uses_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not is_host_network(pod))
    if uses_cluster and not settings.cluster_dns:
        warnings.append(
            f'pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})". kubelet does not have '
            'ClusterDNS IP configured and cannot create Pod using "ClusterFirst" policy. '
            'Falling back to "Default" policy.'
        )
    if policy == "None":
        servers, searches, options = [], [], {}
    elif uses_cluster and settings.cluster_dns:
        servers = list(settings.cluster_dns)
        searches = list(settings.host.searches)
        if settings.cluster_domain:
            service_domain = f"svc.{settings.cluster_domain}"
            own = [f"{pod.metadata.namespace}.{service_domain}", service_domain, settings.cluster_domain]
            searches = _unique([*own, *searches])
        options = {"ndots": "5"}
    else:
        servers, searches = list(settings.host.servers), list(settings.host.searches)
        options = dict(_split_option(option) for option in settings.host.options)
        if not servers:
            # An empty resolv.conf makes C libraries ask 127.0.0.1, which is the same; say it, as upstream does.
            servers = ["127.0.0.1"]
    if pod.spec.dns_config is not None:
        servers = _unique([*servers, *pod.spec.dns_config.nameservers])
        searches = _unique([*searches, *pod.spec.dns_config.searches])
        options.update({option.name: option.value or "" for option in pod.spec.dns_config.options})
    servers, searches = _fit(servers, searches, warnings)
    rendered = tuple(f"{name}:{value}" if value else name for name, value in options.items())
    return PodDNS(DNSConfig(tuple(servers), tuple(searches), rendered), tuple(warnings))


def _split_option(option: str) -> tuple[str, str]:
    name, _, value = option.partition(":")
    return name, value


def _unique(items: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _fit(servers: list[str], searches: list[str], warnings: list[str]) -> tuple[list[str], list[str]]:
    if len(servers) > _NAMESERVERS_MAX:
        servers = servers[:_NAMESERVERS_MAX]
        warnings.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
            + " ".join(servers)
        )
    kept = [search for search in searches[:_SEARCHES_MAX] if len(search) <= _DOMAIN_CHARS_MAX]
    while len(" ".join(kept)) > _SEARCH_CHARS_MAX:
        kept.pop()
    if kept != searches:
        warnings.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
            + " ".join(kept)
        )
    return servers, kept


def hostname_and_domain(pod: Pod, cluster_domain: str) -> tuple[str, str]:
    """Return the pod's host name and its domain below the subdomain's service ("" for none)."""
    spec = pod.spec
    if spec.hostname_override is not None:
        return _cut_hostname(spec.hostname_override), ""
    name = _cut_hostname(spec.hostname or pod.metadata.name)
    if not spec.subdomain:
        return name, ""
    return name, f"{spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"


def _cut_hostname(name: str) -> str:
    if len(name) <= _HOSTNAME_MAX:
        return name
    cut = name[:_HOSTNAME_MAX].rstrip("-.")
    if not cut:
        raise HostnameError(f'hostname for pod was invalid: "{name}"')
    return cut


def kernel_hostname(pod: Pod, cluster_domain: str) -> str:
    """Return what `uname -n` says inside the pod; raise HostnameError if the full name is too long for the kernel."""
    name, domain = hostname_and_domain(pod, cluster_domain)
    if not pod.spec.set_hostname_as_fqdn or not domain:
        return name
    full = f"{name}.{domain}"
    if len(full) > _KERNEL_HOSTNAME_MAX:
        raise HostnameError(
            f"failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long "
            f"({_KERNEL_HOSTNAME_MAX} characters is the max, {len(full)} characters requested)"
        )
    return full


def hosts_file(pod: Pod, pod_ips: Sequence[str], cluster_domain: str, host_file: str) -> str:
    """Return the pod's /etc/hosts; `host_file` is the node's own, which pods on its network extend."""
    aliases = _alias_lines(pod.spec.host_aliases)
    if is_host_network(pod):
        return _HEADER_HOST_NETWORK + host_file + aliases
    name, domain = hostname_and_domain(pod, cluster_domain)
    lines = [
        "127.0.0.1\tlocalhost\n",
        "::1\tlocalhost ip6-localhost ip6-loopback\n",
        "fe00::0\tip6-localnet\n",
        "fe00::0\tip6-mcastprefix\n",
        "fe00::1\tip6-allnodes\n",
        "fe00::2\tip6-allrouters\n",
    ]
    names = f"{name}.{domain}\t{name}" if domain else name
    lines += [f"{ip}\t{names}\n" for ip in pod_ips]
    return _HEADER + "".join(lines) + aliases


def _alias_lines(aliases: Sequence[HostAlias]) -> str:
    if not aliases:
        return ""
    lines = ["\n", "# Entries added by HostAliases.\n"]
    lines += ["\t".join([alias.ip, *alias.hostnames]) + "\n" for alias in aliases]
    return "".join(lines)


def port_mappings(pod: Pod) -> tuple[PortMapping, ...]:
    """Return the ports that the pod's network offers; those without a host port are for the runtime to know."""
    if is_host_network(pod):
        return ()
    found: dict[tuple[str, int, int, str], PortMapping] = {}
    for container in (*pod.spec.containers, *(item for item in pod.spec.init_containers if item.restart_policy)):
        for port in container.ports:
            mapping = PortMapping(port.protocol or "TCP", port.container_port, port.host_port, port.host_ip)
            found[(mapping.protocol, mapping.container_port, mapping.host_port, mapping.host_ip)] = mapping
    return tuple(found.values())
