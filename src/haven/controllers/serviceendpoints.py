"""What Services and Pods say about endpoints: which Pod, which address, which port. Pure.

Source: https://kubernetes.io/docs/concepts/services-networking/service/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from haven.api.core import v1 as core
from haven.controllers import pods
from haven.controllers.actions import Reader, Wiring, key_from

__all__ = [
    "HEADLESS",
    "MANAGED_BY",
    "SERVICE_NAME",
    "TriggerTimes",
    "addresses_of",
    "belongs_in_endpoints",
    "find_port",
    "has_cluster_ip",
    "pod_hostname",
    "selected_pods",
    "wake_on_pods",
]

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


def has_cluster_ip(service: core.Service) -> bool:
    """Tell whether the Service has a virtual address."""
    return service.spec.cluster_ip not in ("", "None")


def belongs_in_endpoints(pod: core.Pod, *, terminating: bool) -> bool:
    """Tell whether the Pod has an address and may still answer; terminating ones count only if asked for."""
    if pods.is_finished(pod) or not (pod.status.pod_ip or pod.status.pod_ips):
        return False
    return terminating or pod.metadata.deletion_timestamp is None


def addresses_of(pod: core.Pod, family: str) -> list[str]:
    """Return the Pod's addresses of a family (IPv4 or IPv6), in canonical form."""
    result = []
    for each in pod.status.pod_ips or ([core.PodIP(ip=pod.status.pod_ip)] if pod.status.pod_ip else []):
        address = ipaddress.ip_address(each.ip)
        if family == f"IPv{address.version}":
            result.append(str(address))
    return result


def pod_hostname(pod: core.Pod, service: core.Service) -> str:
    """Return the name under which the Service's DNS knows the Pod, "" if it has none."""
    is_named = bool(pod.spec.hostname) and pod.spec.subdomain == service.metadata.name
    return pod.spec.hostname if is_named and pod.metadata.namespace == service.metadata.namespace else ""


def find_port(pod: core.Pod, port: core.ServicePort) -> int | None:
    """Return the number of the Pod's port that a Service's port leads to; None if the Pod has no port of that name."""
    if isinstance(port.target_port, int):
        return port.target_port
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for candidate in container.ports:
            if candidate.name == port.target_port and (candidate.protocol or "TCP") == (port.protocol or "TCP"):
                return candidate.container_port
    return None


def selected_pods(reader: Reader[core.Pod], service: core.Service) -> list[core.Pod]:
    """Return the Pods that the Service selects."""
    wanted = service.spec.selector.items()
    return [pod for pod in reader.list(service.metadata.namespace) if wanted <= pod.metadata.labels.items()]


def wake_on_pods(wiring: Wiring, pod_reader: Reader[core.Pod], services: Reader[core.Service]) -> None:
    """Enqueue the Services of each Pod whose part in endpoints changes."""

    def changed(old: core.Pod | None, new: core.Pod | None) -> None:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return
        every = [pod for pod in (old, new) if pod is not None]
        for service in services.list(every[0].metadata.namespace):
            wanted = service.spec.selector.items()
            if wanted and any(wanted <= pod.metadata.labels.items() for pod in every):
                wiring.enqueue(key_from(service))

    pod_reader.add_handler(changed)


def _facts(pod: core.Pod) -> tuple[object, ...]:
    return (
        pod.metadata.uid,
        pod.metadata.labels,
        pod.metadata.deletion_timestamp,
        pod.spec.node_name,
        pod.spec.hostname,
        pod.spec.subdomain,
        pods.is_finished(pod),
        pods.is_ready(pod),
        pod.status.pod_ip,
        pod.status.pod_ips,
    )


class TriggerTimes:
    """When what changed a Service's endpoints happened, so that programming latency can be measured.

    Remembers, for each Service, its creation and its Pods' last turns of readiness.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[str, Mapping[str, str]]] = {}

    def compute(self, service: core.Service, selected: Sequence[core.Pod]) -> str:
        """Return the earliest new trigger, "" if nothing that has a time changed."""
        key = (service.metadata.namespace, service.metadata.name)
        turned = {pod.metadata.name: since for pod in selected if (since := _turned(pod))}
        created = service.metadata.creation_timestamp or ""
        before = self._seen.get(key)
        self._seen[key] = (created, turned)
        if before is None:
            return _earliest([created, *turned.values()])
        news = [since for name, since in turned.items() if since > before[1].get(name, "")]
        if created > before[0]:
            news.append(created)
        return _earliest(news)

    def forget(self, namespace: str, name: str) -> None:
        """The Service is gone."""
        self._seen.pop((namespace, name), None)


def _turned(pod: core.Pod) -> str:
    ready = pods.condition(pod, "Ready")
    return (ready.last_transition_time or "") if ready is not None else ""


def _earliest(times: Iterable[str]) -> str:
    return min(times, default="")
