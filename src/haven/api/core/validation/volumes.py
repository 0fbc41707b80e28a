"""What is wrong with the volumes of a Pod.

Source: https://kubernetes.io/docs/concepts/storage/volumes/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from haven.api.core import v1
from haven.api.core.validation.claims import validate_claim_template
from haven.api.core.validation.metadata import validate_dns1123_label
from haven.api.core.validation.paths import validate_local_path, validate_no_backsteps
from haven.api.core.validation.projected import validate_projected
from haven.api.core.validation.volumefiles import validate_downward_file, validate_file_mode, validate_key_to_path
from haven.apimachinery import meta
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
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import byte_length, dns1123_subdomain_errors

__all__ = [
    "SHARED_SOURCES",
    "require",
    "validate_azure_disk",
    "validate_csi_driver_name",
    "validate_flex_options",
    "validate_host_path",
    "validate_iqn",
    "validate_volumes",
]

_DISK_PARTITION_WORDS = "must be between 1 and 255, inclusive"
_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_ISCSI_NAME_WORDS = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters "
    "if iscsi.initiatorName is specified."
)
_IQN = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9\-.]+)(:[^,;*&$|\s]+)\Z", re.ASCII),
    "eui": re.compile(r"^eui.[a-zA-Z0-9]{16}\Z"),
    "naa": re.compile(r"^naa.[a-zA-Z0-9]{32}\Z"),
}
Volumes = Mapping[str, v1.Volume]


def validate_volumes(
    volumes: Sequence[v1.Volume], metadata: meta.ObjectMeta | None, path: Path, *, is_pod: bool
) -> tuple[Volumes, ErrorList]:
    """Check volumes; return the good ones by name, for mounts to refer to, and the complaints."""
    good: dict[str, v1.Volume] = {}
    if not volumes:
        return good, []
    errors: ErrorList = []
    created: set[str] = set()
    if metadata is not None and metadata.name:
        created = {f"{metadata.name}-{volume.name}" for volume in volumes if volume.ephemeral is not None}
    for index, volume in enumerate(volumes):
        place = path.index(index)
        found = _validate_source(volume, place, metadata, is_pod)
        if not volume.name:
            found.append(required(place.child("name"), ""))
        else:
            found += validate_dns1123_label(volume.name, place.child("name"))
        if volume.name in good:
            found.append(duplicate(place.child("name"), volume.name))
        if found:
            errors += found
        else:
            good[volume.name] = volume
        claim = volume.persistent_volume_claim
        if claim is not None and claim.claim_name in created:
            words = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(invalid(place.child("persistentVolumeClaim").child("claimName"), claim.claim_name, words))
    return good, errors


def _validate_source(volume: v1.Volume, path: Path, metadata: meta.ObjectMeta | None, is_pod: bool) -> ErrorList:
    errors: ErrorList = []
    found = 0
    for attribute, name, checked_name, check in _SOURCES:
        source = getattr(volume, attribute)
        if source is None:
            continue
        if found:
            errors.append(forbidden(path.child(name), "may not specify more than 1 volume type"))
        else:
            found = 1
            if check is not None:
                errors += check(source, path.child(checked_name))
            elif attribute == "image":
                errors += _image(source, path.child("image"), is_pod)
            elif attribute == "ephemeral" and metadata is not None and metadata.name and volume.name:
                errors += _ephemeral(source, path.child("ephemeral"))
                claim = f"{metadata.name}-{volume.name}"
                for text in dns1123_subdomain_errors(claim):
                    errors.append(invalid(path.child("name"), volume.name, f"PVC name {quote(claim)}: {text}"))
            elif attribute == "ephemeral":
                errors += _ephemeral(source, path.child("ephemeral"))
        if attribute == "iscsi" and source.initiator_name and len(f"{volume.name}:{source.target_portal}") > 64:
            errors.append(invalid(path.child("name"), volume.name, _ISCSI_NAME_WORDS))
    if not found:
        errors.append(required(path, "must specify a volume type"))
    return errors


def _empty_dir(source: v1.EmptyDirVolumeSource, path: Path) -> ErrorList:
    if source.size_limit is not None and source.size_limit.nano < 0:
        return [forbidden(path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity")]
    return []


def validate_host_path(source: v1.HostPathVolumeSource, path: Path) -> ErrorList:
    """Check a folder of the node."""
    if not source.path:
        return [required(path.child("path"), "")]
    errors = validate_no_backsteps(source.path, path.child("path"))
    if source.type is not None and source.type not in _HOST_PATH_TYPES:
        errors.append(not_supported(path.child("type"), source.type, _HOST_PATH_TYPES))
    return errors


def _git_repo(source: v1.GitRepoVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "repository") + validate_local_path(source.directory, path.child("directory"))


def require(source: Any, path: Path, *fields: str) -> ErrorList:
    """Complain about empty fields, named as in JSON; those here differ from the attributes by underscores alone."""
    errors: ErrorList = []
    for name in fields:
        attribute = _ATTRIBUTES.get(name, name)
        if not getattr(source, attribute):
            errors.append(required(path.child(name), ""))
    return errors


_ATTRIBUTES = {
    "pdName": "pd_name", "volumeID": "volume_id", "secretName": "secret_name", "shareName": "share_name",
    "diskName": "disk_name", "diskURI": "disk_uri", "volumePath": "volume_path", "pdID": "pd_id",
    "volumeName": "volume_name", "claimName": "claim_name",
}  # fmt: skip


def _gce(source: v1.GCEPersistentDiskVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "pdName") + _partition(source.partition, path)


def _aws(source: v1.AWSElasticBlockStoreVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "volumeID") + _partition(source.partition, path)


def _partition(partition: int, path: Path) -> ErrorList:
    if 0 <= partition <= 255:
        return []
    return [invalid(path.child("partition"), partition, _DISK_PARTITION_WORDS)]


def _secret(source: v1.SecretVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "secretName") + validate_file_mode(source.default_mode, path.child("defaultMode"))
    for index, item in enumerate(source.items):
        errors += validate_key_to_path(item, path.child("items").index(index))
    return errors


def _config_map(source: v1.ConfigMapVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "name") + validate_file_mode(source.default_mode, path.child("defaultMode"))
    for index, item in enumerate(source.items):
        errors += validate_key_to_path(item, path.child("items").index(index))
    return errors


def _nfs(source: v1.NFSVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "server", "path")
    if not source.path.startswith("/"):
        errors.append(invalid(path.child("path"), source.path, "must be an absolute path"))
    return errors


def validate_iqn(name: str, path: Path, words: str) -> ErrorList:
    """Check the name of an iSCSI target or initiator; `words` is said of an unknown prefix."""
    pattern = _IQN.get(name[:3])
    if pattern is None:
        return [invalid(path, name, words)]
    return [] if pattern.search(name) else [invalid(path, name, "must be valid format")]


def _iscsi(source: v1.ISCSIVolumeSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    words = "must be valid format starting with iqn, eui, or naa"
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
    if source.initiator_name is not None:
        errors += validate_iqn(source.initiator_name, path.child("initiatorname"), words)
    return errors


def _glusterfs(source: v1.GlusterfsVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "endpoints", "path")


def _flocker(source: v1.FlockerVolumeSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    if not source.dataset_name and not source.dataset_uuid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if source.dataset_name and source.dataset_uuid:
        errors.append(invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
    if "/" in source.dataset_name:
        errors.append(invalid(path.child("datasetName"), source.dataset_name, "must not contain '/'"))
    return errors


def _claim(source: v1.PersistentVolumeClaimVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "claimName")


def _rbd(source: v1.RBDVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "monitors", "image")


def _cinder(source: v1.CinderVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "volumeID")
    if source.secret_ref is not None and not source.secret_ref.name:
        errors.append(required(path.child("secretRef", "name"), ""))
    return errors


def _ceph_fs(source: v1.CephFSVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "monitors")


def _quobyte(source: v1.QuobyteVolumeSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    words = "must be a host:port pair or multiple pairs separated by commas"
    if not source.registry:
        errors.append(required(path.child("registry"), words))
    elif len(source.tenant) >= 65:
        errors.append(required(path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
    else:
        for pair in source.registry.split(","):
            host, colon, _port = pair.rpartition(":")
            if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
                errors.append(invalid(path.child("registry"), source.registry, words))
    return errors + require(source, path, "volume")


def _downward_api(source: v1.DownwardAPIVolumeSource, path: Path) -> ErrorList:
    errors = validate_file_mode(source.default_mode, path.child("defaultMode"))
    for file in source.items:
        errors += validate_downward_file(file, path)
    return errors


def _fc(source: v1.FCVolumeSource, path: Path) -> ErrorList:
    errors: ErrorList = []
    place = path.child("targetWWNs")
    if not source.target_wwns and not source.wwids:
        errors.append(required(place, "must specify either targetWWNs or wwids, but not both"))
    if source.target_wwns and source.wwids:
        words = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(invalid(place, source.target_wwns, words))
    if source.target_wwns:
        if source.lun is None:
            errors.append(required(path.child("lun"), "lun is required if targetWWNs is specified"))
        elif not 0 <= source.lun <= 255:
            errors.append(invalid(path.child("lun"), source.lun, "must be between 0 and 255, inclusive"))
    return errors


def validate_flex_options(options: Mapping[str, str], path: Path) -> ErrorList:
    """Check that options of a driver stay out of Kubernetes' own domains."""
    errors: ErrorList = []
    for key in sorted(options):
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            words = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid(path.child("options").key(key), key, words))
    return errors


def _flex(source: v1.FlexVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "driver") + validate_flex_options(source.options, path)


def _azure_file(source: v1.AzureFileVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "secretName", "shareName")


def validate_azure_disk(source: v1.AzureDiskVolumeSource, path: Path) -> ErrorList:
    """Check a disk of Azure."""
    errors = require(source, path, "diskName", "diskURI")
    if source.caching_mode is not None and source.caching_mode not in ("None", "ReadOnly", "ReadWrite"):
        errors.append(not_supported(path.child("cachingMode"), source.caching_mode, ["None", "ReadOnly", "ReadWrite"]))
    if source.kind is not None and source.kind not in ("Dedicated", "Managed", "Shared"):
        errors.append(not_supported(path.child("kind"), source.kind, ["Dedicated", "Managed", "Shared"]))
    if source.kind == "Managed" and not source.disk_uri.startswith("/subscriptions/"):
        shape = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        errors.append(not_supported(path.child("diskURI"), source.disk_uri, [shape]))
    if source.kind is not None and source.kind != "Managed" and not source.disk_uri.startswith("https://"):
        shape = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        errors.append(not_supported(path.child("diskURI"), source.disk_uri, [shape]))
    return errors


def _vsphere(source: v1.VsphereVirtualDiskVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "volumePath")


def _photon(source: v1.PhotonPersistentDiskVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "pdID")


def _portworx(source: v1.PortworxVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "volumeID")


def _storage_os(source: v1.StorageOSVolumeSource, path: Path) -> ErrorList:
    errors = require(source, path, "volumeName")
    if source.volume_name:
        errors += validate_dns1123_label(source.volume_name, path.child("volumeName"))
    if source.volume_namespace:
        errors += validate_dns1123_label(source.volume_namespace, path.child("volumeNamespace"))
    if source.secret_ref is not None and not source.secret_ref.name:
        errors.append(required(path.child("secretRef", "name"), ""))
    return errors


def _scale_io(source: v1.ScaleIOVolumeSource, path: Path) -> ErrorList:
    return require(source, path, "gateway", "system", "volumeName")


def validate_csi_driver_name(driver: str, path: Path) -> ErrorList:
    """Check the name of a CSI driver, in which capitals are allowed."""
    if not driver:
        return [required(path, "")]
    errors: ErrorList = []
    if byte_length(driver) > 63:
        errors.append(too_long(path, "", 63))
    return errors + [invalid(path, driver, text) for text in dns1123_subdomain_errors(driver.lower())]


def _csi(source: v1.CSIVolumeSource, path: Path) -> ErrorList:
    errors = validate_csi_driver_name(source.driver, path.child("driver"))
    secret = source.node_publish_secret_ref
    if secret is not None:
        if not secret.name:
            errors.append(required(path.child("nodePublishSecretRef", "name"), ""))
        else:
            errors += [invalid(path.child("name"), secret.name, t) for t in dns1123_subdomain_errors(secret.name)]
    return errors


def _ephemeral(source: v1.EphemeralVolumeSource, path: Path) -> ErrorList:
    place = path.child("volumeClaimTemplate")
    if source.volume_claim_template is None:
        return [required(place, "")]
    return validate_claim_template(source.volume_claim_template, place)


def _image(source: v1.ImageVolumeSource, path: Path, is_pod: bool) -> ErrorList:
    errors: ErrorList = []
    if is_pod and not source.reference:
        errors.append(required(path.child("reference"), ""))
    if not source.pull_policy:
        errors.append(required(path.child("pullPolicy"), ""))
    elif source.pull_policy not in ("Always", "IfNotPresent", "Never"):
        policies = ["Always", "IfNotPresent", "Never"]
        errors.append(not_supported(path.child("pullPolicy"), source.pull_policy, policies))
    return errors


_Check = Callable[[Any, Path], ErrorList]
# In upstream's order: (attribute, name in a complaint about several sources, name inside its own complaints, check).
_SOURCES: tuple[tuple[str, str, str, _Check | None], ...] = (
    ("empty_dir", "emptyDir", "emptyDir", _empty_dir),
    ("host_path", "hostPath", "hostPath", validate_host_path),
    ("git_repo", "gitRepo", "gitRepo", _git_repo),
    ("gce_persistent_disk", "gcePersistentDisk", "persistentDisk", _gce),
    ("aws_elastic_block_store", "awsElasticBlockStore", "awsElasticBlockStore", _aws),
    ("secret", "secret", "secret", _secret),
    ("nfs", "nfs", "nfs", _nfs),
    ("iscsi", "iscsi", "iscsi", _iscsi),
    ("glusterfs", "glusterfs", "glusterfs", _glusterfs),
    ("flocker", "flocker", "flocker", _flocker),
    ("persistent_volume_claim", "persistentVolumeClaim", "persistentVolumeClaim", _claim),
    ("rbd", "rbd", "rbd", _rbd),
    ("cinder", "cinder", "cinder", _cinder),
    ("cephfs", "cephFS", "cephfs", _ceph_fs),
    ("quobyte", "quobyte", "quobyte", _quobyte),
    ("downward_api", "downwarAPI", "downwardAPI", _downward_api),
    ("fc", "fc", "fc", _fc),
    ("flex_volume", "flexVolume", "flexVolume", _flex),
    ("config_map", "configMap", "configMap", _config_map),
    ("azure_file", "azureFile", "azureFile", _azure_file),
    ("vsphere_volume", "vsphereVolume", "vsphereVolume", _vsphere),
    ("photon_persistent_disk", "photonPersistentDisk", "photonPersistentDisk", _photon),
    ("portworx_volume", "portworxVolume", "portworxVolume", _portworx),
    ("azure_disk", "azureDisk", "azureDisk", validate_azure_disk),
    ("storageos", "storageos", "storageos", _storage_os),
    ("projected", "projected", "projected", validate_projected),
    ("scale_io", "scaleIO", "scaleIO", _scale_io),
    ("csi", "csi", "csi", _csi),
    ("ephemeral", "ephemeral", "ephemeral", None),
    ("image", "image", "image", None),
)

SHARED_SOURCES: dict[str, _Check] = {attribute: check for attribute, _, _, check in _SOURCES if check is not None}
"""The checks of sources that PersistentVolumes have too, by attribute."""
