"""Loads image archives (OCI layouts and `docker save` files) into the node's containerd.

Names come out of the archive itself; an archive without names is refused, because no pod could use its images.
"""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from haven.kubelet.containerd import Containerd, run
from haven.kubelet.ociimage import ImageSpec, build

__all__ = ["BadArchive", "archive_names", "full_name", "load", "load_images"]

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class BadArchive(Exception):
    """The file is no image archive, or holds no named image."""


def archive_names(path: Path) -> list[str]:
    """Return the full names of the images in an archive; raise BadArchive."""
    try:
        with tarfile.open(path, "r:*") as archive:
            members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
            index = _read(archive, members.get("index.json"))
            docker = _read(archive, members.get("manifest.json"))
    except (tarfile.TarError, msgspec.DecodeError, OSError) as error:
        raise BadArchive(f"{path} is not an image archive: {error}") from error
    names: list[str] = []
    for image in docker or []:
        names += [full_name(name) for name in image.get("RepoTags") or []]
    for manifest in (index or {}).get("manifests", []):
        annotations = manifest.get("annotations") or {}
        name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
        if "/" in name or ":" in name:
            names.append(full_name(name))
    if not names:
        raise BadArchive(f"{path} holds no image with a name (index.json and manifest.json have none)")
    return list(dict.fromkeys(names))


async def load(containerd: Containerd, path: Path) -> list[str]:
    """Import an archive; return the names of its images; raise BadArchive."""
    names = await asyncio.to_thread(archive_names, path)
    code, said = await run(containerd.ctr("images", "import", str(path.absolute())))
    if code != 0:
        raise BadArchive(f"containerd refuses {path}: {said}")
    return names


async def load_images(containerd: Containerd, specs: Sequence[ImageSpec]) -> list[str]:
    """Make images and import them."""
    with tempfile.TemporaryDirectory(prefix="haven-image-") as directory:
        path = Path(directory) / "images.tar"
        await asyncio.to_thread(build, specs, path)
        return await load(containerd, path)


def full_name(image: str) -> str:
    """Return a name with registry and tag spelled out, as the runtime stores it."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> Any:
    if member is None:
        return None
    file = archive.extractfile(member)
    return msgspec.json.decode(file.read()) if file is not None else None
