"""ResourceSlices: defaults, and what is wrong with the devices that a driver offers.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/ and the behaviour of
pkg/apis/resource.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from haven.api.core.validation.affinity import validate_node_selector
from haven.api.core.validation.metadata import validate_dns1123_label, validate_meta, validate_meta_update
from haven.api.core.validation.volumes import validate_csi_driver_name
from haven.api.internalform import internal_form
from haven.api.resource import v1
from haven.api.resource.checks import (
    validate_binding_conditions,
    validate_items,
    validate_pool_name,
    validate_qualified_id,
    validate_set,
    validate_taint,
)
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, required, too_long, too_many
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.times import format_time
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["default_slice", "validate_slice", "validate_slice_update"]

_SPEC = Path("spec")
_MAX_DEVICES = 128
_MAX_ADVANCED_DEVICES = 64
_MAX_COUNTER_SETS = 8
_MAX_COUNTERS = 32
_MAX_CONSUMPTIONS = 2
_MAX_ATTRIBUTES = 32
_MAX_ATTRIBUTE_VALUES = 48
_MAX_VALUE = 64
_MAX_TAINTS = 16
_MAX_OPTIONS = 10
_MAX_KEY = 63 + 1 + 32
_NUMBER = r"(0|[1-9]\d*)"
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD = r"[0-9a-zA-Z-]+"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?\Z", re.ASCII
)

T = TypeVar("T")


def default_slice(resource_slice: v1.ResourceSlice) -> None:
    """Fill in when taints were added."""
    for device in resource_slice.spec.devices:
        for taint in device.taints:
            if taint.time_added is None:
                taint.time_added = format_time(time.time())


def validate_slice(new: v1.ResourceSlice) -> ErrorList:
    """Check a slice that is created."""
    return validate_meta(new.metadata, namespaced=False) + _spec(new.spec, None)


def validate_slice_update(new: v1.ResourceSlice, old: v1.ResourceSlice) -> ErrorList:
    """Check a slice that is changed."""
    return validate_meta_update(new.metadata, old.metadata) + _spec(new.spec, old.spec)


def _spec(spec: v1.ResourceSliceSpec, old: v1.ResourceSliceSpec | None) -> ErrorList:
    errors = validate_csi_driver_name(spec.driver, _SPEC.child("driver")) + _pool(spec.pool, _SPEC.child("pool"))
    if old is not None:
        errors += validate_immutable(spec.pool.name, old.pool.name, _SPEC.child("pool", "name"))
        errors += validate_immutable(spec.driver, old.driver, _SPEC.child("driver"))
        errors += validate_immutable(spec.node_name, old.node_name, _SPEC.child("nodeName"))
    errors += _nodes(spec)
    if spec.shared_counters and spec.devices:
        errors.append(invalid(_SPEC, "", "only one of `sharedCounters` or `devices` is allowed"))
    advanced = any(device.taints or device.consumes_counters or _has_lists(device) for device in spec.devices)
    known = {device.name: device for device in old.devices} if old is not None else {}
    by_device = bool(spec.per_device_node_selection)
    errors += validate_set(
        spec.devices,
        _MAX_ADVANCED_DEVICES if advanced else _MAX_DEVICES,
        lambda device, path: _device(device, known.get(device.name), path, by_device),
        lambda device: device.name,
        _SPEC.child("devices"),
    )
    return errors + validate_set(
        spec.shared_counters, _MAX_COUNTER_SETS, _counter_set, lambda one: one.name, _SPEC.child("sharedCounters")
    )


def _has_lists(device: v1.Device) -> bool:
    return any(one.ints or one.bools or one.strings or one.versions for one in device.attributes.values())


def _pool(pool: v1.ResourcePool, path: Path) -> ErrorList:
    errors = validate_pool_name(pool.name, path.child("name"))
    if pool.resource_slice_count <= 0:
        errors.append(invalid(path.child("resourceSliceCount"), pool.resource_slice_count, "must be greater than zero"))
    if pool.generation < 0:
        words = "must be greater than or equal to zero"
        errors.append(invalid(path.child("generation"), pool.generation, words))
    return errors


def _node_name(name: str, path: Path) -> ErrorList:
    return [invalid(path, name, text) for text in dns1123_subdomain_errors(name)]


def _nodes(spec: v1.ResourceSliceSpec) -> ErrorList:
    errors: ErrorList = []
    given: list[str] = []
    if spec.node_name:
        given.append("`nodeName`")
        errors += _node_name(spec.node_name, _SPEC.child("nodeName"))
    elif spec.node_name is not None:
        words = "must be either unset or set to a non-empty string"
        errors.append(invalid(_SPEC.child("nodeName"), spec.node_name, words))
    if spec.node_selector is not None:
        given.append("`nodeSelector`")
        place = _SPEC.child("nodeSelector")
        errors += validate_node_selector(spec.node_selector, place)
        terms = spec.node_selector.node_selector_terms or []
        if len(terms) != 1:
            shown = [internal_form(term) for term in terms] or None
            words = "must have exactly one node selector term"
            errors.append(invalid(place.child("nodeSelectorTerms"), shown, words))
    for name, value in (("allNodes", spec.all_nodes), ("perDeviceNodeSelection", spec.per_device_node_selection)):
        if value:
            given.append(f"`{name}`")
        elif value is not None:
            errors.append(invalid(_SPEC.child(name), value, "must be either unset or set to true"))
    one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not given:
        errors.append(required(_SPEC, one_of))
    elif len(given) > 1:
        errors.append(invalid(_SPEC, f"{{{', '.join(given)}}}", f"{one_of}, but multiple fields are set"))
    return errors


def _device_nodes(device: v1.Device, path: Path, by_device: bool) -> ErrorList:
    name, selector, everywhere = device.node_name, device.node_selector, device.all_nodes
    if not by_device:
        if name is None and selector is None and everywhere is None:
            return []
        words = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        return [invalid(path, None, words)]
    errors: ErrorList = []
    given: list[str] = []
    if name:
        given.append("`nodeName`")
        errors += _node_name(name, path.child("nodeName"))
    elif name is not None:
        errors.append(invalid(path.child("nodeName"), name, "must not be empty"))
    if selector is not None:
        given.append("`nodeSelector`")
        errors += validate_node_selector(selector, path.child("nodeSelector"))
    if everywhere:
        given.append("`allNodes`")
    elif everywhere is not None:
        errors.append(invalid(path.child("allNodes"), everywhere, "must be either unset or set to true"))
    words = (
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to "
        "true in the ResourceSlice spec"
    )
    if not given:
        errors.append(required(path, words))
    elif len(given) > 1:
        errors.append(invalid(path, f"{{{', '.join(given)}}}", words))
    return errors


def _device(device: v1.Device, old: v1.Device | None, path: Path, by_device: bool) -> ErrorList:
    errors = validate_dns1123_label(device.name, path.child("name"))
    total = len(device.attributes) + len(device.capacity)
    if total > _MAX_ATTRIBUTES:
        words = f"the total number of attributes and capacities must not exceed {_MAX_ATTRIBUTES}"
        errors.append(invalid(path, total, words))
    values = sum(max(1, len(_lists(attribute))) for attribute in device.attributes.values())
    if values > _MAX_ATTRIBUTE_VALUES:
        words = f"the total number of attribute values must not exceed {_MAX_ATTRIBUTE_VALUES}"
        errors.append(invalid(path, values, words))
    errors += _map(device.attributes, validate_qualified_id, _attribute, path.child("attributes"), _MAX_KEY)
    capacity = _shared_capacity if device.allow_multiple_allocations else _whole_capacity
    errors += _map(device.capacity, validate_qualified_id, capacity, path.child("capacity"), _MAX_KEY)
    if old is None or old.taints != device.taints:
        errors += validate_items(device.taints, _MAX_TAINTS, validate_taint, path.child("taints"))
    errors += validate_set(
        device.consumes_counters,
        _MAX_CONSUMPTIONS,
        _consumption,
        lambda one: one.counter_set,
        path.child("consumesCounters"),
    )
    errors += _device_nodes(device, path, by_device)
    return errors + validate_binding_conditions(device.binding_conditions, device.binding_failure_conditions, path)


def _lists(attribute: v1.DeviceAttribute) -> Sequence[object]:
    return [*attribute.ints, *attribute.bools, *attribute.strings, *attribute.versions]


def _map(
    values: Mapping[str, T],
    check_key: Callable[[str, Path], ErrorList],
    check: Callable[[T, Path], ErrorList],
    path: Path,
    longest: int,
    most: int = -1,
) -> ErrorList:
    errors: ErrorList = []
    if 0 <= most < len(values):
        errors.append(too_many(path, len(values), most))
    for key in sorted(values):
        shown = key
        if len(key) > longest:
            kept = longest - 3
            shown = f"{key[: (kept + 1) // 2]}...{key[len(key) - kept // 2 :]}"
        errors += check_key(key, path) + check(values[key], path.key(shown))
    return errors


def _attribute(attribute: v1.DeviceAttribute, path: Path) -> ErrorList:
    errors: ErrorList = []
    single = (attribute.bool_, attribute.int_, attribute.string, attribute.version)
    several = (attribute.bools, attribute.ints, attribute.strings, attribute.versions)
    if attribute.string is not None:
        errors += _text(attribute.string, path.child("string"))
    if attribute.version is not None:
        errors += _version(attribute.version, path.child("version"))
    for index, text in enumerate(attribute.strings):
        errors += _text(text, path.child("strings").index(index))
    for index, text in enumerate(attribute.versions):
        errors += _version(text, path.child("versions").index(index))
    given = sum(value is not None for value in single) + sum(bool(values) for values in several)
    if given != 1:
        errors.append(invalid(path, internal_form(attribute) if given else "", "exactly one value must be specified"))
    return errors


def _text(text: str, path: Path) -> ErrorList:
    return [too_long(path, "", _MAX_VALUE)] if byte_length(text) > _MAX_VALUE else []


def _version(text: str, path: Path) -> ErrorList:
    words = "must be a string compatible with semver.org spec 2.0.0"
    errors = [] if _SEMVER.match(text) else [invalid(path, text, words)]
    return errors + _text(text, path)


def _whole_capacity(capacity: v1.DeviceCapacity, path: Path) -> ErrorList:
    if capacity.request_policy is None:
        return []
    return [forbidden(path.child("requestPolicy"), "allowMultipleAllocations must be true")]


def _shared_capacity(capacity: v1.DeviceCapacity, path: Path) -> ErrorList:
    policy, place = capacity.request_policy, path.child("requestPolicy")
    if policy is None:
        return []
    if policy.valid_values and policy.valid_range is not None:
        words = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [forbidden(place, words)]
    if policy.valid_values:
        if policy.default is None:
            return [required(place.child("default"), "required when validValues is defined")]
        return _options(policy.default, capacity.value, policy.valid_values, place.child("validValues"))
    if policy.valid_range is not None:
        if policy.default is None:
            return [required(place.child("default"), "required when validRange is defined")]
        return _range(policy.default, capacity.value, policy.valid_range, place.child("validRange"))
    return []


def _options(default: Quantity, most: Quantity, options: Sequence[Quantity], path: Path) -> ErrorList:
    errors: ErrorList = [
        invalid(path.index(index), str(options[index]), "values must be sorted in ascending order")
        for index in range(1, len(options))
        if options[index - 1] > options[index]
    ]

    def fits(option: Quantity, at: Path) -> ErrorList:
        words = f"option is larger than capacity value: {most}"
        return [invalid(at, str(option), words)] if option > most else []

    errors += validate_set(options, _MAX_OPTIONS, fits, lambda option: str(option.value), path)
    if default not in options:
        errors.append(invalid(path, str(default), "default value is not valid according to the requestPolicy"))
    return errors


def _range(default: Quantity, most: Quantity, limits: v1.CapacityRequestPolicyRange, path: Path) -> ErrorList:
    low, high, step = limits.min, limits.max, limits.step
    if low is None:
        return [required(path.child("min"), "required when validRange is defined")]
    errors: ErrorList = []
    place = path.child("min")
    if low > most:
        errors.append(invalid(place, str(low), f"min is larger than capacity value: {most}"))
    if default < low:
        errors.append(invalid(place, str(default), f"default is less than min: {low}"))
    if high is not None:
        place = path.child("max")
        if low > high:
            errors.append(invalid(place, str(low), f"min is larger than max: {high}"))
        if high > most:
            errors.append(invalid(place, str(high), f"max is larger than capacity value: {most}"))
        if default > high:
            errors.append(invalid(place, str(default), f"default is more than max: {high}"))
    if step is not None:
        place = path.child("step")
        if low + step > most:
            words = f"one step {low + step} is larger than capacity value: {most}"
            errors.append(invalid(place, str(step), words))
        for value in (default, high):
            if value is not None and step.value and (value.value - low.value) % step.value != 0:
                words = f"value is not a multiple of a given step ({step}) from ({low})"
                errors.append(invalid(place, str(value), words))
    return errors


def _counter_set(counters: v1.CounterSet, path: Path) -> ErrorList:
    return _counters(counters.name, "name", counters.counters, path)


def _consumption(consumption: v1.DeviceCounterConsumption, path: Path) -> ErrorList:
    return _counters(consumption.counter_set, "counterSet", consumption.counters, path)


def _counters(name: str, field: str, counters: Mapping[str, v1.Counter], path: Path) -> ErrorList:
    errors = validate_dns1123_label(name, path.child(field)) if name else [required(path.child(field), "")]
    place = path.child("counters")
    if not counters:
        return [*errors, required(place, "")]
    return errors + _map(counters, validate_dns1123_label, lambda _, __: [], place, 63, _MAX_COUNTERS)
