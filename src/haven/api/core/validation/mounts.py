"""What is wrong with the volume mounts and block devices of a container.

Source: https://kubernetes.io/docs/concepts/storage/volumes/ and the behaviour of pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from haven.api.core import v1
from haven.api.core.validation.paths import validate_local_path, validate_no_backsteps
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_found, not_supported, required

__all__ = ["validate_volume_devices", "validate_volume_mounts"]

Container = v1.Container | v1.EphemeralContainerCommon


def validate_volume_mounts(container: Container, volumes: Mapping[str, v1.Volume], path: Path) -> ErrorList:
    """Check where volumes are mounted."""
    errors: ErrorList = []
    devices = {device.name: device.device_path for device in container.volume_devices}
    taken: set[str] = set()
    for index, mount in enumerate(container.volume_mounts):
        place = path.index(index)
        if not mount.name:
            errors.append(required(place.child("name"), ""))
        if mount.name not in volumes:
            errors.append(not_found(place.child("name"), mount.name))
        if not mount.mount_path:
            errors.append(required(place.child("mountPath"), ""))
        if mount.mount_path in taken:
            errors.append(invalid(place.child("mountPath"), mount.mount_path, "must be unique"))
        taken.add(mount.mount_path)
        if mount.name in devices:
            errors.append(invalid(place.child("name"), mount.name, "must not already exist in volumeDevices"))
        if devices and mount.mount_path in devices.values():
            words = "must not already exist as a path in volumeDevices"
            errors.append(invalid(place.child("mountPath"), mount.mount_path, words))
        if mount.sub_path:
            errors += validate_local_path(mount.sub_path, path.child("subPath"))
        if mount.sub_path_expr:
            if mount.sub_path:
                words = "subPathExpr and subPath are mutually exclusive"
                errors.append(invalid(place.child("subPathExpr"), mount.sub_path_expr, words))
            errors += validate_local_path(mount.sub_path_expr, path.child("subPathExpr"))
        if mount.mount_propagation is not None:
            errors += _propagation(mount.mount_propagation, container, path.child("mountPropagation"))
        if mount.recursive_read_only is not None:
            errors += _recursive_read_only(mount, mount.recursive_read_only, path.child("recursiveReadOnly"))
    return errors


def _propagation(propagation: str, container: Container, path: Path) -> ErrorList:
    errors: ErrorList = []
    supported = ("Bidirectional", "HostToContainer", "None")
    if propagation not in supported:
        errors.append(not_supported(path, propagation, supported))
    privileged = container.security_context is not None and container.security_context.privileged is True
    if propagation == "Bidirectional" and not privileged:
        words = "Bidirectional mount propagation is available only to privileged containers"
        errors.append(forbidden(path, words))
    return errors


def _recursive_read_only(mount: v1.VolumeMount, mode: str, path: Path) -> ErrorList:
    if mode == "Disabled":
        return []
    errors: ErrorList = []
    if mode in ("Enabled", "IfPossible"):
        if not mount.read_only:
            errors.append(forbidden(path, "may only be specified when readOnly is true"))
        if mount.mount_propagation not in (None, "None"):
            words = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden(path, words))
    else:
        errors.append(not_supported(path, mode, ("Disabled", "Enabled", "IfPossible")))
    return errors


def validate_volume_devices(
    devices: Sequence[v1.VolumeDevice],
    mounts: Sequence[v1.VolumeMount],
    volumes: Mapping[str, v1.Volume],
    path: Path,
) -> ErrorList:
    """Check block devices."""
    errors: ErrorList = []
    mounted = {mount.name: mount.mount_path for mount in mounts}
    paths: set[str] = set()
    names: set[str] = set()
    for index, device in enumerate(devices):
        place = path.index(index)
        volume = volumes.get(device.name)
        if not device.name:
            errors.append(required(place.child("name"), ""))
        if device.name in names:
            errors.append(invalid(place.child("name"), device.name, "must be unique"))
        if volume is None:
            errors.append(not_found(place.child("name"), device.name))
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            words = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(invalid(place.child("name"), device.name, words))
        if not device.device_path:
            errors.append(required(place.child("devicePath"), ""))
        if device.device_path in paths:
            errors.append(invalid(place.child("devicePath"), device.device_path, "must be unique"))
        if validate_no_backsteps(device.device_path, path):
            words = "can not contain backsteps ('..')"
            errors.append(invalid(place.child("devicePath"), device.device_path, words))
        else:
            paths.add(device.device_path)
        if device.name in mounted:
            errors.append(invalid(place.child("name"), device.name, "must not already exist in volumeMounts"))
        if device.device_path in mounted.values():
            words = "must not already exist as a path in volumeMounts"
            errors.append(invalid(place.child("devicePath"), device.device_path, words))
        if device.name:
            names.add(device.name)
    return errors
