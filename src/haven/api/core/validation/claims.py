"""What is wrong with a PersistentVolumeClaim, or with the template of one.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from dataclasses import dataclass

from haven.api.core import v1
from haven.api.core.validation.metadata import validate_meta, validate_positive_quantity
from haven.api.core.validation.quantities import validate_resource_quantity
from haven.apimachinery import meta
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.labels import validate_label_selector, validate_labels
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import validate_annotations

__all__ = [
    "ACCESS_MODES",
    "VOLUME_MODES",
    "ClaimOptions",
    "validate_claim",
    "validate_claim_spec",
    "validate_claim_template",
    "validate_template_meta",
]

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


@dataclass(frozen=True)
class ClaimOptions:
    """What an older object is forgiven."""

    allow_invalid_selector_values: bool = False
    allow_invalid_api_group: bool = False


STRICT = ClaimOptions()


def validate_claim(claim: v1.PersistentVolumeClaim, options: ClaimOptions = STRICT) -> ErrorList:
    """Check a claim."""
    errors = validate_meta(claim.metadata, namespaced=True)
    return errors + validate_claim_spec(claim.spec, Path("spec"), options)


def validate_claim_template(template: v1.PersistentVolumeClaimTemplate, path: Path) -> ErrorList:
    """Check the template of a claim that is made for a Pod."""
    errors = validate_template_meta(template.metadata, path.child("metadata"))
    return errors + validate_claim_spec(template.spec, path.child("spec"))


def validate_template_meta(metadata: meta.ObjectMeta, path: Path) -> ErrorList:
    """Check the metadata of a template, which may set labels and annotations alone."""
    errors = validate_annotations(metadata.annotations, path.child("annotations"))
    errors += validate_labels(metadata.labels, path.child("labels"))
    empty = meta.ObjectMeta()
    for attribute, name in zip(metadata.__struct_fields__, metadata.__struct_encode_fields__, strict=True):
        if attribute in ("labels", "annotations"):
            continue
        if getattr(metadata, attribute) != getattr(empty, attribute):
            shown = {"uid": "uID", "self_link": "selfLink"}.get(attribute, name)
            errors.append(forbidden(path.child(shown), "cannot be set"))
    return errors


def validate_claim_spec(spec: v1.PersistentVolumeClaimSpec, path: Path, options: ClaimOptions = STRICT) -> ErrorList:
    """Check what a claim asks for."""
    errors: ErrorList = []
    modes = path.child("accessModes")
    if not spec.access_modes:
        errors.append(required(modes, "at least 1 access mode is required"))
    if spec.selector is not None:
        errors += validate_label_selector(
            spec.selector, path.child("selector"), allow_invalid_values=options.allow_invalid_selector_values
        )
    for mode in spec.access_modes:
        if mode not in ACCESS_MODES:
            errors.append(not_supported(modes, mode, ACCESS_MODES))
    if "ReadWriteOncePod" in spec.access_modes and any(
        mode in ACCESS_MODES and mode != "ReadWriteOncePod" for mode in spec.access_modes
    ):
        errors.append(forbidden(modes, "may not use ReadWriteOncePod with other access modes"))
    place = path.child("resources").key("storage")
    storage = spec.resources.requests.get("storage")
    if storage is None:
        errors.append(required(place, ""))
    else:
        errors += validate_positive_quantity(storage, place) or validate_resource_quantity("storage", storage, place)
    errors += _class_name(spec.storage_class_name, path.child("storageClassName"))
    if spec.volume_mode is not None and spec.volume_mode not in VOLUME_MODES:
        errors.append(not_supported(path.child("volumeMode"), spec.volume_mode, VOLUME_MODES))
    source, reference = spec.data_source, spec.data_source_ref
    if source is not None:
        errors += _data_source(source, path.child("dataSource"), options)
    if reference is not None:
        errors += _data_source(reference, path.child("dataSourceRef"), options)
        if reference.namespace:
            for text in dns1123_label_errors(reference.namespace):
                errors.append(invalid(path.child("dataSourceRef").child("namespace"), reference.namespace, text))
    if reference is not None and reference.namespace:
        if source is not None:
            words = "may not be specified when dataSourceRef.namespace is specified"
            errors.append(invalid(path, _shown_path(path), words))
    elif source is not None and reference is not None:
        same = (source.api_group, source.kind, source.name) == (reference.api_group, reference.kind, reference.name)
        if not same:
            errors.append(invalid(path, _shown_path(path), "must match dataSourceRef"))
    return errors + _class_name(spec.volume_attributes_class_name, path.child("volumeAttributesClassName"))


def _shown_path(_path: Path) -> dict[str, str]:
    """Upstream passes the path where the value belongs; a path has no exported fields, so its JSON is {}."""
    return {}


def _class_name(name: str | None, path: Path) -> ErrorList:
    return [invalid(path, name, text) for text in dns1123_subdomain_errors(name)] if name else []


def _data_source(
    source: v1.TypedLocalObjectReference | v1.TypedObjectReference, path: Path, options: ClaimOptions
) -> ErrorList:
    errors: ErrorList = []
    if not source.name:
        errors.append(required(path.child("name"), ""))
    if not source.kind:
        errors.append(required(path.child("kind"), ""))
    group = source.api_group or ""
    if not group and source.kind != "PersistentVolumeClaim":
        words = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid(path, source.kind, words))
    if group and not options.allow_invalid_api_group:
        errors += [invalid(path.child("apiGroup"), group, text) for text in dns1123_subdomain_errors(group)]
    return errors
