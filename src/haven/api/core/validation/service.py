"""What is wrong with a Service.

Source: https://kubernetes.io/docs/concepts/services-networking/service/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from haven.api.core import v1
from haven.api.core.validation.endpoints import PORT_PROTOCOLS, validate_endpoint_ip
from haven.api.core.validation.metadata import (
    validate_dns1123_label,
    validate_dns1123_subdomain,
    validate_meta,
    validate_meta_update,
    validate_qualified_name,
)
from haven.api.core.validation.probes import validate_port_or_name
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from haven.apimachinery.validation.addresses import (
    is_ipv6,
    parse_address,
    validate_legacy_cidr,
    validate_legacy_ip,
)
from haven.apimachinery.validation.labels import validate_labels
from haven.apimachinery.validation.names import dns1123_subdomain_errors, dns_label_name, port_number_errors

__all__ = [
    "is_externally_accessible",
    "is_headless",
    "needs_health_check",
    "validate_cluster_ips",
    "validate_load_balancer_status",
    "validate_service",
    "validate_service_status_update",
    "validate_service_update",
]

_SPEC = Path("spec")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_AFFINITY_SECONDS_MAX = 86400
_SOURCE_RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"
_HINTS = "service.kubernetes.io/topology-aware-hints"
_MODE = "service.kubernetes.io/topology-mode"
_ONLY_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_ONCE = "may not change once set"


def is_headless(service: v1.Service) -> bool:
    """Tell a Service without an address of its own."""
    return service.spec.cluster_ips == ["None"]


def is_externally_accessible(service: v1.Service) -> bool:
    """Tell a Service that is reached from outside of the cluster."""
    spec = service.spec
    return spec.type in ("LoadBalancer", "NodePort") or (spec.type == "ClusterIP" and bool(spec.external_ips))


def needs_health_check(service: v1.Service) -> bool:
    """Tell a Service whose nodes answer whether they hold one of its Pods."""
    return service.spec.type == "LoadBalancer" and service.spec.external_traffic_policy == "Local"


def validate_service(service: v1.Service) -> ErrorList:
    """Check a new Service; its addresses and ports have been allocated."""
    return validate_meta(service.metadata, namespaced=True, name_rule=dns_label_name) + _validate(service, None)


def validate_service_update(new: v1.Service, old: v1.Service) -> ErrorList:
    """Check a changed Service."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _cluster_ips_change(new, old)
    errors += _families_change(new, old)
    errors += _balancer_class(new, old)
    if needs_health_check(old) and needs_health_check(new):
        if new.spec.health_check_node_port != old.spec.health_check_node_port:
            errors.append(forbidden(Path("spec", "healthCheckNodePort"), "field is immutable"))
    return errors + _validate(new, old)


def _validate(service: v1.Service, old: v1.Service | None) -> ErrorList:
    spec = service.spec
    errors = _topology_annotations(service.metadata.annotations)
    if not spec.ports and not is_headless(service) and spec.type != "ExternalName":
        errors.append(required(_SPEC.child("ports"), ""))
    errors += _type_rules(service)
    names: set[str] = set()
    for index, port in enumerate(spec.ports):
        errors += _port(port, len(spec.ports) > 1, names, _SPEC.child("ports").index(index))
    errors += validate_labels(spec.selector, _SPEC.child("selector"))
    errors += _session_affinity(spec)
    errors += validate_cluster_ips(spec, old)
    known = old.spec.external_ips if old is not None else ()
    for index, address in enumerate(spec.external_ips):
        place = _SPEC.child("externalIPs").index(index)
        errors += validate_legacy_ip(address, place, valid_old=known) or validate_endpoint_ip(address, place)
    if not spec.type:
        errors.append(required(_SPEC.child("type"), ""))
    elif spec.type not in _TYPES:
        errors.append(not_supported(_SPEC.child("type"), spec.type, _TYPES))
    errors += _port_numbers(spec)
    errors += _source_ranges(service, old)
    if spec.allocate_load_balancer_node_ports is not None and spec.type != "LoadBalancer":
        errors.append(forbidden(_SPEC.child("allocateLoadBalancerNodePorts"), _ONLY_BALANCED))
    if spec.allocate_load_balancer_node_ports is None and spec.type == "LoadBalancer":
        errors.append(required(Path("allocateLoadBalancerNodePorts"), ""))
    errors += _balancer_class(service, None)
    errors += _external_traffic(service)
    policy = spec.internal_traffic_policy
    if policy is None and spec.type in ("NodePort", "LoadBalancer", "ClusterIP"):
        errors.append(required(_SPEC.child("internalTrafficPolicy"), ""))
    if policy is not None and policy not in ("Cluster", "Local"):
        errors.append(not_supported(_SPEC.child("internalTrafficPolicy"), policy, ("Cluster", "Local")))
    distributions = ("PreferClose", "PreferSameZone", "PreferSameNode")
    if spec.traffic_distribution is not None and spec.traffic_distribution not in distributions:
        errors.append(not_supported(_SPEC.child("trafficDistribution"), spec.traffic_distribution, distributions))
    return errors


def _topology_annotations(annotations: dict[str, str]) -> ErrorList:
    hints, mode = annotations.get(_HINTS), annotations.get(_MODE)
    if hints is None or mode is None or hints == mode:
        return []
    words = f"must match annotations[{_HINTS}] when both are specified"
    return [invalid(Path("metadata").child("annotations").key(_MODE), mode, words)]


def _type_rules(service: v1.Service) -> ErrorList:
    spec = service.spec
    errors: ErrorList = []
    if spec.type in ("LoadBalancer", "NodePort") and is_headless(service):
        words = f"may not be set to 'None' for {spec.type} services"
        errors.append(invalid(_SPEC.child("clusterIPs").index(0), "None", words))
    if spec.type == "ExternalName":
        words = "may not be set for ExternalName services"
        if spec.cluster_ips:
            errors.append(forbidden(_SPEC.child("clusterIPs"), words))
        if spec.ip_families:
            errors.append(forbidden(_SPEC.child("ipFamilies"), words))
        if spec.ip_family_policy is not None:
            errors.append(forbidden(_SPEC.child("ipFamilyPolicy"), words))
        name = spec.external_name.removesuffix(".")
        if name:
            errors += validate_dns1123_subdomain(name, _SPEC.child("externalName"))
        else:
            errors.append(required(_SPEC.child("externalName"), ""))
    return errors


def _port(port: v1.ServicePort, needs_name: bool, names: set[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    if needs_name and not port.name:
        errors.append(required(path.child("name"), ""))
    elif port.name:
        errors += validate_dns1123_label(port.name, path.child("name"))
        if port.name in names:
            errors.append(duplicate(path.child("name"), port.name))
        names.add(port.name)
    errors += [invalid(path.child("port"), port.port, text) for text in port_number_errors(port.port)]
    if not port.protocol:
        errors.append(required(path.child("protocol"), ""))
    elif port.protocol not in PORT_PROTOCOLS:
        errors.append(not_supported(path.child("protocol"), port.protocol, PORT_PROTOCOLS))
    errors += validate_port_or_name(port.target_port, path.child("targetPort"))
    if port.app_protocol is not None:
        errors += validate_qualified_name(port.app_protocol, path.child("appProtocol"))
    return errors


def _session_affinity(spec: v1.ServiceSpec) -> ErrorList:
    affinity, config = spec.session_affinity, spec.session_affinity_config
    path = _SPEC.child("sessionAffinityConfig")
    if not affinity:
        return [required(_SPEC.child("sessionAffinity"), "")]
    if affinity == "None":
        if config is None:
            return []
        return [forbidden(path, "must not be set when session affinity is None")]
    if affinity != "ClientIP":
        return [not_supported(_SPEC.child("sessionAffinity"), affinity, ("ClientIP", "None"))]
    words = "when session affinity type is ClientIP"
    if config is None:
        return [required(path, words)]
    if config.client_ip is None:
        return [required(path.child("clientIP"), words)]
    seconds = config.client_ip.timeout_seconds
    path = path.child("clientIP").child("timeoutSeconds")
    if seconds is None:
        return [required(path, words)]
    if not 0 < seconds <= _AFFINITY_SECONDS_MAX:
        return [invalid(path, seconds, f"must be greater than 0 and less than {_AFFINITY_SECONDS_MAX}")]
    return []


def validate_cluster_ips(spec: v1.ServiceSpec, old: v1.Service | None) -> ErrorList:
    """Check addresses against each other and against the families; formats before relations."""
    if spec.type == "ExternalName":
        return []
    path, families = _SPEC.child("clusterIPs"), _SPEC.child("ipFamilies")
    addresses = spec.cluster_ips
    errors: ErrorList = []
    if spec.cluster_ip:
        if not addresses:
            errors.append(required(path, ""))
        elif addresses[0] != spec.cluster_ip:
            errors.append(invalid(path, addresses, "first value must match `clusterIP`"))
    elif addresses:
        errors.append(invalid(path, addresses, "must be empty when `clusterIP` is not specified"))
    seen: set[str] = set()
    for index, family in enumerate(spec.ip_families):
        if family not in ("IPv4", "IPv6"):
            errors.append(not_supported(families.index(index), family, ("IPv4", "IPv6")))
        if family in seen:
            errors.append(duplicate(families.index(index), family))
        seen.add(family)
    if spec.ip_family_policy is not None and spec.ip_family_policy not in _FAMILY_POLICIES:
        errors.append(not_supported(_SPEC.child("ipFamilyPolicy"), spec.ip_family_policy, _FAMILY_POLICIES))
    known = old.spec.cluster_ips if old is not None else ()
    malformed = False
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                malformed = True
                errors.append(invalid(path, addresses, "'None' must be the first and only value"))
            continue
        found = validate_legacy_ip(address, path.index(index), valid_old=known)
        malformed = malformed or bool(found)
        errors += found
    if len(addresses) > 2:
        errors.append(invalid(path, addresses, "may only hold up to 2 values"))
    if malformed:
        return errors
    if len(addresses) > 1 and len({is_ipv6(address) for address in addresses}) != 2:
        errors.append(invalid(path, addresses, "may specify no more than one IP for each IP family"))
    if addresses != ["None"]:
        for index, (address, family) in enumerate(zip(addresses, spec.ip_families, strict=False)):
            for wanted, is_other in (("IPv4", is_ipv6(address)), ("IPv6", not is_ipv6(address))):
                if family == wanted and is_other:
                    words = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
                    errors.append(invalid(path.index(index), address, words))
    return errors


def _port_numbers(spec: v1.ServiceSpec) -> ErrorList:
    errors: ErrorList = []
    path = _SPEC.child("ports")
    if spec.type == "ClusterIP":
        for index, port in enumerate(spec.ports):
            if port.node_port:
                words = "may not be used when `type` is 'ClusterIP'"
                errors.append(forbidden(path.index(index).child("nodePort"), words))
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        if not port.node_port:
            continue
        if (port.protocol, port.node_port) in node_ports:
            errors.append(duplicate(path.index(index).child("nodePort"), port.node_port))
        node_ports.add((port.protocol, port.node_port))
    ports: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        if (port.protocol, port.port) in ports:
            shown = internal_form(v1.ServicePort(protocol=port.protocol, port=port.port))
            errors.append(duplicate(path.index(index), shown))
        ports.add((port.protocol, port.port))
    return errors


def _source_ranges(service: v1.Service, old: v1.Service | None) -> ErrorList:
    spec = service.spec
    errors: ErrorList = []
    annotation = service.metadata.annotations.get(_SOURCE_RANGES_ANNOTATION)
    if spec.load_balancer_source_ranges:
        path = _SPEC.child("LoadBalancerSourceRanges")
        if spec.type != "LoadBalancer":
            errors.append(forbidden(path, _ONLY_BALANCED))
        known = {item.strip() for item in old.spec.load_balancer_source_ranges} if old is not None else ()
        for index, item in enumerate(spec.load_balancer_source_ranges):
            errors += validate_legacy_cidr(item.strip(), path.index(index), valid_old=known)
    elif annotation is not None:
        path = Path("metadata", "annotations").key(_SOURCE_RANGES_ANNOTATION)
        if spec.type != "LoadBalancer":
            errors.append(forbidden(path, _ONLY_BALANCED))
        is_new = old is None or old.metadata.annotations.get(_SOURCE_RANGES_ANNOTATION, "") != annotation
        for item in annotation.strip().split(",") if is_new and annotation.strip() else ():
            errors += validate_legacy_cidr(item.strip(), path)
    return errors


def _balancer_class(new: v1.Service, old: v1.Service | None) -> ErrorList:
    path = Path("spec", "loadBalancerClass")
    name = new.spec.load_balancer_class
    errors: ErrorList = []
    is_balanced = new.spec.type == "LoadBalancer"
    if old is not None and is_balanced and old.spec.type == "LoadBalancer" and old.spec.load_balancer_class != name:
        errors.append(invalid(path, name, _ONCE))
    if name is not None:
        errors += validate_qualified_name(name, path) if is_balanced else [forbidden(path, _ONLY_BALANCED)]
    return errors


def _external_traffic(service: v1.Service) -> ErrorList:
    spec = service.spec
    policy, port = spec.external_traffic_policy, spec.health_check_node_port
    path, port_path = _SPEC.child("externalTrafficPolicy"), _SPEC.child("healthCheckNodePort")
    errors: ErrorList = []
    if not is_externally_accessible(service):
        if policy:
            errors.append(invalid(path, policy, "may only be set for externally-accessible services"))
    elif not policy:
        errors.append(required(path, ""))
    elif policy not in ("Cluster", "Local"):
        errors.append(not_supported(path, policy, ("Cluster", "Local")))
    if not needs_health_check(service):
        if port:
            words = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            errors.append(invalid(port_path, port, words))
    elif not port:
        errors.append(required(port_path, ""))
    else:
        errors += [invalid(port_path, port, text) for text in port_number_errors(port)]
    return errors


def _cluster_ips_change(new: v1.Service, old: v1.Service) -> ErrorList:
    if "ExternalName" in (new.spec.type, old.spec.type) or (is_headless(old) and is_headless(new)):
        return []
    path = Path("spec", "clusterIPs")
    now, before = new.spec.cluster_ips, old.spec.cluster_ips
    if len(now) == len(before):
        return [invalid(path.index(i), now, _ONCE) for i, ip in enumerate(before) if ip != now[i]]
    errors: ErrorList = []
    if len(before) > len(now) and not now:
        errors.append(invalid(path.index(0), None, "primary clusterIP can not be unset"))
    if now and before and now[0] != before[0]:
        errors.append(invalid(path.index(0), now, _ONCE))
    if len(before) > len(now) == 1 and new.spec.ip_family_policy != "SingleStack":
        words = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid(Path("spec", "ipFamilyPolicy"), new.spec.ip_family_policy, words))
    return errors


def _families_change(new: v1.Service, old: v1.Service) -> ErrorList:
    if "ExternalName" in (new.spec.type, old.spec.type) or is_headless(new) or is_headless(old):
        return []
    path = Path("spec", "ipFamilies")
    now, before = new.spec.ip_families, old.spec.ip_families
    if len(now) == len(before):
        return [invalid(path.index(0), now, _ONCE) for a, b in zip(now, before, strict=True) if a != b]
    errors: ErrorList = []
    if len(before) > len(now) and not new.spec.cluster_ips:
        errors.append(invalid(path.index(0), given(now), "primary ipFamily can not be unset"))
    if now and before and now[0] != before[0]:
        errors.append(invalid(path.index(0), given(new.spec.cluster_ips), _ONCE))
    if len(before) > len(now) == 1 and new.spec.ip_family_policy != "SingleStack":
        words = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid(Path("spec", "ipFamilyPolicy"), new.spec.ip_family_policy, words))
    return errors


def validate_service_status_update(new: v1.Service, old: v1.Service) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    status, before = new.status.load_balancer.ingress, old.status.load_balancer.ingress
    path = Path("status", "loadBalancer").child("ingress")
    if new.spec.type != "LoadBalancer" and status:
        return [*errors, forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")]
    return errors + validate_load_balancer_status(status, before, path)


def validate_load_balancer_status(
    ingress: Sequence[v1.LoadBalancerIngress], before: Sequence[v1.LoadBalancerIngress], path: Path
) -> ErrorList:
    """Check where a load balancer is reached."""
    errors: ErrorList = []
    known = {item.ip for item in before if item.ip}
    for index, item in enumerate(ingress):
        place = path.index(index)
        if item.ip:
            errors += validate_legacy_ip(item.ip, place.child("ip"), valid_old=known)
        if item.ip_mode is None:
            if item.ip:
                errors.append(required(place.child("ipMode"), "must be specified when `ip` is set"))
        elif not item.ip:
            errors.append(forbidden(place.child("ipMode"), "may not be specified when `ip` is not set"))
        elif item.ip_mode not in ("Proxy", "VIP"):
            errors.append(not_supported(place.child("ipMode"), item.ip_mode, ("Proxy", "VIP")))
        if item.hostname:
            where = place.child("hostname")
            errors += [invalid(where, item.hostname, text) for text in dns1123_subdomain_errors(item.hostname)]
            if parse_address(item.hostname) is not None:
                errors.append(invalid(where, item.hostname, "must be a DNS name, not an IP address"))
    return errors
