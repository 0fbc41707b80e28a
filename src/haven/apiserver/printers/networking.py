"""Rows of the group networking.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.networking import v1 as networking_v1
from haven.apimachinery.selectors import format_label_selector
from haven.apiserver.printers.format import NONE, age, load_balancer

__all__ = ["ROWS"]

_HOSTS_MAX = 3
_DEFAULT_CLASS_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"


def _ingress(item: networking_v1.Ingress, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        NONE if spec.ingress_class_name is None else spec.ingress_class_name,
        _hosts(spec.rules),
        load_balancer(item.status.load_balancer.ingress),
        "80, 443" if spec.tls else "80",
        age(item.metadata.creation_timestamp, now),
    ]


def _hosts(rules: list[networking_v1.IngressRule]) -> str:
    hosts: list[str] = []
    more = False
    for rule in rules:
        more = more or len(hosts) == _HOSTS_MAX
        if not more and rule.host:
            hosts.append(rule.host)
    if not hosts:
        return "*"
    text = ",".join(hosts)
    return f"{text} + {len(rules) - _HOSTS_MAX} more..." if more else text


def _ingress_class(item: networking_v1.IngressClass, now: float) -> list[Any]:
    name = item.metadata.name
    if item.metadata.annotations.get(_DEFAULT_CLASS_ANNOTATION) == "true":
        name += " (default)"
    parameters = NONE
    if (found := item.spec.parameters) is not None:
        kind = found.kind if found.api_group is None else f"{found.kind}.{found.api_group}"
        parameters = f"{kind}/{found.name}"
    return [name, item.spec.controller, parameters, age(item.metadata.creation_timestamp, now)]


def _network_policy(item: networking_v1.NetworkPolicy, now: float) -> list[Any]:
    return [
        item.metadata.name,
        format_label_selector(item.spec.pod_selector),
        age(item.metadata.creation_timestamp, now),
    ]


def _service_cidr(item: networking_v1.ServiceCIDR, now: float) -> list[Any]:
    return [item.metadata.name, ",".join(item.spec.cidrs), age(item.metadata.creation_timestamp, now)]


def _ip_address(item: networking_v1.IPAddress, now: float) -> list[Any]:
    parent, text = item.spec.parent_ref, NONE
    if parent is not None:
        text = (f"{parent.resource}.{parent.group}" if parent.group else parent.resource).lower()
        text += f"/{parent.namespace}" if parent.namespace else ""
        text += f"/{parent.name}"
    # Upstream sends the age although it declares no column for it.
    return [item.metadata.name, text, age(item.metadata.creation_timestamp, now)]


ROWS = {
    "IPAddress": _ip_address,
    "Ingress": _ingress,
    "IngressClass": _ingress_class,
    "NetworkPolicy": _network_policy,
    "ServiceCIDR": _service_cidr,
}
