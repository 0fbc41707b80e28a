"""What is wrong with a Node.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from haven.api.core import v1
from haven.api.core.validation.affinity import validate_taint_effect
from haven.api.core.validation.metadata import validate_meta, validate_meta_update
from haven.api.core.validation.quantities import validate_resource_quantity
from haven.api.internalform import internal_form
from haven.apimachinery.fielderrors import (
    ErrorList,
    ErrorType,
    FieldError,
    Path,
    duplicate,
    forbidden,
    internal,
    invalid,
    required,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.addresses import parse_network, validate_legacy_cidr
from haven.apimachinery.validation.labels import validate_label_name
from haven.apimachinery.validation.names import label_value_errors

__all__ = ["validate_node", "validate_node_status_update", "validate_node_update", "validate_taints"]

_METADATA = Path("metadata")
_feature = re.compile(r"[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*").fullmatch
_FEATURE_MAX = 253


def validate_taints(taints: Sequence[v1.Taint], path: Path) -> ErrorList:
    """Check taints; key and effect together are unique."""
    errors: ErrorList = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        place = path.index(index)
        errors += validate_label_name(taint.key, place.child("key"))
        if found := label_value_errors(taint.value):
            errors.append(invalid(place.child("value"), taint.value, ";".join(found)))
        if not taint.effect:
            errors.append(required(place.child("effect"), ""))
        else:
            errors += validate_taint_effect(taint.effect, place.child("effect"))
        if (taint.key, taint.effect) in seen:
            words = "taints must be unique by key and effect pair"
            errors.append(FieldError(ErrorType.DUPLICATE, str(place), internal_form(taint), words))
        seen.add((taint.key, taint.effect))
    return errors


def validate_node(node: v1.Node) -> ErrorList:
    """Check a Node."""
    errors = validate_meta(node.metadata, namespaced=False)
    errors += validate_taints(node.spec.taints, _METADATA.child("taints"))
    errors += _resources(node)
    swap = node.status.node_info.swap
    if swap is not None and swap.capacity is not None and swap.capacity <= 0:
        place = _METADATA.child("nodeSwapStatus").child("capacity")
        errors.append(invalid(place, swap.capacity, "must be greater than zero"))
    errors += _features(node.status.declared_features)
    path = Path("spec", "podCIDRs")
    ranges = node.spec.pod_cidrs
    for index, item in enumerate(ranges):
        errors += validate_legacy_cidr(item, path.index(index))
    if len(ranges) > 1:
        networks = [parse_network(item) for item in ranges]
        families = {network.version for network in networks if network is not None}
        if None in networks:
            bad = networks.index(None)
            because = f"invalid CIDR[{bad}]: <nil> (invalid CIDR address: {ranges[bad]})"
            errors.append(internal(path, f"invalid PodCIDRs. failed to check with dual stack with error:{because}"))
        if None in networks or len(families) != 2 or len(ranges) > 2:
            errors.append(invalid(path, ranges, "may specify no more than one CIDR for each IP family"))
    return errors


def _resources(node: v1.Node) -> ErrorList:
    errors: ErrorList = []
    for field, amounts in (("capacity", node.status.capacity), ("allocatable", node.status.allocatable)):
        for name in sorted(amounts):
            errors += validate_resource_quantity(name, amounts[name], Path("status", field, name))
    return errors


def _features(features: Sequence[str]) -> ErrorList:
    errors: ErrorList = []
    path = Path("status").child("declaredFeatures")
    for index, name in enumerate(features):
        if len(name) > _FEATURE_MAX:
            words = f"invalid feature name {quote(name)}: must be no more than {_FEATURE_MAX} characters"
            errors.append(invalid(path.index(index), name, words))
        elif not _feature(name):
            words = (
                f"invalid feature name {quote(name)}: must start with an UpperCamelCase segment, with subsequent "
                "segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only "
                "alphanumeric characters and slashes"
            )
            errors.append(invalid(path.index(index), name, words))
        if index + 1 < len(features):
            following = features[index + 1]
            if name == following:
                errors.append(duplicate(path.index(index + 1), following))
            elif name > following:
                errors.append(invalid(path.index(index + 1), following, "list must be sorted alphabetically"))
    return errors


def validate_node_update(new: v1.Node, old: v1.Node) -> ErrorList:
    """Check a changed Node."""
    return validate_node(new) + validate_node_status_update(new, old)


def validate_node_status_update(new: v1.Node, old: v1.Node) -> ErrorList:
    """Check what may change of a Node, by whichever endpoint."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += _resources(new)
    errors += _features(new.status.declared_features)
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(new.status.addresses):
        key = (address.type, address.address)
        if key in seen:
            errors.append(duplicate(Path("status", "addresses").index(index), internal_form(address)))
        seen.add(key)
    before = old.spec.pod_cidrs
    if before:
        words = 'node updates may not change podCIDR except from "" to valid'
        now = new.spec.pod_cidrs
        if len(now) != len(before):
            errors.append(forbidden(Path("spec", "podCIDRs"), words))
        else:
            changed = sum(a != b for a, b in zip(now, before, strict=True))
            errors += [forbidden(Path("spec", "podCIDRs"), words)] * changed
    if old.spec.provider_id and old.spec.provider_id != new.spec.provider_id:
        words = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden(Path("spec", "providerID"), words))
    errors += validate_taints(new.spec.taints, _METADATA.child("taints"))
    if new.spec.external_id != old.spec.external_id:
        errors.append(forbidden(Path("spec", "externalID"), "may not be updated"))
    return errors
