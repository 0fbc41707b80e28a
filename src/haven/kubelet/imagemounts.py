"""Image volumes on runtimes that cannot mount images themselves: containerd makes the snapshot, we bind it.

The mount lives where the daemon's mounts live, so that containers see it; this process may not.
Source: https://kubernetes.io/docs/concepts/storage/volumes/#image
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from haven.kubelet.containerd import Containerd, run

__all__ = ["ImageMountError", "ImageMounts"]


class ImageMountError(Exception):
    """The image cannot be mounted; the message is containerd's."""


class ImageMounts:
    """Mounts images of one containerd, read-only."""

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd

    async def mount(self, image: str, target: Path) -> None:
        """Show an image's files at a directory; one that shows them already stays. Raise ImageMountError."""
        await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
        code, _ = await self._run("mountpoint", "-q", str(target))
        if code == 0:
            return
        code, output = await self._run(*self._containerd.ctr("images", "mount", image, str(target)))
        if code != 0:
            raise ImageMountError(f"failed to mount image {image}: {output}")

    async def unmount(self, target: Path) -> None:
        """Take an image's files away; raise ImageMountError."""
        code, _ = await self._run("mountpoint", "-q", str(target))
        if code != 0:
            return
        code, output = await self._run(*self._containerd.ctr("images", "unmount", "--rm", str(target)))
        if code != 0:
            raise ImageMountError(f"failed to unmount {target}: {output}")

    async def _run(self, *arguments: str) -> tuple[int, str]:
        return await run(self._containerd.command(*arguments))
