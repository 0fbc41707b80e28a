"""What is wrong with an object's metadata, when it is created and when it is changed.

Source: the behaviour of k8s.io/apimachinery/pkg/api/validation (objectmeta).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, required, too_long
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.labels import validate_labels, validate_managed_fields
from haven.apimachinery.validation.names import (
    byte_length,
    dns1123_label_errors,
    path_segment_name,
    qualified_name_errors,
)

__all__ = [
    "ANNOTATIONS_BYTES_MAX",
    "IMMUTABLE",
    "METADATA",
    "NOT_NEGATIVE",
    "NameRule",
    "validate_annotations",
    "validate_annotations_size",
    "validate_finalizer_name",
    "validate_immutable",
    "validate_not_negative",
    "validate_object_meta",
    "validate_object_meta_update",
    "validate_owner_references",
]

NameRule = Callable[[str, bool], Sequence[str]]
"""What is wrong with a name; the flag says that it is a generateName, to which more will be added."""

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
METADATA = Path("metadata")
ANNOTATIONS_BYTES_MAX = 256 * 1024

_BANNED_OWNERS = {("", "v1", "Event")}


def validate_object_meta(
    metadata: meta.ObjectMeta,
    *,
    namespaced: bool,
    name_rule: NameRule = path_segment_name,
    path: Path = METADATA,
) -> ErrorList:
    """Check the metadata of an object that is created; its name has been generated already."""
    errors: ErrorList = []
    if metadata.generate_name:
        for text in name_rule(metadata.generate_name, True):
            errors.append(invalid(path.child("generateName"), metadata.generate_name, text))
    if not metadata.name:
        errors.append(required(path.child("name"), "name or generateName is required"))
    else:
        for text in name_rule(metadata.name, False):
            errors.append(invalid(path.child("name"), metadata.name, text))
    if namespaced:
        if not metadata.namespace:
            errors.append(required(path.child("namespace"), ""))
        else:
            for text in dns1123_label_errors(metadata.namespace):
                errors.append(invalid(path.child("namespace"), metadata.namespace, text))
    elif metadata.namespace:
        errors.append(forbidden(path.child("namespace"), "not allowed on this type"))
    errors += validate_not_negative(metadata.generation, path.child("generation"))
    errors += validate_labels(metadata.labels, path.child("labels"))
    errors += validate_annotations(metadata.annotations, path.child("annotations"))
    if metadata.owner_references:
        errors += validate_owner_references(metadata.owner_references, path.child("ownerReferences"))
    if metadata.finalizers:
        errors += _validate_finalizers(metadata.finalizers, path.child("finalizers"))
    if metadata.managed_fields:
        errors += validate_managed_fields(metadata.managed_fields, path.child("managedFields"))
    return errors


def validate_object_meta_update(new: meta.ObjectMeta, old: meta.ObjectMeta, path: Path = METADATA) -> ErrorList:
    """Check the metadata of an object that is changed."""
    errors: ErrorList = []
    if old.deletion_timestamp and (extra := sorted(set(new.finalizers) - set(old.finalizers))):
        shown = "[]string{" + ", ".join(quote(name) for name in extra) + "}"
        words = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
        errors.append(forbidden(path.child("finalizers"), words))
    if not new.resource_version:
        words = "must be specified for an update"
        errors.append(invalid(path.child("resourceVersion"), new.resource_version, words))
    if new.generation < old.generation:
        errors.append(invalid(path.child("generation"), new.generation, "must not be decremented"))
    errors += validate_immutable(new.name, old.name, path.child("name"))
    errors += validate_immutable(new.namespace, old.namespace, path.child("namespace"))
    errors += validate_immutable(new.uid, old.uid, path.child("uid"))
    errors += validate_immutable(new.creation_timestamp, old.creation_timestamp, path.child("creationTimestamp"))
    errors += validate_immutable(new.deletion_timestamp, old.deletion_timestamp, path.child("deletionTimestamp"))
    errors += validate_immutable(
        new.deletion_grace_period_seconds,
        old.deletion_grace_period_seconds,
        path.child("deletionGracePeriodSeconds"),
    )
    errors += validate_labels(new.labels, path.child("labels"))
    errors += validate_annotations(new.annotations, path.child("annotations"))
    if new.owner_references:
        errors += validate_owner_references(new.owner_references, path.child("ownerReferences"))
    if new.managed_fields:
        errors += validate_managed_fields(new.managed_fields, path.child("managedFields"))
    return errors


def validate_immutable(new: Any, old: Any, path: Path, shown: Any = None) -> ErrorList:
    """Complain if a value differs from the old one; `shown` is what to print in its place."""
    if new == old:
        return []
    return [invalid(path, new if shown is None else shown, IMMUTABLE)]


def validate_not_negative(value: int, path: Path) -> ErrorList:
    """Complain about a negative number."""
    return [invalid(path, value, NOT_NEGATIVE)] if value < 0 else []


def validate_annotations(annotations: Mapping[str, str], path: Path) -> ErrorList:
    """Check annotations, in the order of their keys (upstream: any order)."""
    if not annotations:
        return []
    errors: ErrorList = []
    for key in sorted(annotations):
        for text in qualified_name_errors(key.lower()):
            errors.append(invalid(path, key, text))
    return errors + validate_annotations_size(annotations, path)


def validate_annotations_size(annotations: Mapping[str, str], path: Path) -> ErrorList:
    """Check that annotations fit into 256 KiB."""
    size = sum(byte_length(key) + byte_length(value) for key, value in annotations.items())
    return [too_long(path, "", ANNOTATIONS_BYTES_MAX)] if size > ANNOTATIONS_BYTES_MAX else []


def validate_owner_references(references: Sequence[meta.OwnerReference], path: Path) -> ErrorList:
    """Check owner references; complaints name the list, not the item, as upstream's do."""
    errors: ErrorList = []
    controller = ""
    for reference in references:
        errors += _validate_owner_reference(reference, path)
        if reference.controller:
            current = f"{reference.kind}/{reference.name}"
            if controller:
                words = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {current}"
                )
                errors.append(invalid(path, list(references), words))
            else:
                controller = current
    return errors


def _validate_owner_reference(reference: meta.OwnerReference, path: Path) -> ErrorList:
    errors: ErrorList = []
    group, _, version = reference.api_version.rpartition("/")
    if reference.api_version.count("/") > 1:
        group, version = "", ""  # Upstream reads such a text as no version at all.
    if not version:
        errors.append(invalid(path.child("apiVersion"), reference.api_version, "version must not be empty"))
    if not reference.kind:
        errors.append(invalid(path.child("kind"), reference.kind, "must not be empty"))
    if not reference.name:
        errors.append(invalid(path.child("name"), reference.name, "must not be empty"))
    if not reference.uid:
        errors.append(invalid(path.child("uid"), reference.uid, "must not be empty"))
    if (group, version, reference.kind) in _BANNED_OWNERS:
        shown = f"{group}/{version}, Kind={reference.kind}"
        errors.append(invalid(path, reference, f"{shown} is disallowed from being an owner"))
    return errors


def validate_finalizer_name(name: str, path: Path) -> ErrorList:
    """Check one finalizer."""
    return [invalid(path, name, text) for text in qualified_name_errors(name)]


def _validate_finalizers(finalizers: Sequence[str], path: Path) -> ErrorList:
    errors: ErrorList = []
    for name in finalizers:
        errors += validate_finalizer_name(name, path)
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        words = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid(path, list(finalizers), words))
    return errors
