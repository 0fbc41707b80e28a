"""Which changes of a PersistentVolumeClaim are wrong.

Source: the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

import msgspec

from haven.api.core import v1
from haven.api.core.resources import is_native
from haven.api.core.validation.claims import ClaimOptions, validate_claim
from haven.api.core.validation.metadata import validate_meta_update
from haven.api.core.validation.quantities import validate_resource_quantity
from haven.api.specdiff import spec_diff
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.labels import validate_label_selector
from haven.apimachinery.validation.names import qualified_name_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE, validate_immutable

__all__ = ["validate_claim_status_update", "validate_claim_update"]

_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_STORAGE = Path("spec", "resources", "requests", "storage")
_CLASS = Path("spec", "volumeAttributesClassName")
_RESIZE_STATUSES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible",
    "NodeResizePending",
)  # fmt: skip
_replace = msgspec.structs.replace


def _options(old: v1.PersistentVolumeClaim) -> ClaimOptions:
    sources = (old.spec.data_source, old.spec.data_source_ref)
    return ClaimOptions(
        allow_invalid_selector_values=bool(validate_label_selector(old.spec.selector, Path(""))),
        allow_invalid_api_group=any(source is not None and source.api_group is not None for source in sources),
    )


def validate_claim_update(new: v1.PersistentVolumeClaim, old: v1.PersistentVolumeClaim) -> ErrorList:
    """Check a changed claim: once it is bound, it may grow and change its class of attributes."""
    errors = validate_meta_update(new.metadata, old.metadata)
    errors += validate_claim(new, _options(old))
    now, before = _replace(new.spec), _replace(old.spec)
    if not before.volume_name:
        before.volume_name = now.volume_name
    annotated, was_annotated = (item.metadata.annotations.get(_CLASS_ANNOTATION) for item in (new, old))
    from_annotation = (
        was_annotated is not None
        and before.storage_class_name is None
        and now.storage_class_name == was_annotated
        and annotated in (None, was_annotated)
    )
    if from_annotation:
        now.storage_class_name = None
    else:
        if (annotated or "") != (was_annotated or ""):
            place = Path("metadata").child("annotations", _CLASS_ANNOTATION)
            errors.append(invalid(place, annotated or "", IMMUTABLE))
        if (
            now.storage_class_name is not None
            and before.storage_class_name is None
            and was_annotated in (None, now.storage_class_name)
        ):
            now.storage_class_name = None
    size = {
        item: spec.resources.requests.get("storage", Quantity.ZERO) for item, spec in (("new", now), ("old", before))
    }
    if new.status.phase == "Bound":
        if now.resources.requests:
            requests = {**now.resources.requests, "storage": size["old"]}
            now.resources = _replace(now.resources, requests=requests)
        now.volume_attributes_class_name = before.volume_attributes_class_name
    if now != before:
        words = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        errors.append(forbidden(Path("spec"), f"{words}\n{spec_diff(before, now)}"))
    if size["new"] < size["old"] and size["new"] <= old.status.capacity.get("storage", Quantity.ZERO):
        errors.append(forbidden(_STORAGE, "field can not be less than status.capacity"))
    errors += validate_immutable(new.spec.volume_mode, old.spec.volume_mode, Path("volumeMode"))
    name = new.spec.volume_attributes_class_name
    if name != old.spec.volume_attributes_class_name and old.status.current_volume_attributes_class_name is not None:
        words = "is forbidden when status.currentVolumeAttributesClassName is not nil"
        if name is None:
            errors.append(forbidden(_CLASS, f"update to nil {words}"))
        elif not name:
            errors.append(forbidden(_CLASS, f"update to empty string {words}"))
    return errors


def validate_claim_status_update(new: v1.PersistentVolumeClaim, old: v1.PersistentVolumeClaim) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    if not new.metadata.resource_version:
        errors.append(required(Path("resourceVersion"), ""))
    if not new.spec.access_modes:
        errors.append(required(Path("Spec", "accessModes"), ""))
    status = new.status
    for name in sorted(status.capacity):
        errors += _amount(status.capacity[name], Path("status", "capacity").key(name))
    path = Path("status", "allocatedResourceStatuses")
    for name in sorted(status.allocated_resource_statuses):
        errors += _resource_key(name, path)
        if status.allocated_resource_statuses[name] not in _RESIZE_STATUSES:
            errors.append(not_supported(path, name, sorted(_RESIZE_STATUSES)))
    path = Path("status", "allocatedResources")
    for name in sorted(status.allocated_resources):
        amount = status.allocated_resources[name]
        if found := _resource_key(name, path):
            errors += found
        else:
            place = path.key(name)
            errors += _amount(amount, place) or validate_resource_quantity("storage", amount, place)
    return errors


def _amount(amount: Quantity, path: Path) -> ErrorList:
    return [invalid(path, amount.value, "must be a valid resource quantity")] if amount.value < 0 else []


def _resource_key(name: str, path: Path) -> ErrorList:
    if errors := [invalid(path, name, text) for text in qualified_name_errors(name)]:
        return errors
    return [not_supported(path, name, ("storage",))] if is_native(name) and name != "storage" else []
