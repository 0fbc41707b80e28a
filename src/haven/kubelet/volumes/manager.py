"""Brings a pod's volumes onto the disk, keeps their content current, and removes everything afterwards.

Layout, as upstream's: <root>/pods/<uid>/volumes/<plugin>/<name>, so that tools that look there find them. Secrets,
tokens and memory volumes live in tmpfs. Disk work runs in threads.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from haven.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod, Volume
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.apimachinery.quantity import Quantity
from haven.client.interface import Client
from haven.kubelet import mounts
from haven.kubelet.fieldref import FieldError, FieldFacts
from haven.kubelet.imagemounts import ImageMountError, ImageMounts
from haven.kubelet.objects import NotReadYet, ObjectCaches
from haven.kubelet.tokens import TokenManager
from haven.kubelet.volumes.atomicwriter import InvalidPath, set_group, write_payload
from haven.kubelet.volumes.content import (
    MissingContent,
    VolumeSources,
    is_content_volume,
    payload,
    referenced_names,
    shows_trust_bundles,
    token_key,
    token_projections,
)
from haven.kubelet.volumes.hostpath import HostPathError, check_host_path

__all__ = ["MountedVolume", "VolumeError", "VolumeManager"]


class VolumeError(Exception):
    """A volume cannot be set up (yet). `message` is the FailedMount event's."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(message)
        self.volume = volume
        self.message = message


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that is ready: where it is on the node, and whether containers may only read it."""

    path: Path
    read_only: bool = False
    image: str = ""
    """For image volumes: the image; there is no path then."""


class VolumeManager:
    """All volumes of all pods of the node."""

    def __init__(
        self,
        pods_directory: Path,
        client: Client,
        objects: ObjectCaches,
        tokens: TokenManager,
        image_mounts: ImageMounts | None = None,
    ) -> None:
        self._pods_directory = pods_directory
        self._client = client
        self._objects = objects
        self._tokens = tokens
        self._image_mounts = image_mounts

    async def setup(
        self, pod: Pod, facts: FieldFacts, *, memory_limit: Quantity | None = None
    ) -> dict[str, MountedVolume]:
        """Make every volume of a pod ready and its content current; raise VolumeError. May be called again."""
        result: dict[str, MountedVolume] = {}
        sources = await self._sources(pod, facts)
        for volume in pod.spec.volumes:
            try:
                result[volume.name] = await self._setup_one(pod, volume, sources, memory_limit)
            except (MissingContent, FieldError, InvalidPath, HostPathError, OSError, NotReadYet) as error:
                raise VolumeError(
                    volume.name, f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
                ) from error
        return result

    async def refresh(self, pod: Pod, facts: FieldFacts) -> None:
        """Bring the content of a running pod's volumes up to date; raise VolumeError."""
        if not any(is_content_volume(volume) for volume in pod.spec.volumes):
            return
        sources = await self._sources(pod, facts)
        for volume in pod.spec.volumes:
            if not is_content_volume(volume):
                continue
            try:
                await self._setup_one(pod, volume, sources, None)
            except (MissingContent, FieldError, InvalidPath, OSError) as error:
                raise VolumeError(
                    volume.name, f'MountVolume.SetUp failed for volume "{volume.name}" : {error}'
                ) from error

    async def teardown(self, pod_uid: str) -> None:
        """Remove everything of a pod from the disk; raise OSError."""
        directory = self._pods_directory / pod_uid
        images = directory / "volumes" / "kubernetes.io~image"
        if self._image_mounts is not None and images.is_dir():
            for entry in sorted(images.iterdir()):
                try:
                    await self._image_mounts.unmount(entry)
                except ImageMountError as error:
                    raise OSError(str(error)) from error
        await asyncio.to_thread(remove_pod_directory, directory)

    def known_pods(self) -> list[str]:
        """Return the UIDs of pods that have a directory."""
        try:
            return sorted(entry.name for entry in os.scandir(self._pods_directory) if entry.is_dir())
        except FileNotFoundError:
            return []

    # Details.

    async def _sources(self, pod: Pod, facts: FieldFacts) -> VolumeSources:
        namespace = pod.metadata.namespace
        config_maps, secrets = referenced_names(pod)
        tokens: dict[tuple[str, int, str], str] = {}
        try:
            for volume in pod.spec.volumes:
                for projection in token_projections(volume):
                    tokens[token_key(projection)] = await self._tokens.token(pod, projection)
            return VolumeSources(
                config_maps=await self._objects.wait_config_maps(namespace, config_maps),
                secrets=await self._objects.wait_secrets(namespace, secrets),
                tokens=tokens,
                facts=facts,
                bundles=await self._objects.trust_bundles.wait_all(pod.metadata.uid)
                if shows_trust_bundles(pod)
                else None,
            )
        except TimeoutError as error:
            raise VolumeError("", "ClusterTrustBundle informer has not yet synced") from error
        except NotReadYet as error:
            raise VolumeError("", str(error)) from error
        except apierrors.ApiError as error:
            raise VolumeError("", f"failed to fetch token: {error.message}") from error

    async def _setup_one(
        self, pod: Pod, volume: Volume, sources: VolumeSources, memory_limit: Quantity | None
    ) -> MountedVolume:
        context = pod.spec.security_context
        group = context.fs_group if context else None
        base = self._pods_directory / pod.metadata.uid / "volumes"
        if volume.host_path is not None:
            path = await asyncio.to_thread(check_host_path, volume.host_path.path, volume.host_path.type or "")
            return MountedVolume(path)
        if volume.empty_dir is not None:
            path = base / "kubernetes.io~empty-dir" / volume.name
            await asyncio.to_thread(_setup_empty_dir, path, volume, group, memory_limit)
            return MountedVolume(path)
        if is_content_volume(volume):
            kind, in_memory = _content_kind(volume)
            path = base / f"kubernetes.io~{kind}" / volume.name
            files = payload(pod, volume, sources)
            await asyncio.to_thread(_setup_content, path, in_memory)
            await asyncio.to_thread(write_payload, path, files, group=group)
            # The atomic writer's links must stay ours; upstream mounts these volumes read-only too.
            return MountedVolume(path, read_only=True)
        if volume.persistent_volume_claim is not None:
            return await self._setup_claim(pod, volume, volume.persistent_volume_claim.claim_name)
        if volume.ephemeral is not None:
            return await self._setup_claim(pod, volume, f"{pod.metadata.name}-{volume.name}")
        if volume.image is not None:
            return MountedVolume(Path("/"), read_only=True, image=volume.image.reference)
        raise MissingContent(f"no volume plugin matched name {volume.name}")

    async def _setup_claim(self, pod: Pod, volume: Volume, name: str) -> MountedVolume:
        try:
            claim = await self._client.get(resource_of(PersistentVolumeClaim), pod.metadata.namespace, name)
            if not claim.spec.volume_name or claim.status.phase != "Bound":
                raise MissingContent(f'PVC "{name}" is not bound')
            found = await self._client.get(resource_of(PersistentVolume), "", claim.spec.volume_name)
        except apierrors.ApiError as error:
            raise MissingContent(error.message) from error
        is_read_only = bool(volume.persistent_volume_claim and volume.persistent_volume_claim.read_only)
        if found.spec.host_path is not None:
            path = await asyncio.to_thread(check_host_path, found.spec.host_path.path, found.spec.host_path.type or "")
        elif found.spec.local is not None:
            path = Path(found.spec.local.path)
            if not path.exists():
                raise MissingContent(f'path "{path}" does not exist')
        else:
            raise MissingContent(f'no volume plugin of this node can mount persistent volume "{found.metadata.name}"')
        context = pod.spec.security_context
        if context is not None and context.fs_group is not None and found.spec.local is not None and not is_read_only:
            await asyncio.to_thread(set_group, path, context.fs_group, writable=True)
        return MountedVolume(path, read_only=is_read_only)


def _content_kind(volume: Volume) -> tuple[str, bool]:
    """Return the plugin's name, and whether the content must not touch a disk."""
    if volume.secret:
        return "secret", True
    if volume.projected:
        sources = volume.projected.sources or []
        return "projected", any(source.secret or source.service_account_token for source in sources)
    return ("configmap" if volume.config_map else "downward-api"), False


def _setup_content(path: Path, in_memory: bool) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if in_memory and not os.path.ismount(path):
        mounts.mount_tmpfs(path)
    path.chmod(0o777)


def _setup_empty_dir(path: Path, volume: Volume, group: int | None, memory_limit: Quantity | None) -> None:
    source = volume.empty_dir
    assert source is not None, volume.name
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    is_mounted = os.path.ismount(path)
    if source.medium == "Memory" and not is_mounted:
        limits = [limit.value for limit in (source.size_limit, memory_limit) if limit is not None and limit.value > 0]
        mounts.mount_tmpfs(path, size_bytes=min(limits, default=0))
    elif source.medium.startswith("HugePages") and not is_mounted:
        _, _, size = source.medium.partition("-")
        mounts.mount_hugetlbfs(path, size.removesuffix("i"))
    if is_new or not is_mounted:
        path.chmod(0o777)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o2777)


def remove_pod_directory(directory: Path) -> None:
    """Unmount everything below a pod's directory and delete it; raise OSError."""
    if not directory.exists():
        return
    mounts.unmount_below(directory)
    # Never delete through a mount: what is below it belongs to someone else.
    remaining = mounts.mounts_below(directory)
    if remaining:
        raise OSError(f"{directory} still has mounts: {remaining[0]}")
    shutil.rmtree(directory)


def sizes(directory: Path, volumes: Mapping[str, MountedVolume]) -> dict[str, int]:
    """Return how many bytes each local volume of a pod uses on disk."""
    result: dict[str, int] = {}
    for name, volume in volumes.items():
        if directory not in volume.path.parents:
            continue
        result[name] = disk_usage(volume.path)
    return result


def disk_usage(path: Path) -> int:
    """Return the bytes that a directory tree occupies, without crossing into other file systems' mounts."""
    total = 0
    for below, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(below, name)).st_blocks * 512
            except OSError:
                continue  # Deleted while we looked.
    return total
