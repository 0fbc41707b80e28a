"""What is wrong with a PersistentVolume, and with changes of a PersistentVolumeClaim.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

import msgspec

from haven.api.core import v1
from haven.api.core.validation.affinity import has_invalid_required_node_values, validate_node_selector
from haven.api.core.validation.claims import ACCESS_MODES, VOLUME_MODES
from haven.api.core.validation.metadata import (
    NOT_POSITIVE,
    validate_dns1123_label,
    validate_dns1123_subdomain,
    validate_meta,
    validate_meta_update,
)
from haven.api.core.validation.paths import validate_no_backsteps
from haven.api.core.validation.volumes import (
    SHARED_SOURCES,
    require,
    validate_csi_driver_name,
    validate_flex_options,
    validate_iqn,
)
from haven.api.givenempty import given
from haven.api.internalform import internal_form
from haven.api.specdiff import spec_diff
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors
from haven.apimachinery.validation.objectmeta import IMMUTABLE, validate_immutable

__all__ = ["validate_volume", "validate_volume_spec", "validate_volume_status_update", "validate_volume_update"]

_SPEC = Path("spec")
_ISCSI_WORDS = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters "
    "if iscsi.initiatorName is specified."
)


def _secret(reference: v1.SecretReference | v1.ObjectReference | None, path: Path, *, namespaced: bool) -> ErrorList:
    errors: ErrorList = []
    if reference is not None:
        if not reference.name:
            errors.append(required(path.child("name"), ""))
        if namespaced and not reference.namespace:
            errors.append(required(path.child("namespace"), ""))
    return errors


def _glusterfs(source: v1.GlusterfsPersistentVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "endpoints", "path")
    namespace = source.endpoints_namespace
    if namespace is not None:
        place = path.child("endpointsNamespace")
        if not namespace:
            words = "if the endpointnamespace is set, it must be a valid namespace name"
            errors.append(invalid(place, namespace, words))
        else:
            errors += [invalid(place, namespace, text) for text in dns1123_label_errors(namespace)]
    return errors


def _iscsi(source: v1.ISCSIPersistentVolumeSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    words = "must be valid format"
    if not source.target_portal:
        errors.append(required(path.child("targetPortal"), ""))
    if not source.iqn:
        errors.append(required(path.child("iqn"), ""))
    else:
        errors += validate_iqn(source.iqn, path.child("iqn"), words)
    if not 0 <= source.lun <= 255:
        errors.append(invalid(path.child("lun"), source.lun, "must be between 0 and 255, inclusive"))
    if (source.chap_auth_discovery or source.chap_auth_session) and source.secret_ref is None:
        errors.append(required(path.child("secretRef"), ""))
    errors += _secret(source.secret_ref, path.child("secretRef"), namespaced=False)
    if source.initiator_name is not None:
        errors += validate_iqn(source.initiator_name, path.child("initiatorname"), words)
    return errors


def _cinder(source: v1.CinderPersistentVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "volumeID") + _secret(source.secret_ref, path.child("secretRef"), namespaced=True)


def _flex(source: v1.FlexPersistentVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "driver") + validate_flex_options(source.options, path)


def _azure_file(source: v1.AzureFilePersistentVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "secretName", "shareName")
    if source.secret_namespace == "":
        errors.append(required(path.child("secretNamespace"), ""))
    return errors


def _local(source: v1.LocalVolumeSource, path: Path) -> ErrorList:
    if not source.path:
        return [required(path.child("path"), "")]
    return validate_no_backsteps(source.path, path.child("path"))


def _storage_os(source: v1.StorageOSPersistentVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "volumeName")
    if source.volume_name:
        errors += validate_dns1123_label(source.volume_name, path.child("volumeName"))
    if source.volume_namespace:
        errors += validate_dns1123_label(source.volume_namespace, path.child("volumeNamespace"))
    return errors + _secret(source.secret_ref, path.child("secretRef"), namespaced=True)


def _csi(source: v1.CSIPersistentVolumeSource, path: Path) -> ErrorList:
    errors = validate_csi_driver_name(source.driver, path.child("driver"))
    if not source.volume_handle:
        errors.append(required(path.child("volumeHandle"), ""))
    for name, reference in (
        ("controllerPublishSecretRef", source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", source.controller_expand_secret_ref),
        ("nodePublishSecretRef", source.node_publish_secret_ref),
        ("nodeExpandSecretRef", source.node_expand_secret_ref),
    ):
        if reference is None:
            continue
        place = path.child(name)
        if not reference.name:
            errors.append(required(place.child("name"), ""))
        else:
            errors += validate_dns1123_subdomain(reference.name, place.child("name"))
        if not reference.namespace:
            errors.append(required(place.child("namespace"), ""))
        else:
            errors += validate_dns1123_label(reference.namespace, place.child("namespace"))
    return errors


_Check = Callable[[Any, Path], ErrorList]
# In upstream's order: (attribute, name in a complaint about several sources, name inside its own complaints, check).
_SOURCES: tuple[tuple[str, str, str, _Check], ...] = (
    ("host_path", "hostPath", "hostPath", SHARED_SOURCES["host_path"]),
    ("gce_persistent_disk", "gcePersistentDisk", "persistentDisk", SHARED_SOURCES["gce_persistent_disk"]),
    (
        "aws_elastic_block_store",
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        SHARED_SOURCES["aws_elastic_block_store"],
    ),
    ("glusterfs", "glusterfs", "glusterfs", _glusterfs),
    ("flocker", "flocker", "flocker", SHARED_SOURCES["flocker"]),
    ("nfs", "nfs", "nfs", SHARED_SOURCES["nfs"]),
    ("rbd", "rbd", "rbd", SHARED_SOURCES["rbd"]),
    ("quobyte", "quobyte", "quobyte", SHARED_SOURCES["quobyte"]),
    ("cephfs", "cephFS", "cephfs", SHARED_SOURCES["cephfs"]),
    ("iscsi", "iscsi", "iscsi", _iscsi),
    ("cinder", "cinder", "cinder", _cinder),
    ("fc", "fc", "fc", SHARED_SOURCES["fc"]),
    ("flex_volume", "", "flexVolume", _flex),
    ("azure_file", "azureFile", "azureFile", _azure_file),
    ("vsphere_volume", "vsphereVolume", "vsphereVolume", SHARED_SOURCES["vsphere_volume"]),
    (
        "photon_persistent_disk",
        "photonPersistentDisk",
        "photonPersistentDisk",
        SHARED_SOURCES["photon_persistent_disk"],
    ),
    ("portworx_volume", "portworxVolume", "portworxVolume", SHARED_SOURCES["portworx_volume"]),
    ("azure_disk", "azureDisk", "azureDisk", SHARED_SOURCES["azure_disk"]),
    ("scale_io", "scaleIO", "scaleIO", SHARED_SOURCES["scale_io"]),
    ("local", "local", "local", _local),
    ("storageos", "storageos", "storageos", _storage_os),
    ("csi", "csi", "csi", _csi),
)


def validate_volume(volume: v1.PersistentVolume, old: v1.PersistentVolume | None = None) -> ErrorList:
    """Check a PersistentVolume."""
    affinity = old.spec.node_affinity if old is not None else None
    allow = affinity is not None and has_invalid_required_node_values(affinity.required)
    errors = validate_meta(volume.metadata, namespaced=False)
    return errors + validate_volume_spec(volume.spec, _SPEC, volume.metadata.name, allow_invalid_node_values=allow)


def validate_volume_spec(
    spec: v1.PersistentVolumeSpec,
    path: Path,
    name: str,
    *,
    inline: bool = False,
    allow_invalid_node_values: bool = False,
) -> ErrorList:
    """Check the spec of a volume, or of one inside a VolumeAttachment (`inline`)."""
    in_line = "may not be specified in the context of inline volumes"
    errors: ErrorList = []
    if inline:
        if spec.claim_ref is not None:
            errors.append(forbidden(path.child("claimRef"), in_line))
        if spec.capacity:
            errors.append(forbidden(path.child("capacity"), in_line))
        if spec.csi is None:
            errors.append(required(path.child("csi"), "has to be specified in the context of inline volumes"))
    modes = path.child("accessModes")
    if not spec.access_modes:
        errors.append(required(modes, ""))
    errors += [not_supported(modes, mode, ACCESS_MODES) for mode in spec.access_modes if mode not in ACCESS_MODES]
    others = [mode for mode in spec.access_modes if mode in ACCESS_MODES and mode != "ReadWriteOncePod"]
    if "ReadWriteOncePod" in spec.access_modes and others:
        errors.append(forbidden(modes, "may not use ReadWriteOncePod with other access modes"))
    if not inline:
        errors += _capacity(spec, path.child("capacity"))
    policy = spec.persistent_volume_reclaim_policy
    if policy:
        place = path.child("persistentVolumeReclaimPolicy")
        if inline and policy != "Retain":
            errors.append(forbidden(place, "may only be Retain in the context of inline volumes"))
        elif not inline and policy not in ("Delete", "Recycle", "Retain"):
            errors.append(not_supported(place, policy, ("Delete", "Recycle", "Retain")))
    has_affinity = False
    if spec.node_affinity is not None:
        place = path.child("nodeAffinity")
        if inline:
            errors.append(forbidden(place, in_line))
        else:
            has_affinity = True
            if spec.node_affinity.required is not None:
                errors += validate_node_selector(
                    spec.node_affinity.required, place.child("required"), allow_invalid_values=allow_invalid_node_values
                )
            else:
                errors.append(required(place.child("required"), "must specify required node constraints"))
    errors += _sources(spec, path, name, has_affinity)
    if spec.host_path is not None and policy == "Recycle" and posixpath.normpath(spec.host_path.path or ".") == "/":
        words = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden(path.child("persistentVolumeReclaimPolicy"), words))
    if spec.storage_class_name:
        place = path.child("storageClassName")
        errors += [forbidden(place, in_line)] if inline else validate_dns1123_subdomain(spec.storage_class_name, place)
    if spec.volume_mode is not None:
        place = path.child("volumeMode")
        if inline and spec.volume_mode != "Filesystem":
            words = "may not specify volumeMode other than Filesystem in the context of inline volumes"
            errors.append(forbidden(place, words))
        elif not inline and spec.volume_mode not in VOLUME_MODES:
            errors.append(not_supported(place, spec.volume_mode, VOLUME_MODES))
    class_name = spec.volume_attributes_class_name
    if class_name is not None and not inline:
        place = path.child("volumeAttributesClassName")
        if not class_name:
            errors.append(required(place, "an empty string is disallowed"))
        else:
            errors += [invalid(place, class_name, text) for text in dns1123_subdomain_errors(class_name)]
        if spec.csi is None:
            errors.append(required(path.child("csi"), "has to be specified when using volumeAttributesClassName"))
    return errors


def _capacity(spec: v1.PersistentVolumeSpec, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not spec.capacity:
        errors.append(required(path, ""))
    if "storage" not in spec.capacity or len(spec.capacity) > 1:
        errors.append(not_supported(path, given(spec.capacity), ("storage",)))
    for name in sorted(spec.capacity):
        amount = spec.capacity[name]
        if amount.value < 0:
            errors.append(invalid(path.key(name), amount.value, "must be a valid resource quantity"))
        if amount.nano <= 0:
            errors.append(invalid(path.key(name), str(amount), NOT_POSITIVE))
    return errors


def _sources(spec: v1.PersistentVolumeSpec, path: Path, name: str, has_affinity: bool) -> ErrorList:
    errors: ErrorList = []
    found = 0
    for attribute, field, checked, check in _SOURCES:
        source = getattr(spec, attribute)
        if source is None:
            continue
        if found and field:
            errors.append(forbidden(path.child(field), "may not specify more than 1 volume type"))
            continue
        found += 1
        if isinstance(source, v1.ISCSIPersistentVolumeSource):
            place = path.child("iscsi").child("targetportal")
            if source.initiator_name is not None and len(f"{name}:{source.target_portal}") > 64:
                errors.append(invalid(place, source.target_portal, _ISCSI_WORDS))
        errors += check(source, path.child(checked))
        if attribute == "local" and not has_affinity:
            errors.append(required(path.child("nodeAffinity"), "Local volume requires node affinity"))
    if not found:
        errors.append(required(path, "must specify a volume type"))
    return errors


def validate_volume_update(new: v1.PersistentVolume, old: v1.PersistentVolume) -> ErrorList:
    """Check a changed PersistentVolume: where its data is stays."""
    errors = validate_volume(new, old)
    errors += validate_volume(new, old)
    spec, before = new.spec, old.spec
    now, then = _source_of(spec), _source_of(before)
    if then.csi is not None and then.csi.controller_expand_secret_ref is None and now.csi is not None:
        now.csi = msgspec.structs.replace(now.csi, controller_expand_secret_ref=None)
    if now != then:
        difference = spec_diff(then, now, "PersistentVolumeSource")
        words = f"spec.persistentvolumesource is immutable after creation\n{difference}"
        errors.append(forbidden(Path("spec", "persistentvolumesource"), words))
    errors += validate_immutable(spec.volume_mode, before.volume_mode, Path("volumeMode"))
    if before.node_affinity is not None and not _same_affinity(spec.node_affinity, before.node_affinity):
        shown = internal_form(spec.node_affinity, "*VolumeNodeAffinity", "core")
        words = f"{IMMUTABLE}, except for updating from beta label to GA"
        errors.append(invalid(Path("nodeAffinity"), shown, words))
    if before.volume_attributes_class_name is not None and spec.volume_attributes_class_name is None:
        words = "update from non-nil value to nil is forbidden"
        errors.append(forbidden(Path("spec", "volumeAttributesClassName"), words))
    return errors


_SOURCE_FIELDS = v1.PersistentVolumeSource.__struct_fields__


def _source_of(spec: v1.PersistentVolumeSpec) -> v1.PersistentVolumeSource:
    return v1.PersistentVolumeSource(**{name: getattr(spec, name) for name in _SOURCE_FIELDS})


_NEW_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}


def _same_affinity(new: v1.VolumeNodeAffinity | None, old: v1.VolumeNodeAffinity) -> bool:
    """Tell whether two choices of nodes are the same but for labels that got better names."""
    if new is None or new.required is None or old.required is None:
        return new == old
    now, then = new.required.node_selector_terms or [], old.required.node_selector_terms or []
    return len(now) == len(then) and all(
        a.match_fields == b.match_fields
        and len(a.match_expressions) == len(b.match_expressions)
        and all(_same_requirement(x, y) for x, y in zip(a.match_expressions, b.match_expressions, strict=True))
        for a, b in zip(now, then, strict=True)
    )


def _same_requirement(new: v1.NodeSelectorRequirement, old: v1.NodeSelectorRequirement) -> bool:
    key = new.key if _NEW_LABELS.get(old.key, "") == new.key else old.key
    return (new.key, new.operator, new.values) == (key, old.operator, old.values)


def validate_volume_status_update(new: v1.PersistentVolume, old: v1.PersistentVolume) -> ErrorList:
    """Check a changed status."""
    errors = validate_meta_update(new.metadata, old.metadata)
    return errors if new.metadata.resource_version else [*errors, required(Path("resourceVersion"), "")]
