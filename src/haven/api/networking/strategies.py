"""NetworkPolicies, IngressClasses, IPAddresses and ServiceCIDRs: defaults, what is wrong, how they are written.

Source: https://kubernetes.io/docs/concepts/services-networking/ and the behaviour of pkg/apis/networking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from haven.api.core.validation.metadata import validate_meta
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy, status_strategy
from haven.api.networking import v1
from haven.api.networking.ingress import INGRESS
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.addresses import (
    cidr_warnings,
    parse_network,
    validate_cidr,
    validate_ip,
    validate_legacy_cidr,
)
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.names import (
    byte_length,
    dns1123_label_errors,
    dns1123_subdomain_errors,
    path_segment_name,
    port_name_errors,
    port_number_errors,
    validate_domain_prefixed_path,
)
from haven.apimachinery.validation.objectmeta import IMMUTABLE, validate_immutable

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_CONTROLLER_MAX = 250


def _default_policy(policy: v1.NetworkPolicy) -> None:
    spec = policy.spec
    if not spec.policy_types:
        spec.policy_types = ["Ingress", "Egress"] if spec.egress else ["Ingress"]
    ports = [port for rule in spec.ingress for port in rule.ports]
    ports += [port for out in spec.egress for port in out.ports]
    for port in ports:
        if port.protocol is None:
            port.protocol = "TCP"


def _peers(policy: v1.NetworkPolicy) -> Iterator[tuple[Path, v1.NetworkPolicyPeer]]:
    for index, rule in enumerate(policy.spec.ingress):
        for number, peer in enumerate(rule.from_):
            yield _SPEC.child("ingress").index(index).child("from").index(number), peer
    for index, other in enumerate(policy.spec.egress):
        for number, peer in enumerate(other.to):
            yield _SPEC.child("egress").index(index).child("to").index(number), peer


def _check_policy(policy: v1.NetworkPolicy, old: v1.NetworkPolicy | None = None) -> ErrorList:
    spec = policy.spec
    path = _SPEC.child("podSelector")
    forgive = old is not None and bool(validate_label_selector(old.spec.pod_selector, path))
    known: set[str] = set()
    for _, peer in _peers(old) if old is not None else ():
        if peer.ip_block is not None:
            known |= {peer.ip_block.cidr, *peer.ip_block.except_}
    errors = validate_label_selector(spec.pod_selector, path, allow_invalid_values=forgive)
    sides = [("ingress", "from", [(rule.ports, rule.from_) for rule in spec.ingress])]
    sides += [("egress", "to", [(out.ports, out.to) for out in spec.egress])]
    for name, peers_name, rules in sides:
        for index, (ports, peers) in enumerate(rules):
            place = _SPEC.child(name).index(index)
            for number, port in enumerate(ports):
                errors += _port(port, place.child("ports").index(number))
            for number, peer in enumerate(peers):
                errors += _peer(peer, place.child(peers_name).index(number), forgive, known)
    if len(spec.policy_types) > 2:
        words = "may not specify more than two policyTypes"
        errors.append(invalid(_SPEC.child("policyTypes"), spec.policy_types, words))
        return errors
    for index, kind in enumerate(spec.policy_types):
        if kind not in ("Ingress", "Egress"):
            errors.append(not_supported(_SPEC.child("policyTypes").index(index), kind, ("Ingress", "Egress")))
    return errors


def _port(port: v1.NetworkPolicyPort, path: Path) -> ErrorList:
    errors: ErrorList = []
    if port.protocol is not None and port.protocol not in ("TCP", "UDP", "SCTP"):
        errors.append(not_supported(path.child("protocol"), port.protocol, ("TCP", "UDP", "SCTP")))
    number, end, place = port.port, port.end_port, path.child("endPort")
    if isinstance(number, int):
        errors += [invalid(path.child("port"), number, text) for text in port_number_errors(number)]
        if end is not None:
            if end < number:
                errors.append(invalid(place, number, "must be greater than or equal to `port`"))
            errors += [invalid(place, end, text) for text in port_number_errors(end)]
    elif number is not None:
        if end is not None:
            errors.append(invalid(place, end, "may not be specified when `port` is non-numeric"))
        errors += [invalid(path.child("port"), number, text) for text in port_name_errors(number)]
    elif end is not None:
        errors.append(invalid(place, end, "may not be specified when `port` is not specified"))
    return errors


def _peer(peer: v1.NetworkPolicyPeer, path: Path, forgive: bool, known: set[str]) -> ErrorList:
    errors: ErrorList = []
    selectors = (("podSelector", peer.pod_selector), ("namespaceSelector", peer.namespace_selector))
    for name, selector in selectors:
        errors += validate_label_selector(selector, path.child(name), allow_invalid_values=forgive)
    given = sum(selector is not None for _, selector in selectors)
    if peer.ip_block is not None:
        given += 1
        errors += _ip_block(peer.ip_block, path.child("ipBlock"), known)
    if given == 0:
        errors.append(required(path, "must specify a peer"))
    elif given > 1 and peer.ip_block is not None:
        errors.append(forbidden(path, "may not specify both ipBlock and another peer"))
    return errors


def _ip_block(block: v1.IPBlock, path: Path, known: set[str]) -> ErrorList:
    if not block.cidr:
        return [required(path.child("cidr"), "")]
    errors = validate_legacy_cidr(block.cidr, path.child("cidr"), valid_old=known)
    outer = parse_network(block.cidr)
    if outer is None:
        return errors
    for index, item in enumerate(block.except_):
        place = path.child("except").index(index)
        errors += validate_legacy_cidr(item, place, valid_old=known)
        inner = parse_network(item)
        if inner is None:
            continue
        inside = inner.version == outer.version and inner.network_address in outer
        if not inside or outer.prefixlen >= inner.prefixlen:
            errors.append(invalid(place, item, "must be a strict subset of `cidr`"))
    return errors


def _policy_warnings(new: v1.NetworkPolicy, _old: v1.NetworkPolicy | None) -> list[str]:
    warnings: list[str] = []
    for path, peer in _peers(new):
        if peer.ip_block is not None:
            place = path.child("ipBlock")
            warnings += cidr_warnings(place.child("cidr"), peer.ip_block.cidr)
            for index, item in enumerate(peer.ip_block.except_):
                warnings += cidr_warnings(place.child("except").index(index), item)
    return warnings


def _default_class(ingress_class: v1.IngressClass) -> None:
    parameters = ingress_class.spec.parameters
    if parameters is not None and parameters.scope is None:
        parameters.scope = "Cluster"


def _check_class(ingress_class: v1.IngressClass) -> ErrorList:
    spec, path = ingress_class.spec, _SPEC.child("controller")
    errors: ErrorList = []
    if byte_length(spec.controller) > _CONTROLLER_MAX:
        errors.append(too_long(path, "", _CONTROLLER_MAX))
    errors += validate_domain_prefixed_path(spec.controller, path)
    if spec.parameters is not None:
        errors += _class_parameters(spec.parameters, _SPEC.child("parameters"))
    return errors


def _class_parameters(parameters: v1.IngressClassParametersReference, path: Path) -> ErrorList:
    errors: ErrorList = []
    group = parameters.api_group
    if group is not None:
        errors += [invalid(path.child("apiGroup"), group, text) for text in dns1123_subdomain_errors(group)]
    for name, value in (("kind", parameters.kind), ("name", parameters.name)):
        errors += _segment(value, path.child(name))
    scope, namespace, place = parameters.scope or "", parameters.namespace, path.child("namespace")
    if parameters.scope is None:
        errors.append(required(path.child("scope"), ""))
    if scope not in ("Cluster", "Namespace"):
        errors.append(not_supported(path.child("scope"), scope, ("Cluster", "Namespace")))
    elif scope == "Namespace":
        if namespace is None:
            errors.append(required(place, "`parameters.scope` is set to 'Namespace'"))
        else:
            errors += [invalid(place, namespace, text) for text in dns1123_label_errors(namespace)]
    elif namespace is not None:
        errors.append(forbidden(place, "`parameters.scope` is set to 'Cluster'"))
    return errors


def _segment(value: str, path: Path) -> ErrorList:
    if not value:
        return [required(path, "")]
    return [invalid(path, value, text) for text in path_segment_name(value)]


def _check_class_update(new: v1.IngressClass, old: v1.IngressClass) -> ErrorList:
    errors = validate_immutable(new.spec.controller, old.spec.controller, _SPEC.child("controller"))
    return errors + validate_meta(new.metadata, namespaced=False) + _check_class(new)


def _address_name(name: str, _prefix: bool = False) -> list[str]:
    return [error.detail for error in validate_ip(name, Path(""))]


def _check_address(address: Any) -> ErrorList:
    parent, path = address.spec.parent_ref, _SPEC.child("parentRef")
    if parent is None:
        return [required(path, "")]
    errors: ErrorList = []
    if parent.group:
        errors += [invalid(path.child("group"), parent.group, t) for t in dns1123_subdomain_errors(parent.group)]
    errors += _segment(parent.resource, path.child("resource"))
    errors += _segment(parent.name, path.child("name"))
    if parent.namespace:
        errors += _segment(parent.namespace, path.child("namespace"))
    return errors


def _same_parent(new: Any, old: Any) -> ErrorList:
    if new.spec.parent_ref == old.spec.parent_ref:
        return []
    shown = internal_form(new.spec.parent_ref, "*ParentReference", "networking")
    return [invalid(_SPEC.child("parentRef"), shown, IMMUTABLE)]


_CIDRS = Path("spec", "cidrs")


def _check_service_cidr(item: Any) -> ErrorList:
    ranges = item.spec.cidrs
    if not ranges:
        return [required(_CIDRS, "at least one CIDR required")]
    if len(ranges) > 2:
        return [invalid(_CIDRS, internal_form(item.spec), "may only hold up to 2 values")]
    errors: ErrorList = []
    for index, text in enumerate(ranges):
        errors += validate_cidr(text, _CIDRS.index(index))
    networks = [parse_network(text) for text in ranges]
    if len(networks) == 2 and networks[0] is not None and networks[1] is not None:
        if networks[0].version == networks[1].version:
            words = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            errors.append(invalid(_CIDRS, ranges, words))
    return errors


def _check_service_cidr_update(new: Any, old: Any) -> ErrorList:
    now, before = new.spec.cidrs, old.spec.cidrs
    if len(now) == len(before):
        return [
            invalid(_CIDRS.index(index), a, IMMUTABLE)
            for index, (a, b) in enumerate(zip(now, before, strict=True))
            if a != b
        ]
    if (len(before), len(now)) == (1, 2):
        errors = [] if now[0] == before[0] else [invalid(_CIDRS.index(0), now[0], IMMUTABLE)]
        return errors + _check_service_cidr(new)
    return [invalid(_CIDRS, given(now), IMMUTABLE)]


STRATEGIES: dict[str, Strategy[Any]] = {
    "ingresses": INGRESS,
    "networkpolicies": kind_strategy(
        namespaced=True,
        default=_default_policy,
        check=_check_policy,
        check_old=_check_policy,
        warnings=_policy_warnings,
        has_generation=True,
        counts_empty="spec",
    ),
    "ingressclasses": kind_strategy(
        namespaced=False,
        default=_default_class,
        check=_check_class,
        check_old=_check_class_update,
        order=UpdateOrder.META_THEN_SPEC,
        has_generation=True,
    ),
    "ipaddresses": kind_strategy(
        namespaced=False,
        name_rule=_address_name,
        check=_check_address,
        check_update=_same_parent,
        order=UpdateOrder.WHOLE_THEN_META,
        selectable_fields={
            "spec.parentRef.group": lambda item: item.spec.parent_ref.group if item.spec.parent_ref else "",
            "spec.parentRef.resource": lambda item: item.spec.parent_ref.resource if item.spec.parent_ref else "",
            "spec.parentRef.namespace": lambda item: item.spec.parent_ref.namespace if item.spec.parent_ref else "",
            "spec.parentRef.name": lambda item: item.spec.parent_ref.name if item.spec.parent_ref else "",
        },
    ),
    "servicecidrs": kind_strategy(
        namespaced=False,
        check=_check_service_cidr,
        check_update=_check_service_cidr_update,
        order=UpdateOrder.META_ONLY,
        has_status=True,
        subresources={"status": status_strategy(resets_metadata=True)},
    ),
}
