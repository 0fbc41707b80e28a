"""Storage classes, CSI drivers, nodes and capacities, volume attachments: defaults, checks, how they are written.

Source: https://kubernetes.io/docs/concepts/storage/ and the behaviour of pkg/apis/storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haven.api.core import v1 as core_v1
from haven.api.core.defaults import default_volume_source
from haven.api.core.validation.metadata import validate_non_negative_quantity, validate_qualified_name
from haven.api.core.validation.persistentvolume import validate_volume_spec
from haven.api.core.validation.volumes import validate_csi_driver_name
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, keep_metadata, kind_strategy
from haven.api.storage import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import (
    ErrorList,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from haven.apimachinery.validation.labels import (
    selector_has_invalid_value,
    validate_label_name,
    validate_label_selector,
)
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors, range_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE, validate_immutable, validate_not_negative

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_MAX_PARAMETERS = 512
_MAX_SIZE = 256 * 1024
_MAX_ERROR = 1024
_MAX_NODE_ID = 256
_POLICIES = ("Delete", "Retain")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
_FS_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLE_MODES = ("Persistent", "Ephemeral")


def _provisioner(name: str, path: Path) -> ErrorList:
    return validate_qualified_name(name.lower(), path) if name else [required(path, "")]


def _size(pairs: Mapping[str, str]) -> int:
    return sum(byte_length(key) + byte_length(value) for key, value in pairs.items())


def _parameters(parameters: Mapping[str, str], path: Path, *, allow_empty: bool) -> ErrorList:
    errors: ErrorList = []
    if len(parameters) > _MAX_PARAMETERS:
        errors.append(too_long(path, "", _MAX_PARAMETERS))
    if "" in parameters:
        errors.append(invalid(path, "", "field can not be empty."))
    if _size(parameters) > _MAX_SIZE:
        errors.append(too_long(path, "", _MAX_SIZE))
    if not allow_empty and not parameters:
        errors.append(required(path, "must contain at least one key/value pair"))
    return errors


def _default_class(new: v1.StorageClass) -> None:
    if new.reclaim_policy is None:
        new.reclaim_policy = "Delete"
    if new.volume_binding_mode is None:
        new.volume_binding_mode = "Immediate"


def _check_class(new: v1.StorageClass) -> ErrorList:
    errors = _provisioner(new.provisioner, Path("provisioner"))
    errors += _parameters(new.parameters, Path("parameters"), allow_empty=True)
    if new.reclaim_policy and new.reclaim_policy not in _POLICIES:
        errors.append(not_supported(Path("reclaimPolicy"), new.reclaim_policy, _POLICIES))
    mode, path = new.volume_binding_mode, Path("volumeBindingMode")
    if mode is None:
        errors.append(required(path, ""))
    elif mode not in _BINDING_MODES:
        errors.append(not_supported(path, mode, _BINDING_MODES))
    return errors + _topologies(new.allowed_topologies, Path("allowedTopologies"))


def _topologies(terms: Sequence[core_v1.TopologySelectorTerm], path: Path) -> ErrorList:
    errors: ErrorList = []
    # Upstream compares with as many empty terms as there are terms, so an empty term is a duplicate.
    known: list[dict[str, set[str]]] = [{}] * len(terms)
    for index, term in enumerate(terms):
        place = path.index(index).child("matchLabelExpressions")
        found: dict[str, set[str]] = {}
        for number, requirement in enumerate(term.match_label_expressions):
            spot = place.index(number)
            errors += _topology_requirement(requirement, spot)
            if requirement.key in found:
                errors.append(duplicate(spot.child("key"), requirement.key))
            found[requirement.key] = set(requirement.values or ())
        errors += [duplicate(place, "")] * known.count(found)
        known.append(found)
    return errors


def _topology_requirement(requirement: core_v1.TopologySelectorLabelRequirement, path: Path) -> ErrorList:
    values, place = requirement.values or [], path.child("values")
    errors: ErrorList = [] if values else [required(place, "")]
    errors += [duplicate(place.index(i), value) for i, value in enumerate(values) if value in values[:i]]
    return errors + validate_label_name(requirement.key, path.child("key"))


def _check_class_update(new: v1.StorageClass, old: v1.StorageClass) -> ErrorList:
    errors: ErrorList = []
    if new.parameters != old.parameters:
        errors.append(invalid(Path("parameters"), given(new.parameters), IMMUTABLE))
    errors += validate_immutable(new.provisioner, old.provisioner, Path("provisioner"))
    errors += validate_immutable(new.reclaim_policy, old.reclaim_policy, Path("reclaimPolicy"))
    return errors + validate_immutable(new.volume_binding_mode, old.volume_binding_mode, Path("volumeBindingMode"))


def _default_driver(new: v1.CSIDriver) -> None:
    spec = new.spec
    if spec.attach_required is None:
        spec.attach_required = True
    if spec.pod_info_on_mount is None:
        spec.pod_info_on_mount = False
    if spec.storage_capacity is None:
        spec.storage_capacity = False
    if spec.fs_group_policy is None:
        spec.fs_group_policy = "ReadWriteOnceWithFSType"
    if not spec.volume_lifecycle_modes:
        spec.volume_lifecycle_modes = ["Persistent"]
    if spec.requires_republish is None:
        spec.requires_republish = False
    if spec.se_linux_mount is None:
        spec.se_linux_mount = False


def _check_driver(new: v1.CSIDriver) -> ErrorList:
    spec = new.spec
    errors: ErrorList = [
        required(_SPEC.child(name), "")
        for name, value in (
            ("attachedRequired", spec.attach_required),
            ("podInfoOnMount", spec.pod_info_on_mount),
            ("storageCapacity", spec.storage_capacity),
        )
        if value is None
    ]
    if spec.fs_group_policy is not None and spec.fs_group_policy not in _FS_GROUP_POLICIES:
        errors.append(not_supported(_SPEC.child("fsGroupPolicy"), spec.fs_group_policy, _FS_GROUP_POLICIES))
    errors += _token_requests(spec.token_requests, _SPEC.child("tokenRequests"))
    for mode in spec.volume_lifecycle_modes:
        if mode not in _LIFECYCLE_MODES:
            errors.append(not_supported(_SPEC.child("volumeLifecycleModes"), mode, _LIFECYCLE_MODES))
    if spec.se_linux_mount is None:
        errors.append(required(_SPEC.child("seLinuxMount"), ""))
    period = spec.node_allocatable_update_period_seconds
    if period is not None and period < 10:
        words = "must be greater than or equal to 10 seconds"
        errors.append(invalid(_SPEC.child("nodeAllocatableUpdatePeriodSeconds"), period, words))
    in_secrets = spec.service_account_token_in_secrets
    if in_secrets is not None and not spec.token_requests:
        words = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        errors.append(invalid(_SPEC.child("serviceAccountTokenInSecrets"), in_secrets, words))
    return errors


def _token_requests(requests: Sequence[v1.TokenRequest], path: Path) -> ErrorList:
    errors: ErrorList = []
    audiences: set[str] = set()
    for index, request in enumerate(requests):
        place = path.index(index)
        if request.audience in audiences:
            errors.append(duplicate(place.child("audience"), request.audience))
            continue
        audiences.add(request.audience)
        seconds, spot = request.expiration_seconds, place.child("expirationSeconds")
        if seconds is not None and seconds < 600:
            errors.append(invalid(spot, seconds, "may not specify a duration less than 10 minutes"))
        if seconds is not None and seconds > 1 << 32:
            errors.append(invalid(spot, seconds, "may not specify a duration larger than 2^32 seconds"))
    return errors


def _check_driver_update(new: v1.CSIDriver, old: v1.CSIDriver) -> ErrorList:
    before, after = old.spec, new.spec
    errors = validate_immutable(after.attach_required, before.attach_required, _SPEC.child("attachedRequired"))
    place = _SPEC.child("volumeLifecycleModes")
    return errors + validate_immutable(after.volume_lifecycle_modes, before.volume_lifecycle_modes, place)


def _update_driver(new: v1.CSIDriver, old: v1.CSIDriver) -> None:
    if new.spec != old.spec:
        new.metadata.generation = old.metadata.generation + 1


def _driver_warnings(new: v1.CSIDriver, old: v1.CSIDriver | None) -> list[str]:
    spec = new.spec
    changed = old is None or old.spec.token_requests != spec.token_requests
    if not changed or not spec.token_requests or spec.service_account_token_in_secrets is not None:
        return []
    return [
        "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible "
        "logging of tokens in volume attributes"
    ]


def _check_node(new: v1.CSINode) -> ErrorList:
    errors: ErrorList = []
    names: set[str] = set()
    for index, driver in enumerate(new.spec.drivers or ()):
        path = _SPEC.child("drivers").index(index)
        errors += validate_csi_driver_name(driver.name, path.child("name"))
        if not driver.node_id:
            errors.append(required(path.child("nodeID"), ""))
        if byte_length(driver.node_id) > _MAX_NODE_ID:
            words = f"must be {_MAX_NODE_ID} characters or less"
            errors.append(invalid(path.child("nodeID"), driver.node_id, words))
        if driver.allocatable is not None and driver.allocatable.count is not None:
            errors += validate_not_negative(driver.allocatable.count, path.child("allocatable", "count"))
        if driver.name in names:
            errors.append(duplicate(path.child("name"), driver.name))
        names.add(driver.name)
        errors += _topology_keys(driver.topology_keys or [], path)
    return errors


def _topology_keys(keys: Sequence[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    for index, key in enumerate(keys):
        if not key:
            errors.append(required(path, ""))
        if key in keys[:index]:
            errors.append(duplicate(path, key))
        errors += validate_qualified_name(key, path)
    return errors


def _check_node_update(new: v1.CSINode, old: v1.CSINode) -> ErrorList:
    errors: ErrorList = []
    for before in old.spec.drivers or ():
        for after in new.spec.drivers or ():
            if before.name != after.name:
                continue
            same = (before.node_id, before.topology_keys or []) == (after.node_id, after.topology_keys or [])
            if not same:
                shown = v1.CSINodeDriver(name=after.name, node_id=after.node_id, topology_keys=after.topology_keys)
                errors.append(invalid(_SPEC.child("drivers"), internal_form(shown), IMMUTABLE))
    return errors


def _check_capacity(new: v1.CSIStorageCapacity, old: v1.CSIStorageCapacity | None = None) -> ErrorList:
    forgive = old is not None and selector_has_invalid_value(old.node_topology)
    errors = validate_label_selector(new.node_topology, Path("nodeTopology"), allow_invalid_values=forgive)
    name = new.storage_class_name
    errors += [invalid(Path("storageClassName"), name, text) for text in dns1123_subdomain_errors(name)]
    if new.capacity is not None:
        errors += validate_non_negative_quantity(new.capacity, Path("capacity"))
    return errors


def _check_capacity_update(new: v1.CSIStorageCapacity, old: v1.CSIStorageCapacity) -> ErrorList:
    errors: ErrorList = []
    if new.node_topology != old.node_topology:
        shown = None if new.node_topology is None else internal_form(new.node_topology)
        errors.append(invalid(Path("nodeTopology"), shown, IMMUTABLE))
    if new.storage_class_name != old.storage_class_name:
        errors.append(invalid(Path("storageClassName"), new.storage_class_name, IMMUTABLE))
    return errors


def _default_attachment(new: v1.VolumeAttachment) -> None:
    if new.spec.source.inline_volume_spec is not None:
        default_volume_source(new.spec.source.inline_volume_spec)


def _check_attachment(new: v1.VolumeAttachment) -> ErrorList:
    spec, source = new.spec, _SPEC.child("source")
    errors = validate_csi_driver_name(spec.attacher, _SPEC.child("attacher"))
    name, inline = spec.source.persistent_volume_name, spec.source.inline_volume_spec
    one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and name is None:
        errors.append(required(source, one))
    elif inline is not None and name is not None:
        errors.append(forbidden(source, one))
    elif inline is not None:
        errors += validate_volume_spec(inline, source.child("inlineVolumeSpec"), "", inline=True)
    elif not name:
        errors.append(required(source.child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
    node = spec.node_name
    errors += [invalid(_SPEC.child("nodeName"), node, text) for text in dns1123_subdomain_errors(node)]
    errors += _attachment_status(new.status, Path("status"))
    if name is not None:
        place = Path("spec.source.persistentVolumeName")
        errors += [invalid(place, name, text) for text in dns1123_subdomain_errors(name)]
    return errors


def _attachment_status(status: v1.VolumeAttachmentStatus, path: Path) -> ErrorList:
    errors: ErrorList = []
    if _size(status.attachment_metadata) > _MAX_SIZE:
        errors.append(too_long(path.child("attachmentMetadata"), "", _MAX_SIZE))
    for name, error in (("attachError", status.attach_error), ("detachError", status.detach_error)):
        if error is None:
            continue
        if byte_length(error.message) > _MAX_ERROR:
            errors.append(too_long(path.child(name, "message"), "", _MAX_SIZE))
        if error.error_code is not None and error.error_code < 0:
            words = range_errors(error.error_code, 0, 2**31 - 1)
            errors += [invalid(path.child(name, "errorCode"), error.error_code, text) for text in words]
    return errors


def _check_attachment_update(new: v1.VolumeAttachment, old: v1.VolumeAttachment) -> ErrorList:
    if new.spec == old.spec:
        return []
    return [invalid(_SPEC, internal_form(new.spec), IMMUTABLE)]


def _update_attachment_status(new: v1.VolumeAttachment, old: v1.VolumeAttachment) -> None:
    new.spec = old.spec
    keep_metadata(new, old)


def _check_attributes(new: v1.VolumeAttributesClass) -> ErrorList:
    errors = _provisioner(new.driver_name, Path("driverName"))
    return errors + _parameters(new.parameters, Path("parameters"), allow_empty=False)


def _check_attributes_update(new: v1.VolumeAttributesClass, old: v1.VolumeAttributesClass) -> ErrorList:
    errors: ErrorList = []
    if new.driver_name != old.driver_name:
        errors.append(forbidden(Path("driverName"), "updates to driverName are forbidden."))
    if new.parameters != old.parameters:
        errors.append(forbidden(Path("parameters"), "updates to parameters are forbidden."))
    return errors


_ATTACHMENT: Strategy[Any] = kind_strategy(
    namespaced=False,
    default=_default_attachment,
    check=_check_attachment,
    check_update=_check_attachment_update,
    order=UpdateOrder.WHOLE_ONLY,
    has_status=True,
    allow_unconditional_update=False,
    subresources={
        "status": kind_strategy(
            namespaced=False,
            default=_default_attachment,
            check=_check_attachment,
            check_update=_check_attachment_update,
            order=UpdateOrder.WHOLE_ONLY,
            update=_update_attachment_status,
        )
    },
)

STRATEGIES: dict[str, Strategy[Any]] = {
    "storageclasses": kind_strategy(
        namespaced=False,
        default=_default_class,
        check=_check_class,
        check_update=_check_class_update,
        order=UpdateOrder.WHOLE_THEN_META,
    ),
    "csidrivers": kind_strategy(
        namespaced=False,
        default=_default_driver,
        check=_check_driver,
        check_update=_check_driver_update,
        update=_update_driver,
        warnings=_driver_warnings,
        allow_unconditional_update=False,
    ),
    "csinodes": kind_strategy(
        namespaced=False,
        check=_check_node,
        check_update=_check_node_update,
        order=UpdateOrder.WHOLE_ONLY,
        allow_unconditional_update=False,
    ),
    "csistoragecapacities": kind_strategy(
        namespaced=True,
        check=_check_capacity,
        check_old=_check_capacity,
        check_update=_check_capacity_update,
        order=UpdateOrder.WHOLE_THEN_META,
        allow_unconditional_update=False,
    ),
    "volumeattachments": _ATTACHMENT,
    "volumeattributesclasses": kind_strategy(
        namespaced=False,
        check=_check_attributes,
        check_update=_check_attributes_update,
        order=UpdateOrder.META_CHANGE_WHOLE,
    ),
}
