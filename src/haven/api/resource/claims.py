"""ResourceClaims: defaults, what is wrong with them, what their status may say.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/ and the behaviour of
pkg/apis/resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from haven.api.core.validation.affinity import validate_node_selector
from haven.api.core.validation.metadata import (
    validate_dns1123_label,
    validate_dns1123_subdomain,
    validate_meta,
    validate_meta_update,
)
from haven.api.core.validation.volumes import validate_csi_driver_name
from haven.api.internalform import internal_form
from haven.api.kinds import keep_metadata
from haven.api.resource import v1
from haven.api.resource.checks import (
    MAX_CONFIGS,
    MAX_REQUESTS,
    validate_binding_conditions,
    validate_configuration,
    validate_items,
    validate_json_object,
    validate_pool_name,
    validate_qualified_id,
    validate_selectors,
    validate_set,
    validate_toleration,
)
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    go_json,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)
from haven.apimachinery.validation.addresses import validate_interface_address
from haven.apimachinery.validation.labels import validate_conditions
from haven.apimachinery.validation.names import byte_length
from haven.apimachinery.validation.objectmeta import IMMUTABLE

__all__ = [
    "default_claim_spec",
    "update_claim_status",
    "validate_claim",
    "validate_claim_spec",
    "validate_claim_status_update",
    "validate_claim_update",
]

Request = v1.ExactDeviceRequest | v1.DeviceSubRequest
RequestNames = dict[str, set[str]]

_SPEC = Path("spec")
_STATUS = Path("status")
_MODES = ("All", "ExactCount")
_SOURCES = ("FromClaim", "FromClass")
_MAX_ALTERNATIVES = 8
_MAX_RESERVED = 256
_MAX_CONDITIONS = 8
_MAX_DATA = 10 * 1024
_MAX_INTERFACE = 256
_MAX_HARDWARE = 128
_MAX_IPS = 16
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
_NO_SUCH_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)


def default_claim_spec(spec: v1.ResourceClaimSpec) -> None:
    """Fill in how many devices, and how tolerations compare."""
    for request in spec.devices.requests or ():
        for one in _parts(request):
            if not one.allocation_mode:
                one.allocation_mode = "ExactCount"
            if one.allocation_mode == "ExactCount" and one.count == 0:
                one.count = 1
            for toleration in one.tolerations:
                if not toleration.operator:
                    toleration.operator = "Equal"


def _parts(request: v1.DeviceRequest) -> Iterator[Request]:
    if request.exactly is not None:
        yield request.exactly
    yield from request.first_available


def validate_claim(claim: v1.ResourceClaim) -> ErrorList:
    """Check a claim that is created."""
    return validate_meta(claim.metadata, namespaced=True) + validate_claim_spec(claim.spec, _SPEC)


def validate_claim_update(new: v1.ResourceClaim, old: v1.ResourceClaim) -> ErrorList:
    """Check a claim that is changed."""
    errors = validate_meta(new.metadata, namespaced=True) + validate_meta_update(new.metadata, old.metadata)
    if new.spec != old.spec:
        errors.append(invalid(_SPEC, internal_form(new.spec), IMMUTABLE))
    return errors


def validate_claim_spec(spec: v1.ResourceClaimSpec, path: Path) -> ErrorList:
    """Check which devices are wanted."""
    devices, place = spec.devices, path.child("devices")
    names = _request_names(devices)
    errors = validate_set(
        devices.requests or [], MAX_REQUESTS, _request, lambda request: request.name, place.child("requests")
    )
    errors += validate_items(
        devices.constraints, MAX_REQUESTS, lambda one, at: _constraint(one, at, names), place.child("constraints")
    )
    return errors + validate_items(
        devices.config, MAX_CONFIGS, lambda one, at: _config(one, at, names), place.child("config")
    )


def _request_names(devices: v1.DeviceClaim) -> RequestNames:
    return {request.name: {one.name for one in request.first_available} for request in devices.requests or ()}


def _request(request: v1.DeviceRequest, path: Path) -> ErrorList:
    errors = validate_dns1123_label(request.name, path.child("name"))
    one_of = "exactly one of `exactly` or `firstAvailable` is required"
    if request.exactly is None and not request.first_available:
        errors.append(required(path, one_of))
    elif request.exactly is not None and request.first_available:
        errors.append(invalid(path, None, f"{one_of}, but multiple fields are set"))
    elif request.exactly is not None:
        errors += _device_request(request.exactly, path.child("exactly"))
    else:
        place = path.child("firstAvailable")
        errors += validate_set(request.first_available, _MAX_ALTERNATIVES, _sub_request, lambda one: one.name, place)
    return errors


def _sub_request(request: v1.DeviceSubRequest, path: Path) -> ErrorList:
    return validate_dns1123_label(request.name, path.child("name")) + _device_request(request, path)


def _device_request(request: Request, path: Path) -> ErrorList:
    name, place = request.device_class_name, path.child("deviceClassName")
    errors = validate_dns1123_subdomain(name, place) if name else [required(place, "")]
    errors += validate_selectors(request.selectors, path.child("selectors"))
    mode, count = request.allocation_mode, request.count
    if mode == "All":
        if count != 0:
            errors.append(invalid(path.child("count"), count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount":
        if count <= 0:
            errors.append(invalid(path.child("count"), count, "must be greater than zero"))
    else:
        errors.append(not_supported(path.child("allocationMode"), mode, _MODES))
    for index, toleration in enumerate(request.tolerations):
        errors += validate_toleration(toleration, path.child("tolerations").index(index))
    return errors


def _references(references: Sequence[str], names: RequestNames, path: Path) -> ErrorList:
    return validate_set(
        references, MAX_REQUESTS, lambda one, at: _reference(one, at, names), lambda one: one, path.child("requests")
    )


def _reference(reference: str, path: Path, names: RequestNames) -> ErrorList:
    parts = reference.split("/")
    errors: ErrorList = []
    if len(parts) > 2:
        return [invalid(path, reference, _NO_SUCH_REQUEST)]
    for part in parts:
        errors += validate_dns1123_label(part, path)
    known = parts[0] in names and (len(parts) == 1 or parts[1] in names[parts[0]])
    return errors if known else [*errors, invalid(path, reference, _NO_SUCH_REQUEST)]


def _constraint(constraint: v1.DeviceConstraint, path: Path, names: RequestNames) -> ErrorList:
    errors = _references(constraint.requests, names, path)
    for name, value in (
        ("matchAttribute", constraint.match_attribute),
        ("distinctAttribute", constraint.distinct_attribute),
    ):
        if value is not None:
            return errors + _fully_qualified(value, path.child(name))
    words = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
    return [*errors, required(path, words)]


def _fully_qualified(name: str, path: Path) -> ErrorList:
    errors = validate_qualified_id(name, path)
    if "/" not in name:
        words = "a fully qualified name must be a domain and a name separated by a slash"
        errors.append(invalid(path, name, words))
    return errors


def _config(config: v1.DeviceClaimConfiguration, path: Path, names: RequestNames) -> ErrorList:
    return _references(config.requests, names, path) + validate_configuration(config, path)


# ---- status

DeviceID = tuple[str, str, str, str]


def _device_id(device: v1.AllocatedDeviceStatus | v1.DeviceRequestAllocationResult) -> DeviceID:
    return device.driver, device.pool, device.device, device.share_id or ""


def _shown_device(device: v1.AllocatedDeviceStatus) -> msgspec.Raw:
    names = ("Driver", "Pool", "Device", "ShareID")
    pairs = (f'"{name}":{go_json(text)}' for name, text in zip(names, _device_id(device), strict=True))
    return msgspec.Raw(f"{{{','.join(pairs)}}}".encode())


def _allocated(claim: v1.ResourceClaim) -> set[DeviceID]:
    allocation = claim.status.allocation
    return {_device_id(result) for result in allocation.devices.results} if allocation is not None else set()


def update_claim_status(new: v1.ResourceClaim, old: v1.ResourceClaim) -> None:
    """Keep the spec; forget the status of devices that are no longer allocated."""
    new.spec = old.spec
    keep_metadata(new, old)
    gone = _allocated(old) - _allocated(new)
    if gone:
        new.status.devices = [device for device in new.status.devices if _device_id(device) not in gone]


def validate_claim_status_update(new: v1.ResourceClaim, old: v1.ResourceClaim) -> ErrorList:
    """Check a claim's new status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    status, before = new.status, old.status
    place = _STATUS.child("reservedFor")
    errors += validate_set(status.reserved_for, _MAX_RESERVED, _consumer, lambda one: one.uid, place)
    allocated = _allocated(new)
    keys = [_device_id(device) for device in status.devices]
    for index, device in enumerate(status.devices):
        errors += _device_status(device, _STATUS.child("devices").index(index), allocated)
    for index, key in enumerate(keys):
        if key in keys[:index]:
            errors.append(duplicate(_STATUS.child("devices").index(index), _shown_device(status.devices[index])))
    if status.reserved_for:
        known = {one.uid for one in before.reserved_for}
        if status.allocation is None:
            errors.append(forbidden(place, "may not be specified when `allocated` is not set"))
        elif new.metadata.deletion_timestamp and any(one.uid not in known for one in status.reserved_for):
            words = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            errors.append(forbidden(place, words))
    allocation, path = status.allocation, _STATUS.child("allocation")
    if allocation is None:
        return errors
    if before.allocation is not None:
        if allocation != before.allocation:
            errors.append(invalid(path, internal_form(allocation), IMMUTABLE))
        return errors
    return errors + _allocation(allocation, path, _request_names(new.spec.devices))


def _consumer(consumer: v1.ResourceClaimConsumerReference, path: Path) -> ErrorList:
    given = (("resource", consumer.resource), ("name", consumer.name), ("uid", consumer.uid))
    return [required(path.child(name), "") for name, value in given if not value]


def _allocation(allocation: v1.AllocationResult, path: Path, names: RequestNames) -> ErrorList:
    devices = path.child("devices")
    errors = validate_items(
        allocation.devices.results, MAX_REQUESTS, lambda one, at: _result(one, at, names), devices.child("results")
    )
    errors += validate_items(
        allocation.devices.config,
        2 * MAX_CONFIGS,
        lambda one, at: _allocation_config(one, at, names),
        devices.child("config"),
    )
    if allocation.node_selector is not None:
        errors += validate_node_selector(allocation.node_selector, path.child("nodeSelector"))
    return errors


def _result(result: v1.DeviceRequestAllocationResult, path: Path, names: RequestNames) -> ErrorList:
    errors = _reference(result.request, path.child("request"), names)
    errors += validate_csi_driver_name(result.driver, path.child("driver"))
    errors += validate_pool_name(result.pool, path.child("pool"))
    errors += validate_dns1123_label(result.device, path.child("device"))
    errors += validate_binding_conditions(result.binding_conditions, result.binding_failure_conditions, path)
    return errors + _share_id(result.share_id, path.child("shareID"))


def _share_id(uid: str | None, path: Path) -> ErrorList:
    if uid is None:
        return []
    if not _UUID.match(uid):
        size = byte_length(uid)
        why = f"invalid UUID length: {size}" if size not in (32, 36, 38, 41, 45) else "invalid UUID format"
        return [invalid(path, uid, f"error validating uid: {why}")]
    if uid != uid.lower():
        words = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` "
            "with lowercase hexadecimal characters"
        )
        return [invalid(path, uid, words)]
    return []


def _allocation_config(config: v1.DeviceAllocationConfiguration, path: Path, names: RequestNames) -> ErrorList:
    errors: ErrorList = []
    if not config.source:
        errors.append(required(path.child("source"), ""))
    elif config.source not in _SOURCES:
        errors.append(not_supported(path.child("source"), config.source, _SOURCES))
    return errors + _references(config.requests, names, path) + validate_configuration(config, path)


def _device_status(device: v1.AllocatedDeviceStatus, path: Path, allocated: set[DeviceID]) -> ErrorList:
    errors = validate_csi_driver_name(device.driver, path.child("driver"))
    errors += validate_pool_name(device.pool, path.child("pool"))
    errors += validate_dns1123_label(device.device, path.child("device"))
    errors += _share_id(device.share_id, path.child("shareID"))
    if _device_id(device) not in allocated:
        errors.append(invalid(path, _shown_device(device), "must be an allocated device in the claim"))
    conditions = device.conditions or []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(too_many(path.child("conditions"), len(conditions), _MAX_CONDITIONS))
    errors += validate_conditions(conditions, path.child("conditions"))
    if device.data is not None:
        errors += validate_json_object(device.data, path.child("data"), _MAX_DATA)
    return errors + (_network(device.network_data, path.child("networkData")) if device.network_data else [])


def _network(data: v1.NetworkDeviceData, path: Path) -> ErrorList:
    errors: ErrorList = []
    if byte_length(data.interface_name) > _MAX_INTERFACE:
        errors.append(too_long(path.child("interfaceName"), "", _MAX_INTERFACE))
    if byte_length(data.hardware_address) > _MAX_HARDWARE:
        errors.append(too_long(path.child("hardwareAddress"), "", _MAX_HARDWARE))
    return errors + validate_set(
        data.ips, _MAX_IPS, lambda one, at: validate_interface_address(one, at), lambda one: one, path.child("ips")
    )
