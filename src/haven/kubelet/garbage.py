"""Decides which dead containers, sandboxes and images go. Pure; housekeeping does the removing.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from haven.cri.interface import ContainerInfo, ContainerState, Image, SandboxInfo, SandboxState
from haven.cri.pleg import PodContents
from haven.kubelet.observation import LABEL_CONTAINER

__all__ = ["ImageUse", "dead_containers", "dead_sandboxes", "unused_images"]


def dead_containers(contents: PodContents, *, keep: int, is_removed: bool) -> list[ContainerInfo]:
    """Return the exited containers of a pod to remove: all but the newest `keep` of each name, all if it is removed."""
    by_name: dict[str, list[ContainerInfo]] = {}
    for container in contents.containers:
        if container.state is ContainerState.EXITED:
            by_name.setdefault(container.labels.get(LABEL_CONTAINER, container.name), []).append(container)
    result: list[ContainerInfo] = []
    for found in by_name.values():
        newest_first = sorted(found, key=lambda item: -item.created_at)
        result += newest_first if is_removed else newest_first[max(keep, 1) :]
    return result


def dead_sandboxes(contents: PodContents, removing: Collection[str], *, is_removed: bool) -> list[SandboxInfo]:
    """Return sandboxes that are not ready and hold nothing any more; the newest stays while the pod exists."""
    held = {container.sandbox_id for container in contents.containers if container.id not in removing}
    result: list[SandboxInfo] = []
    newest_first = sorted(contents.sandboxes, key=lambda item: -item.created_at)
    for index, sandbox in enumerate(newest_first):
        if sandbox.state is SandboxState.READY or sandbox.id in held:
            continue
        if index == 0 and not is_removed:
            continue
        result.append(sandbox)
    return result


@dataclass(frozen=True, slots=True)
class ImageUse:
    """When an image was first seen and last used here (seconds)."""

    first_seen: float
    last_used: float


def unused_images(
    images: Sequence[Image],
    used: Collection[str],
    history: Mapping[str, ImageUse],
    *,
    bytes_to_free: int,
    now: float,
    min_age_seconds: float,
) -> list[Image]:
    """Return images to remove, least recently used first, until enough is freed. Pinned and used ones stay."""
    candidates = [
        image
        for image in images
        if not image.pinned
        and image.id not in used
        and now - history.get(image.id, ImageUse(now, now)).first_seen >= min_age_seconds
    ]
    candidates.sort(key=lambda image: (history[image.id].last_used, history[image.id].first_seen, image.id))
    result: list[Image] = []
    freed = 0
    for image in candidates:
        if freed >= bytes_to_free:
            break
        result.append(image)
        freed += image.size_bytes
    return result
