"""How Services are written.

Source: the behaviour of pkg/registry/core/service and pkg/api/service.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1
from haven.api.core.defaults import default_service
from haven.api.core.validation.service import (
    is_externally_accessible,
    needs_health_check,
    validate_service,
    validate_service_status_update,
    validate_service_update,
)
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.validation.addresses import cidr_warnings, ip_warnings
from haven.apimachinery.validation.names import dns1123_label_errors

__all__ = ["SERVICE"]


def _create(new: v1.Service) -> None:
    new.status = v1.ServiceStatus()


def _update(new: v1.Service, old: v1.Service) -> None:
    new.status = old.status
    _drop_fields_of_old_type(new, old)


def _node_ports(service: v1.Service) -> set[int]:
    return {port.node_port for port in service.spec.ports if port.node_port}


def _drop_fields_of_old_type(new: v1.Service, old: v1.Service) -> None:
    """Drop what the new type cannot have, if the user merely left it as it was."""
    spec, before = new.spec, old.spec
    if before.type != "ExternalName" and spec.type == "ExternalName":
        if (spec.cluster_ip, spec.cluster_ips) == (before.cluster_ip, before.cluster_ips):
            spec.cluster_ip, spec.cluster_ips = "", []
        if spec.ip_families == before.ip_families:
            spec.ip_families = []
        if spec.ip_family_policy == before.ip_family_policy:
            spec.ip_family_policy = None
        if spec.internal_traffic_policy == before.internal_traffic_policy:
            spec.internal_traffic_policy = None
    with_node_ports = ("NodePort", "LoadBalancer")
    if before.type in with_node_ports and spec.type not in with_node_ports and _node_ports(old) >= _node_ports(new):
        for port in spec.ports:
            port.node_port = 0
    if needs_health_check(old) and not needs_health_check(new):
        if spec.health_check_node_port == before.health_check_node_port:
            spec.health_check_node_port = 0
    if before.type == "LoadBalancer" and spec.type != "LoadBalancer":
        if spec.allocate_load_balancer_node_ports == before.allocate_load_balancer_node_ports:
            spec.allocate_load_balancer_node_ports = None
        if spec.load_balancer_class == before.load_balancer_class:
            spec.load_balancer_class = None
    if is_externally_accessible(old) and not is_externally_accessible(new):
        if spec.external_traffic_policy == before.external_traffic_policy:
            spec.external_traffic_policy = ""
    if spec.type != "LoadBalancer" and new.status.load_balancer.ingress:
        new.status = v1.ServiceStatus(conditions=new.status.conditions)


def _forget_internal_policy(new: v1.Service) -> None:
    """A name elsewhere has no traffic of its own; the field is accepted there and never shown."""
    if new.spec.type == "ExternalName":
        new.spec.internal_traffic_policy = None


def _update_status(new: v1.Service, old: v1.Service) -> None:
    new.spec = old.spec


def _warnings(new: v1.Service, _old: v1.Service | None) -> list[str]:
    spec = new.spec
    warnings: list[str] = []
    hints = "service.kubernetes.io/topology-aware-hints"
    if hints in new.metadata.annotations:
        mode = "service.kubernetes.io/topology-mode"
        warnings.append(f"annotation {hints} is deprecated, please use {mode} instead")
    if spec.cluster_ip not in ("", "None"):
        for index, address in enumerate(spec.cluster_ips):
            warnings += ip_warnings(Path("spec").child("clusterIPs").index(index), address)
    headless = spec.type == "ClusterIP" and spec.cluster_ip == "None"
    if headless:
        if spec.load_balancer_ip:
            warnings.append("spec.loadBalancerIP is ignored for headless services")
        if spec.external_ips:
            warnings.append("spec.externalIPs is ignored for headless services")
        if spec.session_affinity != "None":
            warnings.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(spec.external_ips):
        warnings += ip_warnings(Path("spec").child("externalIPs").index(index), address)
    if spec.external_ips and spec.type != "ExternalName" and not headless:
        warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.load_balancer_ip:
        warnings += ip_warnings(Path("spec").child("loadBalancerIP"), spec.load_balancer_ip)
    for index, item in enumerate(spec.load_balancer_source_ranges):
        warnings += cidr_warnings(Path("spec").child("loadBalancerSourceRanges").index(index), item)
    if spec.type == "ExternalName" and spec.external_ips:
        warnings.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if spec.type != "ExternalName" and spec.external_name:
        warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.traffic_distribution == "PreferClose":
        warnings.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return warnings


def _status_warnings(new: v1.Service, _old: v1.Service | None) -> list[str]:
    warnings: list[str] = []
    for index, ingress in enumerate(new.status.load_balancer.ingress):
        if ingress.ip:
            warnings += ip_warnings(Path("status", "loadBalancer", "ingress").index(index), ingress.ip)
    return warnings


SERVICE: Strategy[Any] = Strategy(
    default=default_service,
    prepare_for_create=_create,
    validate=validate_service,
    prepare_for_update=_update,
    validate_update=validate_service_update,
    canonicalize=_forget_internal_policy,
    warnings=_warnings,
    name_errors=lambda name: list(dns1123_label_errors(name)),
    allow_create_on_update=True,
    selectable_fields={
        "spec.clusterIP": lambda item: item.spec.cluster_ip,
        "spec.type": lambda item: item.spec.type,
    },
    subresources={
        "status": Strategy(
            default=default_service,
            prepare_for_update=_update_status,
            validate_update=validate_service_status_update,
            warnings=_status_warnings,
        )
    },
)
